//! `alcedo hold finish`, `extend` and `abort`: what becomes of the fleet that the last flip took out of service.

use std::time::Duration;

use alcedo_pipeline::units::Span;
use alcedo_stages::{
    execute::{Notice, Order, RunError, holding},
    facts::Request,
    hold,
};
use clap::{Args, Subcommand};
use serde_json::json;

use super::run::{Manner, Patience, run, span, tell};
use crate::{
    exit_code::ExitCode,
    failure::Result,
    problems::of_run,
    session::{Environment, Session},
    signals::Signals,
    words::moment,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo hold finish                  retire what is held now
  alcedo hold extend 2h               keep it for two hours from now
  alcedo hold abort                   send the traffic back to it

With `hold: { attended: false }` a deploy ends once green is proven, and blue stays ready. Nothing ends it by surprise: the
next deploy retires it, `hold finish` does, or `alcedo sweep` once the hold is over.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Retire what is held: drain, terminate, and delete its target group
    Finish {
        #[command(flatten)]
        environment: Environment,
        #[command(flatten)]
        patience: Patience,
    },
    /// Keep what is held for longer
    Extend {
        #[command(flatten)]
        environment: Environment,
        #[command(flatten)]
        patience: Patience,
        /// From now on, such as 30m or 2h
        #[arg(value_name = "DURATION", value_parser = span)]
        by: Duration,
    },
    /// Go back to what is held: the same as `alcedo rollback`
    Abort {
        #[command(flatten)]
        environment: Environment,
        #[command(flatten)]
        patience: Patience,
    },
}

pub fn run_command(arguments: &Arguments, session: &Session) -> Result {
    match &arguments.command {
        Command::Finish { environment, patience } => {
            run(session, environment, &manner(*patience), &Request::EndHold, "hold finish")
        }
        Command::Abort { environment, patience } => {
            run(session, environment, &manner(*patience), &Request::Rollback { to: None }, "hold abort")
        }
        Command::Extend { environment, patience, by } => extend(session, environment, *patience, Span::from(*by)),
    }
}

fn manner(patience: Patience) -> Manner {
    Manner { patience, ..Manner::default() }
}

fn extend(session: &Session, environment: &Environment, patience: Patience, by: Span) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        let site = signals.or_stop(session.swept_site(environment)).await?;
        let output = session.output;
        let tell = |notice: Notice| tell(&output, &notice);
        let stop = signals.stop().clone();
        let order = Order { reason: "hold extend", patience: patience.patience(), stop: &stop, tell: &tell };
        let extended = holding(&site, &order, async |site| hold::extend(site, by).await.map_err(RunError::from));
        let (versions, until) = extended.await.map_err(|error| of_run(&error))?;
        if session.output.is_json() {
            session.output.json(&json!({ "v": 1, "environment": site.environment, "held": versions, "until": until }));
        } else {
            let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
            session.output.text(&format!("{} is held until {}\n", versions.join(" and "), moment(until)));
        }
        Ok(ExitCode::DONE)
    })
}
