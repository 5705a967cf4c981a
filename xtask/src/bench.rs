//! `cargo xtask bench`: deploys of the example app in a local region of its own, measured, as JSON on stdout.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    alcedo::{self, Alcedo, Profile, Report},
    app_copy::AppCopy,
    demo,
    engine::Engine,
    process, project, setup,
    terminal::{heading, say},
    traffic::{Tally, Traffic},
};

/// Beside the ports of the default region and of the demo, so that both may run meanwhile.
const REGION_PORT: u16 = 4598;
const LISTENER_PORT: u16 = 8601;
/// Programs start faster once their file is in memory; the median of this many starts is the answer.
const HELP_RUNS: usize = 31;
/// How long requests flow before and after what is measured, so that both versions are seen.
const LEAD: Duration = Duration::from_millis(300);

/// Steps whose time is the cloud's: servers that boot, are captured or end, and a balancer that checks, spreads a change
/// or drains. The commands of the build are the other part that is not Alcedo's own.
const WAITS: [&str; 7] = [
    "bake/builder",
    "bake/image",
    "bake/end-builder",
    "launch/instances",
    "launch/healthy",
    "flip/prove",
    "hold/watch",
];

fn is_wait(step: &str) -> bool {
    // `retire/<version>/drain`
    let retires = step.starts_with("retire/") && (step.ends_with("/drain") || step.ends_with("/terminate"));
    retires || WAITS.contains(&step)
}

#[derive(Debug, Serialize)]
struct Results {
    v: u32,
    tool: String,
    /// The Cargo profile that `alcedo` was built with.
    profile: &'static str,
    cpus: usize,
    /// A region without artifacts and images, a build without its cache. The base image was there.
    cold: Deploy,
    one_line_change: Deploy,
    rollback: Deploy,
    help_milliseconds: f64,
}

#[derive(Debug, Serialize)]
struct Deploy {
    seconds: f64,
    stages: BTreeMap<String, f64>,
    steps: BTreeMap<String, f64>,
    /// `seconds` without the build's commands, the builder's boot and [`WAITS`].
    own_share_seconds: f64,
    /// Of the own share, what is the user's own work as much as the build's commands are: provisioning, image checks and
    /// smoke tests.
    users_work_seconds: f64,
    /// The rest of it.
    own_work_seconds: f64,
    /// Of the own share, what the cloud takes to change its firewalls.
    firewall_seconds: f64,
    build_command_seconds: f64,
    /// Of the own share, what the run waited for its journal.
    journal_seconds: f64,
    journal_percent_of_own_share: f64,
    uploaded_bytes: u64,
    peak_memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<Flow>,
}

/// What clients saw of it.
#[derive(Debug, Serialize)]
struct Flow {
    requests_sent: u64,
    requests_failed: u64,
    /// From the command's start until the version before had given its last answer.
    seconds_to_all_traffic: f64,
}

pub fn run(profile: Profile) -> Result<()> {
    let engine = setup::ensure(false)?;
    heading("Build alcedo");
    alcedo::build_as(profile)?;

    let app = AppCopy::make("bench")?;
    // A cache of its own makes the first build a cold one.
    let cache = format!("/var/cache/bench-{}", std::process::id());
    app.replace("alcedo.yaml", "/var/cache/go", &cache)?;
    app.replace("alcedo.yaml", &demo::LISTENER_PORT.to_string(), &LISTENER_PORT.to_string())?;
    let alcedo =
        Alcedo::new(&app.folder, &engine).built_as(profile).with_region_folder(&project::target().join("bench/region"));

    heading("A local region of its own");
    alcedo.show(&["image", "build"])?;
    // What a bench that was killed has left.
    alcedo.show(&["region", "reset", "--yes"])?;
    let volumes = Volumes::of(&engine)?;
    let measured = measure_in_region(&alcedo, &app);
    heading("Remove it");
    let reset = alcedo.show(&["region", "reset", "--yes"]);
    let freed = volumes.remove_new(&engine);
    let results = measured?;
    reset?;
    freed?;

    println!("{}", serde_json::to_string_pretty(&results)?);
    for deploy in [&results.one_line_change, &results.rollback] {
        let failed = deploy.traffic.as_ref().map_or(0, |traffic| traffic.requests_failed);
        ensure!(failed == 0, "{failed} requests failed");
    }
    Ok(())
}

