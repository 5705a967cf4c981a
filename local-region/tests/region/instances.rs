//! RunInstances and what follows: tokens, what readers see and when, pages, capacity, states, metadata options.

use aws_sdk_ec2::{
    client::Waiters,
    types::{Filter, HttpTokensState, InstanceMetadataOptionsRequest, InstanceStateName, InstanceType, ResourceType},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;

use crate::support::{TestRegion, code, tagged};

#[tokio::test]
async fn a_client_token_launches_once_whatever_happens_to_the_answer() {
    let region = TestRegion::start().await;
    let image = region.base_image().await;
    let call = |kind: InstanceType| {
        let client = region.ec2();
        let image = image.clone();
        async move {
            client
                .run_instances()
                .image_id(image)
                .instance_type(kind)
                .min_count(2)
                .max_count(2)
                .client_token("t")
                .send()
                .await
        }
    };
    let ids = |answer: aws_sdk_ec2::operation::run_instances::RunInstancesOutput| {
        answer.instances().iter().map(|it| it.instance_id().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = ids(call(InstanceType::T3Micro).await.unwrap());
    let again = ids(call(InstanceType::T3Micro).await.unwrap());
    assert_eq!(first, again);
    assert_eq!(code(call(InstanceType::T3Small).await), "IdempotentParameterMismatch");
    region.pass_lag();
    let all = region.ec2().describe_instances().send().await.unwrap();
    assert_eq!(all.reservations().iter().map(|it| it.instances().len()).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_new_instance_and_its_later_tags_are_unknown_until_the_lag_has_passed() {
    let region = TestRegion::start().await;
    let image = region.base_image().await;
    let client = region.ec2();
    let launch = client
        .run_instances()
        .image_id(image)
        .min_count(1)
        .max_count(1)
        .instance_type(InstanceType::T3Micro)
        .tag_specifications(tagged(ResourceType::Instance, "run", "1"));
    let answer = launch.send().await.unwrap();
    let made = &answer.instances()[0];
    assert_eq!(made.state().unwrap().name(), Some(&InstanceStateName::Pending));
    let id = made.instance_id().unwrap();

    let by_id = || client.describe_instances().instance_ids(id);
    let by_tag = |key: &str| {
        client.describe_instances().filters(Filter::builder().name(format!("tag:{key}")).values("1").build())
    };
    assert_eq!(code(by_id().send().await), "InvalidInstanceID.NotFound");
    assert!(by_tag("run").send().await.unwrap().reservations().is_empty());
    region.clock.advance(SignedDuration::from_millis(1_999));
    assert_eq!(code(by_id().send().await), "InvalidInstanceID.NotFound");
    region.clock.advance(SignedDuration::from_millis(1));
    assert_eq!(by_tag("run").send().await.unwrap().reservations().len(), 1);

    let tag = aws_sdk_ec2::types::Tag::builder().key("later").value("1").build();
    client.create_tags().resources(id).tags(tag).send().await.unwrap();
    assert!(by_tag("later").send().await.unwrap().reservations().is_empty(), "tags lag too");
    region.pass_lag();
    assert_eq!(by_tag("later").send().await.unwrap().reservations().len(), 1);
}

#[tokio::test]
async fn pages_together_hold_every_instance_once() {
    let region = TestRegion::start().await;
    let image = region.base_image().await;
    let client = region.ec2();
    let launch = client.run_instances().image_id(image).min_count(7).max_count(7).instance_type(InstanceType::T3Micro);
    launch.send().await.unwrap();
    region.pass_lag();
    let mut pages = client.describe_instances().max_results(3).into_paginator().send();
    let (mut sizes, mut ids) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        let of_page: Vec<String> = page
            .reservations()
            .iter()
            .flat_map(|it| it.instances())
            .map(|it| it.instance_id().unwrap().to_owned())
            .collect();
        sizes.push(of_page.len());
        ids.extend(of_page);
    }
    assert_eq!(sizes, [3, 3, 1]);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 7);
    let bad = client.describe_instances().next_token("!").send().await;
    assert_eq!(code(bad), "InvalidParameterValue");
}

#[tokio::test]
async fn an_instance_goes_through_its_states_and_is_forgotten_after_an_hour() {
    let region = TestRegion::start().await;
    let id = region.launch().await;
    let client = region.ec2();

    client.stop_instances().instance_ids(&id).send().await.unwrap();
    region.wait_for(&id, InstanceStateName::Stopped).await;
    client.start_instances().instance_ids(&id).send().await.unwrap();
    region.wait_for(&id, InstanceStateName::Running).await;

    let ended = client.terminate_instances().instance_ids(&id).send().await.unwrap();
    let change = &ended.terminating_instances()[0];
    assert_eq!(change.previous_state().unwrap().name(), Some(&InstanceStateName::Running));
    assert_eq!(change.current_state().unwrap().name(), Some(&InstanceStateName::ShuttingDown));
    region.wait_for(&id, InstanceStateName::Terminated).await;
    assert_eq!(code(client.start_instances().instance_ids(&id).send().await), "IncorrectInstanceState");
    // Terminating twice is no error.
    client.terminate_instances().instance_ids(&id).send().await.unwrap();
    let volumes = client.describe_volumes().send().await.unwrap();
    assert!(volumes.volumes().is_empty(), "the root volume goes with its instance");

    region.clock.advance(SignedDuration::from_mins(61));
    let gone = client.describe_instances().instance_ids(&id).send().await;
    assert_eq!(code(gone), "InvalidInstanceID.NotFound");
}

#[tokio::test]
async fn the_sdks_waiters_understand_the_answers() {
    let region = TestRegion::start().await;
    let id = region.launch().await;
    let client = region.ec2();
    let patience = std::time::Duration::from_secs(20);
    client.wait_until_instance_running().instance_ids(&id).wait(patience).await.unwrap();
    client.wait_until_instance_status_ok().instance_ids(&id).wait(patience).await.unwrap();
}

#[tokio::test]
async fn protection_keeps_an_instance_and_the_others_of_the_call() {
    let region = TestRegion::start().await;
    let (kept, other) = (region.launch().await, region.launch().await);
    let client = region.ec2();
    let protect = aws_sdk_ec2::types::AttributeBooleanValue::builder().value(true).build();
    client.modify_instance_attribute().instance_id(&kept).disable_api_termination(protect).send().await.unwrap();
    let refused = client.terminate_instances().instance_ids(&other).instance_ids(&kept).send().await;
    assert_eq!(code(refused), "OperationNotPermitted");
    assert_eq!(region.state(&other).await, InstanceStateName::Running);
}

#[tokio::test]
async fn what_does_not_exist_or_does_not_fit_is_refused_by_its_code() {
    let region = TestRegion::start().await;
    let image = region.base_image().await;
    let client = region.ec2();
    let launch =
        || client.run_instances().image_id(&image).instance_type(InstanceType::T3Micro).min_count(1).max_count(1);
    let unknown = "0123456789abcdef0";
    assert_eq!(code(launch().image_id(format!("ami-{unknown}")).send().await), "InvalidAMIID.NotFound");
    assert_eq!(code(launch().image_id("image").send().await), "InvalidAMIID.Malformed");
    assert_eq!(code(launch().instance_type("x9.huge".into()).send().await), "InvalidParameterValue");
    assert_eq!(code(launch().key_name("none").send().await), "InvalidKeyPair.NotFound");
    assert_eq!(code(launch().subnet_id(format!("subnet-{unknown}")).send().await), "InvalidSubnetID.NotFound");
    assert_eq!(code(launch().security_group_ids(format!("sg-{unknown}")).send().await), "InvalidGroup.NotFound");
    assert_eq!(code(launch().user_data("%").send().await), "InvalidParameterValue");
    assert_eq!(code(launch().user_data(STANDARD.encode(vec![b'x'; 16_385])).send().await), "InvalidParameterValue");
    assert_eq!(code(launch().dry_run(true).send().await), "DryRunOperation");
    let fleet = client.describe_spot_price_history().send().await;
    assert_eq!(code(fleet), "Unsupported");
    assert!(client.describe_instances().send().await.unwrap().reservations().is_empty(), "nothing was launched");
}

#[tokio::test]
async fn capacity_and_quota_run_out() {
    let region = TestRegion::start_with(|config| {
        config.capacity.vcpus = 4;
        config.capacity.exhausted = vec!["t3.small/eu-west-1a".to_owned(), "c5.large".to_owned()];
    })
    .await;
    let image = region.base_image().await;
    let client = region.ec2();
    let launch = |kind: InstanceType, least: i32, most: i32| {
        client.run_instances().image_id(&image).instance_type(kind).min_count(least).max_count(most).send()
    };
    assert_eq!(code(launch(InstanceType::C5Large, 1, 1).await), "InsufficientInstanceCapacity");
    assert_eq!(code(launch(InstanceType::T3Small, 1, 1).await), "InsufficientInstanceCapacity");
    assert_eq!(code(launch(InstanceType::T3Micro, 3, 3).await), "VcpuLimitExceeded");
    let some = launch(InstanceType::T3Micro, 1, 5).await.unwrap();
    assert_eq!(some.instances().len(), 2, "as many as fit");
    assert_eq!(code(launch(InstanceType::T3Micro, 1, 1).await), "VcpuLimitExceeded");
}

#[tokio::test]
async fn metadata_options_follow_the_launch_and_else_the_image() {
    let region = TestRegion::start().await;
    let image = region.base_image().await;
    let client = region.ec2();
    let launch =
        || client.run_instances().image_id(&image).instance_type(InstanceType::T3Micro).min_count(1).max_count(1);
    let by_image = launch().send().await.unwrap();
    let options = by_image.instances()[0].metadata_options().unwrap();
    assert_eq!(options.http_tokens(), Some(&HttpTokensState::Required), "ImdsSupport=v2.0");
    let asked = InstanceMetadataOptionsRequest::builder()
        .http_tokens(HttpTokensState::Optional)
        .http_put_response_hop_limit(1)
        .build();
    let by_launch = launch().metadata_options(asked).send().await.unwrap();
    let options = by_launch.instances()[0].metadata_options().unwrap();
    assert_eq!(options.http_tokens(), Some(&HttpTokensState::Optional));
    assert_eq!(options.http_put_response_hop_limit(), Some(1));
}

#[tokio::test]
async fn the_console_is_empty_until_its_lag_has_passed() {
    let region = TestRegion::start().await;
    let id = region.launch().await;
    let client = region.ec2();
    let lag = SignedDuration::try_from(region.config.lags.console).unwrap();
    client.stop_instances().instance_ids(&id).send().await.unwrap();
    region.wait_for(&id, InstanceStateName::Stopped).await;
    client.start_instances().instance_ids(&id).send().await.unwrap();
    region.wait_for(&id, InstanceStateName::Running).await;
    let console = || async {
        let answer = client.get_console_output().instance_id(&id).send().await.unwrap();
        answer.output().unwrap_or_default().to_owned()
    };
    assert_eq!(console().await, "");
    region.clock.advance(lag);
    assert!(!console().await.is_empty());
}
