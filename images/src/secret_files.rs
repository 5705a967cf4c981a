//! Secrets on a server: files in its memory, for root alone, gone with its power.
//!
//! **Flow.** One command unpacks an archive from its standard input below `/run`, refuses where that is no memory, puts the files in
//! place of those that were there, and starts [`TARGET`], for units that wait for them.
//! **Guarantees.** Nothing of a value is in a list of processes, on a disk, or in the server's own logs of commands.

use std::io;

use alcedo_pipeline::secret::Secrets;
use alcedo_smoke_tests::ShellCommand;
use secrecy::zeroize::Zeroizing;
use tar::{Builder, EntryType};

use crate::{
    archive::header,
    event::Sink,
    session::{Session, SessionError},
};

/// One file a secret, by its name.
pub const FOLDER: &str = "/run/alcedo/secrets";
/// All of them for `EnvironmentFile=`.
pub const ENVIRONMENT: &str = "/run/alcedo/secrets.env";
/// What is wanted by it starts once the files are there.
pub const TARGET: &str = "alcedo-secrets.target";

/// The exit code that says that `/run` is on a disk.
const EXIT_NO_MEMORY: i32 = 71;

/// Why a server did not get them.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    #[error("the server's /run is not in memory, so nothing was written there")]
    NoMemory,
    #[error("the server could not put the files in place (exit code {exit_code})")]
    Refused { exit_code: i32, last_lines: Vec<String> },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the files could not be packed")]
    Packing(#[source] io::Error),
}

/// Gives them to the server; what it had before is replaced as a whole.
///
/// # Errors
/// The server has either all of them or those from before.
pub async fn hand_over(session: &Session, secrets: &Secrets, sink: &Sink) -> Result<(), HandOverError> {
    let archive = packed(secrets).map_err(HandOverError::Packing)?;
    let ended = session.feed(&ShellCommand::as_root(program()), &archive, sink).await?;
    match ended.exit_code {
        0 => Ok(()),
        EXIT_NO_MEMORY => Err(HandOverError::NoMemory),
        exit_code => Err(HandOverError::Refused { exit_code, last_lines: ended.last_lines }),
    }
}

/// The same for every server and every secret: it is seen in lists of processes.
fn program() -> String {
    format!(
        r#"set -eu
umask 077
[ "$(stat --file-system --format=%T /run)" = tmpfs ] || exit {EXIT_NO_MEMORY}
mkdir -p /run/alcedo
rm -rf /run/alcedo/incoming
mkdir /run/alcedo/incoming
tar --extract --file - --directory /run/alcedo/incoming
rm -rf {FOLDER}
mv /run/alcedo/incoming/secrets {FOLDER}
mv /run/alcedo/incoming/secrets.env {ENVIRONMENT}
rmdir /run/alcedo/incoming
if [ -d /run/systemd/system ]; then
    printf '[Unit]\nDescription=Secrets that Alcedo has handed over\n' >/run/systemd/system/{TARGET}
    chmod 0644 /run/systemd/system/{TARGET}
    systemctl daemon-reload
    systemctl start --no-block {TARGET}
fi 2>&1"#
    )
}

fn packed(secrets: &Secrets) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut archive = Builder::new(Vec::new());
    let mut add = |kind: EntryType, path: &str, mode: u32, bytes: &[u8]| {
        archive.append_data(&mut header(kind, mode, bytes.len() as u64), path, bytes)
    };
    add(EntryType::Directory, "secrets", 0o700, &[])?;
    let mut environment = Zeroizing::new(String::new());
    for (name, secret) in secrets {
        add(EntryType::Regular, &format!("secrets/{name}"), 0o400, secret.expose().as_bytes())?;
        environment.push_str(&Zeroizing::new(format!("{name}={}\n", *quoted(secret.expose()))));
    }
    add(EntryType::Regular, "secrets.env", 0o400, environment.as_bytes())?;
    Ok(Zeroizing::new(archive.into_inner()?))
}

/// As systemd reads it between double quotes (systemd.exec, *EnvironmentFile=*), and any shell as well.
fn quoted(value: &str) -> Zeroizing<String> {
    let escaped = value.chars().flat_map(|c| "\"\\$`".contains(c).then_some('\\').into_iter().chain([c]));
    Zeroizing::new(['"'].into_iter().chain(escaped).chain(['"']).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use alcedo_pipeline::secret::Secret;

    use super::*;

    #[test]
    fn a_file_each_and_all_in_one_for_root_alone() {
        let secrets = Secrets::from([
            ("ONE".to_owned(), Secret::new("first")),
            ("TWO".to_owned(), Secret::new("a \"b\" $c `d` \\ e\nf")),
        ]);
        let packed = packed(&secrets).unwrap();
        let mut told = Vec::new();
        for entry in tar::Archive::new(packed.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            told.push(format!(
                "{} {:o} {}:{} {text:?}",
                entry.path().unwrap().display(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
            ));
        }
        insta::assert_snapshot!(told.join("\n"), @r#"
        secrets 700 0:0 ""
        secrets/ONE 400 0:0 "first"
        secrets/TWO 400 0:0 "a \"b\" $c `d` \\ e\nf"
        secrets.env 400 0:0 "ONE=\"first\"\nTWO=\"a \\\"b\\\" \\$c \\`d\\` \\\\ e\nf\"\n"
        "#);
    }

    #[test]
    fn a_shell_reads_the_environment_file_as_it_was_meant() {
        let nasty = "it's $HOME `id` \"x\" \\ * ; # \n end \\n";
        let out = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("V={}; printf %s \"$V\"", *quoted(nasty)))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), nasty);
    }
}
