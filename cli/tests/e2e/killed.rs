//! A run whose process dies without a chance to undo anything: its watchdog ends what it has leased; where that died too,
//! the next command does; and the run is finished or undone from its journal.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::{
    inventory::Inventory,
    run::{assert_says, text},
    world::World,
};

/// A watchdog looks until new rules can no longer be invisible: ten seconds, and the time that the cloud takes.
const WATCHDOG_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn what_a_killed_run_left_open_is_closed_by_its_watchdog_and_the_run_goes_on() {
    let world = World::new("killed");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server");
    let v1 = world.deploy();
    let before = world.inventory();
    before.assert_nothing_open();
    world.tell("deployed the first version");

    world.app.greet("Hello, but killed.");
    let traffic = world.traffic();
    let killed = killed_in(&world, "bake/provision");
    let begun = Instant::now();
    let left = loop {
        let now = world.inventory();
        if !is_open(&now) && now.of("key pair").is_empty() && now.of("instance").len() == 1 {
            break now;
        }
        assert!(begun.elapsed() < WATCHDOG_WITHIN, "SSH, key or builder are still there: {now:#?}");
        std::thread::sleep(Duration::from_millis(250));
    };
    left.assert_nothing_open();
    world.tell(&format!("its watchdog had ended everything after {:.1} s", begun.elapsed().as_secs_f64()));

    // What it published is there, and so is its journal: another process finishes it.
    let run = world.json(&["resume", &killed]).expect(0);
    assert_eq!(text(&run.report()["run"]), killed);
    let tally = traffic.stop();
    tally.assert_all_answered();
    tally.assert_versions(&[&v1, &run.version()]);
    let after = world.inventory();
    after.assert_nothing_open();
    assert_eq!(after.of("instance").len(), 2, "blue and green, no builder: {:?}", after.of("instance"));
    let v2 = run.version();
    assert_eq!(world.fleets(), [(v1, "held".into(), 1, 1), (v2, "in-service".into(), 1, 1)]);
    world.run(&["resume"]).expect(2);
    world.tell("resume finished it");
}

#[test]
fn what_a_run_and_its_watchdog_left_open_is_closed_by_the_next_and_the_run_undone() {
    let world = World::new("killed-both");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server");
    let v1 = world.deploy();
    let before = world.inventory();
    world.tell("deployed the first version");

    world.app.greet("Hello, but killed twice.");
    let mut run = world.begin(&["deploy"]);
    run.until_begins("bake/provision");
    let killed = run.name();
    run.signal_watchdog(Signal::SIGKILL);
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().code, None, "a process that was killed has no exit code");
    world.empty_tmp();
    let left = world.inventory();
    assert!(is_open(&left), "{:#?}", left.of("ingress rule"));
    assert_eq!((left.of("instance").len(), left.of("key pair").len()), (2, 1), "a builder and its key are left");

    // Any command closes it, and says so; the dead process's lease is not waited for on the same machine.
    let status = world.run(&["status"]).expect(0);
    assert_says(&status.stderr, &["closed port 22", &killed]);
    let closed = world.inventory();
    assert!(!is_open(&closed), "{:#?}", closed.of("ingress rule"));
    assert_says(&status.stderr, &["the builder of run"]);
    world.tell("status closed what was open");

    let undone = world.run(&["rollback", "--run", &killed]).expect(0);
    assert_says(&undone.stdout, &["undo"]);
    before.assert_same(&world.inventory());
    world.assert_answers(&v1);
    world.tell("rollback --run undid the rest");
}

/// A CI system cancels a job: the shell that ran the step, and whatever read its output, are gone without a word to anybody.
/// Nobody reads the deploy any more, and that is word enough. As on a CI machine there is no terminal, no agent, no home.
#[test]
fn a_parent_that_dies_without_notice_leaves_nothing_behind() {
    let world = World::new("orphaned");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server");
    let v1 = world.deploy();
    let before = world.inventory();
    world.tell("deployed the first version");

    world.app.greet("Hello, but nobody listens.");
    let (reader, log) = (world.path().join("reader.pid"), world.path().join("job.log"));
    let deploy = world.command(&["deploy", "--output", "lines"]);
    let deploy = deploy.as_std();
    let words: Vec<String> = std::iter::once(deploy.get_program())
        .chain(deploy.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let line =
        format!("{} 2>&1 | {{ echo $BASHPID >{}; exec cat >{}; }}", words.join(" "), reader.display(), log.display());
    let mut parent = std::process::Command::new("setsid");
    parent.args(["bash", "-c", &line]).current_dir(deploy.get_current_dir().expect("it has one"));
    parent.env_clear().stdin(std::process::Stdio::null());
    let set = deploy.get_envs().filter_map(|(name, value)| Some((name, value?))).filter(|(name, _)| *name != "HOME");
    parent.envs(set);
    let mut parent = parent.spawn().expect("there is a shell");
    let begun = Instant::now();
    while !is_open(&world.inventory()) {
        let told = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(begun.elapsed() < Duration::from_secs(60), "it never opened SSH: {told}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let reader: i32 = std::fs::read_to_string(&reader).expect("the reader's id").trim().parse().expect("a number");
    for pid in [parent.id() as i32, reader] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    }
    parent.wait().expect("it is gone");
    let begun = Instant::now();
    let undone = loop {
        let runs = world.json(&["runs", "--limit", "1"]).expect(0);
        let newest = runs.json()["runs"][0].clone();
        if newest["outcome"] != serde_json::Value::Null {
            break newest;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it still runs: {newest}");
        std::thread::sleep(Duration::from_millis(250));
    };
    assert_eq!(text(&undone["outcome"]), "interrupted", "{undone}");
    let after = world.inventory();
    after.assert_nothing_open();
    before.assert_same(&after);
    world.assert_answers(&v1);
    world.tell(&format!("{:.1} s after its parent had gone, everything was undone", begun.elapsed().as_secs_f64()));
}

/// Deploys, and kills the process as soon as the step begins. Answers the run's name.
fn killed_in(world: &World, step: &str) -> String {
    let mut run = world.begin(&["deploy"]);
    run.until_begins(step);
    let name = run.name();
    assert!(is_open(&world.inventory()), "SSH is open while {step} runs");
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().code, None, "a process that was killed has no exit code");
    world.empty_tmp();
    name
}

fn is_open(inventory: &Inventory) -> bool {
    inventory.of("ingress rule").iter().any(|rule| rule.contains("tcp 22-22") && rule.contains("/32"))
}
