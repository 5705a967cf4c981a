//! Target groups: where requests go, and how their servers are checked.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Refusal, attributes::Attribute, target::Target};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetGroup {
    pub arn: String,
    pub name: String,
    pub port: u16,
    pub vpc_id: String,
    pub target_type: TargetType,
    /// `HTTP1`: the only version of the protocol between balancer and target that a local region speaks.
    pub protocol_version: String,
    pub health_check: HealthCheck,
    pub attributes: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetType {
    Instance,
    Ip,
}

impl TargetType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Ip => "ip",
        }
    }
}

/// How the servers of a group are checked. Durations are whole seconds, as the API has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub enabled: bool,
    pub path: String,
    /// `None` is `traffic-port`: the port that the target takes requests on.
    pub port: Option<u16>,
    pub interval_seconds: u32,
    pub timeout_seconds: u32,
    pub healthy_threshold: u32,
    pub unhealthy_threshold: u32,
    pub matcher: Matcher,
}

impl Default for HealthCheck {
    /// AWS's defaults for an application load balancer's target group of instances or addresses.
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/".into(),
            port: None,
            interval_seconds: 30,
            timeout_seconds: 5,
            healthy_threshold: 5,
            unhealthy_threshold: 2,
            matcher: Matcher::default(),
        }
    }
}

impl HealthCheck {
    /// Longest path (ELBv2 API reference).
    const LONGEST_PATH: usize = 1024;

    /// Checks the ranges of the API reference.
    ///
    /// # Errors
    /// `ValidationError`, or `InvalidConfigurationRequest` where the timeout is not shorter than the interval.
    pub fn check(&self) -> Result<(), Refusal> {
        let in_range = |what: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(Refusal::validation(format!("{what} '{value}' must be between {least} and {most} inclusive")))
            }
        };
        in_range("Health check interval", self.interval_seconds, 5, 300)?;
        in_range("Health check timeout", self.timeout_seconds, 2, 120)?;
        in_range("Healthy threshold count", self.healthy_threshold, 2, 10)?;
        in_range("Unhealthy threshold count", self.unhealthy_threshold, 2, 10)?;
        if self.timeout_seconds >= self.interval_seconds {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "Health check interval must be greater than the timeout.",
            ));
        }
        if !self.path.starts_with('/') || self.path.len() > Self::LONGEST_PATH {
            return Err(Refusal::validation(format!(
                "Health check path '{}' must begin with '/' and have at most {} characters",
                self.path,
                Self::LONGEST_PATH
            )));
        }
        if !self.enabled {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "Health check enabled must be true for target groups with target type 'instance' or 'ip'",
            ));
        }
        Ok(())
    }

    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.into())
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }
}

/// The HTTP status codes that pass, such as `200`, `200,302` or `200-299`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher(String);

impl Default for Matcher {
    fn default() -> Self {
        Self("200".into())
    }
}

impl Matcher {
    /// # Errors
    /// `ValidationError` where a part is neither a code nor a range of codes from 200 to 499 (ELBv2 API reference).
    pub fn parse(codes: &str) -> Result<Self, Refusal> {
        let valid = codes.split(',').all(|part| {
            bounds(part).is_some_and(|(least, most)| least <= most && (200..=499).contains(&least) && most <= 499)
        });
        if valid {
            Ok(Self(codes.into()))
        } else {
            Err(Refusal::validation(format!(
                "Health check matcher HTTP code '{codes}' must be within '200-499' inclusive, such as '200', '200,302' \
                 or '200-299'"
            )))
        }
    }

    pub fn codes(&self) -> &str {
        &self.0
    }

    pub fn accepts(&self, status: u16) -> bool {
        self.0.split(',').filter_map(bounds).any(|(least, most)| (least..=most).contains(&status))
    }
}

fn bounds(part: &str) -> Option<(u16, u16)> {
    let (least, most) = part.split_once('-').unwrap_or((part, part));
    Some((least.trim().parse().ok()?, most.trim().parse().ok()?))
}

