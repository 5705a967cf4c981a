//! A process that is killed at a call, and another that goes on or goes back: real processes and SIGKILL, on a region of
//! records alone, so that every call of a run can be tried.
//!
//! A call is answered with nothing until the process that made it is dead: it dies before the call has had its effect, or
//! after that but before it could know. The journal's own writes are among the calls, so that it dies right before and right
//! after each record as well.

use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config, Lags},
    faults::{Calls, Effect, Fault, Faults, When},
    server,
};
use alcedo_pipeline::version::Version;
use alcedo_stages::{
    clients::LocalEndpoint,
    overview::{self, FleetStatus},
    site::Site,
    sweep,
};
use nix::sys::signal::Signal;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{process::Command, runtime::Runtime};

use crate::{
    account::Account,
    run::{Ended, Running},
    stock::{self, Inventory},
};

/// Servers of each fleet.
const SERVERS: usize = 2;
/// A process that has not come to the call by then does not make it.
const STRIKES_WITHIN: Duration = Duration::from_secs(60);

/// Every how many-th call is tried; each in a soak.
fn every(in_the_test_command: usize) -> usize {
    if std::env::var_os("ALCEDO_SOAK").is_some() { 1 } else { in_the_test_command }
}

/// An account with three releases, two of them deployed, and `alcedo` pointed at it.
struct Records {
    runtime: Runtime,
    folder: tempfile::TempDir,
    running: Option<server::Running>,
    endpoint: LocalEndpoint,
    account: Account,
    site: Site,
    releases: [Version; 3],
    /// Which of them is in service.
    serving: usize,
}

impl Records {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::Builder::new().prefix("kills-").tempdir().unwrap();
        for name in ["home", "tmp"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (running, endpoint) = runtime.block_on(region(folder.path()));
        let (account, site, releases) = runtime.block_on(async {
            let account = Account::open(endpoint.clone()).await;
            let site = account.site().await;
            let mut releases = Vec::new();
            for version in ["2026.1101.100000", "2026.1102.100000", "2026.1103.100000"] {
                releases.push(account.release(&site, version).await);
            }
            (account, site, <[Version; 3]>::try_from(releases).unwrap())
        });
        let mut file = account.file();
        file["aws"] = json!({ "region": endpoint.region, "endpoint": endpoint.url });
        file["environments"] = json!({ "production": {} });
        std::fs::write(folder.path().join("alcedo.yaml"), file.to_string()).unwrap();
        let mut records =
            Self { runtime, folder, running: Some(running), endpoint, account, site, releases, serving: 0 };
        for next in [0, 1] {
            records.deploy(next).end().expect(0);
            records.serving = next;
        }
        records
    }

    fn faults(&self) -> &Faults {
        &self.running.as_ref().expect("it runs until this is dropped").region.faults
    }

    fn begin(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alcedo"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path().join("home"))
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("AWS_ACCESS_KEY_ID", &self.endpoint.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.endpoint.secret_key)
            .current_dir(self.folder.path())
            .args(arguments)
            .args(["--output", "json"])
            .stderr(Stdio::piped());
        Running::start(self.runtime.handle(), command)
    }

    fn deploy(&self, release: usize) -> Running {
        self.begin(&["deploy", "--version", &self.releases[release].to_string()])
    }

    const fn next(&self) -> usize {
        (self.serving + 1) % 3
    }

    fn stock(&self) -> Inventory {
        self.runtime.block_on(stock::of(&self.account))
    }

    /// Runs a process up to its n-th call and kills it there. Answers whether it made so many calls.
    fn kill_at(&self, mut process: Running, nth: u64, when: When) -> bool {
        let on = Calls { skip: nth, times: Some(1), ..Calls::default() };
        let id = self.faults().add(Fault { on, when, effect: Effect::Hold });
        let begun = Instant::now();
        let held = loop {
            let standing = self.faults().standing();
            if standing.iter().any(|fault| fault.id == id && fault.struck > 0) {
                break true;
            }
            if process.has_ended() {
                break false;
            }
            assert!(begun.elapsed() < STRIKES_WITHIN, "it neither makes call {nth} nor ends");
            std::thread::sleep(Duration::from_millis(2));
        };
        if held {
            process.signal(Signal::SIGKILL);
        }
        let ended = process.end();
        self.faults().remove(id);
        assert!(held || ended.code == Some(0), "{}\n{}", ended.stdout, ended.stderr);
        held
    }

