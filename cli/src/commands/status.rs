//! `alcedo status`

use alcedo_stages::overview::{self, FleetStatus, Role, Status};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    output::Paint,
    problems::of_overview,
    session::{Environment, Session},
    signals::Signals,
    words::{ago, clean, count, table},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo status
  alcedo status --all
  alcedo status --env production --output json

What runs have left over is shown by alcedo sweep --dry-run.")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Every environment of the file, a line each
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        if arguments.all {
            return signals.or_stop(all(session)).await;
        }
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

/// All environments, each as far as it can be asked. One that cannot be makes the command fail, after the others are shown.
async fn all(session: &Session) -> Result {
    let file = session.pipeline_file()?;
    let look = async |name: &str| {
        let environment = Environment { name: Some(name.to_owned()) };
        // To look at all of them starts no region.
        let site = session.site_as_it_is(&environment).await?;
        session.sweep(&site).await;
        overview::status(&site).await.map_err(|error| of_overview(&error))
    };
    let mut seen: Vec<(&str, Result<Status>)> = Vec::new();
    for name in file.environments() {
        seen.push((name, look(name).await));
    }
    let failed = seen.iter().filter(|(_, seen)| seen.is_err()).count();
    if session.output.is_json() {
        let environments = seen.iter().map(|(name, seen)| match seen {
            Ok(status) => json!(status),
            Err(failure) => json!({ "environment": name, "error": failure.message }),
        });
        session.output.json(&json!({ "v": 1, "environments": environments.collect::<Vec<_>>() }));
    } else {
        session.output.text(&describe_all(&seen, Timestamp::now()));
    }
    match failed {
        0 => Ok(ExitCode::DONE),
        failed => Err(Failure::failed(format!("{} could not be looked at", count(failed, "environment")))
            .hint("`alcedo status --env NAME` says more")),
    }
}

fn describe_all(seen: &[(&str, Result<Status>)], now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = seen.iter().map(|(name, seen)| line(name, seen.as_ref(), now)).collect();
    table(&["ENVIRONMENT", "IN SERVICE", "HEALTHY", "HELD", "NOTE"], &rows)
}

/// What is in service in one environment, what is held, and who is at work.
fn line(name: &str, seen: std::result::Result<&Status, &Failure>, now: Timestamp) -> Vec<String> {
    let status = match seen {
        Ok(status) => status,
        Err(failure) => return vec![name.to_owned(), "?".into(), "-".into(), "-".into(), clean(&failure.message)],
    };
    let of = |role| status.fleets.iter().filter(move |fleet| fleet.role == role);
    let joined = |words: Vec<String>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
    let held = of(Role::Held).map(|held| {
        let left = held.fleet.held_until.map(|until| overview::held_for(until, now)).unwrap_or_default();
        format!("{} {left}", held.fleet.version).trim_end().to_owned()
    });
    let at_work = status.lock.as_ref().map(|lease| format!("{}: {}", lease.holder, lease.reason));
    let idle = of(Role::Idle).map(|idle| format!("{} is idle", idle.fleet.version));
    vec![
        name.to_owned(),
        joined(of(Role::InService).map(|it| it.fleet.version.to_string()).collect()),
        joined(of(Role::InService).map(|it| format!("{}/{}", it.healthy, it.registered)).collect()),
        joined(held.collect()),
        clean(&joined(at_work.into_iter().chain(idle).collect())),
    ]
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
