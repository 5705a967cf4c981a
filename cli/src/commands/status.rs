//! `alcedo status`

use alcedo_stages::overview::{self, FleetStatus, Role, Status};
use clap::Args;
use jiff::Timestamp;

use crate::{
    exit_code::ExitCode,
    failure::Result,
    output::Paint,
    problems::of_overview,
    session::{Environment, Session},
    signals::Signals,
    words::{ago, clean, table},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo status
  alcedo status --env production --output json")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        let look = async {
            let site = session.swept_site(&arguments.environment).await?;
            overview::status(&site).await.map_err(|error| of_overview(&error))
        };
        let status = signals.or_stop(look).await?;
        if session.output.is_json() {
            session.output.json(&status);
        } else {
            session.output.text(&describe(&status, Timestamp::now(), session.output.paint_stdout));
        }
        Ok(ExitCode::DONE)
    })
}

fn describe(status: &Status, now: Timestamp, paint: Paint) -> String {
    let Status { app, environment, url, routing, fleets, lock } = status;
    let mut text = format!("{}\n", paint.bold(&format!("{app} in {environment}: {url}")));
    if fleets.is_empty() {
        text.push_str(&format!("  nothing in service; the listener does: {}\n", clean(routing)));
    } else {
        let rows: Vec<Vec<String>> = fleets.iter().rev().map(|fleet| row(fleet, now)).collect();
        for line in table(&["VERSION", "ROLE", "HEALTHY", "COMMIT", "NOTE"], &rows).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if let Some(lease) = lock {
        let line = format!(
            "{} is at work: {}, run {}, begun {}",
            lease.holder,
            lease.reason,
            lease.run,
            ago(lease.since, now)
        );
        text.push_str(&format!("  {}\n", paint.yellow(&clean(&line))));
    }
    text
}

fn row(status: &FleetStatus, now: Timestamp) -> Vec<String> {
    let fleet = &status.fleet;
    let note = match (status.role, fleet.held_until) {
        (Role::Held, Some(until)) => overview::held_for(until, now),
        (Role::Idle, _) => "a run is at work, or has left it".to_owned(),
        _ => fleet.replaces.map(|replaced| format!("replaced {replaced}")).unwrap_or_default(),
    };
    vec![
        fleet.version.to_string(),
        role(status.role).to_owned(),
        format!("{}/{}", status.healthy, status.registered),
        short_commit(fleet.commit.as_deref()),
        note,
    ]
}

/// What a fleet is for, in a word or two.
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::InService => "in service",
        Role::Held => "held",
        Role::Idle => "idle",
    }
}

/// As many digits of a commit as Git shows.
pub fn short_commit(commit: Option<&str>) -> String {
    commit.map_or_else(|| "-".to_owned(), |commit| clean(commit).chars().take(10).collect())
}
