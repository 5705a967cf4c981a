//! Changes under way: from node to node, and without losing a request.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use alcedo_local_region::config::Lags;

mod balancer_support;
use balancer_support::{Backend, Lab, client, eventually, forward, fresh_client, get, no_lags};

const PROPAGATION: Duration = Duration::from_secs(30);

#[tokio::test]
async fn nodes_take_a_change_up_one_after_another() {
    let lab = Lab::frozen(Lags { balancer_nodes: 3, propagation: PROPAGATION, ..no_lags() }).await;
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let (blue_group, green_group) = (lab.group("blue", &[&blue]).await, lab.group("green", &[&green]).await);
    let (listener, port) = lab.serve(&blue_group).await;
    lab.advance(PROPAGATION);
    for node in 0..3 {
        until(&lab, node, port, "blue").await;
    }

    lab.modify_listener(&listener, &forward(&[(&green_group, 1)])).await;
    assert_eq!(seen(&lab, port).await, ["blue", "blue", "blue"], "the API's answer changes nothing yet");
    let mut mixed = 0;
    for _ in 0..30 {
        lab.advance(Duration::from_secs(1));
        settled().await;
        let seen = seen(&lab, port).await;
        let green = seen.iter().filter(|name| **name == "green").count();
        mixed += usize::from((1..3).contains(&green));
    }
    assert!(mixed > 0, "there is a time when the nodes differ");
    for node in 0..3 {
        until(&lab, node, port, "green").await;
    }
}

/// What each node answers now.
async fn seen(lab: &Lab, port: u16) -> Vec<String> {
    let mut names = Vec::new();
    for node in 0..3 {
        names.push(get(&fresh_client(), &lab.url(node, port, "/")).await);
    }
    names
}

async fn until(lab: &Lab, node: u8, port: u16, name: &str) {
    eventually(&format!("node {node} to answer {name}"), async || {
        let now = get(&fresh_client(), &lab.url(node, port, "/")).await;
        if now == name { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Lets the tasks that the clock has woken run.
async fn settled() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// What clients with open connections saw.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    good: AtomicUsize,
    bad: Mutex<Vec<String>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_the_listener_flips() {
    let lab = Lab::start(Lags { propagation: Duration::from_millis(200), ..no_lags() }).await;
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let (blue_group, green_group) = (lab.group("blue", &[&blue]).await, lab.group("green", &[&green]).await);
    let (listener, port) = lab.serve(&blue_group).await;
    lab.until_state(&blue_group, &blue, "healthy").await;

    let load = Arc::new(Load::default());
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (load, url) = (Arc::clone(&load), lab.url(number % 2, port, "/"));
            tokio::spawn(async move {
                let client = client();
                while !load.stop.load(SeqCst) {
                    let answer = client.post(&url).body("a request that must not be repeated").send().await;
                    match answer {
                        Ok(answer) if answer.status() == 200 => drop(load.good.fetch_add(1, SeqCst)),
                        Ok(answer) => load.bad.lock().unwrap().push(answer.status().to_string()),
                        Err(error) => load.bad.lock().unwrap().push(format!("{error:?}")),
                    }
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for flip in 0..6 {
        let group = if flip % 2 == 0 { &green_group } else { &blue_group };
        lab.modify_listener(&listener, &forward(&[(group, 1)])).await;
        let before = load.good.load(SeqCst);
        eventually("requests to go on", async || {
            let more = load.good.load(SeqCst) - before;
            if more > 200 && begun.elapsed() > Duration::from_millis(300 * (flip + 1)) {
                Ok(())
            } else {
                Err(format!("{more} since the flip"))
            }
        })
        .await;
    }
    load.stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let lost = load.bad.lock().unwrap().clone();
    assert!(lost.is_empty(), "lost beside {} requests: {lost:?}", load.good.load(SeqCst));
    assert!(blue.requests() > 0 && green.requests() > 0, "both took requests");
}

#[tokio::test]
async fn the_balancer_remembers_its_listeners_over_a_restart() {
    let lab = Lab::start(no_lags()).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    let (_, port) = lab.serve(&group).await;
    lab.until_state(&group, &server, "healthy").await;
    lab.stop_balancer().await;
    assert!(fresh_client().get(lab.url(0, port, "/")).send().await.is_err(), "nobody listens");
    lab.start_balancer().await;
    assert_eq!(get(&fresh_client(), &lab.url(0, port, "/")).await, "one");
}

#[tokio::test]
async fn a_deleted_listener_frees_its_port_for_the_next() {
    let lab = Lab::start(no_lags()).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    let (listener, port) = lab.serve(&group).await;
    lab.until_state(&group, &server, "healthy").await;
    assert_eq!(get(&client(), &lab.url(0, port, "/")).await, "one");
    let load_balancer = lab.must("DescribeLoadBalancers", &[]).await.text("LoadBalancerArn");
    lab.must("DeleteListener", &[format!("ListenerArn={listener}")]).await;
    let mut form = vec![format!("LoadBalancerArn={load_balancer}"), format!("Port={port}"), "Protocol=HTTP".into()];
    form.extend(forward(&[(&group, 1)]).iter().map(|pair| format!("DefaultActions.member.1.{pair}")));
    lab.must("CreateListener", &form).await;
    eventually("the new listener", async || {
        let now = get(&fresh_client(), &lab.url(0, port, "/")).await;
        if now == "one" { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn a_taken_port_is_refused_and_nothing_is_recorded() {
    let lab = Lab::start(no_lags()).await;
    let load_balancer = lab.load_balancer("web").await;
    let taken = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let form = [
        format!("LoadBalancerArn={load_balancer}"),
        format!("Port={port}"),
        "Protocol=HTTP".into(),
        "DefaultActions.member.1.Type=fixed-response".into(),
        "DefaultActions.member.1.FixedResponseConfig.StatusCode=200".into(),
    ];
    let error = lab.call("CreateListener", &form).await.unwrap_err();
    assert!(error.message.contains(&format!("127.0.0.2:{port}")), "{}", error.message);
    assert!(error.message.contains("choose another port"), "{}", error.message);
    let known = lab.must("DescribeListeners", &[format!("LoadBalancerArn={load_balancer}")]).await;
    assert!(known.all("ListenerArn").is_empty());
    let free_again = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
    assert!(free_again.is_ok(), "the other node's socket is closed too");
}
