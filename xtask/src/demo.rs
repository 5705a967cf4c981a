//! `cargo xtask demo`: from a bare machine to a fleet in service, changed and rolled back under traffic.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, bail, ensure};

use crate::{
    alcedo::{self, Alcedo, Report},
    app_copy::AppCopy,
    engine::{self, Engine},
    project, setup,
    stage_table::table,
    terminal::{heading, say, seconds},
    traffic::{self, Tally, Traffic},
};

/// Where the example's load balancer listens: `flip.listener.port` of `examples/hello/alcedo.yaml`.
pub const LISTENER_PORT: u16 = 8600;

pub fn run(port: u16) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}");
    let began = Instant::now();
    let engine = setup::ensure(false)?;

    heading("Build alcedo (minutes the first time)");
    alcedo::build()?;

    heading("A copy of the example app, as a git repository");
    let app = AppCopy::make("demo")?;
    say(&project::shown(&app.folder));
    if port != LISTENER_PORT {
        app.replace("alcedo.yaml", &LISTENER_PORT.to_string(), &port.to_string())?;
    }
    let alcedo = Alcedo::new(&app.folder, &engine);

    heading("The base image, for the build and the servers alike");
    alcedo.show(&["image", "build"])?;

    heading("The local region: an AWS endpoint on this machine with real servers");
    alcedo.show(&["region", "start"])?;

    heading("Deploy v1");
    let v1 = alcedo.run(&["deploy"])?;
    ensure_answers(&url, &v1)?;

    heading("Requests begin to flow; change the greeting, commit, deploy v2");
    let traffic = Traffic::start(&url);
    app.greet("Hello again from Alcedo.")?;
    let v2 = alcedo.run(&["deploy"])?;
    ensure_answers(&url, &v2)?;

    heading("Roll back by pinning v1's version");
    let back = alcedo.run(&["rollback", "--to", &v1.version])?;
    ensure_answers(&url, &v1)?;
    let tally = traffic.stop();

    println!("\n{}", summary(&Runs { url: &url, v1: &v1, v2: &v2, back: &back }, &tally, &app, &engine, began));
    check(&v1, &v2, &tally)
}

struct Runs<'a> {
    url: &'a str,
    v1: &'a Report,
    v2: &'a Report,
    back: &'a Report,
}

/// The version in service must be the one that was just put there, as a client sees it.
fn ensure_answers(url: &str, report: &Report) -> Result<()> {
    match traffic::version_at(url) {
        Ok(version) if is(&version, &report.version) => Ok(()),
        Ok(other) => bail!("{url} answers version {other}, not {}", report.version),
        Err(reason) => bail!("{url} does not answer: {reason}"),
    }
}

/// Whether an answer names this version; the answer may carry the commit as build metadata.
fn is(answer: &str, version: &str) -> bool {
    answer.split('+').next() == version.split('+').next()
}

fn check(v1: &Report, v2: &Report, tally: &Tally) -> Result<()> {
    ensure!(tally.failed == 0, "{} of {} requests failed: {}", tally.failed, tally.sent, tally.reasons.join("; "));
    for report in [v1, v2] {
        let seen = tally.versions.keys().any(|answer| is(answer, &report.version));
        ensure!(seen, "version {} never answered a request", report.version);
    }
    ensure!(tally.versions.len() == 2, "other versions answered as well: {:?}", tally.versions.keys());
    Ok(())
}

fn summary(runs: &Runs<'_>, tally: &Tally, app: &AppCopy, engine: &Engine, began: Instant) -> String {
    let Runs { url, v1, v2, back } = runs;
    let answers: BTreeMap<&str, u64> =
        tally.versions.iter().map(|(version, seen)| (version.as_str(), seen.answers)).collect();
    let answers: Vec<String> = answers.iter().map(|(version, count)| format!("{version} answered {count}")).collect();
    let until_back = back.measured.began.map_or_else(String::new, |asked| {
        let v2_seen = tally.versions.keys().find(|answer| is(answer, &v2.version));
        let took = v2_seen.map_or_else(Default::default, |version| tally.time_until_last(version, asked));
        format!("From `alcedo rollback` until v2 had given its last answer: {}.\n", seconds(took))
    });
    let engine_stays = if engine.started_here {
        format!("  - the container engine; to stop it: {}\n", engine::stop_command())
    } else {
        String::new()
    };
    let name_engine =
        if engine.needs_naming() { format!("  export DOCKER_HOST={}\n", engine.host()) } else { String::new() };
    let (first, second) = (&v1.version, &v2.version);
    format!(
        "{url} answers, with version {first}. This took {}.

{}
Requests during the second deploy and the rollback: {} sent, {} failed; {}.
{until_back}
Still running:
  - the local region with its servers; to stop it: alcedo region stop; to forget it: alcedo region reset
{engine_stays}
Five to try next, after
  cd {}
  export PATH={}:$PATH
{name_engine}
  curl {url}/version
  alcedo status
  alcedo releases
  alcedo rollback --to {second}
  alcedo plan
",
        seconds(began.elapsed()),
        table(&[("v1", v1), ("v2", v2), ("rollback", back)]),
        tally.sent,
        tally.failed,
        answers.join(", "),
        app.folder.display(),
        project::alcedo().parent().unwrap_or(project::folder()).display(),
    )
}
