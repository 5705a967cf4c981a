//! `alcedo sweep`: what runs have left that nobody needs.

use alcedo_stages::{
    costs,
    execute::{Notice, Order, RunError, holding},
    sweep::{self, Found},
};
use clap::Args;
use serde_json::json;

use super::run::Patience;
use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_run,
    session::{Environment, Session},
    signals::Signals,
    words::{ago, clean, count, moment, table},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo sweep --dry-run
  alcedo sweep --env production
  alcedo sweep --env staging --output json --wait 10m

It finds what carries the app's tags and no live run and no release needs: open ports, servers, fleets whose hold is over,
key pairs, images and artifacts beyond the retention, snapshots without an image, uploads that were never finished. What a
run that has not come to its end has made is left to it: alcedo resume, or alcedo rollback --run. Costs are about what AWS
asks in us-east-1.")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    #[command(flatten)]
    patience: Patience,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        let site = signals.or_stop(session.site(&arguments.environment)).await?;
        let output = session.output;
        if arguments.dry_run {
            let found = sweep::find(&site).await.map_err(|error| of_run(&RunError::from(error)))?;
            session.output.text(&shown(session, &site.environment, &found, &[]));
            return Ok(ExitCode::DONE);
        }
        let stop = signals.stop().clone();
        let tell = |notice: Notice| {
            if let Notice::Waiting(lease) = notice {
                output.note(&format!(
                    "waiting for {}: {}, since {}\n",
                    lease.holder,
                    lease.reason,
                    moment(lease.since)
                ));
            }
        };
        let order = Order { reason: "sweep", patience: arguments.patience.patience(), stop: &stop, tell: &tell };
        let swept = holding(&site, &order, async |site| {
            let found = sweep::find(site).await?;
            let mut failed = Vec::new();
            for one in &found {
                if stop.is_cancelled() {
                    break;
                }
                output.note(&format!("removing {} {}\n", one.kind, clean(&one.id)));
                if let Err(error) = one.remove(site).await {
                    failed.push((one.clone(), error));
                }
            }
            Ok((found, failed))
        });
        let (found, failed) = swept.await.map_err(|error| of_run(&error))?;
        session.output.text(&shown(session, &site.environment, &found, &failed));
        match failed.first() {
            None => Ok(ExitCode::DONE),
            Some((one, error)) => {
                let what = format!("{} could not be removed", count(failed.len(), "thing"));
                let failure = Failure::new(ExitCode::FAILED, what).because(error);
                Err(error
                    .hints
                    .iter()
                    .fold(failure, |failure, hint| failure.hint(hint.clone()))
                    .hint(format!("{} {} stands; run again, or remove it by hand", one.kind, one.id)))
            }
        }
    })
}

fn shown(
    session: &Session,
    environment: &str,
    found: &[Found],
    failed: &[(Found, alcedo_pipeline::error::StepError)],
) -> String {
    if session.output.is_json() {
        let failed: Vec<&str> = failed.iter().map(|(one, _)| one.id.as_str()).collect();
        return format!("{}\n", json!({ "v": 1, "environment": environment, "found": found, "failed": failed }));
    }
    if found.is_empty() {
        return format!("nothing is left over in {environment}\n");
    }
    let now = jiff::Timestamp::now();
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|one| {
            vec![
                one.kind.to_owned(),
                clean(&one.id),
                one.made_at.map_or_else(|| "-".to_owned(), |at| ago(at, now)),
                costs::in_words(one.monthly),
                one.run.clone().unwrap_or_else(|| "-".to_owned()),
                clean(&one.why),
            ]
        })
        .collect();
    let total: f64 = found.iter().filter_map(|one| one.monthly).sum();
    let mut text = table(&["WHAT", "ID", "MADE", "A MONTH", "BY RUN", "WHY"], &rows);
    text.push_str(&format!("{}, about {} a month\n", count(found.len(), "thing"), costs::in_words(Some(total))));
    text
}
