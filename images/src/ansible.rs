//! A playbook, run by this machine's `ansible-playbook` over the same pinned connection details as everything else.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use alcedo_pipeline::secret::program;
use tokio::{io::AsyncReadExt, process::Command};

use crate::{
    event::{Sink, Stream},
    key::{EphemeralKey, private_folder},
    lines::Lines,
    provision::ProvisionError,
    session::{Session, SshTarget},
};

/// One run of a playbook, decided.
#[derive(Clone, PartialEq, Eq)]
pub struct AnsibleRun {
    /// Relative to the folder.
    pub playbook: PathBuf,
    /// The folder of `alcedo.yaml`; the playbook runs from here.
    pub folder: PathBuf,
    /// Given by a file only this user may read.
    pub variables: BTreeMap<String, String>,
    /// More arguments, as the file has them.
    pub arguments: Vec<String>,
}

impl fmt::Debug for AnsibleRun {
    /// Without the variables' values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.variables.keys().collect();
        write!(f, "Ansible({}, variables {names:?}, arguments {:?})", self.playbook.display(), self.arguments)
    }
}

/// The arguments of `ansible-playbook`, in order. The comma makes the host the whole inventory.
fn arguments(run: &AnsibleRun, target: &SshTarget, key: &Path, variables: &Path) -> Vec<String> {
    let mut arguments = vec![
        "--inventory".into(),
        format!("{},", target.host),
        "--user".into(),
        target.user.clone(),
        "--private-key".into(),
        key.display().to_string(),
        "--become".into(),
        "--extra-vars".into(),
        format!("@{}", variables.display()),
    ];
    arguments.extend(run.arguments.iter().cloned());
    arguments.push("--".into());
    arguments.push(run.playbook.display().to_string());
    arguments
}

/// Ansible's settings that decide how it connects; they win over any `ansible.cfg`.
fn environment(config: &Path, target: &SshTarget) -> [(&'static str, String); 6] {
    [
        ("ANSIBLE_HOST_KEY_CHECKING", "True".into()),
        // Replaces the arguments Ansible would choose, which include the user's configuration.
        ("ANSIBLE_SSH_ARGS", format!("-F '{}' -o ControlMaster=auto -o ControlPersist=60s", config.display())),
        ("ANSIBLE_REMOTE_PORT", target.port.to_string()),
        ("ANSIBLE_PIPELINING", "True".into()),
        ("ANSIBLE_NOCOLOR", "1".into()),
        ("ANSIBLE_RETRY_FILES_ENABLED", "False".into()),
    ]
}

pub(crate) async fn execute(
    run: &AnsibleRun,
    session: &Session,
    key: &EphemeralKey,
    sink: &Sink,
) -> Result<(), ProvisionError> {
    let folder = private_folder().map_err(ProvisionError::Ansible)?;
    let variables = folder.path().join("variables.json");
    let json = serde_json::to_vec(&run.variables).map_err(|error| ProvisionError::Ansible(error.into()))?;
    fs::write(&variables, json).map_err(ProvisionError::Ansible)?;
    let mut child = Command::from(program("ansible-playbook"))
        .args(arguments(run, session.target(), &key.private(), &variables))
        .envs(environment(&session.client_files().config(), session.target()))
        .env("ANSIBLE_SSH_CONTROL_PATH_DIR", folder.path())
        .current_dir(&run.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Out of reach of a Ctrl-C in the terminal: the run decides what is ended, and when.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ProvisionError::NoAnsible,
            _ => ProvisionError::Ansible(error),
        })?;
    let mut lines = Lines::to(sink);
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut one, mut two) = ([0; 8192], [0; 8192]);
    while stdout.is_some() || stderr.is_some() {
        tokio::select! {
            count = async { stdout.as_mut()?.read(&mut one).await.ok() }, if stdout.is_some() => match count {
                None | Some(0) => stdout = None,
                Some(count) => lines.feed(Stream::Stdout, &one[..count]),
            },
            count = async { stderr.as_mut()?.read(&mut two).await.ok() }, if stderr.is_some() => match count {
                None | Some(0) => stderr = None,
                Some(count) => lines.feed(Stream::Stderr, &two[..count]),
            },
        }
    }
    let status = child.wait().await.map_err(ProvisionError::Ansible)?;
    let last_lines = lines.finish().await;
    if status.success() {
        return Ok(());
    }
    let what = format!("playbook {}", run.playbook.display());
    Err(ProvisionError::Step { what, exit_code: status.code().unwrap_or(255), last_lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_playbook_meets_only_the_pinned_server() {
        let run = AnsibleRun {
            playbook: "site.yml".into(),
            folder: "/project".into(),
            variables: BTreeMap::from([("token".into(), "secret".into())]),
            arguments: vec!["--diff".into()],
        };
        let target = SshTarget { host: "10.0.0.7".into(), port: 2222, user: "admin".into() };
        let arguments = arguments(&run, &target, Path::new("/k/key"), Path::new("/v/variables.json"));
        assert_eq!(
            arguments.join(" "),
            "--inventory 10.0.0.7, --user admin --private-key /k/key --become --extra-vars @/v/variables.json --diff -- site.yml"
        );
        assert!(!format!("{run:?} {arguments:?}").contains("secret"));
        let environment = environment(Path::new("/s/config"), &target);
        assert!(environment.contains(&("ANSIBLE_HOST_KEY_CHECKING", "True".into())));
        assert!(environment[1].1.starts_with("-F '/s/config' "));
    }
}
