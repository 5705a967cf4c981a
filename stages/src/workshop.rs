//! What exists on this machine alone while a run lasts. Nothing in it is needed to undo the run.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use alcedo_images::{inputs::Parts, key::EphemeralKey, packages::Installed};
use alcedo_pipeline::{error::StepError, secret::Secrets};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A folder that is removed with the last handle, and the run's ephemeral key.
#[derive(Clone)]
pub struct Workshop {
    inside: Arc<Inside>,
}

struct Inside {
    folder: TempDir,
    key: OnceCell<EphemeralKey>,
    secrets: OnceLock<Secrets>,
    built: Mutex<Option<String>>,
    installed: Mutex<Option<Installed>>,
    inputs: Mutex<Option<Parts>>,
}

impl Workshop {
    /// # Errors
    /// The folder for temporary files cannot be written: full, or read-only.
    pub fn open() -> Result<Self, StepError> {
        let folder = tempfile::Builder::new().prefix("alcedo-run-").tempdir().map_err(|error| {
            StepError::failed(format!("no folder for the run could be made in {}", std::env::temp_dir().display()))
                .hint("free some space, or set TMPDIR to a folder that can be written")
                .because(error)
        })?;
        let inside = Inside {
            folder,
            key: OnceCell::new(),
            secrets: OnceLock::new(),
            built: Mutex::default(),
            installed: Mutex::default(),
            inputs: Mutex::default(),
        };
        Ok(Self { inside: Arc::new(inside) })
    }

    pub fn folder(&self) -> PathBuf {
        self.inside.folder.path().to_owned()
    }

    /// Where the build writes its archive.
    pub fn archive(&self) -> PathBuf {
        self.inside.folder.path().join("artifact.tar.zst")
    }

    /// Remembers the digest of the archive that was built here.
    pub fn keep_built(&self, sha256: &str) {
        *held(&self.inside.built) = Some(sha256.to_owned());
    }

    /// Whether this process has built the archive of this digest. A journal says so, too; but whoever can write to the bucket can
    /// write one.
    pub fn has_built(&self, sha256: &str) -> bool {
        held(&self.inside.built).as_deref() == Some(sha256)
    }

    /// What servers are to be handed, once it was found.
    pub fn secrets(&self) -> Option<&Secrets> {
        self.inside.secrets.get()
    }

    /// Keeps what was found; the first time counts.
    pub fn keep_secrets(&self, secrets: Secrets) {
        let _ = self.inside.secrets.set(secrets);
    }

    /// What the builder has, for whoever makes the image of it. A process that goes on with the run provisions another builder
    /// before it makes an image.
    pub fn keep_installed(&self, installed: Installed) {
        *held(&self.inside.installed) = Some(installed);
    }

    pub fn installed(&self) -> Result<Installed, StepError> {
        let installed = held(&self.inside.installed).clone();
        installed.ok_or_else(|| StepError::failed("nobody has listed the builder's packages"))
    }

    /// Remembers what the archive was built from.
    pub fn keep_inputs(&self, parts: Parts) {
        *held(&self.inside.inputs) = Some(parts);
    }

    /// What the archive was built from, where it was built by this process.
    pub fn inputs(&self) -> Option<Parts> {
        held(&self.inside.inputs).clone()
    }

    /// The run's key, made when it is first asked for.
    pub async fn key(&self) -> Result<&EphemeralKey, StepError> {
        let made =
            self.inside.key.get_or_try_init(|| EphemeralKey::generate_in(self.inside.folder.path(), "alcedo")).await;
        made.map_err(|error| {
            let hint = error.hint();
            StepError::failed("the ephemeral SSH key could not be made").hint(hint).because(error)
        })
    }
}

/// What is kept is written in one piece: whoever panicked meanwhile has left it whole.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
