//! The commit that a build was made from.

use std::{path::Path, process::Stdio, time::Duration};

use alcedo_pipeline::secret::program;
use serde::{Deserialize, Serialize};
use tokio::{process::Command, time::timeout};

/// Git answers at once, except on a stalled network file system.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A commit, and whether the files differ from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The full object name, in hexadecimal.
    pub id: String,
    /// Files of this folder were changed, added or removed since.
    pub dirty: bool,
}

/// The commit checked out in this folder, or `None` where there is none: no repository, no commit yet, no `git` on this
/// machine, or a repository that Git refuses to read because it belongs to somebody else.
pub async fn of(folder: &Path) -> Option<Commit> {
    let id = git(folder, &["rev-parse", "--verify", "HEAD"]).await?;
    let id = id.trim().to_owned();
    if id.len() < 40 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let changes = git(folder, &["status", "--porcelain", "--", "."]).await?;
    Some(Commit { id, dirty: !changes.trim().is_empty() })
}

async fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::from(program("git"))
        .arg("-C")
        .arg(folder)
        .args(arguments)
        // Reading must not take the index's lock from a person who works in the folder.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(TIMEOUT, output).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, arguments: &[&str]) {
        let status = std::process::Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "git {arguments:?}");
    }

    #[tokio::test]
    async fn the_commit_is_read_with_its_dirt() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of(folder.path()).await, None, "no repository");
        git(folder.path(), &["init", "-q"]);
        assert_eq!(of(folder.path()).await, None, "no commit");
        std::fs::write(folder.path().join("a"), "a").unwrap();
        git(folder.path(), &["add", "a"]);
        git(folder.path(), &["commit", "-q", "-m", "a"]);
        let clean = of(folder.path()).await.unwrap();
        assert!(!clean.dirty && clean.id.len() >= 40);
        std::fs::write(folder.path().join("b"), "b").unwrap();
        assert_eq!(of(folder.path()).await.unwrap(), Commit { dirty: true, ..clean });
    }
}
