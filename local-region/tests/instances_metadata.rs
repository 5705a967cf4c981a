//! The metadata service over real HTTP, as instances with addresses of the loopback block.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use alcedo_local_region::{
    clock::ManualClock,
    metadata::{InstanceMetadata, MetadataServer, MetadataSource, serve, serve_by},
};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, Response, StatusCode};

const STRICT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const LENIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

const TOKEN: &str = "X-aws-ec2-metadata-token";
const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";

/// One instance that requires tokens, and one that does not.
struct Two;

impl MetadataSource for Two {
    fn by_address(&self, address: Ipv4Addr) -> Option<InstanceMetadata> {
        let strict = address == STRICT;
        (strict || address == LENIENT).then(|| InstanceMetadata {
            instance_id: if strict { "i-strict" } else { "i-lenient" }.to_owned(),
            region: "eu-west-1".to_owned(),
            tokens_required: strict,
            user_data: strict.then(|| b"#!/bin/sh\n\xff".to_vec()),
            ..InstanceMetadata::default()
        })
    }
}

struct Service {
    server: MetadataServer,
    clock: Arc<ManualClock>,
}

impl Service {
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let server = serve_by(listen, Arc::new(Two), clock.clone()).await.expect("it listens");
        Self { server, clock }
    }

    async fn ask(&self, caller: Ipv4Addr, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let client = Client::builder().local_address(IpAddr::V4(caller)).no_proxy().build().expect("a client");
        let url = format!("http://{}{path}", self.server.address());
        let request =
            headers.iter().fold(client.request(method, url), |request, (name, value)| request.header(*name, *value));
        request.send().await.expect("an answer")
    }

    async fn token(&self, caller: Ipv4Addr, ttl: &str) -> String {
        let answer = self.ask(caller, Method::PUT, "/latest/api/token", &[(TTL, ttl)]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[TTL], ttl);
        answer.text().await.expect("a token")
    }

    async fn id(&self, caller: Ipv4Addr, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let answer = self.ask(caller, Method::GET, "/latest/meta-data/instance-id", headers).await;
        (answer.status(), answer.text().await.expect("text"))
    }
}

#[tokio::test]
async fn a_token_opens_the_metadata_until_it_ends() {
    let service = Service::start().await;
    let token = service.token(STRICT, "60").await;
    assert_eq!(service.id(STRICT, &[(TOKEN, &token)]).await, (StatusCode::OK, "i-strict".to_owned()));
    service.clock.advance(SignedDuration::from_secs(59));
    assert_eq!(service.id(STRICT, &[(TOKEN, &token)]).await.0, StatusCode::OK);
    service.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(service.id(STRICT, &[(TOKEN, &token)]).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_token_only_an_instance_that_allows_it_is_answered() {
    let service = Service::start().await;
    assert_eq!(service.id(STRICT, &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(service.id(LENIENT, &[]).await, (StatusCode::OK, "i-lenient".to_owned()));
    assert_eq!(service.id(LENIENT, &[(TOKEN, "made up")]).await.0, StatusCode::UNAUTHORIZED, "a wrong one is wrong");
    assert_eq!(service.id(STRANGER, &[]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_token_is_no_use_to_another_instance() {
    let service = Service::start().await;
    let token = service.token(LENIENT, "60").await;
    assert_eq!(service.id(STRICT, &[(TOKEN, &token)]).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_needs_a_life_in_range_and_no_proxy_in_between() {
    let service = Service::start().await;
    let path = "/latest/api/token";
    for headers in [&[][..], &[(TTL, "0")], &[(TTL, "21601")], &[(TTL, "soon")]] {
        let answer = service.ask(STRICT, Method::PUT, path, headers).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{headers:?}");
    }
    let proxied = service.ask(STRICT, Method::PUT, path, &[(TTL, "60"), ("X-Forwarded-For", "10.0.0.9")]).await;
    assert_eq!(proxied.status(), StatusCode::FORBIDDEN);
    let token = service.token(STRICT, "60").await;
    let proxied = service.id(STRICT, &[(TOKEN, &token), ("X-Forwarded-For", "10.0.0.9")]).await;
    assert_eq!(proxied.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn user_data_comes_byte_for_byte_or_not_at_all() {
    let service = Service::start().await;
    let token = service.token(STRICT, "60").await;
    let answer = service.ask(STRICT, Method::GET, "/latest/user-data", &[(TOKEN, &token)]).await;
    assert_eq!(answer.bytes().await.expect("bytes").as_ref(), b"#!/bin/sh\n\xff");
    let none = service.ask(LENIENT, Method::GET, "/latest/user-data", &[]).await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn paths_versions_and_methods_are_told_apart() {
    let service = Service::start().await;
    let status = async |method, path| service.ask(LENIENT, method, path, &[]).await.status();
    assert_eq!(status(Method::GET, "/2021-03-23/meta-data/instance-id").await, StatusCode::OK);
    assert_eq!(status(Method::HEAD, "/latest/meta-data/instance-id").await, StatusCode::OK);
    assert_eq!(status(Method::GET, "/latest/meta-data/no-such").await, StatusCode::NOT_FOUND);
    assert_eq!(status(Method::GET, "/1999-01-01/meta-data/").await, StatusCode::NOT_FOUND);
    assert_eq!(status(Method::POST, "/latest/meta-data/").await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(status(Method::PUT, "/latest/meta-data/").await, StatusCode::METHOD_NOT_ALLOWED);

    let document = service.ask(LENIENT, Method::GET, "/latest/dynamic/instance-identity/document", &[]).await;
    let document: serde_json::Value = document.json().await.expect("JSON");
    assert_eq!(document["instanceId"], "i-lenient");
    assert_eq!(document["region"], "eu-west-1");
}

#[tokio::test]
async fn it_listens_where_no_interface_has_the_address_yet_and_frees_its_port() {
    // TEST-NET-1 (RFC 5737): no machine has it.
    let not_here = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 0);
    let early = serve(not_here, Arc::new(Two)).await.expect("it listens");
    assert_ne!(early.address().port(), 0);

    let service = Service::start().await;
    let address = service.server.address();
    service.server.stop().await;
    let again = serve(address, Arc::new(Two)).await.expect("the port is free again");
    assert_eq!(again.address(), address);
}
