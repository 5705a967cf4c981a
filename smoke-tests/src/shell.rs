//! How a command line reaches the server that is being checked.

use async_trait::async_trait;

/// A command line for the server, as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    /// Given to `sh -c`.
    pub line: String,
    /// Run as root (by `sudo -n` where the login user is not root).
    pub as_root: bool,
}

impl ShellCommand {
    /// The line as the login user runs it.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), as_root: false }
    }

    /// The line as root runs it.
    pub fn as_root(line: impl Into<String>) -> Self {
        Self { line: line.into(), as_root: true }
    }

    /// What a login shell of any kind has to be given so that `sh` runs the line, as the right user.
    pub fn for_login_shell(&self) -> String {
        let line = quote(&self.line);
        if self.as_root {
            let choose =
                format!("if [ \"$(id -u)\" -eq 0 ]; then exec sh -c {line}; else exec sudo -n sh -c {line}; fi");
            format!("exec sh -c {}", quote(&choose))
        } else {
            format!("exec sh -c {line}")
        }
    }
}

/// What a command line left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShellOutput {
    /// As the shell saw it: 128 + signal where a signal ended the command.
    pub exit_code: i32,
    /// At most [`OUTPUT_LIMIT`] bytes; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Likewise.
    pub stderr: String,
}

/// Bytes kept of each of a command's outputs. Far beyond what a check looks for, and small enough that a server that
/// writes without end cannot fill this machine's memory.
pub const OUTPUT_LIMIT: usize = 1 << 20;

/// The command line did not run, or its end is not known: the session broke. A command that ran and failed is a
/// [`ShellOutput`].
#[derive(Debug, thiserror::Error)]
#[error("the command could not be run on the server")]
pub struct ShellError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A way to run command lines on one server: an SSH session in production, a table of answers in unit tests.
#[async_trait]
pub trait Shell: Send + Sync {
    /// Runs the command to its end. The caller sets the deadline by dropping the future.
    async fn run(&self, command: &ShellCommand) -> Result<ShellOutput, ShellError>;
}

/// The text as one word of a POSIX shell, whatever it contains.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs what a login shell would be given, for real.
    fn run(command: &ShellCommand) -> (i32, String) {
        let out = std::process::Command::new("sh").arg("-c").arg(command.for_login_shell()).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    }

    #[test]
    fn any_text_survives_two_shells() {
        let nasty = "it's $HOME `id` \"x\" \\ * ; # \n end";
        let line = format!("printf %s {}; exit 7", quote(nasty));
        assert_eq!(run(&ShellCommand::new(line)), (7, nasty.to_owned()));
    }

    #[test]
    fn a_root_command_is_root_with_and_without_sudo() {
        if nix::unistd::geteuid().is_root() {
            assert_eq!(run(&ShellCommand::as_root("id -u")), (0, "0\n".into()));
        }
        assert!(ShellCommand::as_root("id -u").for_login_shell().contains("sudo -n sh -c"));
        assert!(!ShellCommand::new("id -u").for_login_shell().contains("sudo"));
    }
}
