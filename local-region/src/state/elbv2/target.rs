//! Targets: a server in a group, from its registration to the end of its draining.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    health::{Initial, TargetHealth, Unused},
    servers::{Server, ServerState},
};

/// How much of a target's past is kept, so that DescribeTargetHealth can lag. Longer than any lag of a profile.
const MEMORY: SignedDuration = SignedDuration::from_secs(60);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// An instance id, or an address where the group's targets are addresses.
    pub id: String,
    pub port: u16,
    /// As given in the call that registered it.
    pub zone: Option<String>,
    /// Set while the target drains: when it is gone.
    pub drains_until: Option<Timestamp>,
    /// Every health it had lately with the time it began, oldest first; the last one is the present.
    history: Vec<(Timestamp, TargetHealth)>,
}

/// What time, or a change elsewhere, makes of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Stay,
    Become(TargetHealth),
    Leave,
}

/// What a target's health depends on beside its checks.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    pub now: Timestamp,
    /// Time from registering a target to its first health check.
    pub registration: Duration,
    /// The zones of the load balancers that forward to the group; `None` where none does.
    pub zones: Option<&'a [String]>,
    /// The instance, where the target is one. `Some(None)` is an instance that is forgotten.
    pub server: Option<Option<Server>>,
}

impl Target {
    pub fn new(id: String, port: u16, zone: Option<String>, now: Timestamp) -> Self {
        let history = vec![(now, TargetHealth::Unused(Unused::NotInUse))];
        Self { id, port, zone, drains_until: None, history }
    }

    pub fn health(&self) -> &TargetHealth {
        &self.history[self.history.len() - 1].1
    }

    /// The health it had at `at`, or its first one where it is younger.
    pub fn health_at(&self, at: Timestamp) -> &TargetHealth {
        let known = self.history.iter().rev().find(|(since, _)| *since <= at);
        &known.unwrap_or(&self.history[0]).1
    }

    pub fn become_now(&mut self, health: TargetHealth, now: Timestamp) {
        if self.health() == &health {
            return;
        }
        // A registration that was refined within the same instant never was anything else.
        self.history.retain(|(since, _)| *since != now);
        let begin = now.saturating_sub(MEMORY).unwrap_or(Timestamp::MIN);
        let outdated = self.history.iter().rposition(|(since, _)| *since <= begin).unwrap_or(0);
        self.history.drain(..outdated);
        self.history.push((now, health));
    }

    /// Takes no new requests from now on, and is gone after `delay`.
    pub fn drain(&mut self, delay: Duration, now: Timestamp) {
        self.drains_until = Some(later(now, delay));
        self.become_now(TargetHealth::Draining, now);
    }

    /// A draining target that was registered again.
    pub fn stop_draining(&mut self, now: Timestamp) {
        self.drains_until = None;
        self.become_now(TargetHealth::Initial(Initial::RegistrationInProgress), now);
    }

    /// The state machine beside the health checks: registration, references, the instance's own state, draining.
    pub fn next(&self, around: &Surroundings<'_>) -> Next {
        if let Some(end) = self.drains_until {
            return if around.now >= end { Next::Leave } else { Next::Stay };
        }
        let server = match &around.server {
            Some(None) => return Next::Leave,
            Some(Some(server)) => Some(server),
            None => None,
        };
        let unused = match (server.map(|server| server.state), around.zones) {
            (Some(ServerState::Ended), _) => Some(Unused::Terminated),
            (Some(ServerState::Stopped), _) => Some(Unused::Stopped),
            (_, None) => Some(Unused::NotInUse),
            (_, Some(zones)) => {
                let zone = server.map(|server| &server.zone);
                zone.is_some_and(|zone| !zones.contains(zone)).then_some(Unused::ZoneNotEnabled)
            }
        };
        let next = match (unused, self.health()) {
            (Some(unused), _) => TargetHealth::Unused(unused),
            (None, TargetHealth::Unused(_)) => TargetHealth::Initial(Initial::RegistrationInProgress),
            (None, TargetHealth::Initial(Initial::RegistrationInProgress))
                if around.now >= self.registered_after(around.registration) =>
            {
                TargetHealth::Initial(Initial::HealthChecking)
            }
            _ => return Next::Stay,
        };
        if &next == self.health() { Next::Stay } else { Next::Become(next) }
    }

