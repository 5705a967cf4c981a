//! `alcedo resume`

use alcedo_pipeline::{ids::RunId, recovery::Wish};
use clap::Args;

use super::run::{Manner, Patience, take_up_run};
use crate::{
    failure::Result,
    render::files::Files,
    session::{Environment, Session},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo resume
  alcedo resume 20261120-190512-7f3a --env production

A run whose process died goes on where its journal ends, from any machine that has the file and the credentials: what was
made is adopted, what only the dead machine had is made anew. A run that was being undone is undone to its end; one that got
stuck is tried again. alcedo rollback --run undoes a run instead.")]
pub struct Arguments {
    /// The run, as `alcedo runs` lists it [default: the newest that has not come to its end]
    run: Option<RunId>,
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    files: Files,
}

pub fn run_command(arguments: &Arguments, session: &Session) -> Result {
    let Arguments { run, environment, patience, files } = arguments;
    let manner = Manner { patience: *patience, files: files.clone(), freeze: false };
    take_up_run(session, environment, &manner, run.as_ref(), Wish::GoOn)
}
