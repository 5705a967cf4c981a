//! Load balancers: application load balancers with IPv4 addresses.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Refusal, attributes::Attribute};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadBalancer {
    pub arn: String,
    pub name: String,
    pub scheme: Scheme,
    pub vpc_id: String,
    /// One subnet in each of at least two zones.
    pub zones: Vec<Zone>,
    pub security_groups: Vec<String>,
    pub created: Timestamp,
    pub attributes: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    pub name: String,
    pub subnet_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    InternetFacing,
    Internal,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::InternetFacing => "internet-facing",
            Self::Internal => "internal",
        }
    }

    /// # Errors
    /// `InvalidScheme` for anything but the two names.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "internet-facing" => Ok(Self::InternetFacing),
            "internal" => Ok(Self::Internal),
            _ => Err(Refusal::new("InvalidScheme", format!("The scheme '{name}' is not valid"))),
        }
    }
}

pub const IDLE_TIMEOUT: &str = "idle_timeout.timeout_seconds";
pub const DELETION_PROTECTION: &str = "deletion_protection.enabled";
pub const FORWARDED_FOR: &str = "routing.http.xff_header_processing.mode";
pub const PRESERVE_HOST: &str = "routing.http.preserve_host_header.enabled";

/// The attributes of an application load balancer that a local region knows, with AWS's defaults. The data plane acts
/// on the idle timeout, the forwarded-for mode and the deletion protection; the others are kept as records.
pub const ATTRIBUTES: &[Attribute] = &[
    Attribute::one_of("access_logs.s3.enabled", &["false", "true"], "false"),
    Attribute::text("access_logs.s3.bucket", ""),
    Attribute::text("access_logs.s3.prefix", ""),
    Attribute::number(IDLE_TIMEOUT, 1, 4000, "60"),
    Attribute::one_of(DELETION_PROTECTION, &["false", "true"], "false"),
    Attribute::one_of("routing.http2.enabled", &["true", "false"], "true"),
    Attribute::one_of("routing.http.drop_invalid_header_fields.enabled", &["false", "true"], "false"),
    Attribute::one_of("routing.http.xff_client_port.enabled", &["false", "true"], "false"),
    Attribute::one_of(PRESERVE_HOST, &["false", "true"], "false"),
    Attribute::one_of(FORWARDED_FOR, &["append", "preserve", "remove"], "append"),
    Attribute::one_of("routing.http.desync_mitigation_mode", &["defensive", "monitor", "strictest"], "defensive"),
    Attribute::one_of("load_balancing.cross_zone.enabled", &["true"], "true"),
    Attribute::one_of("waf.fail_open.enabled", &["false", "true"], "false"),
    Attribute::number("client_keep_alive.seconds", 60, 604_800, "3600"),
];

impl LoadBalancer {
    /// How long a connection may be silent, on either side.
    pub fn idle_timeout_seconds(&self) -> u32 {
        Attribute::number_of(ATTRIBUTES, &self.attributes, IDLE_TIMEOUT)
    }

    pub fn is_protected(&self) -> bool {
        Attribute::value_of(ATTRIBUTES, &self.attributes, DELETION_PROTECTION) == "true"
    }
}
