//! `alcedo deploy`

use alcedo_pipeline::version::Version;
use alcedo_stages::facts::Request;
use clap::Args;

use super::run::{Manner, Patience, run};
use crate::{
    failure::Result,
    render::files::Files,
    session::{Environment, Session},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo deploy
  alcedo deploy --env production
  alcedo deploy --version 2026.1120.190512    a published version, without building
  alcedo deploy --output json > events.jsonl

A failure, Ctrl-C, SIGTERM or SIGHUP undoes everything the run has made; what is in service stays in service.")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    files: Files,
    /// Deploy a published version instead of building what is here
    #[arg(long, value_name = "VERSION")]
    version: Option<Version>,
    /// On a failure after traffic has begun to move, leave it where it is and wait for `alcedo resume` or `rollback --run`
    #[arg(long)]
    freeze_on_failure: bool,
}

pub fn run_command(arguments: &Arguments, session: &Session) -> Result {
    let request = Request::Deploy { version: arguments.version };
    let reason = match arguments.version {
        Some(version) => format!("deploy --version {version}"),
        None => "deploy".to_owned(),
    };
    let Arguments { environment, patience, files, freeze_on_failure: freeze, .. } = arguments;
    let manner = Manner { patience: *patience, files: files.clone(), freeze: *freeze };
    run(session, environment, &manner, &request, &reason)
}
