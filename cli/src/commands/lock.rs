//! `alcedo lock show` and `alcedo lock break`: who holds an environment, and taking it away from whoever does.

use alcedo_pipeline::lock::{self, Ended, Held};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_lock,
    session::{Environment, Session},
    signals::Signals,
    words::{ago, moment},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo lock show --env production
  alcedo lock break --env production --yes

A lock ends by itself two minutes after its holder was last heard of, and at once where the holder was a process of this
machine that has ended: breaking it is for holders that hang.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who holds the environment, since when, and whether it lives
    Show {
        #[command(flatten)]
        environment: Environment,
    },
    /// Take the lock away from its holder, which stops before its next change once it notices
    Break {
        #[command(flatten)]
        environment: Environment,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        match &arguments.command {
            Command::Show { environment } => signals.or_stop(show(environment, session)).await,
            Command::Break { environment, yes } => signals.or_stop(break_it(environment, *yes, session)).await,
        }
    })
}

async fn show(environment: &Environment, session: &Session) -> Result {
    let site = session.swept_site(environment).await?;
    let held = lock::look(site.store.as_ref(), &site.lock_key()).await.map_err(|error| of_lock(&error))?;
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "environment": site.environment, "lock": held }));
        return Ok(ExitCode::DONE);
    }
    let text = match &held {
        None => format!("nobody holds {}\n", site.environment),
        Some(held) => in_words(&site.environment, held, site.now()),
    };
    session.output.text(&text);
    Ok(ExitCode::DONE)
}

fn in_words(environment: &str, held: &Held, now: Timestamp) -> String {
    let Held { lease, ended } = held;
    let verb = if ended.is_some() { "held" } else { "holds" };
    let state = match ended {
        None => format!("renewed by its process; without that it ends at {}", moment(lease.expires)),
        Some(Ended::ProcessDied) => "its process has ended: the next run takes it over at once".to_owned(),
        Some(Ended::NotRenewed) => "it was not renewed: the next run takes it over at once".to_owned(),
    };
    format!(
        "{} {verb} {environment}\n  for        {}, run {}\n  since      {} ({})\n  state      {state}\n",
        lease.holder,
        lease.reason,
        lease.run,
        moment(lease.since),
        ago(lease.since, now),
    )
}

async fn break_it(environment: &Environment, yes: bool, session: &Session) -> Result {
    let site = session.swept_site(environment).await?;
    if !yes {
        let held = lock::look(site.store.as_ref(), &site.lock_key()).await.map_err(|error| of_lock(&error))?;
        let whose = held.map_or_else(|| "nobody's".to_owned(), |held| format!("{}'s", held.lease.holder));
        return Err(Failure::usage(format!("the lock of {} is {whose}; nothing was changed", site.environment))
            .hint("make sure that its holder does not work any more, then add --yes"));
    }
    let broken = lock::break_it(site.store.as_ref(), &site.lock_key()).await.map_err(|error| of_lock(&error))?;
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "environment": site.environment, "broken": broken }));
        return Ok(ExitCode::DONE);
    }
    session.output.text(&match broken {
        None => format!("nobody held {}\n", site.environment),
        Some(lease) => format!(
            "{} no longer holds {}; what its run {} has made stands until `alcedo resume`, `alcedo rollback --run` or the next run\n",
            lease.holder, site.environment, lease.run
        ),
    });
    Ok(ExitCode::DONE)
}
