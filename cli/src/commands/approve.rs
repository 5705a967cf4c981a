//! `alcedo approve` and `alcedo reject`: somebody's word on a run that waits for it.

use alcedo_pipeline::{ids::RunId, plan::Stage};
use alcedo_stages::{
    execute::holder,
    gate::{self, GateError},
    recover::newest_open,
};
use clap::Args;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::{of_journal, of_run},
    session::{Environment, Session},
    signals::Signals,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo approve --env production
  alcedo approve 20261120-190512-7f3a --before flip

A gate is named in alcedo.yaml: approvals: [{ before: flip, within: 1h }]. Whoever decides first has decided.")]
pub struct Approve {
    #[command(flatten)]
    gate: Gate,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  alcedo reject 20261120-190512-7f3a --reason 'wait for the migration'

The run ends as one that failed: everything it has made is undone.")]
pub struct Reject {
    #[command(flatten)]
    gate: Gate,
    /// Why, for whoever reads the run
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct Gate {
    /// The run, as `alcedo runs` lists it [default: the newest that has not come to its end]
    run: Option<RunId>,
    /// The stage that waits [default: the first that nobody has decided on]
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    before: Option<Stage>,
    #[command(flatten)]
    environment: Environment,
}

fn stage(text: &str) -> std::result::Result<Stage, String> {
    let known = Stage::ALL.into_iter().find(|stage| stage.name() == text);
    known.ok_or_else(|| {
        let names: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        format!("the stages are {}", names.join(", "))
    })
}

pub fn approve(arguments: &Approve, session: &Session) -> Result {
    decide(&arguments.gate, true, None, session)
}

pub fn reject(arguments: &Reject, session: &Session) -> Result {
    decide(&arguments.gate, false, arguments.reason.clone(), session)
}

fn decide(gate: &Gate, approved: bool, reason: Option<String>, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        let site = signals.or_stop(session.swept_site(&gate.environment)).await?;
        let run = match &gate.run {
            Some(run) => run.clone(),
            None => newest_open(&site).await.map_err(|error| of_run(&error))?,
        };
        let stage = gate::decide(&site, &run, gate.before, approved, holder(), reason).await;
        let stage = stage.map_err(|error| match &error {
            GateError::Journal(error) => of_journal(error),
            GateError::Store(_) => Failure::of(ExitCode::FAILED, &error).hint("`alcedo doctor` checks the bucket"),
            _ => Failure::of(ExitCode::USAGE, &error).hint(format!("`alcedo runs show {run}` shows what it waits for")),
        })?;
        let verb = if approved { "approved" } else { "rejected" };
        if session.output.is_json() {
            session.output.json(&json!({ "v": 1, "run": run, "stage": stage, "decision": verb }));
        } else {
            session.output.text(&format!("{verb} {stage} of run {run}\n"));
        }
        Ok(ExitCode::DONE)
    })
}
