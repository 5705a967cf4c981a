//! A key pair for one builder, which exists only as long as this value.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use alcedo_pipeline::secret::program;
use tempfile::TempDir;
use tokio::process::Command;

/// An ed25519 key pair. The private half is in a folder only this user may enter, and is removed with it.
#[derive(Debug)]
pub struct EphemeralKey {
    folder: TempDir,
    public: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("`ssh-keygen` could not be started")]
    Start(#[source] io::Error),
    #[error("`ssh-keygen` ended with {status}")]
    Failed { status: std::process::ExitStatus, stderr: String },
    #[error("the key cannot be kept on this machine")]
    Keep(#[source] io::Error),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Start(_) | Self::Failed { .. } => {
                "install OpenSSH's client (Debian: `apt-get install openssh-client`)"
            }
            Self::Keep(_) => "check the folder for temporary files (TMPDIR)",
        }
    }
}

impl EphemeralKey {
    /// Makes one. `comment` ends up in the public half; it tells a person who meets the key where it came from.
    pub async fn generate(comment: &str) -> Result<Self, KeyError> {
        Self::keep_in(private_folder().map_err(KeyError::Keep)?, comment).await
    }

    /// The same, in a folder of its own below `parent`: whoever removes that has removed the key.
    pub async fn generate_in(parent: &Path, comment: &str) -> Result<Self, KeyError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("key-").permissions(Permissions::from_mode(0o700));
        Self::keep_in(builder.tempdir_in(parent).map_err(KeyError::Keep)?, comment).await
    }

    async fn keep_in(folder: TempDir, comment: &str) -> Result<Self, KeyError> {
        let private = folder.path().join("key");
        let output = Command::from(program("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
            .arg(&private)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(KeyError::Start)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(KeyError::Failed { status: output.status, stderr });
        }
        let public = std::fs::read_to_string(private.with_extension("pub")).map_err(KeyError::Keep)?;
        Ok(Self { folder, public: public.trim().to_owned() })
    }

    /// The public half, as in `authorized_keys`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The bytes of the public half in base64: what identifies the key in a file, whatever options or comment go with
    /// it.
    pub fn public_base64(&self) -> &str {
        self.public.split(' ').nth(1).unwrap_or_default()
    }

    /// The file with the private half.
    pub fn private(&self) -> PathBuf {
        self.folder.path().join("key")
    }
}

/// A folder that only this user may enter, with a name short enough for a socket in it: a socket's path has at most 107
/// bytes (unix(7)), of which the `openssh` crate and OpenSSH together take about 50.
pub(crate) fn private_folder() -> io::Result<TempDir> {
    const LONGEST: usize = 40;
    let mut builder = tempfile::Builder::new();
    // `tempfile` leaves a folder's permissions to the umask.
    builder.prefix("alcedo-").permissions(Permissions::from_mode(0o700));
    if std::env::temp_dir().as_os_str().len() > LONGEST {
        builder.tempdir_in(Path::new("/tmp"))
    } else {
        builder.tempdir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_key_is_private_and_gone_with_its_value() {
        let key = EphemeralKey::generate("alcedo test").await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let private = key.private();
        assert_eq!((mode(&private), mode(private.parent().unwrap())), (0o600, 0o700));
        assert!(key.public().starts_with("ssh-ed25519 ") && key.public().ends_with(" alcedo test"));
        assert!(key.public_base64().starts_with("AAAA"));
        let other = EphemeralKey::generate("alcedo test").await.unwrap();
        assert_ne!(other.public_base64(), key.public_base64());
        drop(key);
        assert!(!private.exists());
    }
}