fn measure_in_region(alcedo: &Alcedo, app: &AppCopy) -> Result<Results> {
    alcedo.show(&["region", "start", "--name", "bench", "--port", &REGION_PORT.to_string()])?;
    heading("Measure");
    say("a first deploy");
    let (first, first_memory) = alcedo.measure(&["deploy"])?;
    let cold = Deploy::of(&first, first_memory, None)?;

    say("a deploy of a one-line change");
    app.greet("Hello again from Alcedo.")?;
    let (second, one_line_change) = under_traffic(alcedo, &["deploy"], &first.version)?;

    say("a rollback");
    let (_, rollback) = under_traffic(alcedo, &["rollback", "--to", &first.version], &second.version)?;

    say(&format!("{HELP_RUNS} starts of alcedo --help"));
    Ok(Results {
        v: 1,
        tool: process::output_of(Command::new(alcedo.program()).arg("--version"))?.trim().to_owned(),
        profile: alcedo.profile.name(),
        cpus: std::thread::available_parallelism()?.get(),
        cold,
        one_line_change,
        rollback,
        help_milliseconds: help_milliseconds(alcedo)?,
    })
}

fn under_traffic(alcedo: &Alcedo, arguments: &[&str], before: &str) -> Result<(Report, Deploy)> {
    let traffic = Traffic::start(&format!("http://127.0.0.1:{LISTENER_PORT}"));
    std::thread::sleep(LEAD);
    let ran = alcedo.measure(arguments);
    std::thread::sleep(LEAD);
    let tally = traffic.stop();
    let (report, memory) = ran?;
    for reason in &tally.reasons {
        say(&format!("a request failed: {reason}"));
    }
    let flow = Flow::of(&tally, before, &report)?;
    let deploy = Deploy::of(&report, memory, Some(flow))?;
    Ok((report, deploy))
}

impl Flow {
    fn of(tally: &Tally, before: &str, report: &Report) -> Result<Self> {
        let began = report.measured.began.context("the run was not timed")?;
        let is =
            |version: &str| tally.versions.keys().find(|answer| answer.split('+').next() == Some(version)).cloned();
        let before = is(before).with_context(|| format!("version {before} gave no answer before the change"))?;
        is(&report.version).with_context(|| format!("version {} gave no answer after the change", report.version))?;
        Ok(Self {
            requests_sent: tally.sent,
            requests_failed: tally.failed,
            seconds_to_all_traffic: round(tally.time_until_last(&before, began)),
        })
    }
}

impl Deploy {
    fn of(report: &Report, peak_memory_kib: u64, traffic: Option<Flow>) -> Result<Self> {
        let steps = &report.measured.steps;
        ensure!(!steps.is_empty(), "{} ran no step", report.version);
        let output = |id: &str, key: &str| steps.iter().find(|step| step.id == id).map(|step| step.output[key].clone());
        let seconds = |id: &str, key: &str| output(id, key).and_then(|it| it.as_f64()).unwrap_or_default();
        let build_command = seconds("build/run", "commands_seconds");
        let boot = seconds("bake/provision", "boot_seconds");
        let waits: f64 = steps.iter().filter(|step| is_wait(&step.id)).map(|step| step.seconds).sum();
        let of = |ids: &[&str]| -> f64 {
            steps.iter().filter(|step| ids.contains(&step.id.as_str())).map(|step| step.seconds).sum()
        };
        let own_share = report.measured.wall.as_secs_f64() - build_command - boot - waits;
        let users_work = seconds("bake/provision", "commands_seconds") + of(&["smoke/suite"]);
        Ok(Self {
            seconds: round(report.measured.wall),
            stages: report.stages.iter().map(|it| (it.stage.clone(), millis(it.seconds))).collect(),
            steps: steps.iter().map(|step| (step.id.clone(), millis(step.seconds))).collect(),
            own_share_seconds: millis(own_share),
            users_work_seconds: millis(users_work),
            own_work_seconds: millis(own_share - users_work),
            firewall_seconds: millis(of(&["bake/open-ssh", "bake/close-ssh", "smoke/open", "smoke/close"])),
            build_command_seconds: millis(build_command),
            journal_seconds: millis(report.journal_seconds),
            journal_percent_of_own_share: millis(100.0 * report.journal_seconds / own_share),
            uploaded_bytes: output("publish/artifact", "size_bytes").and_then(|it| it.as_u64()).unwrap_or_default(),
            peak_memory_bytes: peak_memory_kib * 1024,
            traffic,
        })
    }
}

