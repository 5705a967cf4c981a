//! A copy of the example app in a git repository of its own, to be changed and deployed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{process, project};

const GREETING: &str = "Hello from Alcedo.";
/// Who commits.
const NAME: &str = "Alcedo's demo";
const EMAIL: &str = "demo@localhost";

/// The copy. Its history is the same every time it is made, so a second demo deploys the same commits.
#[derive(Debug)]
pub struct AppCopy {
    pub folder: PathBuf,
}

impl AppCopy {
    /// Copies `examples/hello` to a folder of this name in the target folder, anew, as the first commit of a repository.
    ///
    /// # Errors
    /// When the folder cannot be written or git refuses.
    pub fn make(name: &str) -> Result<Self> {
        let folder = project::target().join(name).join("hello");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be replaced", folder.display()))?;
        }
        copy(&project::folder().join("examples/hello"), &folder)?;
        let app = Self { folder };
        app.git(&["init", "--quiet", "--initial-branch=main"])?;
        // So that a person can commit there on a machine where git does not know them.
        app.git(&["config", "user.name", NAME])?;
        app.git(&["config", "user.email", EMAIL])?;
        app.commit("Greet")?;
        Ok(app)
    }

    /// Changes one line of the program, its greeting, and commits that.
    ///
    /// # Errors
    /// When the line is not there, the folder cannot be written or git refuses.
    pub fn greet(&self, greeting: &str) -> Result<()> {
        self.replace("main.go", GREETING, greeting)
    }

    /// Replaces a text in a file, wherever it stands there, and commits that.
    ///
    /// # Errors
    /// As [`AppCopy::greet`].
    pub fn replace(&self, file: &str, old: &str, new: &str) -> Result<()> {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        ensure!(text.contains(old), "{} does not contain {old:?}", path.display());
        fs::write(&path, text.replace(old, new))?;
        self.commit(&format!("{file}: {new}"))
    }

    fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", message])
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        // The user's configuration (hooks, signing) and clock have no part in it.
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), NAME)
                .env(format!("GIT_{who}_EMAIL"), EMAIL)
                .env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
        }
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for inherited in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(inherited);
        }
        process::run(git.arg("-C").arg(&self.folder).args(arguments))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            // Keeps the mode, which makes scripts executable.
            fs::copy(entry.path(), &target).with_context(|| format!("{} cannot be written", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(app: &AppCopy) -> String {
        process::output_of(Command::new("git").arg("-C").arg(&app.folder).args(["rev-parse", "HEAD"])).unwrap()
    }

    #[test]
    fn two_copies_have_one_history() {
        let histories: Vec<[String; 2]> = (0..2)
            .map(|_| {
                let app = AppCopy::make(&format!("xtask-test-{}", std::process::id())).unwrap();
                let first = head(&app);
                app.greet("Hello again.").unwrap();
                assert!(fs::read_to_string(app.folder.join("main.go")).unwrap().contains("\"Hello again.\""));
                assert!(app.greet("Hello thrice.").is_err(), "the line that is changed must be there");
                let second = head(&app);
                fs::remove_dir_all(app.folder.parent().unwrap()).unwrap();
                [first, second]
            })
            .collect();
        assert_ne!(histories[0][0], histories[0][1]);
        assert_eq!(histories[0], histories[1]);
    }
}
