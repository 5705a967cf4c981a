//! The folder that holds everything of the local region.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::failure::{Failure, Result};

/// Names the folder, wherever it is.
pub const VARIABLE: &str = "ALCEDO_REGION_DIR";

/// The region's folder. Its files can be read by their owner alone: they hold keys, and the objects of its buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// `ALCEDO_REGION_DIR`, else the user's state folder, else one of this user's under `/var/tmp`.
    pub fn find() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = choose(variable(VARIABLE), variable("XDG_STATE_HOME"), variable("HOME"), uid());
        Ok(Self(
            std::path::absolute(path)
                .map_err(|error| Failure::usage(format!("{VARIABLE} is no path")).because(&error))?,
        ))
    }

    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder where there is none.
    ///
    /// # Errors
    /// It cannot be made, or is somebody else's: under `/var/tmp` anybody could have put it there.
    pub fn make(&self) -> Result<()> {
        let fail = |error: io::Error| {
            Failure::failed(format!("the local region's folder {} cannot be made", self.0.display()))
                .because(&error)
                .hint(format!("name another one in {VARIABLE}"))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(fail)?;
        let owner = fs::metadata(&self.0).map_err(fail)?.uid();
        if owner != uid() {
            return Err(Failure::failed(format!("{} belongs to another user (uid {owner})", self.0.display()))
                .hint(format!("name another folder in {VARIABLE}")));
        }
        Ok(())
    }

    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// What the region was last started with.
    pub fn settings(&self) -> PathBuf {
        self.0.join("settings.json")
    }

    /// What is known about the server that runs.
    pub fn record(&self) -> PathBuf {
        self.0.join("region.json")
    }

    /// What the server says.
    pub fn log(&self) -> PathBuf {
        self.0.join("region.log")
    }

    /// Records, objects, certificates: the server's own.
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Held by whoever starts, stops or resets the region.
    fn change_lock(&self) -> PathBuf {
        self.0.join("change.lock")
    }

    /// Held by the server as long as it lives.
    fn serve_lock(&self) -> PathBuf {
        self.0.join("serve.lock")
    }

    /// Takes the right to start or end the server; given back when dropped.
    ///
    /// # Errors
    /// Somebody else has had it until the deadline.
    pub async fn lock_changes(&self, patience: Duration) -> Result<File> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = try_lock(&self.change_lock())? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                let path = self.change_lock();
                return Err(Failure::failed("another process is starting or ending the local region")
                    .hint(format!("wait for it, or end it; it holds {}", path.display())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes the server's place; `None` where a server has it.
    pub fn lock_server(&self) -> Result<Option<File>> {
        try_lock(&self.serve_lock())
    }

    /// Bytes of all files in the folder.
    pub fn size(&self) -> u64 {
        size(&self.0)
    }

    /// Removes the folder and all that is in it.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::failed(format!("{} cannot be removed", self.0.display())).because(&error))
            }
            _ => Ok(()),
        }
    }
}

fn choose(named: Option<PathBuf>, state_home: Option<PathBuf>, home: Option<PathBuf>, uid: u32) -> PathBuf {
    // The XDG base directory specification has relative paths ignored.
    let state_home = state_home.filter(|path| path.is_absolute());
    named
        .or_else(|| state_home.map(|path| path.join("alcedo/region")))
        .or_else(|| home.map(|path| path.join(".local/state/alcedo/region")))
        .unwrap_or_else(|| PathBuf::from(format!("/var/tmp/alcedo-{uid}/region")))
}

fn uid() -> u32 {
    nix::unistd::Uid::effective().as_raw()
}

fn try_lock(path: &Path) -> Result<Option<File>> {
    let fail = |error: &io::Error| Failure::failed(format!("{} cannot be locked", path.display())).because(error);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| fail(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(fail(&error)),
    }
}

fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes a file that only its owner can read, in one piece: a reader finds the old text or the new.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let fail = |error: io::Error| Failure::failed(format!("{} cannot be written", path.display())).because(&error);
    let folder = path.parent().expect("files of the region are in its folder");
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_named_one_or_the_users() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(choose(path("/a"), path("/b"), path("/c"), 7), PathBuf::from("/a"));
        assert_eq!(choose(None, path("/b"), path("/c"), 7), PathBuf::from("/b/alcedo/region"));
        assert_eq!(choose(None, path("b"), path("/c"), 7), PathBuf::from("/c/.local/state/alcedo/region"));
        assert_eq!(choose(None, None, None, 7), PathBuf::from("/var/tmp/alcedo-7/region"));
    }

    #[test]
    fn the_servers_place_is_taken_once() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let held = folder.lock_server().unwrap();
        assert!(held.is_some());
        assert!(folder.lock_server().unwrap().is_none());
        drop(held);
        assert!(folder.lock_server().unwrap().is_some());
    }

    #[test]
    fn files_with_keys_are_their_owners_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(&scratch.path().join("x"));
        folder.make().unwrap();
        write_private(&folder.record(), "{}").unwrap();
        assert_eq!(fs::metadata(folder.record()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(folder.size(), 2);
    }
}
