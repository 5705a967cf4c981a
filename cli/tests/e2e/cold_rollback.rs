//! The way back to a version of which less and less is left: without its servers, without its image, without its artifact.

use alcedo_stages::clients::Clients;

use crate::{
    inventory::Inventory,
    run::{assert_says, text},
    world::{BUCKET, World},
};

/// Blue is retired at once, so that what a test goes back to has no fleet.
const NO_HOLD: (&str, &str) = ("hold: { for: 10m, attended: false }", "hold: { for: 0s }");

/// Each test of this file starts here: the second version is in service, of the first only artifact and image are left.
fn two_versions(world: &World) -> (String, String) {
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.replace("alcedo.yaml", NO_HOLD.0, NO_HOLD.1);
    world.app.commit("One server, no hold");
    let first = world.deploy();
    let traffic = world.traffic();
    world.app.greet("Hello again.");
    let run = world.json(&["deploy"]).expect(0);
    let second = run.version();
    assert!(run.steps().contains(&format!("retire/{first}/terminate")), "{:?}", run.steps());
    traffic.stop().assert_all_answered();
    assert_eq!(world.fleets(), [(second.clone(), "in-service".into(), 1, 1)]);
    world.tell("deployed two versions");
    (first, second)
}

#[test]
fn less_and_less_is_left_of_a_version() {
    let world = World::new("cold rollback");
    let (first, second) = two_versions(&world);

    remove_image(&world, &first);
    let run = world.json(&["rollback", "--to", &first]).expect(0);
    assert!(run.stages().contains("bake") && !run.stages().contains("build"), "{:?}", run.steps());
    world.assert_answers(&first);
    world.inventory().assert_nothing_open();
    world.tell("baked the first version again from its artifact");

    // The second is held now, so the way there needs neither; a third that is in service leaves it without servers.
    world.app.greet("Hello, third.");
    let third = world.deploy();
    assert_eq!(world.fleets(), [(third.clone(), "in-service".into(), 1, 1)]);
    let traffic = world.traffic();
    remove_object(&world, &second, "artifact.tar.zst");
    image_without_artifact(&world, &second, &third);
    neither_image_nor_artifact(&world, &first, &third);
    nothing_at_all(&world, &first, &third);
    traffic.stop().assert_all_answered();
}

/// The artifact's bytes are gone and the image is there: servers start from the image.
fn image_without_artifact(world: &World, version: &str, in_service: &str) {
    world.json(&["rollback", "--to", version]).expect(0);
    world.assert_answers(version);
    world.json(&["deploy", "--version", in_service]).expect(0);
    world.assert_answers(in_service);
    world.tell("an image serves without its artifact");
}

/// The manifest still tells of an artifact that is not there, and no image is: it fails, says so, and is unwound.
fn neither_image_nor_artifact(world: &World, version: &str, in_service: &str) {
    remove_image(world, version);
    remove_object(world, version, "artifact.tar.zst");
    let before = world.inventory();
    let run = world.json(&["rollback", "--to", version]);
    assert!(matches!(run.code, Some(1 | 2)), "{:?}: {}", run.code, run.stdout);
    let said = run.failure();
    assert_says(&said, &[version, "artifact", in_service]);
    before.assert_same(&world.inventory());
    world.assert_answers(in_service);
    world.tell("refused a version without image and artifact");
}

/// Nothing is left but its name: what exists is listed.
fn nothing_at_all(world: &World, version: &str, in_service: &str) {
    remove_object(world, version, "manifest.json");
    let before = world.inventory();
    for command in [["rollback", "--to", version], ["deploy", "--version", version]] {
        let run = world.json(&command).expect(2);
        assert_says(&run.failure(), &[version, "neither artifact, image nor fleet", in_service]);
    }
    let releases = world.json(&["releases"]).expect(0);
    let listed: Vec<String> =
        releases.json()["releases"].as_array().unwrap().iter().map(|one| text(&one["version"])).collect();
    assert!(listed.iter().all(|listed| listed != version), "{listed:?}");
    before.assert_same(&world.inventory());
    world.tell("refused a version of which nothing is left");
}

/// Deregisters a version's image and deletes its snapshots, as somebody who tidies up does.
fn remove_image(world: &World, version: &str) {
    let before = world.inventory().of("image").len();
    world.runtime.block_on(deregister(world.clients(), version));
    assert_eq!(world.inventory().of("image").len(), before - 1, "the image of {version} is gone");
}

async fn deregister(clients: &Clients, version: &str) {
    let found = clients.ec2.describe_images().owners("self").send().await.expect("images are listed");
    let named = |name: Option<&str>| name.is_some_and(|name| name.starts_with(&format!("hello/{version}/")));
    let image = found.images().iter().find(|image| named(image.name())).expect("the version has an image");
    clients.ec2.deregister_image().image_id(image.image_id().unwrap()).send().await.expect("it is deregistered");
    for mapping in image.block_device_mappings() {
        if let Some(snapshot) = mapping.ebs().and_then(|disk| disk.snapshot_id()) {
            clients.ec2.delete_snapshot().snapshot_id(snapshot).send().await.expect("its snapshot is deleted");
        }
    }
}

fn remove_object(world: &World, version: &str, name: &str) {
    let key = format!("hello/{version}/{name}");
    let there = |inventory: &Inventory| inventory.of("object").iter().any(|object| object.starts_with(&key));
    assert!(there(&world.inventory()), "{key} is there");
    let call = world.clients().s3.delete_object().bucket(BUCKET).key(&key);
    world.runtime.block_on(call.send()).expect("it is deleted");
    assert!(!there(&world.inventory()), "{key} is gone");
}
