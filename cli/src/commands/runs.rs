//! `alcedo runs`, and `alcedo runs show RUN`: what every run did, from its journal.

use std::io;

use alcedo_pipeline::{
    event::Outcome,
    ids::RunId,
    journal::{self, Record},
    lock,
    report::Report,
};
use alcedo_stages::{
    overview::{self, OverviewError},
    site::Site,
    traffic,
    who::{self, Who},
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::{of_lock, of_overview},
    render::{
        json::Json,
        lines::Lines,
        summary::{Aftermath, summary},
        timeline::Timeline,
    },
    session::{Environment, Session},
    signals::Signals,
    words::{ago, clean, seconds, table},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo runs
  alcedo runs show 20261120-190512-7f3a
  alcedo runs show 20261120-190512-7f3a --output json")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    environment: Environment,
    /// Show this many of the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the transcript of one run
    Show {
        /// The run, as `alcedo runs` lists it
        run: RunId,
        #[command(flatten)]
        environment: Environment,
    },
    /// Take a run that cannot be brought to an end off the list of those that have to be
    Forget {
        /// The run, as `alcedo runs` lists it
        run: RunId,
        #[command(flatten)]
        environment: Environment,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
}

async fn forget(run: &RunId, environment: &Environment, yes: bool, session: &Session) -> Result {
    let site = session.swept_site(environment).await?;
    read(&site, run).await?;
    let holder = lock::holder(site.store.as_ref(), &site.lock_key()).await.map_err(|error| of_lock(&error))?;
    if holder.is_some_and(|lease| lease.run == *run) {
        return Err(Failure::new(ExitCode::LOCKED, format!("run {run} is at work")).hint("alcedo lock show says where"));
    }
    if !yes {
        return Err(Failure::usage(format!("run {run} was not forgotten: what it has made would be nobody's"))
            .hint(format!("alcedo runs show {run} says what that is"))
            .hint("add --yes, and let alcedo sweep remove it"));
    }
    let done = journal::forget(site.store.as_ref(), &site.root, &site.environment, run).await;
    done.map_err(|error| Failure::failed("the run could not be forgotten").because(&error))?;
    session.output.text(&format!("run {run} is forgotten; alcedo sweep removes what it has left\n"));
    Ok(ExitCode::DONE)
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        match &arguments.command {
            None => signals.or_stop(list(arguments, session)).await,
            Some(Command::Forget { run, environment, yes }) => {
                signals.or_stop(forget(run, environment, *yes, session)).await
            }
            Some(Command::Show { run, environment }) => signals.or_stop(show(run, environment, session)).await,
        }
    })
}

async fn list(arguments: &Arguments, session: &Session) -> Result {
    let site = session.swept_site(&arguments.environment).await?;
    let reports = overview::runs(&site, arguments.limit).await.map_err(|error| of_overview(&error))?;
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "runs": reports }));
    } else if reports.is_empty() {
        session.output.text("no run yet\n");
    } else {
        let now = Timestamp::now();
        let rows: Vec<Vec<String>> = reports.iter().map(|report| row(report, now)).collect();
        session.output.text(&table(&["RUN", "BEGAN", "ENVIRONMENT", "WHAT", "OUTCOME", "TOOK"], &rows));
    }
    Ok(ExitCode::DONE)
}

fn row(report: &Report, now: Timestamp) -> Vec<String> {
    vec![
        report.run.to_string(),
        ago(report.began, now),
        report.environment.clone(),
        format!("{} {}", report.purpose.name(), report.version),
        outcome(report.outcome).to_owned(),
        seconds(report.seconds),
    ]
}

const fn outcome(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Done) => "done",
        Some(Outcome::Unwound) => "failed, undone",
        Some(Outcome::Interrupted) => "interrupted, undone",
        Some(Outcome::Superseded) => "settled by a later run",
        Some(Outcome::Stuck) => "stuck",
        None => "at work, or its process died",
    }
}

async fn show(run: &RunId, environment: &Environment, session: &Session) -> Result {
    let site = session.swept_site(environment).await?;
    let record = read(&site, run).await?;
    let report = Report::of(&record);
    if session.output.is_json() {
        let mut json = Json::new(io::stdout().lock());
        record.events.iter().for_each(|event| json.event(event));
        json.report(&report);
        return Ok(ExitCode::DONE);
    }
    let mut timeline = Timeline::new(&record.plan);
    let mut transcript = Vec::new();
    let mut lines = Lines::new(&mut transcript, record.plan.made_at);
    for event in &record.events {
        timeline.apply(event);
        lines.event(event, &timeline);
    }
    let mut text = String::from_utf8_lossy(&transcript).into_owned();
    if report.outcome.is_some() {
        text.push('\n');
        let traffic = traffic::of_run(&site, &record.plan, &record.events).await.ok().flatten();
        let traffic = traffic.map(|traffic| traffic.text());
        let aftermath = Aftermath { url: None, bucket: Some(site.bucket().to_owned()), traffic };
        text.push_str(&summary(&report, &timeline, &aftermath, session.output.paint_stdout));
        // CloudTrail tells of a call minutes later.
        if let Some(Who::Known(call)) = who::stopped(&site.clients, &record.plan, &record.events).await {
            text.push_str(&format!("\nwho changed the listener: {}\n", clean(&call)));
        }
    } else {
        text.push_str("\nthe run is at work, or its process died\n");
    }
    session.output.text(&text);
    Ok(ExitCode::DONE)
}

async fn read(site: &Site, run: &RunId) -> Result<Record> {
    let record = journal::read(site.store.as_ref(), &site.root, run).await;
    record.map_err(|error| of_overview(&OverviewError::Journal(error)))
}
