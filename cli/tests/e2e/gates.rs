//! A run that waits for somebody's word, given by another process; and a hold that is lengthened and ended by hand.

use crate::{run::assert_says, world::World};

#[test]
fn a_run_waits_for_a_word_and_a_hold_for_another() {
    let world = World::new("gates");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.replace("alcedo.yaml", "\nflip:\n", "\napprovals:\n  - before: flip\n    within: 5m\n\nflip:\n");
    world.app.commit("One server, and somebody's word before traffic moves");
    let first = approved(&world);
    world.assert_answers(&first);
    world.tell("approved");

    world.app.greet("Hello, but not today.");
    let before = world.inventory();
    let mut running = world.begin(&["deploy"]);
    running.until_begins("approve/flip");
    let name = running.name();
    let said = world.run(&["reject", &name, "--reason", "wait for Monday"]).expect(0).stdout;
    assert_says(&said, &["rejected flip", &name]);
    let run = running.end().expect(1);
    assert_says(&run.failure(), &["rejected flip", "wait for Monday"]);
    before.assert_same(&world.inventory());
    world.assert_answers(&first);
    world.tell("rejected");

    world.app.greet("Hello, today.");
    let second = approved(&world);
    world.assert_answers(&second);
    assert_says(&world.run(&["hold", "extend", "2h"]).expect(0).stdout, &[&first, "is held until"]);
    world.json(&["hold", "finish"]).expect(0);
    assert_eq!(world.fleets(), [(second, "in-service".into(), 1, 1)]);
    let nothing = world.run(&["hold", "finish"]).expect(2);
    assert_says(&nothing.stderr, &["nothing is held"]);
}

/// Deploys, with a word from another process once it is waited for.
fn approved(world: &World) -> String {
    let mut running = world.begin(&["deploy"]);
    running.until_begins("approve/flip");
    let said = world.run(&["approve"]).expect(0).stdout;
    assert_says(&said, &["approved flip"]);
    running.end().expect(0).version()
}
