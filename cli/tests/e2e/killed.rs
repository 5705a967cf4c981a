//! A run whose process dies without a chance to undo anything: the next command ends what it left open.

use nix::sys::signal::Signal;

use crate::{
    run::{assert_says, text},
    world::{BUCKET, World},
};

/// Where the run that died left the environment's lock.
const LOCK: &str = "hello/environments/local/lock.json";

#[test]
fn what_a_killed_run_left_open_is_closed_by_the_next() {
    let world = World::new("killed");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server");
    let v1 = world.deploy();
    world.inventory().assert_nothing_open();
    world.tell("deployed the first version");

    world.app.greet("Hello, but killed.");
    let traffic = world.traffic();
    let mut run = world.begin(&["deploy"]);
    run.until_begins("bake/provision");
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().code, None, "a process that was killed has no exit code");
    world.empty_tmp();
    let left = world.inventory();
    let open = |port: &str| left.of("ingress rule").iter().any(|rule| rule.contains(port) && rule.contains("/32"));
    assert!(open("tcp 22-22"), "{:#?}", left.of("ingress rule"));
    assert_eq!((left.of("instance").len(), left.of("key pair").len()), (2, 1), "a builder and its key are left");

    // Nobody can know yet that it is dead: its lease says until when it is taken for alive.
    assert_says(&world.json(&["deploy"]).expect(4).failure(), &["e2e@", "the lock ends by itself"]);
    left.assert_same(&world.inventory());
    expire_the_lease(&world);

    let run = world.json(&["deploy"]).expect(0);
    let tally = traffic.stop();
    tally.assert_all_answered();
    tally.assert_versions(&[&v1, &run.version()]);
    let after = world.inventory();
    after.assert_nothing_open();
    assert_eq!(after.of("instance").len(), 2, "blue and green, no builder: {:?}", after.of("instance"));
    assert_eq!(world.fleets(), [(v1, "held".into(), 1, 1), (run.version(), "in-service".into(), 1, 1)]);
    world.tell("the next deploy ended what was left");
}

/// What time does two minutes after the last heartbeat, by the lease's own words.
fn expire_the_lease(world: &World) {
    let s3 = &world.clients().s3;
    world.runtime.block_on(async {
        let there = s3.get_object().bucket(BUCKET).key(LOCK).send().await.expect("the lock is there");
        let bytes = there.body.collect().await.expect("it can be read").into_bytes();
        let mut lease: serde_json::Value = serde_json::from_slice(&bytes).expect("a lease is JSON");
        assert_says(&text(&lease["holder"]), &["e2e@"]);
        lease["expires"] = lease["since"].clone();
        let body = serde_json::to_vec(&lease).expect("JSON").into();
        s3.put_object().bucket(BUCKET).key(LOCK).body(body).send().await.expect("it can be written");
    });
}
