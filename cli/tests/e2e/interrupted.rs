//! A run that is told to stop, in every stage: it goes back by itself, and visitors notice nothing.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::{
    run::{Ended, assert_says, text},
    world::World,
};

/// When the builder's script has said its first word, which is later than the step's beginning.
const PROVISIONING: &str = "the first output of bake/provision";
const HOLD: &str = "hold: { for: 10m, attended: false }";

/// Every stage before the point of no return, and the steps in which most is open, each with the signal that comes when it
/// begins and the exit code that stands for it.
const MOMENTS: [(&str, Signal, i32); 10] = [
    ("build", Signal::SIGINT, 130),
    ("publish", Signal::SIGINT, 130),
    ("bake", Signal::SIGINT, 130),
    // The builder runs, its port 22 is open, and somebody is logged in.
    ("bake/provision", Signal::SIGHUP, 129),
    (PROVISIONING, Signal::SIGINT, 130),
    ("launch", Signal::SIGINT, 130),
    ("smoke", Signal::SIGINT, 130),
    ("flip", Signal::SIGINT, 130),
    // Green has the traffic already.
    ("flip/prove", Signal::SIGTERM, 143),
    ("hold/watch", Signal::SIGINT, 130),
];

#[test]
fn told_to_stop_a_run_goes_back_whatever_stage_it_is_in() {
    let world = World::new("interrupted");
    world.app.replace("alcedo.yaml", HOLD, "hold: { for: 60s, attended: true }");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server, an attended hold");
    let v1 = world.deploy();
    let before = world.inventory();
    world.tell("deployed the first version");

    for (moment, signal, code) in MOMENTS {
        world.app.greet(&format!("Hello, but stopped in {moment}."));
        let traffic = world.traffic();
        let run = stopped(&world, moment, signal).expect(code);
        let tally = traffic.stop();
        tally.assert_all_answered();
        assert_eq!(run.report()["outcome"], "interrupted", "{moment}: {}", run.report());
        let after = world.inventory();
        before.assert_same(&after);
        after.assert_nothing_open();
        world.assert_answers(&v1);
        assert_eq!(world.fleets(), [(v1.clone(), "in-service".into(), 1, 1)], "after {signal} in {moment}");
        world.tell(&format!("{signal} in {moment}"));
    }
    after_the_point_of_no_return(&world, &v1);
}

/// What retire has begun cannot be undone, and it is not pretended: the new version stays, and what is left is named.
fn after_the_point_of_no_return(world: &World, v1: &str) {
    world.app.replace("alcedo.yaml", "hold: { for: 60s, attended: true }", "hold: { for: 0s }");
    world.app.greet("Hello, stopped in retire.");
    let traffic = world.traffic();
    let run = stopped(world, "retire", Signal::SIGINT).expect(3);
    traffic.stop().assert_all_answered();
    let v2 = run.version();
    assert_eq!(run.report()["outcome"], "stuck");
    assert!(run.undone().is_empty(), "{:?}", run.undone());
    let left: Vec<String> =
        run.report()["left"].as_array().expect("what is left").iter().map(|one| text(&one["step"])).collect();
    let of_v1 = |what: &str| format!("retire/{v1}/{what}");
    assert_eq!(left, [of_v1("drain"), of_v1("terminate"), of_v1("target-group")]);
    // For a person: which version is in service, and what is not done.
    let told = world.run(&["runs", "show", &text(&run.report()["run"])]).expect(0).stdout;
    assert_says(&told, &["is stuck", &v2, "not done", &format!("terminate the 1 servers of {v1}")]);
    world.assert_answers(&v2);
    world.tell("SIGINT in retire");

    // The next deploy finishes what was begun.
    world.app.greet("Hello, after that.");
    let v3 = world.deploy();
    world.assert_answers(&v3);
    assert_eq!(world.fleets(), [(v3, "in-service".into(), 1, 1)]);
    let inventory = world.inventory();
    assert_eq!((inventory.of("instance").len(), inventory.of("target group").len()), (1, 1));
    world.tell("the next deploy retired what was left");
}

/// Deploys, and stops it as soon as the stage or step begins.
fn stopped(world: &World, stage: &str, signal: Signal) -> Ended {
    let mut run = world.begin(&["deploy"]);
    match stage {
        PROVISIONING => {
            run.until(stage, |event| event["event"] == "output" && event["step"] == "bake/provision");
        }
        stage => run.until_begins(stage),
    }
    run.signal(signal);
    run.end()
}