fn help_milliseconds(alcedo: &Alcedo) -> Result<f64> {
    let mut times = Vec::with_capacity(HELP_RUNS);
    for _ in 0..HELP_RUNS {
        let began = Instant::now();
        ensure!(process::succeeds(Command::new(alcedo.program()).arg("--help")), "alcedo --help failed");
        times.push(began.elapsed());
    }
    Ok(millis(median(times).as_secs_f64() * 1000.0))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn round(time: Duration) -> f64 {
    millis(time.as_secs_f64())
}

/// To three places: what lies below is noise.
fn millis(value: f64) -> f64 {
    // Adding zero makes a sum of nothing 0.0, where it would be -0.0.
    (value * 1000.0).round() / 1000.0 + 0.0
}

/// The engine's volumes as they were, so that those of this bench can be removed again.
struct Volumes(Vec<String>);

impl Volumes {
    fn of(engine: &Engine) -> Result<Self> {
        let answer = engine.get("/volumes")?;
        let names = answer["Volumes"].as_array().into_iter().flatten().filter_map(|volume| volume["Name"].as_str());
        Ok(Self(names.map(str::to_owned).collect()))
    }

    /// Removes the build caches that have come since. Others' volumes are not touched, whenever they came.
    fn remove_new(&self, engine: &Engine) -> Result<()> {
        let new = Self::of(engine)?.0.into_iter().filter(|name| !self.0.contains(name));
        for name in new.filter(|name| name.starts_with("alcedo-cache-hello-")) {
            engine.delete(&format!("/volumes/{name}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::alcedo::{Measured, Step};

    #[test]
    fn the_own_share_leaves_out_the_build_command_and_the_waits() {
        let step = |id: &str, seconds: f64, output| Step { id: id.into(), seconds, output };
        let report = Report {
            version: "2026.1120.1".into(),
            stages: Vec::new(),
            journal_seconds: 0.03,
            measured: Measured {
                began: None,
                wall: Duration::from_secs_f64(21.25),
                steps: vec![
                    step("build/run", 6.0, json!({ "commands_seconds": 5.5 })),
                    step("publish/artifact", 0.5, json!({ "size_bytes": 4096 })),
                    step("bake/provision", 1.0, json!({ "boot_seconds": 0.25, "commands_seconds": 0.5 })),
                    step("smoke/suite", 0.25, json!(null)),
                    step("launch/healthy", 12.0, json!(null)),
                    step("flip/switch", 0.1, json!(null)),
                    step("retire/2026.1119.1/drain", 1.0, json!(null)),
                    step("retire/prune", 0.1, json!(null)),
                ],
            },
        };
        let deploy = Deploy::of(&report, 2, None).unwrap();
        assert_eq!((deploy.own_share_seconds, deploy.users_work_seconds, deploy.own_work_seconds), (2.5, 0.75, 1.75));
        assert_eq!((deploy.journal_seconds, deploy.journal_percent_of_own_share), (0.03, 1.2));
        assert_eq!((deploy.uploaded_bytes, deploy.peak_memory_bytes), (4096, 2048));
    }

    #[test]
    fn the_median_is_the_middle() {
        let times = [5, 1, 9].map(Duration::from_millis).to_vec();
        assert_eq!(median(times), Duration::from_millis(5));
    }
}