pub const DEREGISTRATION_DELAY: &str = "deregistration_delay.timeout_seconds";
pub const ALGORITHM: &str = "load_balancing.algorithm.type";
pub const STICKY: &str = "stickiness.enabled";
pub const STICKY_TYPE: &str = "stickiness.type";
pub const STICKY_SECONDS: &str = "stickiness.lb_cookie.duration_seconds";

/// The attributes of a target group that a local region knows, with AWS's defaults. The data plane acts on the
/// deregistration delay, the stickiness and the algorithm; the others are kept as records.
pub const ATTRIBUTES: &[Attribute] = &[
    Attribute::number(DEREGISTRATION_DELAY, 0, 3600, "300"),
    Attribute::one_of(STICKY, &["false", "true"], "false"),
    Attribute::one_of(STICKY_TYPE, &["lb_cookie"], "lb_cookie"),
    Attribute::number(STICKY_SECONDS, 1, 604_800, "86400"),
    Attribute::zero_or_number("slow_start.duration_seconds", 30, 900, "0"),
    Attribute::one_of(ALGORITHM, &["round_robin", "least_outstanding_requests"], "round_robin"),
    Attribute::one_of(
        "load_balancing.cross_zone.enabled",
        &["use_load_balancer_configuration", "true", "false"],
        "use_load_balancer_configuration",
    ),
    Attribute::text("target_group_health.dns_failover.minimum_healthy_targets.count", "1"),
    Attribute::text("target_group_health.dns_failover.minimum_healthy_targets.percentage", "off"),
    Attribute::text("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "1"),
    Attribute::text("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage", "off"),
];

impl TargetGroup {
    pub fn deregistration_delay(&self) -> Duration {
        Duration::from_secs(Attribute::number_of(ATTRIBUTES, &self.attributes, DEREGISTRATION_DELAY).into())
    }

    /// How long the balancer's own cookie (`AWSALB`) binds a client to a target; `None` where it does not.
    pub fn sticky_seconds(&self) -> Option<u32> {
        (Attribute::value_of(ATTRIBUTES, &self.attributes, STICKY) == "true")
            .then(|| Attribute::number_of(ATTRIBUTES, &self.attributes, STICKY_SECONDS))
    }

    pub fn prefers_least_outstanding(&self) -> bool {
        Attribute::value_of(ATTRIBUTES, &self.attributes, ALGORITHM) == "least_outstanding_requests"
    }

    /// The port on which a target is checked.
    pub fn check_port(&self, target: &Target) -> u16 {
        self.health_check.port.unwrap_or(target.port)
    }

    /// Whether a call to create `other` would create this very group again: AWS then answers with the group that
    /// exists.
    pub fn has_settings_of(&self, other: &Self) -> bool {
        (self.port, &self.vpc_id, self.target_type, &self.protocol_version, &self.health_check)
            == (other.port, &other.vpc_id, other.target_type, &other.protocol_version, &other.health_check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_take_codes_lists_and_ranges() {
        let accepts = |codes: &str, status| Matcher::parse(codes).unwrap().accepts(status);
        assert!(accepts("200", 200) && !accepts("200", 201));
        assert!(accepts("200,302", 302) && !accepts("200,302", 301));
        assert!(accepts("200-299", 250) && !accepts("200-299", 300));
        for bad in ["", "199", "200-500", "299-200", "abc", "200,"] {
            assert!(Matcher::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn health_checks_keep_to_the_ranges_of_the_api_reference() {
        let good = HealthCheck::default();
        assert!(good.check().is_ok());
        let bad = [
            HealthCheck { interval_seconds: 4, timeout_seconds: 2, ..good.clone() },
            HealthCheck { interval_seconds: 301, ..good.clone() },
            HealthCheck { timeout_seconds: 1, ..good.clone() },
            HealthCheck { timeout_seconds: 30, ..good.clone() },
            HealthCheck { healthy_threshold: 1, ..good.clone() },
            HealthCheck { unhealthy_threshold: 11, ..good.clone() },
            HealthCheck { path: "health".into(), ..good.clone() },
            HealthCheck { enabled: false, ..good },
        ];
        for check in bad {
            assert!(check.check().is_err(), "{check:?}");
        }
    }
}
