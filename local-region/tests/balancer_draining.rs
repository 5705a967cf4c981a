//! Targets that leave: requests under way, connections, and the end of the delay.

use std::time::Duration;

mod balancer_support;
use balancer_support::{Backend, Lab, client, eventually, fresh_client, get, no_lags, target_form, within};

async fn deregister(lab: &Lab, group: &str, server: &Backend) {
    lab.must("DeregisterTargets", &target_form(group, server.address)).await;
}

/// Two healthy servers in one group, with time standing still, and a request to `/slow` that `leaver` has.
struct Leaving {
    lab: Lab,
    group: String,
    port: u16,
    leaver: Backend,
    stayer: Backend,
    slow: tokio::task::JoinHandle<String>,
}

async fn leaving() -> Leaving {
    let lab = Lab::frozen(no_lags()).await;
    let (leaver, stayer) = (Backend::start("leaver").await, Backend::start("stayer").await);
    let group = lab.group("blue", &[&leaver]).await;
    lab.set_delay(&group, 30).await;
    let (_, port) = lab.serve(&group).await;
    lab.until_state(&group, &leaver, "healthy").await;
    let url = lab.url(0, port, "/slow");
    let slow = tokio::spawn(async move { get(&client(), &url).await });
    eventually("the slow request to arrive", async || match leaver.slow_requests() {
        0 => Err("none".into()),
        _ => Ok(()),
    })
    .await;
    lab.must("RegisterTargets", &target_form(&group, stayer.address)).await;
    lab.until_state(&group, &stayer, "healthy").await;
    Leaving { lab, group, port, leaver, stayer, slow }
}

/// Waits until the node has heard of the deregistration.
async fn heard(lab: &Lab, port: u16) {
    eventually("the leaver to get no more requests", async || {
        for _ in 0..4 {
            let name = get(&fresh_client(), &lab.url(0, port, "/")).await;
            if name != "stayer" {
                return Err(name);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_draining_target_finishes_what_it_has_and_gets_nothing_new() {
    let Leaving { lab, group, port, leaver, stayer, slow } = leaving().await;
    deregister(&lab, &group, &leaver).await;
    let state = lab.health(&group, &leaver).await;
    assert_eq!(state, ("draining".into(), "Target.DeregistrationInProgress".into()));
    heard(&lab, port).await;
    let before = leaver.requests();
    for _ in 0..20 {
        assert_eq!(get(&fresh_client(), &lab.url(0, port, "/")).await, "stayer");
    }
    assert_eq!(leaver.requests(), before);
    assert!(leaver.connections() > 0, "the slow request has its connection");
    assert!(stayer.requests() >= 20);

    leaver.open_gate();
    assert_eq!(within("the slow request", slow).await.unwrap(), "leaver");
    eventually("the last connection to be closed", async || match leaver.connections() {
        0 => Ok(()),
        open => Err(format!("{open} open")),
    })
    .await;
    assert_eq!(lab.health(&group, &leaver).await.0, "draining", "until the delay is over, whatever happens");
    lab.advance(Duration::from_secs(30));
    let state = lab.health(&group, &leaver).await;
    assert_eq!(state, ("unused".into(), "Target.NotRegistered".into()));
}

#[tokio::test]
async fn the_end_of_the_delay_cuts_what_is_left() {
    let Leaving { lab, group, port, leaver, slow, stayer: _stayer } = leaving().await;
    deregister(&lab, &group, &leaver).await;
    heard(&lab, port).await;
    lab.advance(Duration::from_secs(29));
    heard(&lab, port).await;
    assert!(!slow.is_finished(), "not before its end");
    lab.advance(Duration::from_secs(1));
    assert_eq!(within("the slow request to fail", slow).await.unwrap(), "502");
}

#[tokio::test]
async fn a_draining_target_can_come_back() {
    let Leaving { lab, group, port, leaver, slow, stayer: _stayer } = leaving().await;
    deregister(&lab, &group, &leaver).await;
    heard(&lab, port).await;
    lab.must("RegisterTargets", &target_form(&group, leaver.address)).await;
    lab.until_state(&group, &leaver, "healthy").await;
    eventually("the leaver to get requests again", async || {
        let name = get(&fresh_client(), &lab.url(0, port, "/")).await;
        if name == "leaver" { Ok(()) } else { Err(name) }
    })
    .await;
    leaver.open_gate();
    assert_eq!(within("the slow request", slow).await.unwrap(), "leaver");
}

#[tokio::test]
async fn requests_of_a_group_that_lost_its_listener_finish() {
    let Leaving { lab, group, leaver, slow, stayer: _stayer, .. } = leaving().await;
    let listener = {
        let load_balancer = lab.must("DescribeLoadBalancers", &[]).await.text("LoadBalancerArn");
        let known = lab.must("DescribeListeners", &[format!("LoadBalancerArn={load_balancer}")]).await;
        known.text("ListenerArn")
    };
    let action = ["Type=fixed-response".to_owned(), "FixedResponseConfig.StatusCode=200".into()];
    lab.modify_listener(&listener, &action).await;
    deregister(&lab, &group, &leaver).await;
    let state = lab.health(&group, &leaver).await;
    assert_eq!(state, ("unused".into(), "Target.NotRegistered".into()), "a group in no use lets go at once");
    leaver.open_gate();
    assert_eq!(within("the slow request", slow).await.unwrap(), "leaver");
}
