//! A first `alcedo.yaml` for an app: what can be told from its folder is filled in, what cannot is said to be a guess.
//!
//! Nothing is written here; the caller decides where the texts go.

mod app;
mod health;
mod recognise;
mod text;

use std::path::{Path, PathBuf};

pub use self::app::Kind;

/// What `alcedo init` has to offer.
#[derive(Debug, Clone)]
pub struct InitOutcome {
    /// What the folder was taken for.
    pub kind: Kind,
    /// The app's name in the file.
    pub app: String,
    /// The text of `alcedo.yaml`. It passes [`crate::validate::PipelineFile::parse`].
    pub text: String,
    /// Files that it refers to, to be written where there are none.
    pub files: Vec<SuggestedFile>,
    /// What was guessed and should be looked at, a sentence each.
    pub guesses: Vec<String>,
}

/// A file beside `alcedo.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuggestedFile {
    /// Relative to the folder of `alcedo.yaml`.
    pub path: PathBuf,
    pub text: String,
    pub executable: bool,
}

/// Looks at the app in `folder` and writes up a pipeline for it. A folder that cannot be read counts as empty.
pub fn init(folder: &Path) -> InitOutcome {
    let guess = recognise::recognise(folder);
    let files = vec![
        SuggestedFile { path: "deploy/provision.sh".into(), text: text::provision(&guess), executable: true },
        SuggestedFile {
            path: format!("deploy/{}.service", guess.app).into(),
            text: text::service(&guess),
            executable: false,
        },
    ];
    InitOutcome {
        kind: guess.kind,
        text: text::pipeline(&guess),
        files,
        guesses: guess.guesses.clone(),
        app: guess.app,
    }
}
