//! What belongs to one machine only is removed before the machine becomes an image: every server launched from the
//! image would otherwise have the builder's identity, its secrets or its rubbish.

use crate::{
    event::{ImageEvent, Sink},
    session::{Session, SessionError},
};

/// One thing that is removed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubStep {
    pub why: &'static str,
    /// Shell commands, run as root with `set -eu`.
    pub commands: String,
}

/// Why the builder is not clean.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    #[error("the builder could not be cleaned: the commands ended with exit code {exit_code}")]
    Commands { exit_code: i32, last_lines: Vec<String> },
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Everything that is removed, in order. `key_base64` is the builder's ephemeral key, as
/// [`EphemeralKey::public_base64`](crate::key::EphemeralKey::public_base64) gives it.
///
/// The session that runs these stays open, but no other can be opened afterwards.
pub fn steps(key_base64: &str) -> Vec<ScrubStep> {
    // Base64 has no character that a shell or a regular expression could take for its own; anything else is no key.
    let key: String = key_base64.chars().filter(|c| c.is_ascii_alphanumeric() || "+/=".contains(*c)).collect();
    let step = |why, commands: &str| ScrubStep { why, commands: commands.to_owned() };
    vec![
        step(
            "packages' lists and archives are large, and out of date when the image is used",
            "if command -v apt-get >/dev/null; then apt-get clean; rm -rf /var/lib/apt/lists/*; fi\n\
             if command -v dnf >/dev/null; then dnf --quiet clean all; fi",
        ),
        step(
            "logs tell of the builder, not of the server that will have them",
            "if command -v journalctl >/dev/null; then journalctl --quiet --rotate || :; fi\n\
             rm -rf /var/log/journal/* /run/log/journal/*\n\
             find /var/log -xdev -type f \\( -name '*.gz' -o -name '*.xz' -o -name '*.[0-9]' -o -name '*.old' \\) -delete\n\
             find /var/log -xdev -type f -exec truncate --size=0 {} +",
        ),
        step(
            "shells remember what was typed",
            "find /root /home -xdev -maxdepth 2 -type f \\( -name '.*_history' -o -name .lesshst -o -name .viminfo -o -name .wget-hsts \\) -delete",
        ),
        step(
            "temporary files are nobody's",
            "find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' -exec rm -rf {} +",
        ),
        step(
            "a first boot is known by what earlier boots left: the agents do their work again on each server",
            "if command -v cloud-init >/dev/null; then cloud-init clean --logs; fi\n\
             rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/alcedo /var/lib/alcedo-*\n\
             rm -rf /var/lib/amazon/ssm /var/lib/dhcp/* /var/lib/NetworkManager/*.lease",
        ),
        step(
            "machines with one random seed or one credential secret share their secrets",
            "rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret",
        ),
        step(
            "an empty machine-id makes systemd choose a new one at boot (machine-id(5))",
            "truncate --size=0 /etc/machine-id\nif [ ! -L /var/lib/dbus/machine-id ]; then rm -f /var/lib/dbus/machine-id; fi",
        ),
        step(
            "the ephemeral key must open nothing",
            &format!(
                "for file in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do\n\
                 \x20   if [ -f \"$file\" ]; then\n\
                 \x20       grep -v -F -e '{key}' -- \"$file\" >\"$file.scrubbed\" || :\n\
                 \x20       cat -- \"$file.scrubbed\" >\"$file\"\n\
                 \x20       rm -f -- \"$file.scrubbed\"\n\
                 \x20       [ -s \"$file\" ] || rm -f -- \"$file\"\n\
                 \x20   fi\n\
                 done"
            ),
        ),
        step(
            "servers with one host key could stand in for each other; each makes its own at first boot",
            "rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub",
        ),
        step("what is not on the disk yet would be missing from the image", "sync"),
    ]
}

/// The steps as one program for `sh`.
pub fn program(steps: &[ScrubStep]) -> String {
    let mut program = "set -eu\ncd /\n".to_owned();
    for step in steps {
        program += &format!("# {}\n{}\n", step.why, step.commands);
    }
    program
}

/// Cleans the builder.
pub async fn scrub(session: &Session, steps: &[ScrubStep], sink: &Sink) -> Result<(), ScrubError> {
    sink(ImageEvent::Started { what: "removing what belongs to the builder only".into() });
    let ended = session.run_program(&program(steps), true, sink).await?;
    match ended.exit_code {
        0 => Ok(()),
        exit_code => Err(ScrubError::Commands { exit_code, last_lines: ended.last_lines }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_in_is_closed_last() {
        let steps = steps("AAAAC3Nza+/=");
        let at = |text: &str| steps.iter().position(|step| step.commands.contains(text)).unwrap();
        assert!(at("/etc/machine-id") < at("authorized_keys"));
        assert!(at("authorized_keys") < at("ssh_host_"));
        assert_eq!(at("sync"), steps.len() - 1);
    }

    #[test]
    fn a_key_cannot_become_a_command() {
        let program = program(&steps("AAAA'; rm -rf / #"));
        assert!(program.contains("-e 'AAAArmrf/'"), "{program}");
    }

    #[test]
    fn the_program_is_one_that_a_shell_can_read() {
        use std::io::Write;
        let mut shell = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(program(&steps("AAAA")).as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
}
