//! Several runs of one environment at once, on machines whose clocks are wrong, with faults and deaths at random: whatever
//! happens, the next run sets everything right.
//!
//! A schedule, and the course of everything in it, is made from its seed alone: the seed of a failure is printed, and fails
//! again.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_pipeline::{event::Outcome, journal, lock, version::Version};
use alcedo_stages::{facts, facts::Request, site::Site, sweep};
use jiff::SignedDuration;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::Bench;
use crate::{
    life::deploy,
    support::{journey, simulation::Machine},
};

/// How long new schedules are begun in the test command; a soak does as many as `ALCEDO_SOAK` says.
const BUDGET: Duration = Duration::from_secs(170);

fn soak() -> Option<u64> {
    std::env::var("ALCEDO_SOAK").ok().and_then(|count| count.parse().ok())
}

fn first_seed() -> u64 {
    std::env::var("ALCEDO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// How many seeds are played twice: a few in the test command, one of a hundred schedules in a soak.
fn replays() -> u64 {
    soak().map_or(4, |count| (count / 100).max(4))
}

#[test]
fn whatever_happens_at_once_the_next_run_sets_it_right() {
    let soak = soak();
    let first = first_seed();
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    let work = || {
        while soak.map_or(begun.elapsed() < BUDGET, |count| next.load(Relaxed) < first + count) {
            let seed = next.fetch_add(1, Relaxed);
            // A panic names the seed.
            let one = std::panic::catch_unwind(|| course(seed));
            let (one, _) =
                one.unwrap_or_else(|_| panic!("seed {seed} failed, as said above; ALCEDO_SEED={seed} begins with it"));
            tally.lock().unwrap().add(&one);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (count, tally) = (next.into_inner() - first, tally.into_inner().unwrap());
    eprintln!("{count} schedules in {:.0} s: {tally:?}", begun.elapsed().as_secs_f64());
    assert!(tally.done > 0 && tally.killed > 0 && tally.struck > 0 && tally.refused > 0, "{tally:?}");
}

#[test]
fn one_seed_is_one_course_of_events() {
    for seed in first_seed()..first_seed() + replays() {
        let (_, first) = course(seed);
        let (_, second) = course(seed);
        let differs = first.lines().zip(second.lines()).position(|(one, other)| one != other);
        let around = |text: &str| {
            let at = differs.unwrap_or_default();
            text.lines().skip(at.saturating_sub(3)).take(6).collect::<Vec<_>>().join("\n")
        };
        assert!(first == second, "seed {seed}, line {differs:?}:\n{}\n---\n{}", around(&first), around(&second));
    }
    let (one, other) = (course(1).1, course(2).1);
    assert_ne!(one, other, "two seeds are two courses");
}

/// Plays a schedule in a runtime of its own. Answers what became of it, and every call of it with its time and answer.
fn course(seed: u64) -> (Tally, String) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(schedule(seed))
}

#[derive(Debug, Default)]
struct Tally {
    /// Runs that came to their end, that were undone, that were refused because another held the environment or something
    /// failed before they began, that stopped in the middle, and that were killed.
    done: u64,
    undone: u64,
    refused: u64,
    stopped: u64,
    killed: u64,
    /// Calls that a fault struck.
    struck: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.undone += other.undone;
        self.refused += other.refused;
        self.stopped += other.stopped;
        self.killed += other.killed;
        self.struck += other.struck;
    }
}

async fn schedule(seed: u64) -> (Tally, String) {
    let mut dice = StdRng::seed_from_u64(seed);
    let bench = Bench::of_seed(seed).await;
    // Smoke tests and probes ask servers over sockets, in the machine's time.
    let pipeline = &bench.site.pipeline;
    assert!(pipeline.smoke_tests.is_empty() && pipeline.flip.version.is_none(), "a simulation has no servers to ask");
    let third = bench.account.release(&bench.site, "2026.1103.100000").await;
    let fourth = bench.account.release(&bench.site, "2026.1104.100000").await;
    let foreign = foreign(&bench).await;
    for _ in 0..dice.random_range(0..6) {
        bench.faults().add(fault(&mut dice));
    }
    let mut tally = Tally::default();
    let requests = [
        deploy(third),
        deploy(fourth),
        Request::Rollback { to: None },
        Request::Rollback { to: Some("2026.1101.100000".parse().unwrap()) },
    ];
    let most = if dice.random_bool(0.2) { 16 } else { 5 };
    let runs = (0..dice.random_range(2..=most)).map(|_| {
        let site = on_another_machine(&bench, &mut dice);
        let request = *requests.choose(&mut dice).unwrap();
        let wait = Duration::from_millis(dice.random_range(0..20_000));
        let patience = Duration::from_millis(if dice.random_bool(0.5) { dice.random_range(0..300_000) } else { 0 });
        let dies_after = dice.random_bool(0.4).then(|| Duration::from_millis(dice.random_range(50..12_000)));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let run = async {
                match journey::prepare_within(&site, request, patience).await {
                    Ok(prepared) => Some(journey::finish(prepared).await.0),
                    Err(_) => None,
                }
            };
            match dies_after {
                None => Some(run.await),
                Some(dies_after) => tokio::time::timeout(dies_after, run).await.ok(),
            }
        })
    });
    for run in runs.collect::<Vec<_>>() {
        match run.await.unwrap() {
            None => tally.killed += 1,
            Some(None) => tally.refused += 1,
            Some(Some(Ok(ending))) if ending.outcome == Outcome::Done => tally.done += 1,
            Some(Some(Ok(_))) => tally.undone += 1,
            Some(Some(Err(_))) => tally.stopped += 1,
        }
    }
    tally.struck = bench.faults().standing().iter().map(|fault| fault.struck).sum();
    bench.faults().clear();

    if std::env::var_os("ALCEDO_COURSE").is_some() {
        tell(&bench).await;
    }
    // Two minutes pass: leases of the dead have ended.
    lock::break_it(bench.site.store.as_ref(), &bench.site.lock_key()).await.unwrap();
    all_is_right_after(&bench, deploy(fourth), fourth).await;
    assert_eq!(self::foreign(&bench).await, foreign, "what is nobody's of ours was touched");
    let mut course = String::new();
    for call in bench.faults().calls() {
        course += &format!("{} {} {} {:?}\n", call.at, call.service, call.operation, call.status);
    }
    course.extend(bench.inventory().await.into_iter().map(|line| line + "\n"));
    (tally, course)
}

