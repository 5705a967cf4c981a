//! Faults on demand, as the SDK meets them.

use std::time::Duration;

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use aws_sdk_ec2::{error::SdkError, types::Filter};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{SECRET_KEY, TestRegion, code};

fn on(operation: &str) -> Calls {
    Calls { operation: Some(operation.into()), ..Calls::default() }
}

fn error(code: &str) -> Effect {
    Effect::Error { code: code.into(), status: None }
}

#[tokio::test]
async fn the_calls_that_are_meant_are_answered_with_the_code_and_no_others() {
    let region = TestRegion::start().await;
    let faults = &region.running.region.faults;
    let calls = Calls { skip: 1, times: Some(1), ..on("CreateKeyPair") };
    faults.add(Fault { on: calls, when: When::Before, effect: error("InternalError") });
    let ec2 = region.ec2();
    let make = |name: &str| ec2.create_key_pair().key_name(name).send();
    make("first").await.unwrap();
    let refused = make("second").await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(code::<(), _>(Err(refused)), "InternalError");
    make("second").await.unwrap();
    assert_eq!(faults.standing()[0].struck, 1);
    assert_eq!(faults.standing()[0].seen, 3);
}

#[tokio::test]
async fn struck_after_its_effect_a_call_has_had_it() {
    let region = TestRegion::start().await;
    let ec2 = region.ec2();
    let there = async || {
        region.pass_lag();
        ec2.describe_key_pairs().send().await.unwrap().key_pairs().len()
    };
    let faults = &region.running.region.faults;
    for (when, wanted) in [(When::Before, 0), (When::After, 1)] {
        let id = faults.add(Fault { on: on("CreateKeyPair"), when, effect: Effect::LoseAnswer });
        let lost = ec2.create_key_pair().key_name("lost").send().await.unwrap_err();
        assert!(matches!(lost, SdkError::DispatchFailure(_)), "{lost:?}");
        assert_eq!(there().await, wanted, "{when:?}");
        faults.remove(id);
    }
    ec2.describe_vpcs().send().await.expect("the next call is on another connection");
}

#[tokio::test]
async fn an_object_whose_answer_was_lost_is_there() {
    let region = TestRegion::start().await;
    let s3 = region.s3();
    s3.create_bucket().bucket("things").send().await.unwrap();
    let faults = &region.running.region.faults;
    let calls = Calls { about: Some("/things/a".into()), ..on("PutObject") };
    faults.add(Fault { on: calls, when: When::After, effect: Effect::LoseAnswer });
    let put = |key: &str| s3.put_object().bucket("things").key(key).body(b"x".to_vec().into()).send();
    assert!(matches!(put("a").await.unwrap_err(), SdkError::DispatchFailure(_)));
    put("b").await.expect("it is about another object");
    s3.get_object().bucket("things").key("a").send().await.unwrap();
    faults.clear();
    faults.add(Fault { on: on("GetObject"), when: When::Before, effect: error("SlowDown") });
    assert_eq!(code(s3.get_object().bucket("things").key("a").send().await), "SlowDown");
}

#[tokio::test]
async fn credentials_expire_in_each_services_words() {
    let region = TestRegion::start().await;
    let (ec2, s3) = (region.ec2(), region.s3());
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&region.sdk());
    s3.create_bucket().bucket("things").send().await.unwrap();
    region.running.region.faults.add(Fault {
        on: Calls::default(),
        when: When::Before,
        effect: Effect::ExpiredCredentials,
    });
    assert_eq!(code(ec2.describe_vpcs().send().await), "RequestExpired");
    assert_eq!(code(elb.describe_load_balancers().send().await), "ExpiredToken");
    assert_eq!(code(s3.get_object().bucket("things").key("a").send().await), "ExpiredToken");
}

#[tokio::test]
async fn a_call_is_held_until_the_fault_goes_and_delayed_by_the_regions_clock() {
    let region = TestRegion::start().await;
    let ec2 = region.ec2();
    let faults = &region.running.region.faults;
    let id = faults.add(Fault { on: on("CreateKeyPair"), when: When::After, effect: Effect::Hold });
    let call = tokio::spawn(ec2.create_key_pair().key_name("held").send());
    tokio::time::timeout(Duration::from_secs(20), faults.struck(id, 1)).await.expect("the call arrives");
    region.pass_lag();
    assert_eq!(ec2.describe_key_pairs().send().await.unwrap().key_pairs().len(), 1, "it has had its effect");
    assert!(!call.is_finished());
    faults.remove(id);
    call.await.unwrap().unwrap();

    let id = faults.add(Fault {
        on: on("DescribeVpcs"),
        when: When::Before,
        effect: Effect::Delay { milliseconds: 60_000 },
    });
    let call = tokio::spawn(ec2.describe_vpcs().send());
    faults.struck(id, 1).await;
    assert!(!call.is_finished());
    region.clock.advance(SignedDuration::from_mins(2));
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn readers_that_differ_see_a_new_record_come_and_go() {
    let region = TestRegion::start_with(|config| {
        config.lags.new_record = Duration::from_secs(2);
        config.lags.readers_differ = true;
    })
    .await;
    let ec2 = region.ec2();
    let vpc = ec2.describe_vpcs().send().await.unwrap().vpcs()[0].vpc_id().unwrap().to_owned();
    ec2.create_security_group().group_name("new").description("new").vpc_id(vpc).send().await.unwrap();
    let named_new = || Filter::builder().name("group-name").values("new").build();
    let look = async || {
        let found = ec2.describe_security_groups().filters(named_new()).send().await.unwrap();
        found.security_groups().len()
    };
    region.clock.advance(SignedDuration::from_secs(1));
    let mut seen = Vec::new();
    for _ in 0..64 {
        seen.push(look().await);
    }
    assert!(seen.contains(&0) && seen.contains(&1), "half-way through the lag, half of the readers see it: {seen:?}");
    region.clock.advance(SignedDuration::from_secs(1));
    for _ in 0..64 {
        assert_eq!(look().await, 1, "past the lag, all see it");
    }
}

#[tokio::test]
async fn any_program_that_knows_the_secret_adds_faults_and_reads_the_calls() {
    let region = TestRegion::start().await;
    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", region.running.endpoint);
    let fault =
        json!({ "on": { "operation": "DescribeVpcs", "times": 1 }, "effect": { "error": { "code": "Unavailable" } } });
    let post = |token: &str, body: &Value| http.post(url("/faults")).bearer_auth(token).json(body).send();
    assert_eq!(post("guess", &fault).await.unwrap().status(), 403);
    let answer = post(SECRET_KEY, &json!({ "effect": "explode" })).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("explode"));
    let added: Value = post(SECRET_KEY, &fault).await.unwrap().json().await.unwrap();

    let refused = region.ec2().describe_vpcs().send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 503);
    let get = async |path: &str| -> Value {
        http.get(url(path)).bearer_auth(SECRET_KEY).send().await.unwrap().json().await.unwrap()
    };
    let listed = get("/faults").await;
    assert_eq!((&listed["faults"][0]["id"], &listed["faults"][0]["struck"]), (&added["id"], &json!(1)));
    let calls = get("/faults/calls").await;
    let last = calls["calls"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["operation"], &last["status"], &last["changing"]),
        (&json!("DescribeVpcs"), &json!(503), &json!(false))
    );
    let gone = http.delete(url(&format!("/faults/{}", added["id"]))).bearer_auth(SECRET_KEY).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(get("/faults").await["faults"], json!([]));
}
