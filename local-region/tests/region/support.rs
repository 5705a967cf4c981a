//! A region of its own for each test, and SDK clients on it.

use std::{fmt::Debug, sync::Arc, time::Duration};

use alcedo_local_region::{
    clock::ManualClock,
    config::{Backing, Capacity, Config, Lags},
    instances::records::Records,
    server::{self, Running},
};
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_ec2::{
    config::Credentials,
    error::{ProvideErrorMetadata, SdkError},
    types::{InstanceStateName, ResourceType, Tag, TagSpecification},
};
use aws_smithy_http_client::tls;
use jiff::{SignedDuration, Timestamp};

pub const ACCESS_KEY: &str = "AKIATEST";
pub const SECRET_KEY: &str = "test-secret";

/// Longer than the test's lag for new records.
const PAST_LAG: SignedDuration = SignedDuration::from_secs(3);

/// What a wait for work beside the requests takes at most; it usually takes none.
const DEADLINE: Duration = Duration::from_secs(20);

pub struct TestRegion {
    pub running: Running,
    pub clock: Arc<ManualClock>,
    pub machines: Arc<Records>,
    pub config: Config,
    pub folder: tempfile::TempDir,
}

impl TestRegion {
    /// A region without throttling, in which new records are unknown for two seconds.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            name: "test".to_owned(),
            folder: folder.path().join("region"),
            listen: "127.0.0.1:0".parse().unwrap(),
            region: "eu-west-1".to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            backing: Backing::RecordsOnly,
            lags: Lags { new_record: Duration::from_secs(2), throttle: false, ..Lags::quick() },
            capacity: Capacity::default(),
            forget_servers: false,
        };
        change(&mut config);
        let clock = Arc::new(ManualClock::new(Timestamp::now()));
        let machines = Arc::new(Records::new());
        let running = server::start_on(config.clone(), clock.clone(), machines.clone()).await.unwrap();
        Self { running, clock, machines, config, folder }
    }

    /// Stops the region and starts it again on the same folder and machines.
    pub async fn restart(self) -> Self {
        let Self { running, clock, machines, config, folder } = self;
        running.stop().await;
        let running = server::start_on(config.clone(), clock.clone(), machines.clone()).await.unwrap();
        Self { running, clock, machines, config, folder }
    }

    pub fn sdk(&self) -> SdkConfig {
        self.sdk_with_keys(ACCESS_KEY, SECRET_KEY)
    }

    pub fn sdk_with_keys(&self, access_key: &str, secret_key: &str) -> SdkConfig {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.running.endpoint)
            .region(Region::new(self.config.region.clone()))
            .credentials_provider(aws_sdk_ec2::config::SharedCredentialsProvider::new(Credentials::new(
                access_key, secret_key, None, None, "test",
            )))
            .retry_config(RetryConfig::disabled())
            .http_client(http)
            .build()
    }

    pub fn ec2(&self) -> aws_sdk_ec2::Client {
        aws_sdk_ec2::Client::new(&self.sdk())
    }

    pub fn s3(&self) -> aws_sdk_s3::Client {
        s3_on(&self.sdk())
    }

    /// Lets readers see everything that was changed so far.
    pub fn pass_lag(&self) {
        self.clock.advance(PAST_LAG);
    }

    /// The image that a region of records always offers.
    pub async fn base_image(&self) -> String {
        let answer = self.ec2().describe_images().owners("self").send().await.unwrap();
        answer.images()[0].image_id().unwrap().to_owned()
    }

    /// Launches one instance and waits until it runs and is seen.
    pub async fn launch(&self) -> String {
        let image = self.base_image().await;
        let answer =
            self.ec2().run_instances().image_id(image).instance_type("t3.micro".into()).min_count(1).max_count(1);
        let id = answer.send().await.unwrap().instances()[0].instance_id().unwrap().to_owned();
        self.pass_lag();
        self.wait_for(&id, InstanceStateName::Running).await;
        id
    }

    pub async fn state(&self, id: &str) -> InstanceStateName {
        let answer = self.ec2().describe_instances().instance_ids(id).send().await.unwrap();
        answer.reservations()[0].instances()[0].state().unwrap().name().unwrap().clone()
    }

    /// Waits until work beside the requests has brought the instance there; the clock stands still meanwhile.
    pub async fn wait_for(&self, id: &str, wanted: InstanceStateName) {
        self.until(format!("{id} is {wanted}"), async || self.state(id).await == wanted).await;
    }

    pub async fn until(&self, what: impl std::fmt::Display, holds: impl AsyncFn() -> bool) {
        let mut changes = self.running.region.changes();
        let wait = async {
            while !holds().await {
                // Every change of the records is told; a look between two of them costs nothing.
                let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "waited in vain until {what}");
    }
}

/// A client that keeps the bucket in the path: no name resolution leads to `<bucket>.127.0.0.1`.
pub fn s3_on(sdk: &SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(sdk).force_path_style(true).build())
}

/// The service's error code of a call that must fail.
#[track_caller]
pub fn code<T: Debug, E: ProvideErrorMetadata + Debug>(outcome: Result<T, SdkError<E>>) -> String {
    let error = outcome.expect_err("the call was to be refused");
    error.code().unwrap_or_else(|| panic!("no code in {error:?}")).to_owned()
}

pub fn tagged(kind: ResourceType, key: &str, value: &str) -> TagSpecification {
    let tag = Tag::builder().key(key).value(value).build();
    TagSpecification::builder().resource_type(kind).tags(tag).build()
}
