//! `alcedo resume`

use alcedo_pipeline::{ids::RunId, recovery::Wish};
use clap::Args;

use super::run::{Patience, take_up_run};
use crate::{
    failure::Result,
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
}

pub fn run_command(arguments: &Arguments, session: &Session) -> Result {
    take_up_run(session, &arguments.environment, arguments.patience, arguments.run.as_ref(), Wish::GoOn)
}
