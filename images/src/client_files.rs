//! The files that make OpenSSH's client forget the user it runs for.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::key::{EphemeralKey, private_folder};

/// The files that OpenSSH's client goes by, for this session and for programs that make their own connections
/// (Ansible). They are removed with this value.
#[derive(Debug)]
pub struct ClientFiles {
    folder: TempDir,
}

impl ClientFiles {
    /// `key` must outlive the connections made with these files.
    pub(crate) fn write(key: &EphemeralKey, known_hosts: &str, connect_timeout: Duration) -> io::Result<Self> {
        let folder = private_folder()?;
        let files = Self { folder };
        fs::write(files.known_hosts(), known_hosts)?;
        fs::write(files.config(), config(&key.private(), &files.known_hosts(), connect_timeout))?;
        Ok(files)
    }

    /// Where the files are; the connection's control socket is put beside them.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A configuration for `ssh -F`: the pinned host, the one key, and nothing of the user's.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }
}

fn config(key: &Path, known_hosts: &Path, connect_timeout: Duration) -> String {
    format!(
        r#"Host *
  BatchMode yes
  IdentityFile "{key}"
  IdentitiesOnly yes
  IdentityAgent none
  PreferredAuthentications publickey
  PasswordAuthentication no
  KbdInteractiveAuthentication no
  StrictHostKeyChecking yes
  UserKnownHostsFile "{known_hosts}"
  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
  VerifyHostKeyDNS no
  ForwardAgent no
  ForwardX11 no
  ConnectTimeout {connect}
  ServerAliveInterval 5
  ServerAliveCountMax 6
  LogLevel ERROR
"#,
        key = key.display(),
        known_hosts = known_hosts.display(),
        connect = connect_timeout.as_secs(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_leaves_no_way_around_the_pin() {
        let config = config(Path::new("/t/a key"), Path::new("/t/known hosts"), Duration::from_secs(5));
        for line in [
            "StrictHostKeyChecking yes",
            "GlobalKnownHostsFile /dev/null",
            "UserKnownHostsFile \"/t/known hosts\"",
            "IdentityFile \"/t/a key\"",
            "IdentityAgent none",
            "ForwardAgent no",
            "PasswordAuthentication no",
            "UpdateHostKeys no",
        ] {
            assert!(config.lines().any(|other| other.trim() == line), "{line}");
        }
    }
}
