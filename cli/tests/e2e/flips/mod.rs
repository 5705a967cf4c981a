//! Flips and rollbacks that nobody notices, measured; and a green that goes bad at each moment around them.
//!
//! `cargo xtask bench flip` runs these alone and shows what they print.

mod load;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use alcedo_stages::listener::{self, Place, Routing};
use aws_sdk_elasticloadbalancingv2::types::TargetDescription;
use load::{Answer, Kind, Load};
use serde_json::{Value, json};

use crate::{run::text, world::World};

/// Flips in the test command; a soak does as many as `ALCEDO_FLIPS` says, in as many lanes as `ALCEDO_LANES` says: each has a
/// region, an app and visitors of its own.
const FLIPS: usize = 6;
/// The balancer of these tests has four nodes that take up a change within this time, one after another.
const PROPAGATION: &str = "2s";
/// Where it is about how soon something is noticed, they take it up within this time.
const QUICK_PROPAGATION: &str = "300ms";
const NODES: u8 = 4;

/// A world in which two versions of the app for these tests are deployed; the older is held.
fn two_versions(what: &str, propagation: &str) -> (World, String, String) {
    let world = World::with_lags(what, NODES, &[&format!("propagation={propagation}")]);
    let app = &world.app;
    app.write("main.go", include_str!("visited.go"));
    std::fs::remove_file(app.folder.join("main_test.go")).expect("the example has tests");
    for (old, new) in [
        ("packages: [golang-go]", "packages: [golang-go, golang-github-gorilla-websocket-dev]"),
        ("GOPATH: /var/cache/go/path", "GOPATH: /usr/share/gocode\n    GO111MODULE: \"off\""),
        ("    - go test ./...\n", ""),
        // The slowest request takes twenty seconds.
        ("deregistration_delay: 2s", "deregistration_delay: 25s"),
        ("version: { path: /version, json: $.version }", "version: { path: /version, json: $.version }\n  quiet: 3s"),
    ] {
        app.replace("alcedo.yaml", old, new);
    }
    // What these tests are about needs no other smoke test.
    let file = app.read("alcedo.yaml");
    let (before, after) = file.split_once("smoke_tests:\n").expect("it has smoke tests");
    let (_, after) = after.split_once("\nflip:").expect("then comes flip");
    app.write("alcedo.yaml", &format!("{before}smoke_tests:\n  - http: {{ path: /health }}\n\nflip:{after}"));
    app.commit("Take visitors of every kind");
    let first = world.deploy();
    world.tell("deployed the first version");
    app.replace("main.go", "// Command hello,", "// Command hello, changed,");
    app.replace("main.go", "\"sick\"", "\"very sick\"");
    app.commit("Say it otherwise");
    let second = world.deploy();
    world.tell("deployed the second version");
    (world, first, second)
}

fn place(world: &World) -> Place {
    let clients = world.clients();
    world.runtime.block_on(async {
        let balancers = clients.elb.describe_load_balancers().names("hello").send().await.expect("it is there");
        let balancer = balancers.load_balancers()[0].load_balancer_arn().expect("it has an ARN").to_owned();
        let listeners = clients.elb.describe_listeners().load_balancer_arn(balancer).send().await.expect("it has one");
        Place::Listener { arn: listeners.listeners()[0].listener_arn().expect("it has an ARN").to_owned() }
    })
}

/// What the listener does.
fn routing(world: &World, place: &Place) -> Routing {
    let clients = world.clients();
    world.runtime.block_on(listener::read(clients, place)).expect("it forwards")
}

/// The numbers of a list, as people compare them.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len()) - 1;
        (values[index] * 1000.0).round() / 1000.0
    };
    json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "of": values.len() })
}

fn per_second(answers: &[Answer], from: Instant, to: Instant) -> f64 {
    let count =
        answers.iter().filter(|answer| answer.kind == Kind::Short && (from..to).contains(&answer.ended)).count();
    #[expect(clippy::cast_precision_loss, reason = "a rate that people read")]
    let rate = count as f64 / (to - from).as_secs_f64();
    rate.round()
}