/// Everything that happened so far, to find out why: each run's journal, by the runs' own clocks.
async fn tell(bench: &Bench) {
    let site = &bench.site;
    let runs = alcedo_stages::overview::runs(site, 100).await.unwrap();
    for report in runs.iter().rev() {
        let record = journal::read(site.store.as_ref(), &site.root, &report.run).await.unwrap();
        eprintln!("{}", record.plan);
        for event in &record.events {
            eprintln!("{} {}", report.run, serde_json::to_string(event).unwrap());
        }
    }
    for call in bench.faults().calls().iter().filter(|call| call.changing || call.status != Some(200)) {
        eprintln!("{} {} {} {:?}", call.at, call.operation, call.path.as_deref().unwrap_or_default(), call.status);
    }
}

/// The next run comes to its end, and everything is as after any deploy.
async fn all_is_right_after(bench: &Bench, request: Request, version: Version) {
    let site = &bench.site;
    let (plan, ending) = journey::run(site, request).await;
    assert_eq!(ending.outcome, Outcome::Done, "{plan}\n{:?} {:?}", ending.failure, ending.left);
    let balancer = facts::balancer(site).await.unwrap();
    let fleets = facts::fleets(site, Some(&balancer)).await.unwrap();
    let serving: Vec<_> = fleets.iter().filter(|fleet| fleet.is_in_service()).collect();
    assert!(serving.len() == 1 && serving[0].version == version && serving[0].instances.len() == 2, "{serving:#?}");
    let open = journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
    assert!(lock::look(site.store.as_ref(), &site.lock_key()).await.unwrap().is_none());
    let left = sweep::find(site).await.unwrap();
    assert!(left.is_empty(), "{left:#?}");
    let all: usize = fleets.iter().map(|fleet| fleet.instances.len()).sum();
    let servers = bench.inventory().await.iter().filter(|line| line.starts_with("server")).count();
    assert_eq!(servers, all, "every server belongs to a fleet");
}

/// What lacks the app's tags.
async fn foreign(bench: &Bench) -> Vec<String> {
    let all = bench.inventory().await;
    all.into_iter().filter(|line| line.starts_with("security group ") || line.contains("vendor")).collect()
}

/// A process on another machine, whose clock may be an hour off either way, and which may stand still at times.
fn on_another_machine(bench: &Bench, dice: &mut StdRng) -> Site {
    let off = SignedDuration::from_secs(dice.random_range(-3600..=3600));
    let pauses = if dice.random_bool(0.3) { 0.02 } else { 0.0 };
    let machine = Machine { dice: Some(StdRng::from_rng(dice)), pauses, ..Machine::default() };
    let mut clients = bench.simulation.clients_of(machine, off);
    clients.visible = bench.site.clients.visible;
    let site = &bench.site;
    Site::of((*site.pipeline).clone(), &*site.environment, &*site.folder, clients, StdRng::from_rng(dice))
}

fn fault(dice: &mut StdRng) -> Fault {
    let code = |code: &str| Effect::Error { code: code.into(), status: None };
    let effects = [
        Effect::LoseAnswer,
        Effect::LoseAnswer,
        code("InternalError"),
        code("RequestLimitExceeded"),
        code("UnauthorizedOperation"),
        Effect::ExpiredCredentials,
        Effect::Delay { milliseconds: 400 },
    ];
    let on = Calls {
        changing: dice.random_bool(0.7),
        skip: dice.random_range(0..150),
        times: Some(dice.random_range(1..4)),
        ..Calls::default()
    };
    let when = if dice.random_bool(0.5) { When::Before } else { When::After };
    Fault { on, when, effect: effects.choose(dice).unwrap().clone() }
}
