//! One app from its first deploy over rollbacks to a version whose servers are long gone, with visitors all the time.

use serde_json::{Value, json};

use crate::{
    reading,
    run::{Ended, text},
    world::{BUCKET, World},
};

/// Stages that make something new, before any fleet is launched.
const MAKING: [&str; 3] = ["build", "publish", "bake"];

#[test]
fn a_life_of_deploys_and_rollbacks() {
    let world = World::new("lifecycle");
    reading::nothing_deployed_yet(&world);
    let key = world.sign();
    let v1 = first_deploy(&world, &key);
    bill_of_materials(&world, &v1);
    unchanged(&world, &v1);
    let v2 = changed(&world, &v1);
    held_rollback(&world, &v1, &v2);
    forward_again(&world, &v1, &v2);
    let v3 = third(&world, &v1, &v2);
    unsigned(&world, &v1);
    cold_rollback(&world, &v1, &v2, &v3);
    reading::after_deploys(&world, &[&v1, &v2, &v3], &v1);
}

fn first_deploy(world: &World, key: &str) -> String {
    let run = world.json(&["deploy", "-vvv"]).expect(0);
    assert!(!run.stdout.contains(key) && !run.stderr.contains(key), "the private key is in the output");
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

/// What the bake has written down is what is there, as a server's own dpkg tells it.
fn bill_of_materials(world: &World, version: &str) {
    let releases = world.json(&["releases"]).expect(0);
    let release = &releases.json()["releases"][0];
    let image = text(&release["image"]);
    let key = format!("hello/{version}/sbom-{image}.cdx.json");
    assert_eq!(release["sboms"], json!([format!("s3://{BUCKET}/{key}")]));
    let bom: Value = serde_json::from_slice(&world.object(&key)).expect("it is JSON");
    assert_eq!(bom["metadata"]["component"]["version"], version);

    let inventory = world.inventory();
    let server = inventory.of("instance")[0].split(' ').next().expect("its id");
    let listed = world.ask(server, &["dpkg-query", "--show", "--showformat=${Package} ${Version} ${Architecture}\\n"]);
    let mut listed: Vec<&str> = listed.lines().map(str::trim).collect();
    listed.sort_unstable();
    let packages = bom["components"].as_array().expect("components").iter().filter(|it| it["type"] == "library");
    let in_words = |package: &Value| {
        let purl = text(&package["purl"]);
        let architecture = purl.split("arch=").nth(1).expect("an architecture").split('&').next().unwrap_or_default();
        format!("{} {} {architecture}", text(&package["name"]), text(&package["version"]))
    };
    let mut told: Vec<String> = packages.map(in_words).collect();
    told.sort_unstable();
    assert!(told.len() > 50 && told.iter().any(|line| line.starts_with("openssh-server ")), "{told:?}");
    assert_eq!(told, listed);
    world.tell("compared the bill of materials with a server");
}

/// A version that somebody has taken the signature from is not gone back to.
fn unsigned(world: &World, version: &str) {
    let key = format!("hello/{version}/manifest.json.sig");
    let signature = world.object(&key);
    let s3 = &world.clients().s3;
    world.runtime.block_on(s3.delete_object().bucket(BUCKET).key(&key).send()).expect("it is deleted");
    let before = world.inventory();
    let run = world.json(&["rollback", "--to", version]).expect(1);
    let error = run.events.iter().find(|event| event["event"] == "error").expect("it says why");
    assert_eq!((text(&error["id"]), text(&error["causes"][0])), ("untrusted".into(), "it is not signed".into()));
    before.assert_same(&world.inventory());
    let put = s3.put_object().bucket(BUCKET).key(&key).body(signature.into());
    world.runtime.block_on(put.send()).expect("it is put back");
    world.tell("did not go back to a version that is not signed");
}

fn unchanged(world: &World, v1: &str) {
    let before = world.inventory();
    let (run, tally) = world.with_visitors(&["deploy"]);
    let run = run.expect(0);
    tally.assert_versions(&[v1]);
    assert_eq!(run.version(), v1);
    assert_eq!(run.steps(), [""; 0]);
    before.assert_same(&world.inventory());
    world.tell("deployed the same again");
}

fn changed(world: &World, v1: &str) -> String {
    world.app.greet("Hello again.");
    let before = world.inventory();
    let (run, tally) = world.with_visitors(&["deploy"]);
    let run = run.expect(0);
    let v2 = run.version();
    tally.assert_versions(&[v1, &v2]);
    assert!(
        tally.versions[&v2].first > run.moment("step-started", "flip/switch"),
        "green had visitors before the flip"
    );
    assert!(tally.versions[v1].last < run.moment("step-succeeded", "flip/prove"), "blue had visitors after the proof");
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
    let (run, tally) = world.with_visitors(&["rollback"]);
    let run = run.expect(0);
    assert_eq!(run.version(), v1);
    tally.assert_versions(&[v1, v2]);
    assert!(tally.versions[v2].last < run.moment("step-succeeded", "flip/prove"), "{tally:?}");
    assert_eq!(run.steps().first().map(String::as_str), Some("flip/switch"));
    assert_makes_nothing(&run, &["launch", "smoke"]);
    world.assert_answers(v1);
    // The listener, and the marks on the two target groups that tell which fleet is held.
    before.assert_same_but(&["listener", "target group"], &world.inventory());
    assert_eq!(world.fleets(), [(v1.to_owned(), "in-service".into(), 2, 2), (v2.to_owned(), "held".into(), 2, 2)]);
    world.tell("rolled back to the held version");
}

fn forward_again(world: &World, v1: &str, v2: &str) {
    let before = world.inventory();
    let (run, tally) = world.with_visitors(&["deploy", "--version", v2]);
    let run = run.expect(0);
    tally.assert_versions(&[v1, v2]);
    assert_eq!(run.version(), v2);
    assert_makes_nothing(&run, &["launch"]);
    world.assert_answers(v2);
    before.assert_same_but(&["listener", "target group"], &world.inventory());
    assert_eq!(world.fleets(), [(v1.to_owned(), "held".into(), 2, 2), (v2.to_owned(), "in-service".into(), 2, 2)]);
    world.tell("went forward to the held version");
}

fn third(world: &World, v1: &str, v2: &str) -> String {
    world.app.greet("Hello, third.");
    let (run, tally) = world.with_visitors(&["deploy"]);
    let run = run.expect(0);
    let v3 = run.version();
    tally.assert_versions(&[v2, &v3]);
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
    let (run, tally) = world.with_visitors(&["rollback", "--to", v1]);
    let run = run.expect(0);
    assert_eq!(run.version(), v1);
    tally.assert_versions(&[v1, v3]);
    assert_makes_nothing(&run, &[]);
    assert!(run.stages().contains("launch") && run.stages().contains("smoke"), "{:?}", run.stages());
    world.assert_answers(v1);
    let after = world.inventory();
    after.assert_nothing_open();
    let new_fleet = ["instance", "listener", "listener rule", "target", "target group", "volume"];
    before.assert_same_but(&new_fleet, &after);
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
