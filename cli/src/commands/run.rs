//! One run, from the request to the summary: what `deploy` and `rollback` have in common.

use alcedo_pipeline::{journal::Record, report::Report};
use alcedo_stages::{
    execute::{Prepared, prepare},
    facts::{Request, public_url},
};
use tokio::sync::mpsc;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_run,
    render::{Show, summary::Aftermath},
    session::{Environment, Session},
    signals::Signals,
};

/// Does what is asked in one environment, shows it, and says how it ended.
pub fn run(session: &Session, environment: &Environment, request: &Request, reason: &str) -> Result {
    session.block_on(async {
        let mut signals = Signals::listen()?;
        let site = signals.or_stop(session.site(environment)).await?;
        // Let finish although a signal came in: it takes the lock, which has to be given back.
        let prepared = prepare(&site, request, reason).await.map_err(|error| of_run(&error))?;
        if let Some(signal) = signals.first() {
            prepared.abandon().await.map_err(|error| of_run(&error))?;
            return Err(Failure::new(
                ExitCode::of_signal(signal),
                format!("stopped by {signal} before anything was changed"),
            ));
        }
        let url = public_url(&site.pipeline, &prepared.facts.balancer);
        execute(session, prepared, url, &mut signals).await
    })
}

async fn execute(session: &Session, prepared: Prepared, url: String, signals: &mut Signals) -> Result {
    let mut show = Show::new(session.output, &prepared.plan);
    let plan = prepared.plan.clone();
    let (sender, mut events) = mpsc::unbounded_channel();
    let run = prepared.run(sender, signals.stop().clone());
    let ending = show.follow(run, &mut events, &mut signals.received).await.map_err(|error| of_run(&error))?;
    let report = Report::of(&Record { plan, events: show.take_kept() });
    show.close(&report, &Aftermath { url: Some(url) });
    Ok(ExitCode::of_run(ending.outcome, signals.first()))
}
