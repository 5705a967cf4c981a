//! One app from its first deploy over rollbacks to a version whose servers are long gone, with visitors all the time.

use crate::{run::Ended, world::World};

/// Stages that make something new, before any fleet is launched.
const MAKING: [&str; 3] = ["build", "publish", "bake"];

#[test]
fn a_life_of_deploys_and_rollbacks() {
    let world = World::new("lifecycle");
    let v1 = first_deploy(&world);
    let traffic = world.traffic();

    unchanged(&world, &v1);
    let v2 = changed(&world, &v1);
    held_rollback(&world, &v1, &v2);
    forward_again(&world, &v1, &v2);
    let v3 = third(&world, &v1, &v2);
    cold_rollback(&world, &v1, &v2, &v3);

    let tally = traffic.stop();
    tally.assert_all_answered();
    let answered: Vec<&str> = tally.versions.keys().map(String::as_str).collect();
    assert_eq!(answered, [&v1, &v2, &v3], "the versions that ever answered");
    world.tell(&format!("{} requests", tally.sent));
}

fn first_deploy(world: &World) -> String {
    let run = world.json(&["deploy"]).expect(0);
    let stages: Vec<String> = run.stages().into_iter().collect();
    assert_eq!(stages, ["bake", "build", "flip", "launch", "publish", "smoke"]);
    assert!(run.undone().is_empty(), "{:?}", run.undone());
    assert_eq!(run.report()["outcome"], "done");
    let version = run.version();
    world.assert_answers(&version);
    assert_eq!(world.fleets(), [(version.clone(), "in-service".into(), 2, 2)]);
    let inventory = world.inventory();
    inventory.assert_nothing_open();
    assert_eq!(inventory.of("instance").len(), 2, "the builder is gone: {:?}", inventory.of("instance"));
    world.tell("deployed the first version");
    version
}

fn unchanged(world: &World, v1: &str) {
    let before = world.inventory();
    let run = world.json(&["deploy"]).expect(0);
    assert_eq!(run.version(), v1);
    assert_eq!(run.steps(), [""; 0]);
    before.assert_same(&world.inventory());
    world.tell("deployed the same again");
}

fn changed(world: &World, v1: &str) -> String {
    world.app.greet("Hello again.");
    let before = world.inventory();
    // Green is tested and healthy before the listener names it.
    let mut run = world.begin(&["deploy"]);
    run.until_begins("flip/switch");
    world.assert_answers(v1);
    let run = run.end().expect(0);
    let v2 = run.version();
    assert!(v2.as_str() != v1 && run.report()["replaces"] == v1, "{}", run.report());
    world.assert_answers(&v2);
    assert_eq!(world.fleets(), [(v1.to_owned(), "held".into(), 2, 2), (v2.clone(), "in-service".into(), 2, 2)]);
    let after = world.inventory();
    after.assert_nothing_open();
    for server in before.of("instance") {
        assert!(after.of("instance").contains(&server), "{server} of blue was touched");
    }
    world.tell("deployed a change");
    v2
}

fn held_rollback(world: &World, v1: &str, v2: &str) {
    let before = world.inventory();
    let run = world.json(&["rollback"]).expect(0);
    assert_eq!(run.version(), v1);
    assert_eq!(run.steps().first().map(String::as_str), Some("flip/switch"));
    assert_makes_nothing(&run, &["launch", "smoke"]);
    world.assert_answers(v1);
    let after = world.inventory();
    for kind in ["instance", "image", "snapshot", "object", "target", "listener rule"] {
        assert_eq!(before.of(kind), after.of(kind), "{kind}");
    }
    assert_ne!(before.of("listener"), after.of("listener"));
    assert_eq!(world.fleets(), [(v1.to_owned(), "in-service".into(), 2, 2), (v2.to_owned(), "held".into(), 2, 2)]);
    world.tell("rolled back to the held version");
}

fn forward_again(world: &World, v1: &str, v2: &str) {
    let before = world.inventory();
    let run = world.json(&["deploy", "--version", v2]).expect(0);
    assert_eq!(run.version(), v2);
    assert_makes_nothing(&run, &["launch"]);
    world.assert_answers(v2);
    let after = world.inventory();
    assert_eq!(before.of("instance"), after.of("instance"));
    assert_eq!(before.of("object"), after.of("object"));
    assert_eq!(world.fleets(), [(v1.to_owned(), "held".into(), 2, 2), (v2.to_owned(), "in-service".into(), 2, 2)]);
    world.tell("went forward to the held version");
}

fn third(world: &World, v1: &str, v2: &str) -> String {
    world.app.greet("Hello, third.");
    let run = world.json(&["deploy"]).expect(0);
    let v3 = run.version();
    let retired: Vec<String> = run.steps().into_iter().filter(|step| step.starts_with("retire/")).collect();
    let of_v1 = |what: &str| format!("retire/{v1}/{what}");
    assert_eq!(retired, [of_v1("drain"), of_v1("terminate"), of_v1("target-group")]);
    world.assert_answers(&v3);
    assert_eq!(world.fleets(), [(v2.to_owned(), "held".into(), 2, 2), (v3.clone(), "in-service".into(), 2, 2)]);
    let inventory = world.inventory();
    inventory.assert_nothing_open();
    assert_eq!((inventory.of("instance").len(), inventory.of("target group").len()), (4, 2));
    world.tell("deployed a third version, which retired the first");
    v3
}

fn cold_rollback(world: &World, v1: &str, v2: &str, v3: &str) {
    let before = world.inventory();
    let run = world.json(&["rollback", "--to", v1]).expect(0);
    assert_eq!(run.version(), v1);
    assert_makes_nothing(&run, &[]);
    assert!(run.stages().contains("launch") && run.stages().contains("smoke"), "{:?}", run.stages());
    world.assert_answers(v1);
    let after = world.inventory();
    after.assert_nothing_open();
    for kind in ["image", "snapshot", "object"] {
        assert_eq!(before.of(kind), after.of(kind), "{kind}");
    }
    let fleets = world.fleets();
    let fleet = |version: &str| fleets.iter().find(|fleet| fleet.0 == version).cloned();
    assert_eq!(fleet(v1), Some((v1.to_owned(), "in-service".into(), 2, 2)));
    assert_eq!(fleet(v3), Some((v3.to_owned(), "held".into(), 2, 2)));
    assert_eq!(fleet(v2).map(|it| it.1).as_deref(), Some("held"));
    world.tell("rolled back to a version whose servers were gone");
}

#[track_caller]
fn assert_makes_nothing(run: &Ended, nor: &[&str]) {
    let stages = run.stages();
    for stage in MAKING.iter().chain(nor) {
        assert!(!stages.contains(*stage), "{stage} ran: {:?}", run.steps());
    }
}
