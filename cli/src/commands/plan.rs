//! `alcedo plan`

use alcedo_pipeline::version::Version;
use alcedo_stages::{execute, facts::Request};
use clap::Args;

use crate::{
    exit_code::ExitCode,
    failure::Result,
    problems::of_run,
    session::{Environment, Session},
    signals::Signals,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Signs: + makes, - removes, ~ changes, ? looks or waits, = is left out and why.

Examples:
  alcedo plan --env production
  alcedo plan --rollback
  alcedo plan --output json")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Plan the deploy of a published version, or with --rollback the way back to it
    #[arg(long, value_name = "VERSION")]
    version: Option<Version>,
    /// Plan a rollback instead of a deploy
    #[arg(long)]
    rollback: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let request = match (arguments.rollback, arguments.version) {
        (false, version) => Request::Deploy { version },
        (true, to) => Request::Rollback { to },
    };
    session.block_on(async {
        let signals = Signals::listen()?;
        let site = signals.or_stop(session.swept_site(&arguments.environment)).await?;
        let plan = async { execute::plan(&site, &request).await.map_err(|error| of_run(&error)) };
        let (plan, _) = signals.or_stop(plan).await?;
        if session.output.is_json() {
            session.output.json(&plan);
        } else {
            session.output.text(&plan.to_string());
        }
        Ok(ExitCode::DONE)
    })
}
