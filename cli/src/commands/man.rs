//! `alcedo man FOLDER`

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::Cli;
use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    session::Session,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo man ~/.local/share/man/man1 && man alcedo-deploy")]
pub struct Arguments {
    /// Write them into this folder, which is made
    pub folder: PathBuf,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let folder = &arguments.folder;
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.map_err(|error| {
        Failure::failed(format!("the manual pages could not be written to {}", folder.display())).because(&error)
    })?;
    session.output.text(&format!("wrote alcedo's manual pages to {}\n", folder.display()));
    Ok(ExitCode::DONE)
}
