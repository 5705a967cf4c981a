//! `alcedo init`

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use alcedo_pipeline::init::{SuggestedFile, init};
use clap::{Args, ValueHint};
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    project::FILE_NAME,
    session::Session,
    words::clean,
};

#[derive(Debug, Args)]
#[command(after_help = "\
It overwrites nothing.

Examples:
  alcedo init
  alcedo init services/api
  alcedo init --print")]
pub struct Arguments {
    /// The app's folder
    #[arg(value_name = "FOLDER", default_value = ".", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// Print alcedo.yaml instead of writing files
    #[arg(long)]
    print: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let folder = &arguments.folder;
    if !folder.is_dir() {
        return Err(Failure::usage(format!("{} is no folder", folder.display())));
    }
    // The app's name is the folder's, which `.` does not tell.
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
    let outcome = init(&whole);
    if arguments.print {
        session.output.text(&outcome.text);
        return Ok(ExitCode::DONE);
    }
    let main = SuggestedFile { path: FILE_NAME.into(), text: outcome.text, executable: false };
    if !write(folder, &main)? {
        let path = folder.join(FILE_NAME);
        return Err(Failure::usage(format!("{} is there already; nothing was written", path.display()))
            .hint("alcedo init --print shows what would be written"));
    }
    let mut written = vec![main.path];
    let mut kept = Vec::new();
    for file in outcome.files {
        if write(folder, &file)? {
            written.push(file.path);
        } else {
            kept.push(file.path);
        }
    }
    if session.output.is_json() {
        session.output.json(&json!({
            "v": 1,
            "app": outcome.app,
            "kind": format!("{:?}", outcome.kind).to_lowercase(),
            "written": written,
            "kept": kept,
            "guesses": outcome.guesses,
        }));
        return Ok(ExitCode::DONE);
    }
    let mut text = String::new();
    for path in &written {
        text.push_str(&format!("wrote {}\n", folder.join(path).display()));
    }
    for path in &kept {
        text.push_str(&format!("kept  {}, which was there already\n", folder.join(path).display()));
    }
    for guess in &outcome.guesses {
        text.push_str(&format!("guess: {}\n", clean(guess)));
    }
    text.push_str("next: read alcedo.yaml, then alcedo validate, alcedo doctor and alcedo plan\n");
    session.output.text(&text);
    Ok(ExitCode::DONE)
}

/// Writes a file where there is none; `false` where there is one.
fn write(folder: &Path, file: &SuggestedFile) -> Result<bool> {
    let path = folder.join(&file.path);
    let fail = |error: &io::Error| Failure::failed(format!("{} cannot be written", path.display())).because(error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| fail(&error))?;
    }
    let mode = if file.executable { 0o755 } else { 0o644 };
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
        Ok(mut there) => there.write_all(file.text.as_bytes()).map(|()| true).map_err(|error| fail(&error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(fail(&error)),
    }
}
