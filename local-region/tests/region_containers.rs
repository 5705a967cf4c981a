//! A whole region with real servers, over its API: security groups, presigned URLs, console, restart, reset.
//!
//! Needs a container engine with the base image, as `cargo xtask test` sets them up.

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config, Lags},
    server::{self, Running},
};
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_ec2::{
    client::Waiters,
    config::{Credentials, SharedCredentialsProvider},
    types::InstanceType,
};
use aws_sdk_s3::{presigning::PresigningConfig, primitives::ByteStream};
use aws_smithy_http_client::tls;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::FutureExt;
use tokio::net::TcpStream;

/// For anything that a server does while it boots. It takes seconds; a machine that also compiles takes longer.
const BOOT: Duration = Duration::from_secs(90);

/// Long enough for a connection on this machine to be made, so that one that is not made by then never is.
const NO_ANSWER: Duration = Duration::from_millis(700);

fn sdk(running: &Running) -> SdkConfig {
    sdk_at(running, &running.endpoint)
}

fn sdk_at(running: &Running, endpoint: &str) -> SdkConfig {
    let config = &running.region.config;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let keys = Credentials::new(&config.access_key, &config.secret_key, None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(config.region.clone()))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .http_client(http)
        .build()
}

fn s3(sdk: &SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(sdk).force_path_style(true).build())
}

async fn start(config: &Config) -> Running {
    match server::start(config.clone(), Arc::new(SystemClock)).await {
        Ok(running) => running,
        Err(error) => panic!("the region does not start: {error} ({})", error.hint().unwrap_or_default()),
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(BOOT, wait).await.is_ok(), "waited in vain until {what}");
}

async fn answers(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(NO_ANSWER, TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_serves_is_restarted_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        name: "whole-test".to_owned(),
        folder: folder.path().join("region"),
        listen: "127.0.0.1:0".parse().unwrap(),
        region: "us-east-1".to_owned(),
        access_key: "AKIAWHOLE".to_owned(),
        secret_key: "whole-secret".to_owned(),
        backing: Backing::Containers,
        lags: Lags::quick(),
        capacity: Capacity::default(),
        forget_servers: false,
    };
    let outcome = AssertUnwindSafe(live(config.clone())).catch_unwind().await;
    server::reset(&config).await.unwrap();
    assert!(!config.folder.exists());
    if let Err(failed) = outcome {
        std::panic::resume_unwind(failed);
    }
}

async fn live(config: Config) {
    let running = start(&config).await;
    let ec2 = aws_sdk_ec2::Client::new(&sdk(&running));
    let gateway = running.region.network.gateway;

    // What an instance fetches is signed for the address under which instances see this machine.
    let outside = s3(&sdk_at(&running, &format!("http://{gateway}:{}", running.region.config.listen.port())));
    let inside = s3(&sdk(&running));
    inside.create_bucket().bucket("bucket").send().await.unwrap();
    let text = ByteStream::from_static(b"fetched-by-the-guest");
    inside.put_object().bucket("bucket").key("k").body(text).send().await.unwrap();
    let lasts = PresigningConfig::expires_in(BOOT * 2).unwrap();
    let url = outside.get_object().bucket("bucket").key("k").presigned(lasts).await.unwrap();
    let user_data = format!("#!/bin/sh\ncurl -sS --retry 5 --retry-all-errors '{}' >/dev/console\n", url.uri());

    let images = ec2.describe_images().owners("self").send().await.unwrap();
    let image = images.images().first().expect("a base image; `cargo xtask test` makes it").image_id().unwrap();
    let group = ec2.create_security_group().group_name("servers").description("test").send().await.unwrap();
    let group = group.group_id().unwrap();
    let seen = ec2.wait_until_security_group_exists().group_ids(group);
    seen.wait(Duration::from_secs(10)).await.unwrap();
    let launch = ec2
        .run_instances()
        .image_id(image)
        .instance_type(InstanceType::T3Micro)
        .security_group_ids(group)
        .user_data(STANDARD.encode(user_data))
        .min_count(1)
        .max_count(1);
    let launched = launch.send().await.unwrap();
    let made = &launched.instances()[0];
    let id = made.instance_id().unwrap();
    let ssh: SocketAddr = format!("{}:22", made.private_ip_address().unwrap()).parse().unwrap();

    until("the console shows host keys and what user data fetched", async || {
        let Ok(answer) = ec2.get_console_output().instance_id(id).send().await else { return false };
        let console = STANDARD.decode(answer.output().unwrap_or_default()).unwrap();
        let console = String::from_utf8_lossy(&console);
        console.contains("-----END SSH HOST KEY FINGERPRINTS-----") && console.contains("fetched-by-the-guest")
    })
    .await;

    assert!(!answers(ssh).await, "no rule, no connection");
    let here = format!("{gateway}/32");
    let rule = ec2.authorize_security_group_ingress().group_id(group).ip_protocol("tcp").from_port(22).to_port(22);
    rule.cidr_ip(&here).send().await.unwrap();
    assert!(answers(ssh).await, "the rule holds once the call is answered");

    // As after a restart of this machine: the region's process and its servers are gone, the engine knows them.
    running.stop().await;
    let config = Config::load(&config.folder).unwrap().expect("kept with the port");
    let machines = alcedo_local_region::instances::containers::Containers::connect(&config.name).await.unwrap();
    alcedo_local_region::instances::Machines::prepare(&machines).await.unwrap();
    alcedo_local_region::instances::Machines::stop(&machines, id).await.unwrap();
    assert!(!answers(ssh).await);
    let running = start(&config).await;
    until("the server answers again", async || answers(ssh).await).await;

    let ec2 = aws_sdk_ec2::Client::new(&sdk(&running));
    let revoke = ec2.revoke_security_group_ingress().group_id(group).ip_protocol("tcp").from_port(22).to_port(22);
    revoke.cidr_ip(&here).send().await.unwrap();
    assert!(!answers(ssh).await, "revoked once the call is answered");

    // As on another engine, which has none of the servers: the records do not take that for their end.
    running.stop().await;
    alcedo_local_region::instances::Machines::terminate(&machines, id).await.unwrap();
    let refused = server::start(config.clone(), Arc::new(SystemClock)).await.err().expect("it is refused");
    assert_eq!(refused.to_string(), "the container engine has none of the region's 1 running servers");
    let running = start(&Config { forget_servers: true, ..config }).await;
    let ec2 = aws_sdk_ec2::Client::new(&sdk(&running));
    ec2.wait_until_instance_terminated().instance_ids(id).wait(BOOT).await.unwrap();
    running.stop().await;
}
