//! From single health checks to a target's health: the first pass is enough for a new target, later changes take as
//! many checks in a row as the thresholds say.

use serde::{Deserialize, Serialize};

/// A target's health as DescribeTargetHealth names it (`TargetHealth` in the ELBv2 API reference).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetHealth {
    Unused(Unused),
    Initial(Initial),
    Healthy,
    Unhealthy(Failure),
    Draining,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unused {
    /// No listener or rule of any load balancer forwards to the group.
    NotInUse,
    /// The target's zone is not one of its load balancers'.
    ZoneNotEnabled,
    NotRegistered,
    /// The instance is stopped, or on its way to it.
    Stopped,
    /// The instance is terminated, or on its way to it.
    Terminated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initial {
    RegistrationInProgress,
    HealthChecking,
}

/// Why a health check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// An answer with a status that the matcher does not accept.
    CodeMismatch(u16),
    Timeout,
    /// No connection, or no HTTP on it.
    Broken,
}

impl TargetHealth {
    /// `State` in the API.
    pub fn state(&self) -> &'static str {
        match self {
            Self::Unused(_) => "unused",
            Self::Initial(_) => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy(_) => "unhealthy",
            Self::Draining => "draining",
        }
    }

    /// `Reason` in the API; a healthy target has none.
    pub fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Healthy => return None,
            Self::Unused(Unused::NotInUse | Unused::ZoneNotEnabled) => "Target.NotInUse",
            Self::Unused(Unused::NotRegistered) => "Target.NotRegistered",
            Self::Unused(Unused::Stopped | Unused::Terminated) => "Target.InvalidState",
            Self::Initial(Initial::RegistrationInProgress) => "Elb.RegistrationInProgress",
            Self::Initial(Initial::HealthChecking) => "Elb.InitialHealthChecking",
            Self::Unhealthy(Failure::CodeMismatch(_)) => "Target.ResponseCodeMismatch",
            Self::Unhealthy(Failure::Timeout) => "Target.Timeout",
            Self::Unhealthy(Failure::Broken) => "Target.FailedHealthChecks",
            Self::Draining => "Target.DeregistrationInProgress",
        })
    }

    /// `Description` in the API; a healthy target has none.
    pub fn description(&self) -> Option<String> {
        Some(match self {
            Self::Healthy => return None,
            Self::Unused(Unused::NotInUse) => {
                "Target group is not configured to receive traffic from the load balancer".into()
            }
            Self::Unused(Unused::ZoneNotEnabled) => {
                "Target is in an Availability Zone that is not enabled for the load balancer".into()
            }
            Self::Unused(Unused::NotRegistered) => "Target is not registered to the target group".into(),
            Self::Unused(Unused::Stopped) => "Target is in the stopped state".into(),
            Self::Unused(Unused::Terminated) => "Target is in the terminated state".into(),
            Self::Initial(Initial::RegistrationInProgress) => "Target registration is in progress".into(),
            Self::Initial(Initial::HealthChecking) => "Initial health checks in progress".into(),
            Self::Unhealthy(Failure::CodeMismatch(status)) => {
                format!("Health checks failed with these codes: [{status}]")
            }
            Self::Unhealthy(Failure::Timeout) => "Request timed out".into(),
            Self::Unhealthy(Failure::Broken) => "Health checks failed".into(),
            Self::Draining => "Target deregistration is in progress".into(),
        })
    }

    /// Whether the target is to be checked.
    pub fn is_checked(&self) -> bool {
        matches!(self, Self::Initial(Initial::HealthChecking) | Self::Healthy | Self::Unhealthy(_))
    }
}

/// How many checks in a row it takes to change a target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub healthy: u32,
    pub unhealthy: u32,
}

/// The checks in a row that point away from the present health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    passed: u32,
    failed: u32,
}

impl Streak {
    /// Takes one check's outcome in, and answers the health that follows where it differs from `now`. A target whose
    /// checks go on failing in another way keeps `unhealthy` with the newer reason.
    pub fn observe(
        &mut self,
        now: &TargetHealth,
        outcome: Result<(), Failure>,
        thresholds: Thresholds,
    ) -> Option<TargetHealth> {
        match outcome {
            Ok(()) => *self = Self { passed: self.passed + 1, failed: 0 },
            Err(_) => *self = Self { passed: 0, failed: self.failed + 1 },
        }
        match (now, outcome) {
            (TargetHealth::Initial(Initial::HealthChecking), Ok(())) => Some(TargetHealth::Healthy),
            (TargetHealth::Unhealthy(_), Ok(())) if self.passed >= thresholds.healthy => Some(TargetHealth::Healthy),
            (TargetHealth::Initial(Initial::HealthChecking) | TargetHealth::Healthy, Err(failure))
                if self.failed >= thresholds.unhealthy =>
            {
                Some(TargetHealth::Unhealthy(failure))
            }
            (TargetHealth::Unhealthy(known), Err(failure)) if *known != failure => {
                Some(TargetHealth::Unhealthy(failure))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { healthy: 3, unhealthy: 2 };

    /// Feeds checks (`.` passes, `x` fails) and writes the state after each.
    fn states(start: TargetHealth, checks: &str) -> Vec<&'static str> {
        let mut health = start;
        let mut streak = Streak::default();
        checks
            .chars()
            .map(|check| {
                let outcome = if check == '.' { Ok(()) } else { Err(Failure::Broken) };
                if let Some(next) = streak.observe(&health, outcome, THRESHOLDS) {
                    health = next;
                }
                health.state()
            })
            .collect()
    }

    #[test]
    fn a_new_target_is_healthy_after_its_first_pass() {
        assert_eq!(states(TargetHealth::Initial(Initial::HealthChecking), "."), ["healthy"]);
        assert_eq!(states(TargetHealth::Initial(Initial::HealthChecking), "x."), ["initial", "healthy"]);
    }

    #[test]
    fn later_changes_take_the_thresholds_in_a_row() {
        assert_eq!(states(TargetHealth::Healthy, "x.xx"), ["healthy", "healthy", "healthy", "unhealthy"]);
        assert_eq!(
            states(TargetHealth::Unhealthy(Failure::Broken), "..x..."),
            ["unhealthy", "unhealthy", "unhealthy", "unhealthy", "unhealthy", "healthy"]
        );
    }

    #[test]
    fn a_target_that_was_never_up_is_unhealthy_after_the_threshold() {
        assert_eq!(states(TargetHealth::Initial(Initial::HealthChecking), "xx"), ["initial", "unhealthy"]);
    }

    #[test]
    fn the_reason_follows_the_last_failure() {
        let mut streak = Streak::default();
        let now = TargetHealth::Unhealthy(Failure::Broken);
        let next = streak.observe(&now, Err(Failure::CodeMismatch(503)), THRESHOLDS).unwrap();
        assert_eq!(next.reason(), Some("Target.ResponseCodeMismatch"));
        assert_eq!(next.description().unwrap(), "Health checks failed with these codes: [503]");
        assert_eq!(streak.observe(&next, Err(Failure::CodeMismatch(503)), THRESHOLDS), None);
    }
}
