//! A local region on records alone inside this process, in paused time: requests of the real SDK are handed to it without
//! a socket, and a wait ends as soon as nobody has anything else to do. One seed is one course of events.

use std::{sync::Arc, time::Duration};

use alcedo_local_region::{
    clock::TokioClock as RegionClock,
    config::{Backing, Capacity, Config, Lags},
    server::{self, Simulated},
};
use alcedo_pipeline::clock::TokioClock;
use alcedo_stages::clients::Clients;
use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use jiff::Timestamp;
use tempfile::TempDir;

use super::journey::OWN_ADDRESS;

/// When every simulation begins.
const START: &str = "2026-11-20T09:00:00Z";
const ACCESS_KEY: &str = "AKIASIMULATION";
const SECRET_KEY: &str = "a secret of these tests";

pub struct Simulation {
    pub region: Simulated,
    pub clients: Clients,
    _folder: TempDir,
}

impl Simulation {
    pub async fn start(seed: u64, lags: Lags) -> Self {
        // The SDK draws the jitter of its retries from this.
        fastrand::seed(seed);
        let start: Timestamp = START.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            name: "simulation".into(),
            folder: folder.path().join("region"),
            listen: "127.0.0.1:0".parse().unwrap(),
            region: "us-east-1".into(),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            backing: Backing::RecordsOnly,
            lags,
            capacity: Capacity::default(),
        };
        let region = server::simulate(config, Arc::new(RegionClock::starting_at(start)), seed).await.unwrap();
        let mut clients = Clients::of(sdk(&region), Arc::new(TokioClock::starting_at(start)), None);
        clients.own_address = Some(OWN_ADDRESS);
        Self { region, clients, _folder: folder }
    }
}

/// As [`Clients::connect`] has it, but for what carries the requests.
fn sdk(region: &Simulated) -> SdkConfig {
    let answers = region.answers();
    let answers = move |request| -> Answer { Box::pin(answers(request)) };
    let connector = SharedHttpConnector::new(Direct(Arc::new(answers)));
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .endpoint_url("http://simulation.invalid")
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            ACCESS_KEY, SECRET_KEY, None, None, "simulation",
        )))
        .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(aws_smithy_async::rt::sleep::TokioSleep::new()))
        .time_source(aws_smithy_async::time::SystemTimeSource::new())
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(Duration::from_secs(30))
                .operation_timeout(Duration::from_secs(120))
                .build(),
        )
        // It measures bytes by the machine's time, which does not go as the simulation's does.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

type Answer = futures::future::BoxFuture<'static, std::io::Result<server::Answer>>;

/// Hands each request to the region.
struct Direct(Arc<dyn Fn(http::Request<SdkBody>) -> Answer + Send + Sync>);

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct")
    }
}

impl HttpConnector for Direct {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answers = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let answer = answers(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from)).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
