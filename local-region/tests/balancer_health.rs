//! Health checks of real servers, through the API and on requests.

use std::time::Duration;

mod balancer_support;
use balancer_support::{Backend, Lab, client, eventually, forward, free_port, fresh_client, get, no_lags, target_form};

const INTERVAL: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_target_is_unused_until_its_group_is_referenced_and_healthy_after_one_pass() {
    let lab = Lab::start(no_lags()).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    assert_eq!(lab.health(&group, &server).await, ("unused".into(), "Target.NotInUse".into()));
    assert_eq!(server.connections(), 0, "nobody checks it");
    let (listener, _) = lab.serve(&group).await;
    lab.until_state(&group, &server, "healthy").await;
    lab.must("DeleteListener", &[format!("ListenerArn={listener}")]).await;
    assert_eq!(lab.health(&group, &server).await, ("unused".into(), "Target.NotInUse".into()));
}

#[tokio::test]
async fn a_weight_of_zero_is_a_reference() {
    let lab = Lab::start(no_lags()).await;
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let (first, second) = (lab.group("blue", &[&blue]).await, lab.group("green", &[&green]).await);
    let load_balancer = lab.load_balancer("web").await;
    lab.listener(&load_balancer, &forward(&[(&first, 1), (&second, 0)])).await;
    lab.until_state(&second, &green, "healthy").await;
}

#[tokio::test]
async fn thresholds_turn_a_target_and_a_group_without_healthy_targets_fails_open() {
    let mut lags = no_lags();
    lags.initial_check = None;
    let lab = Lab::frozen(lags).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    let (_, port) = lab.serve(&group).await;
    lab.until_state(&group, &server, "healthy").await;

    server.set_health(503);
    let checks = Checks(&lab, &server);
    checks.next().await;
    assert_eq!(lab.health(&group, &server).await.0, "healthy", "one failure is not two");
    checks.next().await;
    lab.until_state(&group, &server, "unhealthy").await;
    assert_eq!(lab.health(&group, &server).await.1, "Target.ResponseCodeMismatch");
    let described = lab.must("DescribeTargetHealth", &[format!("TargetGroupArn={group}")]).await;
    assert_eq!(described.text("Description"), "Health checks failed with these codes: [503]");
    assert_eq!(get(&client(), &lab.url(0, port, "/")).await, "one", "fail-open");

    server.set_health(200);
    checks.next().await;
    assert_eq!(lab.health(&group, &server).await.0, "unhealthy", "one pass is not two");
    checks.next().await;
    lab.until_state(&group, &server, "healthy").await;
}

/// Lets one more check happen, by the clock.
struct Checks<'a>(&'a Lab, &'a Backend);

impl Checks<'_> {
    async fn next(&self) {
        let before = self.1.checks();
        self.0.advance(INTERVAL);
        eventually("a health check", async || {
            let now = self.1.checks();
            if now > before { Ok(()) } else { Err(format!("{now} checks")) }
        })
        .await;
    }
}

#[tokio::test]
async fn an_unhealthy_target_gets_no_requests_while_another_is_healthy() {
    let lab = Lab::start(no_lags()).await;
    let (good, bad) = (Backend::start("good").await, Backend::start("bad").await);
    bad.set_health(500);
    let group = lab.group("blue", &[&good, &bad]).await;
    let (_, port) = lab.serve(&group).await;
    lab.until_state(&group, &good, "healthy").await;
    for _ in 0..20 {
        assert_eq!(get(&fresh_client(), &lab.url(0, port, "/")).await, "good");
    }
}

#[tokio::test]
async fn a_server_that_boots_is_found_soon_after_it_answers() {
    let lab = Lab::start(no_lags()).await;
    let address = ([127, 0, 0, 1], free_port()).into();
    let group = lab.group("blue", &[]).await;
    lab.must("RegisterTargets", &target_form(&group, address)).await;
    lab.serve(&group).await;
    let described = lab.must("DescribeTargetHealth", &[format!("TargetGroupArn={group}")]).await;
    assert_eq!(described.text("State"), "initial");
    let server = Backend::start_at("late", address).await;
    let found = tokio::time::timeout(Duration::from_secs(3), lab.until_state(&group, &server, "healthy")).await;
    assert!(found.is_ok(), "well before the next regular check");
}
