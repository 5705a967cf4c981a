//! `alcedo rollback`

use alcedo_pipeline::{ids::RunId, recovery::Wish, version::Version};
use alcedo_stages::facts::Request;
use clap::Args;

use super::run::{Manner, Patience, run, take_up_run};
use crate::{
    failure::Result,
    render::files::Files,
    session::{Environment, Session},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo rollback
  alcedo rollback --env production --to 2026.1119.80000
  alcedo rollback --run 20261120-190512-7f3a    undo what a run that did not come to its end has made

While the version before is held, going back is one call to the balancer. Later its servers are launched from its image;
where that is gone, the image is baked again from the artifact.")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    files: Files,
    /// Go back to this version [default: the one in service before]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
    /// Undo this run, which died, was stopped or got stuck, instead of going to another version
    #[arg(long, value_name = "RUN", conflicts_with = "to")]
    run: Option<RunId>,
}

pub fn run_command(arguments: &Arguments, session: &Session) -> Result {
    let Arguments { environment, patience, files, to, run: undo } = arguments;
    let manner = Manner { patience: *patience, files: files.clone(), freeze: false };
    if undo.is_some() {
        return take_up_run(session, environment, &manner, undo.as_ref(), Wish::GoBack);
    }
    let reason = to.map_or_else(|| "rollback".to_owned(), |version| format!("rollback --to {version}"));
    run(session, environment, &manner, &Request::Rollback { to: *to }, &reason)
}