/// A base image that is stopped in the making: nothing of it goes on, and nothing of it stays.
#[test]
fn told_to_stop_a_base_image_leaves_nothing() {
    let world = World::new("base-image");
    let recipe = world.path().join("app/recipes/stopped");
    std::fs::create_dir_all(&recipe).expect("a folder can be made");
    std::fs::write(
        recipe.join("recipe.yaml"),
        "version: 1\nname: stopped\nsuite: bookworm\ncomponents: [main]\nmirror: http://deb.debian.org/debian\n\
         security_mirror: http://deb.debian.org/debian-security\npackages: [usr-is-merged]\n",
    )
    .expect("it can be written");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let run = world.begin(&["image", "build", "./recipes/stopped"]);
        let begun = Instant::now();
        while !processes_of(&world).iter().any(|name| name.contains("mmdebstrap")) {
            assert!(begun.elapsed() < Duration::from_secs(60), "mmdebstrap was not started");
            std::thread::sleep(Duration::from_millis(100));
        }
        // It has made its folders by then.
        std::thread::sleep(Duration::from_secs(2));
        run.signal(signal);
        run.end().expect(if signal == Signal::SIGTERM { 143 } else { 130 });
        let left: Vec<String> = processes_of(&world).into_iter().filter(|it| !it.contains("alcedo")).collect();
        assert_eq!(left, [""; 0], "after {signal}");
        let files = std::fs::read_dir(world.path().join("tmp")).expect("it is there").flatten();
        // The lock that keeps two from making a root at once stays: whoever removed it could let two of them through.
        let files: Vec<_> = files.map(|file| file.file_name().into_string().expect("a name")).collect();
        assert!(files.iter().all(|name| name.starts_with("alcedo-bootstrap-")), "after {signal}: {files:?}");
    }
    world.empty_tmp();
}

/// The command lines of the processes whose folder for temporary files is this world's.
fn processes_of(world: &World) -> Vec<String> {
    let tmp = format!("TMPDIR={}", world.path().join("tmp").display());
    let processes = std::fs::read_dir("/proc").expect("it is there").flatten().map(|process| process.path());
    let of_world = processes.filter(|process| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == tmp.as_bytes())
    });
    of_world.map(|it| String::from_utf8_lossy(&std::fs::read(it.join("cmdline")).unwrap_or_default()).into()).collect()
}

/// A second Ctrl-C leaves at once, and says what stands and until when; the watchdog ends what is leased. A reader that goes
/// away stops a run like a signal does.
#[test]
fn told_twice_a_run_leaves_and_told_into_a_closed_pipe_it_goes_back() {
    let world = World::new("told-twice");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server");
    let v1 = world.deploy();
    let before = world.inventory();

    world.app.greet("Hello, nobody reads this.");
    let mut run = world.begin(&["deploy"]);
    run.until_begins("bake/provision");
    run.stop_reading();
    let ended = run.end();
    assert_eq!(ended.code, Some(141), "{}", ended.stderr);
    before.assert_same(&world.inventory());
    world.tell("a closed pipe unwound the run");

    world.app.greet("Hello, but told twice.");
    let mut run = world.begin(&["deploy"]);
    run.until_begins("bake/provision");
    let name = run.name();
    run.signal(Signal::SIGINT);
    // The first is answered before the second comes.
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::SIGINT);
    let ended = run.end().expect(3);
    let undo = format!("alcedo rollback --run {name}");
    assert_says(
        &ended.stderr,
        &["left in the middle", "its watchdog closes SSH", "security group rule sgr-", "at most", &undo],
    );
    world.assert_tmp_is_empty();
    let begun = Instant::now();
    while world.inventory().of("instance").len() > 1
        || !world.inventory().of("ingress rule").iter().all(|it| !it.contains("/32"))
    {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:#?}", world.inventory());
        std::thread::sleep(Duration::from_millis(250));
    }
    world.tell("its watchdog ended the leases");
    // The next deploy settles the run, and says so.
    world.app.greet("Hello, after that.");
    let next = world.json(&["deploy"]).expect(0);
    assert_says(&next.stderr, &[&format!("run {name} is undone")]);
    world.assert_answers(&next.version());
    assert_eq!(world.fleets().len(), 2, "{v1} is held: {:?}", world.fleets());
    assert_says(&world.run(&["sweep", "--dry-run"]).expect(0).stdout, &["nothing is left over"]);
    world.tell("the next deploy settled what was left");
}
