//! Images: recipe roots, captures, names, and what is left of them.

use aws_sdk_ec2::types::{Filter, ImageAttributeName, ImageState, InstanceStateName, LaunchPermission, ResourceType};

use crate::support::{TestRegion, code, tagged};

#[tokio::test]
async fn a_recipes_root_is_found_by_owner_name_and_tag() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let answer = client
        .describe_images()
        .owners("self")
        .filters(filter("name", "alcedo/debian-*"))
        .filters(filter("tag:alcedo:recipe", "debian-bookworm"))
        .filters(filter("architecture", "x86_64"))
        .send()
        .await
        .unwrap();
    let image = &answer.images()[0];
    assert_eq!(image.root_device_name(), Some("/dev/xvda"));
    assert_eq!(image.state(), Some(&ImageState::Available));
    let id = image.image_id().unwrap();
    assert_eq!(id.len(), "ami-".len() + 17);
    assert_eq!(code(client.deregister_image().image_id(id).send().await), "AuthFailure", "it is the engine's");
    let none = client.describe_images().filters(filter("name", "alcedo/debian-?")).send().await.unwrap();
    assert!(none.images().is_empty());
}

#[tokio::test]
async fn an_image_is_pending_then_available_launches_and_leaves_its_snapshot() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let server = region.launch().await;
    let create = |name: &str| {
        client
            .create_image()
            .instance_id(&server)
            .name(name)
            .tag_specifications(tagged(ResourceType::Image, "version", "1"))
            .tag_specifications(tagged(ResourceType::Snapshot, "version", "1"))
            .send()
    };
    assert_eq!(code(create("x+").await), "InvalidAMIName.Malformed");
    let image = create("hello-1").await.unwrap().image_id().unwrap().to_owned();
    assert_eq!(code(create("hello-1").await), "InvalidAMIName.Duplicate");

    let describe = || client.describe_images().image_ids(&image).send();
    assert_eq!(code(describe().await), "InvalidAMIID.NotFound", "seen late");
    let state = async || {
        // Each look moves the clock, by which both lags pass.
        region.pass_lag();
        describe().await.unwrap().images()[0].state().unwrap().clone()
    };
    region.until("the image is available", async || state().await == ImageState::Available).await;
    assert_eq!(region.state(&server).await, InstanceStateName::Running, "it was rebooted, and runs");

    let launch = client.run_instances().image_id(&image).instance_type("t3.micro".into()).min_count(1).max_count(1);
    launch.send().await.unwrap();
    let described = describe().await.unwrap();
    let described = &described.images()[0];
    assert_eq!(described.tags()[0].value(), Some("1"));
    let snapshot = described.block_device_mappings()[0].ebs().unwrap().snapshot_id().unwrap();
    let delete = || client.delete_snapshot().snapshot_id(snapshot).send();
    assert_eq!(code(delete().await), "InvalidSnapshot.InUse");
    client.deregister_image().image_id(&image).send().await.unwrap();
    assert_eq!(code(describe().await), "InvalidAMIID.NotFound");
    let left = client.describe_snapshots().owner_ids("self").send().await.unwrap();
    assert_eq!(left.snapshots()[0].tags()[0].value(), Some("1"), "deregistering leaves the snapshot");
    delete().await.unwrap();
}

#[tokio::test]
async fn launch_permissions_are_kept_as_records() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let image = region.base_image().await;
    let modify = aws_sdk_ec2::types::LaunchPermissionModifications::builder()
        .add(LaunchPermission::builder().user_id("111122223333").build())
        .build();
    client.modify_image_attribute().image_id(&image).launch_permission(modify).send().await.unwrap();
    let answer = client
        .describe_image_attribute()
        .image_id(&image)
        .attribute(ImageAttributeName::LaunchPermission)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.launch_permissions()[0].user_id(), Some("111122223333"));
}

#[tokio::test]
async fn key_pairs_are_made_brought_and_not_made_twice() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    let ed25519 = aws_sdk_ec2::types::KeyType::Ed25519;
    let made = client.create_key_pair().key_name("k").key_type(ed25519).send().await.unwrap();
    assert!(made.key_material().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert_eq!(code(client.create_key_pair().key_name("k").send().await), "InvalidKeyPair.Duplicate");
    let seen = client.describe_key_pairs().key_names("k").include_public_key(true).send().await.unwrap();
    let public_key = seen.key_pairs()[0].public_key().unwrap();
    let material = aws_sdk_ec2::primitives::Blob::new(public_key.as_bytes());
    let brought = client.import_key_pair().key_name("other").public_key_material(material).send().await.unwrap();
    assert_eq!(brought.key_fingerprint(), made.key_fingerprint(), "one key, one fingerprint");
    client.delete_key_pair().key_name("k").send().await.unwrap();
    client.delete_key_pair().key_name("k").send().await.unwrap();
    assert_eq!(code(client.describe_key_pairs().key_names("k").send().await), "InvalidKeyPair.NotFound");
}