    /// When time alone will change it, if it will.
    pub fn due(&self, registration: Duration) -> Option<Timestamp> {
        match self.health() {
            TargetHealth::Initial(Initial::RegistrationInProgress) => Some(self.registered_after(registration)),
            _ => self.drains_until,
        }
    }

    fn registered_after(&self, registration: Duration) -> Timestamp {
        later(self.history[self.history.len() - 1].0, registration)
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const REGISTRATION: Duration = Duration::from_secs(5);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn server(state: ServerState, zone: &str) -> Option<Option<Server>> {
        let address = Ipv4Addr::new(10, 0, 0, 4);
        Some(Some(Server { address, zone: zone.into(), vpc_id: "vpc-1".into(), state }))
    }

    fn next(
        target: &Target,
        seconds: i64,
        zones: Option<&[String]>,
        server: Option<Option<Server>>,
    ) -> Result<&'static str, Next> {
        match target.next(&Surroundings { now: at(seconds), registration: REGISTRATION, zones, server }) {
            Next::Become(health) => Ok(health.reason().unwrap()),
            other => Err(other),
        }
    }

    fn target() -> Target {
        Target::new("i-1".into(), 80, None, at(0))
    }

    #[test]
    fn a_target_is_unused_until_its_group_is_referenced_then_registers_then_is_checked() {
        let zones = ["a".to_owned()];
        let running = || server(ServerState::Running, "a");
        let mut target = target();
        assert_eq!(next(&target, 1, None, running()), Err(Next::Stay));
        assert_eq!(target.health().reason(), Some("Target.NotInUse"));
        assert_eq!(next(&target, 1, Some(&zones), running()), Ok("Elb.RegistrationInProgress"));
        target.become_now(TargetHealth::Initial(Initial::RegistrationInProgress), at(1));
        assert_eq!(target.due(REGISTRATION), Some(at(6)));
        assert_eq!(next(&target, 5, Some(&zones), running()), Err(Next::Stay));
        assert_eq!(next(&target, 6, Some(&zones), running()), Ok("Elb.InitialHealthChecking"));
    }

    #[test]
    fn losing_the_last_reference_ends_the_checks() {
        let mut target = target();
        target.become_now(TargetHealth::Healthy, at(1));
        assert_eq!(next(&target, 2, None, server(ServerState::Running, "a")), Ok("Target.NotInUse"));
    }

    #[test]
    fn the_instance_and_its_zone_matter() {
        let zones = ["a".to_owned()];
        let mut target = target();
        target.become_now(TargetHealth::Healthy, at(1));
        assert_eq!(next(&target, 2, Some(&zones), server(ServerState::Ended, "a")), Ok("Target.InvalidState"));
        assert_eq!(next(&target, 2, Some(&zones), server(ServerState::Stopped, "a")), Ok("Target.InvalidState"));
        assert_eq!(next(&target, 2, Some(&zones), server(ServerState::Running, "b")), Ok("Target.NotInUse"));
        assert_eq!(next(&target, 2, Some(&zones), Some(None)), Err(Next::Leave));
    }

    #[test]
    fn draining_lasts_for_the_delay_whatever_else_happens() {
        let mut target = target();
        target.become_now(TargetHealth::Healthy, at(1));
        target.drain(Duration::from_secs(30), at(10));
        assert_eq!(target.health().reason(), Some("Target.DeregistrationInProgress"));
        assert_eq!(next(&target, 39, None, server(ServerState::Ended, "a")), Err(Next::Stay));
        assert_eq!(target.due(REGISTRATION), Some(at(40)));
        assert_eq!(next(&target, 40, None, server(ServerState::Running, "a")), Err(Next::Leave));
    }

    #[test]
    fn a_reader_that_lags_sees_the_past() {
        let mut target = target();
        target.become_now(TargetHealth::Healthy, at(10));
        target.drain(Duration::from_secs(300), at(20));
        assert_eq!(target.health_at(at(0)).state(), "unused");
        assert_eq!(target.health_at(at(19)).state(), "healthy");
        assert_eq!(target.health_at(at(20)).state(), "draining");
        target.become_now(TargetHealth::Healthy, at(100));
        assert_eq!(target.health_at(at(45)).state(), "draining", "what held at the edge of the memory is kept");
    }
}
