//! The one way to the cloud: SDK clients over HTTP. The local region differs from AWS by its endpoint alone.

use std::{fmt, net::Ipv4Addr, sync::Arc, time::Duration};

use alcedo_pipeline::{
    clock::{Clock, SystemClock},
    file::Aws,
    lock::Fence,
};
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::Credentials;
use aws_sdk_ec2::config::retry::RetryPartition;
use aws_smithy_http_client::tls;

use crate::guard::{Guard, StoreClock};

/// A local region that runs: where it is and the keys it knows.
#[derive(Debug, Clone)]
pub struct LocalEndpoint {
    /// `http://127.0.0.1:4599`.
    pub url: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
}

/// Longest time one attempt of a call may take. AWS's control plane answers within seconds or not at all.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Longest time a call may take with its retries.
const OPERATION: Duration = Duration::from_secs(120);

/// What requests say of who made them, beside the SDK's own words.
pub const APP_NAME: &str = "alcedo";

/// EC2 documents no bound; waiting for seconds is its own advice (*Eventual consistency*, EC2 API developer guide).
const VISIBLE: Duration = Duration::from_secs(10);

/// The clients of one environment.
#[derive(Debug, Clone)]
pub struct Clients {
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub s3: aws_sdk_s3::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub sts: aws_sdk_sts::Client,
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    pub cloudtrail: aws_sdk_cloudtrail::Client,
    pub http: reqwest::Client,
    /// This machine's address as servers see it, where it is known without asking.
    pub own_address: Option<Ipv4Addr>,
    /// The endpoint, where it is not AWS's own.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// The profile of AWS's own files that the file names.
    pub profile: Option<String>,
    /// How long something new can be invisible to Describe, and unknown to other calls. What nobody has found for longer is
    /// not there.
    pub visible: Duration,
    pub store_clock: StoreClock,
    pub clock: SharedClock,
    config: SdkConfig,
}

/// A clock that can be shown.
#[derive(Clone)]
pub struct SharedClock(pub Arc<dyn Clock>);

impl fmt::Debug for SharedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedClock({})", self.0.now())
    }
}

impl Clients {
    /// Reads credentials and region as AWS's own tools do; makes no call.
    pub async fn connect(aws: &Aws, local: Option<&LocalEndpoint>) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard().with_max_attempts(5))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .operation_attempt_timeout(ATTEMPT)
                    .operation_timeout(OPERATION)
                    .build(),
            );
        if let Some(local) = local {
            let credentials = Credentials::new(&local.access_key, &local.secret_key, None, None, "alcedo-local-region");
            loader = loader
                .endpoint_url(&local.url)
                .region(Region::new(local.region.clone()))
                .credentials_provider(credentials);
        } else {
            if let Some(region) = &aws.region {
                loader = loader.region(Region::new(region.clone()));
            }
            if let Some(profile) = &aws.profile {
                loader = loader.profile_name(profile);
            }
            if let Some(endpoint) = &aws.endpoint {
                loader = loader.endpoint_url(endpoint);
            }
        }
        let config = loader.load().await;
        let profile = aws.profile.clone().filter(|_| local.is_none());
        Self { profile, ..Self::of(config, Arc::new(SystemClock), None) }
    }

    /// Clients of an SDK configuration: another endpoint, HTTP client or clock than this machine's.
    pub fn of(config: SdkConfig, clock: Arc<dyn Clock>, fence: Option<&Fence>) -> Self {
        let config = config.into_builder().app_name(AppName::new(APP_NAME).expect("a name of letters")).build();
        let endpoint = config.endpoint_url().map(str::to_owned);
        let store_clock = StoreClock::new(clock.clone());
        // A bucket in the host name needs wildcard DNS, which no endpoint but AWS's has.
        let mut s3 = aws_sdk_s3::config::Builder::from(&config)
            .force_path_style(endpoint.is_some())
            .retry_partition(own_retries("s3"))
            .interceptor(store_clock.clone());
        let mut ec2 = aws_sdk_ec2::config::Builder::from(&config).retry_partition(own_retries("ec2"));
        let mut elb =
            aws_sdk_elasticloadbalancingv2::config::Builder::from(&config).retry_partition(own_retries("elb"));
        let ssm = aws_sdk_ssm::config::Builder::from(&config).retry_partition(own_retries("ssm"));
        let sts = aws_sdk_sts::config::Builder::from(&config).retry_partition(own_retries("sts"));
        let cloudwatch = aws_sdk_cloudwatch::config::Builder::from(&config).retry_partition(own_retries("cloudwatch"));
        let cloudtrail = aws_sdk_cloudtrail::config::Builder::from(&config).retry_partition(own_retries("cloudtrail"));
        if let Some(fence) = fence {
            s3 = s3.interceptor(Guard(fence.clone()));
            ec2 = ec2.interceptor(Guard(fence.clone()));
            elb = elb.interceptor(Guard(fence.clone()));
        }
        Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2.build()),
            elb: aws_sdk_elasticloadbalancingv2::Client::from_conf(elb.build()),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            ssm: aws_sdk_ssm::Client::from_conf(ssm.build()),
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            cloudwatch: aws_sdk_cloudwatch::Client::from_conf(cloudwatch.build()),
            cloudtrail: aws_sdk_cloudtrail::Client::from_conf(cloudtrail.build()),
            http: reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(5))
                .timeout(ATTEMPT)
                // A probe must see every answer, and each on a fresh connection, as a new visitor would.
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .expect("a client without custom certificates can be built"),
            endpoint,
            region: config.region().map(ToString::to_string),
            profile: None,
            own_address: None,
            visible: VISIBLE,
            store_clock,
            clock: SharedClock(clock),
            config,
        }
    }

    /// The same clients, through which nothing is changed once the environment's lease no longer holds.
    #[must_use]
    pub fn guarded_by(&self, fence: &Fence) -> Self {
        Self {
            http: self.http.clone(),
            own_address: self.own_address,
            visible: self.visible,
            profile: self.profile.clone(),
            ..Self::of(self.config.clone(), self.clock.0.clone(), Some(fence))
        }
    }
}

/// By default the SDK has one quota of retries for a service and a region in the whole process: what goes badly for one
/// environment, or one run, would leave another without any.
fn own_retries(service: &'static str) -> RetryPartition {
    RetryPartition::custom(service).build()
}

/// For calls that make something and have no client token: the SDK must not try them again after a lost answer, because
/// that can make a second one. The caller looks first, then decides.
///
/// The SDK's retries stay on for calls that state what is to be, of a resource that is named by its id: registering,
/// tagging, terminating, deleting. Done twice they are done once.
pub fn ec2_once() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// The same for the balancer, where no call has a token.
pub fn elb_once() -> aws_sdk_elasticloadbalancingv2::config::Builder {
    aws_sdk_elasticloadbalancingv2::config::Builder::new().retry_config(RetryConfig::disabled())
}