/// What was not answered, with when it began and ended.
fn failures(world: &World, answers: &[Answer]) -> Vec<String> {
    let failed = answers.iter().filter_map(|answer| {
        let why = answer.version.as_ref().err()?;
        Some(format!("{:.1} s to {:.1} s: {why}", world.second(answer.began), world.second(answer.ended)))
    });
    failed.collect()
}

/// One rollback, measured.
struct Flip {
    to: String,
    begun: Instant,
    /// When the listener was first seen changed, by readings ten milliseconds apart.
    changed: Instant,
    /// When the command had ended.
    proven: Instant,
}

fn rollback(world: &World, to: &str) -> Flip {
    let place = place(world);
    let before = routing(world, &place);
    let begun = Instant::now();
    let running = world.begin(&["rollback"]);
    while routing(world, &place) == before {
        assert!(begun.elapsed() < Duration::from_secs(30), "the listener was not changed");
        std::thread::sleep(Duration::from_millis(10));
    }
    let changed = Instant::now();
    assert_eq!(running.end().expect(0).version(), to);
    Flip { to: to.to_owned(), begun, changed, proven: Instant::now() }
}

/// How many regions are flipped at the same time.
pub fn lanes() -> usize {
    variable("ALCEDO_LANES").unwrap_or(1)
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// A world's flips, and what its visitors saw of them.
struct Lane {
    world: World,
    flips: Vec<Flip>,
    answers: Vec<Answer>,
    serving: String,
    held: String,
}

impl Lane {
    /// Flips so many times, or until this moment, and then retires what is held while requests of twenty seconds are under way.
    fn run(which: usize, flips: usize, until: Option<Instant>) -> Self {
        let propagation = std::env::var("ALCEDO_PROPAGATION").unwrap_or_else(|_| PROPAGATION.to_owned());
        let (world, first, second) = two_versions(&format!("flips, lane {which}"), &propagation);
        let (mut serving, mut held) = (second, first);
        let loads = u32::try_from(lanes()).expect("a handful");
        let load = Load::start_one_of(loads, world.runtime.handle(), &world.nodes());
        std::thread::sleep(Duration::from_secs(2));
        let mut done: Vec<Flip> = Vec::new();
        while done.len() < flips && (done.is_empty() || until.is_none_or(|until| Instant::now() < until)) {
            done.push(rollback(&world, &held));
            std::mem::swap(&mut serving, &mut held);
            std::thread::sleep(Duration::from_secs(2));
        }
        world.tell(&format!("lane {which} has flipped {} of {flips} times", done.len()));
        world.json(&["hold", "finish"]).expect(0);
        world.tell("retired what was held");
        Self { flips: done, answers: load.stop(), world, serving, held }
    }

    fn assert_nobody_noticed(&self) {
        let Self { world, flips, answers, .. } = self;
        assert_eq!(failures(world, answers), [""; 0], "of {} requests", answers.len());
        assert_proofs_hold(flips, answers);
        for kind in [Kind::Short, Kind::Upload, Kind::Slow, Kind::Socket] {
            assert!(answers.iter().any(|answer| answer.kind == kind), "nobody came as {kind:?}");
        }
        assert_eq!(world.fleets().len(), 1, "what was held is retired");
    }
}

/// The distributions of what the flips of all lanes took, and what the visitors saw of them.
fn measured(lanes: &[Lane]) -> Value {
    let flips = || lanes.iter().flat_map(|lane| lane.flips.iter().map(move |flip| (flip, lane.answers.as_slice())));
    let seconds = |of: &dyn Fn(&Flip, &[Answer]) -> f64| spread(flips().map(|(flip, seen)| of(flip, seen)).collect());
    let last_old = |flip: &Flip, answers: &[Answer]| {
        let old = answers.iter().filter(|answer| {
            answer.kind == Kind::Short
                && (flip.changed..flip.proven).contains(&answer.ended)
                && answer.version.as_ref().is_ok_and(|version| *version != flip.to)
        });
        old.map(|answer| (answer.ended - flip.changed).as_secs_f64()).fold(0.0, f64::max)
    };
    let second = Duration::from_secs(1);
    let kinds =
        lanes.iter().flat_map(|lane| &lane.answers).fold(BTreeMap::<String, u64>::new(), |mut kinds, answer| {
            *kinds.entry(format!("{:?}", answer.kind).to_lowercase()).or_default() += 1;
            kinds
        });
    json!({
        "lanes": lanes.len(),
        "flips": flips().count(),
        "answers": kinds,
        "failed": lanes.iter().flat_map(|lane| &lane.answers).filter(|answer| answer.version.is_err()).count(),
        "seconds_from_command_to_listener_changed": seconds(&|flip, _| (flip.changed - flip.begun).as_secs_f64()),
        "seconds_from_listener_changed_to_last_old_answer": seconds(&last_old),
        "seconds_from_command_to_proof": seconds(&|flip, _| (flip.proven - flip.begun).as_secs_f64()),
        // Of one lane's visitors.
        "short_requests_per_second": {
            "before": seconds(&|flip, seen| per_second(seen, flip.begun - second, flip.begun)),
            "during": seconds(&|flip, seen| per_second(seen, flip.begun, flip.proven)),
            "after": seconds(&|flip, seen| per_second(seen, flip.proven, flip.proven + second)),
        },
    })
}

/// After the proof, every request that begins is answered by the version that was proven.
fn assert_proofs_hold(flips: &[Flip], answers: &[Answer]) {
    for (at, flip) in flips.iter().enumerate() {
        let next = flips.get(at + 1).map(|flip| flip.begun);
        let wrong: Vec<_> = answers
            .iter()
            .filter(|answer| answer.began > flip.proven && next.is_none_or(|next| answer.ended < next))
            .filter(|answer| answer.version.as_ref().is_ok_and(|version| *version != flip.to))
            .collect();
        assert!(
            wrong.is_empty(),
            "flip {at}: {} answers of another version after its proof: {:?}",
            wrong.len(),
            wrong[0]
        );
    }
}

/// A fleet's target group and servers.
fn fleet(world: &World, version: &str) -> (String, Vec<String>) {
    let status = world.json(&["status"]).expect(0);
    let fleets = status.json()["fleets"].as_array().expect("a list of fleets").clone();
    let fleet = fleets.iter().find(|fleet| text(&fleet["version"]) == version);
    let fleet = fleet.unwrap_or_else(|| panic!("no fleet of {version} in {fleets:?}"));
    let servers = fleet["instances"].as_array().expect("a list of servers").iter().map(text).collect();
    (text(&fleet["target_group"]), servers)
}

/// What people who write their own scripts do: change the listener, and end the old servers at once.
fn flip_naively(world: &World, from: &str, to: &str) {
    let (old, servers) = fleet(world, from);
    let (new, _) = fleet(world, to);
    let place = place(world);
    let clients = world.clients();
    world.runtime.block_on(async {
        listener::write(clients, &place, &Routing::to(new)).await.expect("the listener is changed");
        let targets = servers.iter().map(|id| TargetDescription::builder().id(id).build()).collect();
        let call = clients.elb.deregister_targets().target_group_arn(old).set_targets(Some(targets));
        call.send().await.expect("they are deregistered");
        let call = clients.ec2.terminate_instances().set_instance_ids(Some(servers.clone()));
        call.send().await.expect("they are terminated");
    });
}

#[test]
fn nobody_notices_flips_rollbacks_and_retires_and_the_naive_order_is_noticed() {
    let flips: usize = variable("ALCEDO_FLIPS").unwrap_or(FLIPS);
    let until = variable("ALCEDO_FLIPS_WITHIN_S").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let lanes = lanes();
    // Their parts differ by one at most.
    let parts = (0..lanes).map(|lane| flips / lanes + usize::from(lane < flips % lanes));
    let running: Vec<_> =
        parts.enumerate().map(|(lane, part)| std::thread::spawn(move || Lane::run(lane + 1, part, until))).collect();
    // One that fails does not keep the others from being waited for: their regions have to go as well.
    let ended: Vec<_> = running.into_iter().map(std::thread::JoinHandle::join).collect();
    let lanes: Vec<Lane> =
        ended.into_iter().map(|lane| lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
    eprintln!("{:#}", measured(&lanes));
    let done: usize = lanes.iter().map(|lane| lane.flips.len()).sum();
    if done < flips {
        eprintln!("only {done} of {flips} flips were done in the time that was given");
    }
    lanes.iter().for_each(Lane::assert_nobody_noticed);

    let Lane { world, serving, held, .. } = lanes.into_iter().next().expect("there is one");
    // The check of the check: the same visitors notice a flip that ends the old servers at once.
    world.json(&["deploy", "--version", &held]).expect(0);
    let load = Load::start(world.runtime.handle(), &world.nodes());
    std::thread::sleep(Duration::from_secs(2));
    flip_naively(&world, &held, &serving);
    std::thread::sleep(Duration::from_secs(4));
    let answers = load.stop();
    let failed = failures(&world, &answers).len();
    eprintln!("the naive order: {failed} of {} requests failed", answers.len());
    assert!(failed > 0, "these visitors notice nothing");
}

/// Lets servers answer nothing but errors.
fn make_sick(world: &World, servers: &[String]) {
    let clients = world.clients();
    world.runtime.block_on(async {
        let call = clients.ec2.describe_instances().set_instance_ids(Some(servers.to_vec()));
        let found = call.send().await.expect("they are there");
        for server in found.reservations().iter().flat_map(|it| it.instances()) {
            let address = server.private_ip_address().expect("it has an address");
            let answer = crate::traffic::client(false).post(format!("http://{address}:8080/sick")).send().await;
            assert!(answer.expect("it is reached").status().is_success());
        }
    });
}

/// From the first bad answer to a visitor to the last.
fn badness(answers: &[Answer]) -> Option<f64> {
    let bad = answers.iter().filter(|answer| answer.kind == Kind::Short && answer.version.is_err());
    let ends: Vec<Instant> = bad.map(|answer| answer.ended).collect();
    Some((*ends.iter().max()? - *ends.iter().min()?).as_secs_f64())
}

/// Green goes sick at the moment that a step begins: all of its servers, or one of them. Traffic is with blue afterwards.
#[test]
fn green_that_goes_bad_goes_back_whenever_it_does() {
    let (world, blue, green) = two_versions("sick", QUICK_PROPAGATION);
    world.json(&["rollback"]).expect(0);
    world.json(&["hold", "finish"]).expect(0);
    world.app.replace("alcedo.yaml", "hold: { for: 10m, attended: false }", "hold: { for: 2m, attended: true }");
    let mut took = BTreeMap::new();
    for (step, all) in [("flip/switch", true), ("flip/prove", true), ("hold/watch", true), ("hold/watch", false)] {
        let mut load = Load::start(world.runtime.handle(), &world.nodes());
        let mut running = world.begin(&["deploy", "--version", &green]);
        running.until_begins(step);
        let (_, mut servers) = fleet(&world, &green);
        if !all {
            servers.truncate(1);
        }
        make_sick(&world, &servers);
        let run = running.end().expect(1);
        load.seen();
        let answers = load.stop();
        world.assert_answers(&blue);
        let what = format!("{step}, {}", if all { "all servers" } else { "one of two servers" });
        eprintln!("{what}: {}", text(&run.report()["failure"]["message"]));
        took.insert(what, badness(&answers).map(|seconds| (seconds * 100.0).round() / 100.0));
        assert_eq!(world.fleets(), [(blue.clone(), "in-service".into(), 2, 2)]);
    }
    eprintln!("seconds from the first bad answer to the last: {:#}", json!(took));
}
