//! Idle connections beside the smoke tests: a server in this process that says how long it keeps them, and a balancer that
//! keeps them for as long as its attribute says.

use std::time::Duration;

use alcedo_pipeline::{
    event::{Event, Outcome, What},
    runner::Ending,
};
use alcedo_stages::{
    action::Action,
    keep_alive::KeepAlive,
    launch::{INSTANCES, RegisterTargets},
    probes::FrontDoor,
    servers::Server,
    smoke::SmokeTest,
};
use aws_sdk_elasticloadbalancingv2::types::LoadBalancerAttribute;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{account::Account, journey, region::LocalRegion, staged::Staged};

/// Answers what the smoke test asks for after a while, and everything else at once, with this header. Where it closes idle
/// connections, it does so after that time.
async fn server(header: &'static str, closes: Option<Duration>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let idle = closes.unwrap_or(Duration::from_secs(60));
                while let Ok(Ok(read @ 1..)) = tokio::time::timeout(idle, stream.read(&mut request)).await {
                    if request[..read].starts_with(b"GET /slow") {
                        tokio::time::sleep(Duration::from_millis(600)).await;
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{header}\r\nok");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

/// What a run says of a server's connections, and how it ended.
async fn said(account: &Account, header: &'static str) -> Vec<String> {
    let (ending, said) = ended(account, (header, None), 200, false).await;
    assert_eq!(ending.outcome, Outcome::Done, "{:?}", ending.failure);
    said
}

async fn ended(
    account: &Account,
    (header, closes): (&'static str, Option<Duration>),
    wanted: u16,
    required: bool,
) -> (Ending, Vec<String>) {
    let site = account.site().await;
    let port = server(header, closes).await;
    let server = Server { id: "i-1".into(), private_address: Some([127, 0, 0, 1].into()), public_address: None };
    let smoke = Action::SmokeTest(SmokeTest {
        checks: serde_json::from_value(json!([{ "http": { "path": "/slow", "status": wanted }, "retries": 0 }]))
            .unwrap(),
        servers: true,
        private_address: true,
        app_port: port,
        ssh_user: "admin".into(),
        ssh_port: 22,
        front_door: FrontDoor { url: format!("http://127.0.0.1:{port}/"), addresses: Vec::new(), version: None },
        preview: site.pipeline.flip.preview.clone(),
        version: "2026.1120.190512".into(),
        keep_alive: Some(KeepAlive { balancer: account.balancer.clone(), path: "/health".into(), required }),
    });
    let made = json!({ "servers": [server] });
    // Whatever step this is, it only answers.
    let plan =
        journey::plan_of(&site, [(INSTANCES, Action::RegisterTargets(RegisterTargets {})), ("smoke/suite", smoke)]);
    let (ending, events) = journey::told(&site, plan, &Staged::new(&site).answered(INSTANCES, made)).await.unwrap();
    let said = events.iter().filter_map(words).collect();
    (ending, said)
}

fn words(event: &Event) -> Option<String> {
    match &event.what {
        What::Warning { message, .. } => Some(format!("warning: {message}")),
        What::Output { line, .. } => Some(line.clone()),
        _ => None,
    }
}

async fn keeps_for(account: &Account, seconds: u32) {
    let idle = LoadBalancerAttribute::builder().key("idle_timeout.timeout_seconds").value(seconds.to_string()).build();
    let call = account.clients.elb.modify_load_balancer_attributes().load_balancer_arn(&account.balancer);
    call.attributes(idle).send().await.unwrap();
}

#[tokio::test]
async fn a_server_that_closes_before_the_balancer_is_told_of_or_refused() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let short = said(&account, "keep-alive: timeout=5\r\n").await;
    assert_eq!(
        short,
        ["warning: i-1 says that it closes idle connections after 5s, and the balancer keeps them for 1m: \
          a request that it sends at that moment is answered with 502"]
    );
    let open = said(&account, "").await;
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].starts_with("idle connections stayed open") && open[0].contains("is not proven"), "{open:?}");
    assert_eq!(said(&account, "connection: close\r\n").await, [""; 0]);

    // Where it is required, they are refused, and what nobody could see is not.
    let (ending, _) = ended(&account, ("keep-alive: timeout=5\r\n", None), 200, true).await;
    assert_eq!(ending.outcome, Outcome::Unwound);
    let (_, failure) = ending.failure.unwrap();
    assert!(failure.causes[0].contains("i-1 says that it closes idle connections after 5s"), "{failure:?}");
    assert!(failure.hints[1].contains("keep_alive: warn"), "{failure:?}");
    assert_eq!(ended(&account, ("", None), 200, true).await.0.outcome, Outcome::Done);
    // What a smoke test found is told rather.
    let (ending, _) = ended(&account, ("keep-alive: timeout=5\r\n", None), 201, true).await;
    let (_, failure) = ending.failure.unwrap();
    assert!(failure.message.contains("smoke tests failed"), "{failure:?}");

    // What it does counts as what it says. Each of two suites takes 600 ms, the server's and that through the preview: where
    // they have failed, nobody waits until it has done so twice.
    let closing = ("", Some(Duration::from_millis(800)));
    let (ending, _) = ended(&account, closing, 200, true).await;
    let (_, failure) = ending.failure.unwrap();
    assert!(failure.causes[0].contains("i-1 closed two idle connections, after 1s at most"), "{failure:?}");
    let (ending, lines) = ended(&account, closing, 201, true).await;
    let (_, failure) = ending.failure.unwrap();
    assert!(failure.message.contains("smoke tests failed"), "{failure:?}");
    assert!(lines.iter().any(|line| line.contains("nobody waited for another")), "{lines:?}");

    keeps_for(&account, 4).await;
    assert_eq!(said(&account, "keep-alive: timeout=5\r\n").await, [""; 0], "five seconds are enough");
}
