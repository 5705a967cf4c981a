//! `alcedo logs RUN`: what a run has shown, build output included, wherever it ran.

use alcedo_pipeline::{
    ids::RunId,
    journal::{self, JournalError},
};
use alcedo_stages::{
    logs,
    overview::{self, OverviewError},
};
use clap::Args;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_overview,
    session::{Environment, Session},
    signals::Signals,
    words::clean,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo logs                           of the newest run
  alcedo logs 20261120-190512-7f3a
  alcedo logs 20261120-190512-7f3a | grep build")]
pub struct Arguments {
    /// The run, as `alcedo runs` lists it [default: the newest]
    run: Option<RunId>,
    #[command(flatten)]
    environment: Environment,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        signals.or_stop(show(arguments, session)).await
    })
}

async fn show(arguments: &Arguments, session: &Session) -> Result {
    let site = session.swept_site(&arguments.environment).await?;
    let run = match &arguments.run {
        Some(run) => run.clone(),
        None => {
            let newest = overview::runs(&site, 1).await.map_err(|error| of_overview(&error))?;
            let Some(report) = newest.into_iter().next() else {
                return Err(Failure::failed("there is no run yet").hint("`alcedo deploy` makes the first"));
            };
            report.run
        }
    };
    let logs = logs::read(&site, &run).await.map_err(|error| of_overview(&OverviewError::Store(error)))?;
    if logs.is_empty() {
        let known = journal::read(site.store.as_ref(), &site.root, &run).await;
        if let Err(error @ JournalError::NoRun { .. }) = known {
            return Err(of_overview(&OverviewError::Journal(error)));
        }
        return Err(Failure::failed(format!("run {run} has kept no log: it is at work, or its process was killed"))
            .hint(format!("`alcedo runs show {run}` shows what it did, from its journal")));
    }
    if session.output.is_json() {
        let logs: Vec<_> = logs.iter().map(|log| json!({ "began": log.began, "text": log.text })).collect();
        session.output.json(&json!({ "v": 1, "run": run, "logs": logs }));
        return Ok(ExitCode::DONE);
    }
    for log in &logs {
        // Whoever can write the bucket could have written anything.
        let lines: String = log.text.lines().map(|line| clean(line) + "\n").collect();
        session.output.text(&lines);
    }
    Ok(ExitCode::DONE)
}
