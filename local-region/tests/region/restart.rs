//! A region that is stopped and started on the same folder is the same region.

use std::sync::Arc;

use alcedo_local_region::{
    clock::SystemClock,
    config::Config,
    instances::{Machines, records::Records},
    server::{self, StartError},
};
use aws_sdk_ec2::types::InstanceStateName;
use aws_sdk_s3::primitives::ByteStream;

use crate::support::{TestRegion, code};

#[tokio::test]
async fn records_objects_and_servers_are_there_again() {
    let region = TestRegion::start().await;
    let id = region.launch().await;
    let client = region.s3();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    let put = client.put_object().bucket("bucket").key("k").metadata("a", "b").body(ByteStream::from_static(b"kept"));
    put.send().await.unwrap();
    // As after a restart of the machine that the engine is on.
    region.machines.stop(&id).await.unwrap();

    let region = region.restart().await;
    assert_eq!(region.state(&id).await, InstanceStateName::Running);
    assert!(region.machines.is_running(&id).await.unwrap());
    let object = region.s3().get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(object.metadata().unwrap()["a"], "b");
    assert_eq!(object.body.collect().await.unwrap().to_vec(), b"kept");
}

#[tokio::test]
async fn what_was_under_way_is_taken_up() {
    let region = TestRegion::start().await;
    let (ending, stopping) = (region.launch().await, region.launch().await);
    let records = region.config.folder.join("records.json");
    let client = region.ec2();
    client.terminate_instances().instance_ids(&ending).send().await.unwrap();
    region.wait_for(&ending, InstanceStateName::Terminated).await;
    // A kill between the record of an intent and its machine's change leaves the record at the intent.
    let TestRegion { running, clock, machines, config, folder } = region;
    running.stop().await;
    let mut world: serde_json::Value = serde_json::from_slice(&std::fs::read(&records).unwrap()).unwrap();
    world["ec2"]["instances"][&stopping]["state"] = "shutting-down".into();
    std::fs::write(&records, world.to_string()).unwrap();
    let running = server::start_on(config.clone(), clock.clone(), machines.clone()).await.unwrap();
    let region = TestRegion { running, clock, machines, config, folder };
    region.wait_for(&stopping, InstanceStateName::Terminated).await;
    assert!(!region.machines.is_running(&stopping).await.unwrap());
}

#[tokio::test]
async fn one_folder_has_one_region_and_a_port_one_owner() {
    let region = TestRegion::start().await;
    let start = |config: Config| server::start_on(config, Arc::new(SystemClock), Arc::new(Records::new()));
    let twice = start(region.config.clone()).await.err().unwrap();
    assert!(matches!(twice, StartError::AlreadyRunning { .. }), "{twice}");
    let listen = region.running.region.config.listen;
    let taken = Config { folder: region.folder.path().join("other"), listen, ..region.config.clone() };
    let taken = start(taken).await.err().unwrap();
    assert!(matches!(taken, StartError::Listen { .. }), "{taken}");
    assert!(taken.hint().unwrap().contains(&listen.port().to_string()));
    let open = Config { listen: "0.0.0.0:0".parse().unwrap(), ..region.config.clone() };
    assert!(matches!(start(open).await.err().unwrap(), StartError::Config(_)));
}

#[tokio::test]
async fn records_of_another_format_are_refused_not_lost() {
    let region = TestRegion::start().await;
    let config = region.config.clone();
    let TestRegion { running, folder, .. } = region;
    running.stop().await;
    let path = config.folder.join("records.json");
    let text = std::fs::read_to_string(&path).unwrap().replacen("\"format\":1", "\"format\":99", 1);
    std::fs::write(&path, &text).unwrap();
    let refused = server::start_on(config, Arc::new(SystemClock), Arc::new(Records::new())).await.err().unwrap();
    assert!(matches!(refused, StartError::Records { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    drop(folder);
}

#[tokio::test]
async fn a_change_that_cannot_be_saved_is_told_and_is_saved_once_it_can_be() {
    let region = TestRegion::start().await;
    let client = region.ec2();
    // A folder in the way of the file: unlike missing permissions, it stops root too.
    let records = region.config.folder.join("records.json");
    std::fs::remove_file(&records).unwrap();
    std::fs::create_dir_all(records.join("in the way")).unwrap();
    let create = |name: &str| client.create_security_group().group_name(name).description("d").send();
    assert_eq!(code(create("one").await), "InternalError");
    assert!(region.running.region.unsaved().is_some());
    assert_eq!(code(create("two").await), "InternalError");
    client.describe_vpcs().send().await.unwrap();

    std::fs::remove_dir_all(&records).unwrap();
    create("two").await.unwrap();
    let region = region.restart().await;
    region.pass_lag();
    let groups = region.ec2().describe_security_groups().send().await.unwrap();
    let names: Vec<_> = groups.security_groups().iter().filter_map(|group| group.group_name()).collect();
    assert!(names.contains(&"one") && names.contains(&"two"), "{names:?}");
}

#[tokio::test]
async fn a_reset_leaves_nothing() {
    let region = TestRegion::start().await;
    let TestRegion { running, config, folder, .. } = region;
    running.stop().await;
    server::reset(&config).await.unwrap();
    assert!(!config.folder.exists());
    server::reset(&config).await.unwrap();
    drop(folder);
}