    fn in_service(&self) -> Vec<FleetStatus> {
        let status = self.runtime.block_on(overview::status(&self.site)).unwrap();
        status.fleets.into_iter().filter(|it| it.fleet.is_in_service()).collect()
    }

    /// The fleet in service is this release's, whole and in good health.
    fn assert_serving(&self, release: usize, what: &str) {
        let serving = self.in_service();
        let [only] = &serving[..] else { panic!("{what}: in service are {serving:#?}") };
        assert_eq!(only.fleet.version, self.releases[release], "{what}");
        assert_eq!((only.fleet.instances.len(), only.healthy), (SERVERS, SERVERS), "{what}: {only:#?}");
    }

    /// Whatever the process was doing, traffic has a whole fleet.
    fn assert_somebody_serves(&self, what: &str) {
        let serving = self.in_service();
        let healthy: usize = serving.iter().map(|fleet| fleet.healthy).sum();
        assert!(healthy >= SERVERS, "{what}: {healthy} healthy servers in service: {serving:#?}");
    }

    /// Nothing is there that the two fleets and the releases do not need.
    fn assert_nothing_is_left(&self, what: &str) {
        let left = self.runtime.block_on(sweep::find(&self.site)).unwrap();
        assert!(left.is_empty(), "{what}: {left:#?}");
        let stock = self.stock();
        let servers = stock.iter().filter(|line| line.starts_with("server ")).count();
        assert_eq!(servers, 2 * SERVERS, "{what}: {stock:#?}");
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

async fn region(folder: &Path) -> (server::Running, LocalEndpoint) {
    let lags = Lags {
        new_record: Duration::ZERO,
        propagation: Duration::ZERO,
        target_health: Duration::ZERO,
        registration: Duration::ZERO,
        initial_check: Some(Duration::from_millis(20)),
        image: Duration::ZERO,
        throttle: false,
        ..Lags::quick()
    };
    let config = Config {
        name: "kills".into(),
        folder: folder.join("region"),
        listen: "127.0.0.1:0".parse().unwrap(),
        region: "us-east-1".into(),
        access_key: "AKIAKILLS".into(),
        secret_key: "a secret of these tests".into(),
        backing: Backing::RecordsOnly,
        lags,
        capacity: Capacity::default(),
        forget_servers: false,
    };
    let running = server::start(config.clone(), Arc::new(SystemClock)).await.unwrap();
    let endpoint = LocalEndpoint {
        url: running.endpoint.clone(),
        region: config.region,
        access_key: config.access_key,
        secret_key: config.secret_key,
    };
    (running, endpoint)
}

/// The name of the run that did not come to its end, if there is one.
fn open_run(records: &Records) -> Option<String> {
    let site = &records.site;
    let open = alcedo_pipeline::journal::open_runs(site.store.as_ref(), &site.root, &site.environment);
    records.runtime.block_on(open).unwrap().first().map(ToString::to_string)
}

/// How often health is asked for depends on how long things take, so that a call of one deploy can be a few places earlier in
/// another.
const SLACK: u64 = 6;

/// How many calls a deploy makes, and how many come before its point of no return in any case.
fn calls_of_a_deploy(records: &mut Records) -> (u64, u64) {
    records.faults().forget_calls();
    let next = records.next();
    records.deploy(next).end().expect(0);
    records.serving = next;
    let calls = records.faults().calls();
    // The journal's word that retiring begins comes right before.
    let first = calls.iter().position(|call| call.operation == "DeregisterTargets").expect("it retires a fleet");
    // The journal's word that retiring begins comes before.
    let word = calls[..first].iter().rposition(|call| call.operation == "PutObject").expect("it is journaled");
    (calls.len() as u64, word as u64 - SLACK)
}

fn undo(records: &Records) -> Option<Ended> {
    let run = open_run(records)?;
    Some(records.begin(&["rollback", "--run", &run]).end())
}

#[test]
fn wherever_a_process_is_killed_another_undoes_its_run() {
    let mut records = Records::new();
    let (calls, retire) = calls_of_a_deploy(&mut records);
    let before = records.stock();
    let mut kills = 0;
    for nth in (0..retire).step_by(every(6)) {
        for when in [When::Before, When::After] {
            let what = format!("killed at call {nth} {when:?} its effect, and undone");
            if !records.kill_at(records.deploy(records.next()), nth, when) {
                panic!("{what}: the deploy ended before");
            }
            records.assert_somebody_serves(&what);
            match undo(&records) {
                Some(undone) => undone.expect(0),
                // It held the lock, and had not begun.
                None => records.begin(&["sweep"]).end().expect(0),
            };
            let now = records.stock();
            let more: Vec<_> = now.difference(&before).collect();
            let less: Vec<_> = before.difference(&now).collect();
            assert!(more.is_empty() && less.is_empty(), "{what}: left behind: {more:#?}\nmissing: {less:#?}");
            records.assert_serving(records.serving, &what);
            kills += 1;
        }
    }
    eprintln!("{kills} processes killed at {retire} of {calls} calls, each run undone by another process");
    assert!(kills > 0);
}

#[test]
fn wherever_a_process_is_killed_another_finishes_its_run() {
    let mut records = Records::new();
    let (calls, _) = calls_of_a_deploy(&mut records);
    let (mut kills, mut finished) = (0, 0);
    for nth in (0..calls).step_by(every(7)) {
        for when in [When::Before, When::After] {
            let what = format!("killed at call {nth} {when:?} its effect, and finished");
            let next = records.next();
            if !records.kill_at(records.deploy(next), nth, when) {
                // Counts differ by a look or two; the deploy is done.
                records.serving = next;
                continue;
            }
            kills += 1;
            records.assert_somebody_serves(&what);
            if open_run(&records).is_some() {
                records.begin(&["resume"]).end().expect(0);
                finished += 1;
            }
            // What had not begun is undone, and what had ended is done; the next deploy says which.
            let deployed = records.deploy(next).end().expect(0);
            let report = deployed.of_kind("report").last().cloned().unwrap_or(Value::Null);
            records.serving = next;
            records.assert_serving(next, &format!("{what}: {report}"));
            records.assert_nothing_is_left(&what);
        }
    }
    eprintln!("{kills} processes killed at {calls} calls; {finished} runs finished by another process");
    assert!(kills > 0 && finished > 0);
}

/// Whoever recovers a run may die as well.
#[test]
fn a_recovery_that_is_killed_is_recovered_too() {
    let mut records = Records::new();
    let (calls, retire) = calls_of_a_deploy(&mut records);
    let seed = std::env::var("ALCEDO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = StdRng::seed_from_u64(seed);
    let mut second = 0;
    for _ in 0..(if every(2) == 1 { 500 } else { 20 }) {
        let go_back = dice.random_bool(0.5);
        let nth = dice.random_range(20..if go_back { retire } else { calls });
        let whens = [When::Before, When::After];
        let (first_when, second_when) = (whens[dice.random_range(0..2)], whens[dice.random_range(0..2)]);
        let again = dice.random_range(0..40);
        let what = format!(
            "seed {seed}: killed at call {nth} {first_when:?} its effect, and again at call {again} {second_when:?} its effect"
        );
        let next = records.next();
        if !records.kill_at(records.deploy(next), nth, first_when) {
            records.serving = next;
            continue;
        }
        let Some(run) = open_run(&records) else { continue };
        let recovery: Vec<&str> = if go_back { vec!["rollback", "--run", &run] } else { vec!["resume"] };
        second += u32::from(records.kill_at(records.begin(&recovery), again, second_when));
        records.assert_somebody_serves(&what);
        if open_run(&records).is_some() {
            // Once it goes back, it goes back.
            let arguments: &[&str] = if go_back { &recovery } else { &["resume"] };
            records.begin(arguments).end().expect(0);
        }
        records.deploy(next).end().expect(0);
        records.serving = next;
        records.assert_serving(next, &what);
        records.assert_nothing_is_left(&what);
    }
    eprintln!("{second} recoveries killed, and recovered by a third process");
    assert!(second > 0);
}
