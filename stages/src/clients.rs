//! The one way to the cloud: SDK clients over HTTP. The local region differs from AWS by its endpoint alone.

use std::time::Duration;

use alcedo_pipeline::file::Aws;
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::Credentials;
use aws_smithy_http_client::tls;

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

/// The clients of one environment.
#[derive(Debug, Clone)]
pub struct Clients {
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub s3: aws_sdk_s3::Client,
    pub sts: aws_sdk_sts::Client,
    pub http: reqwest::Client,
    /// The endpoint, where it is not AWS's own.
    pub endpoint: Option<String>,
    pub region: Option<String>,
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
        Self::from_config(&config)
    }

    fn from_config(config: &SdkConfig) -> Self {
        let endpoint = config.endpoint_url().map(str::to_owned);
        // A bucket in the host name needs wildcard DNS, which no endpoint but AWS's has.
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(endpoint.is_some()).build();
        Self {
            ec2: aws_sdk_ec2::Client::new(config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            sts: aws_sdk_sts::Client::new(config),
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
        }
    }
}

/// For calls that have no client token: the SDK must not try them again after a lost answer, because that can make a
/// second one. The caller looks first, then decides.
pub fn ec2_once() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// The same for the balancer, where no call has a token.
pub fn elb_once() -> aws_sdk_elasticloadbalancingv2::config::Builder {
    aws_sdk_elasticloadbalancingv2::config::Builder::new().retry_config(RetryConfig::disabled())
}
