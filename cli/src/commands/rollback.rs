//! `alcedo rollback`

use alcedo_pipeline::version::Version;
use alcedo_stages::facts::Request;
use clap::Args;

use super::run::run;
use crate::{
    failure::Result,
    session::{Environment, Session},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo rollback
  alcedo rollback --env production --to 2026.1119.80000

While the version before is held, going back is one call to the balancer. Later its servers are launched from its image;
where that is gone, the image is baked again from the artifact.")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Go back to this version [default: the one in service before]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
}

pub fn run_command(arguments: &Arguments, session: &Session) -> Result {
    let request = Request::Rollback { to: arguments.to };
    let reason = match arguments.to {
        Some(version) => format!("rollback --to {version}"),
        None => "rollback".to_owned(),
    };
    run(session, &arguments.environment, &request, &reason)
}
