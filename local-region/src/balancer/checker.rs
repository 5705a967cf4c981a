//! When which target is checked, and what the checks amount to. Time is passed in.
//!
//! One checker serves all nodes; at AWS each node checks by itself and DescribeTargetHealth shows what they agree on.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    probe::Probe,
    routes::{address, key},
};
use crate::state::{
    World,
    elbv2::{
        TargetKey,
        health::{Failure, Initial, Streak, TargetHealth, Thresholds},
    },
};

/// The schedule of every target that is checked.
#[derive(Debug, Default)]
pub struct Checker {
    /// How soon a target that has not passed yet is checked again, between its regular checks; `None` not before.
    initial_check: Option<Duration>,
    schedules: HashMap<TargetKey, Schedule>,
}

#[derive(Debug)]
struct Schedule {
    streak: Streak,
    /// When the next check that counts begins; such checks are one interval apart.
    regular: Timestamp,
    next: Timestamp,
    /// When the check under way began, and whether it counts if it fails.
    running: Option<(Timestamp, bool)>,
}

/// A check that is due.
#[derive(Debug, Clone)]
pub struct Due {
    pub key: TargetKey,
    pub probe: Probe,
    pub began: Timestamp,
}

impl Checker {
    pub fn new(initial_check: Option<Duration>) -> Self {
        Self { initial_check, schedules: HashMap::new() }
    }

    /// The checks to begin now. A target that is new here is checked at once; one that is not to be checked any more is
    /// forgotten.
    pub fn due(&mut self, world: &World, now: Timestamp) -> Vec<Due> {
        let mut checked = BTreeSet::new();
        let mut due = Vec::new();
        for group in world.elbv2.target_groups() {
            for target in group.targets.iter().filter(|target| target.health().is_checked()) {
                let key = key(group, target);
                checked.insert(key.clone());
                let Some(address) = address(world, group, &target.id, group.check_port(target)) else { continue };
                let schedule = self.schedules.entry(key.clone()).or_insert(Schedule {
                    streak: Streak::default(),
                    regular: now,
                    next: now,
                    running: None,
                });
                if schedule.running.is_some() || now < schedule.next {
                    continue;
                }
                let counts = now >= schedule.regular;
                if counts {
                    schedule.regular = later(now, group.health_check.interval());
                }
                schedule.running = Some((now, counts));
                let probe = Probe { target_id: target.id.clone(), address, settings: group.health_check.clone() };
                due.push(Due { key, probe, began: now });
            }
        }
        self.schedules.retain(|key, _| checked.contains(key));
        due
    }

    /// Takes in how a check ended, and answers the target's new health where it changes.
    ///
    /// Failures of the checks between regular ones do not count: a server that boots is not unhealthy any sooner for
    /// being asked more often.
    pub fn done(
        &mut self,
        world: &World,
        check: &Due,
        outcome: Result<(), Failure>,
        now: Timestamp,
    ) -> Option<TargetHealth> {
        let schedule = self.schedules.get_mut(&check.key)?;
        let (began, counts) = schedule.running?;
        if began != check.began {
            return None;
        }
        schedule.running = None;
        let health = world.elbv2.target(&check.key)?.health();
        let thresholds = Thresholds {
            healthy: check.probe.settings.healthy_threshold,
            unhealthy: check.probe.settings.unhealthy_threshold,
        };
        let changed = match outcome {
            Err(_) if !counts => None,
            outcome => schedule.streak.observe(health, outcome, thresholds),
        };
        let waits = changed.as_ref().unwrap_or(health) == &TargetHealth::Initial(Initial::HealthChecking);
        let soon = self.initial_check.filter(|_| waits).map(|wait| later(now, wait));
        schedule.next = soon.map_or(schedule.regular, |soon| soon.min(schedule.regular));
        changed
    }

    /// When the next check is due, as far as is known.
    pub fn next(&self) -> Option<Timestamp> {
        self.schedules.values().filter(|schedule| schedule.running.is_none()).map(|schedule| schedule.next).min()
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::state::elbv2::{HealthCheck, Matcher, TargetGroup, TargetType, health::Unused};

    fn at(millis: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis)
    }

    fn group_arn() -> String {
        "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/blue/1".into()
    }

    fn key() -> TargetKey {
        TargetKey { group_arn: group_arn(), id: "127.0.0.1".into(), port: 80 }
    }

    /// One address in one group that is checked every 5 seconds.
    fn world(health: TargetHealth) -> World {
        let mut world = World::default();
        let group = TargetGroup {
            arn: group_arn(),
            name: "blue".into(),
            port: 80,
            vpc_id: "vpc-1".into(),
            target_type: TargetType::Ip,
            protocol_version: "HTTP1".into(),
            health_check: HealthCheck {
                interval_seconds: 5,
                timeout_seconds: 2,
                matcher: Matcher::default(),
                ..HealthCheck::default()
            },
            attributes: BTreeMap::new(),
            tags: BTreeMap::new(),
            targets: Vec::new(),
        };
        world.elbv2.create_target_group(group).unwrap();
        let World { elbv2, ec2, .. } = &mut world;
        elbv2.register(&group_arn(), &[("127.0.0.1".into(), None, None)], &*ec2, at(0)).unwrap();
        elbv2.target_group_mut(&group_arn()).unwrap().targets[0].become_now(health, at(0));
        world
    }

    /// Carries out the check that is due at `millis`, if there is one.
    fn check(checker: &mut Checker, world: &World, millis: i64, outcome: Result<(), Failure>) -> Option<&'static str> {
        let due = checker.due(world, at(millis));
        let changed = checker.done(world, due.first()?, outcome, at(millis));
        Some(changed.map_or("unchanged", |health| health.state()))
    }

    #[test]
    fn extra_checks_find_a_booting_server_and_their_failures_do_not_count() {
        let world = world(TargetHealth::Initial(Initial::HealthChecking));
        let mut checker = Checker::new(Some(Duration::from_millis(500)));
        let broken = Err(Failure::Broken);
        for millis in (0..5000).step_by(500) {
            assert_eq!(check(&mut checker, &world, millis, broken), Some("unchanged"), "at {millis} ms");
        }
        assert_eq!(checker.next(), Some(at(5000)));
        assert_eq!(check(&mut checker, &world, 5000, broken), Some("unhealthy"), "the second that counts");
    }

    #[test]
    fn a_pass_in_an_extra_check_is_enough() {
        let world = world(TargetHealth::Initial(Initial::HealthChecking));
        let mut checker = Checker::new(Some(Duration::from_millis(500)));
        check(&mut checker, &world, 0, Err(Failure::Broken));
        assert_eq!(check(&mut checker, &world, 500, Ok(())), Some("healthy"));
        assert_eq!(checker.next(), Some(at(5000)), "from then on at its interval");
    }

    #[test]
    fn without_extra_checks_the_interval_holds_from_the_start() {
        let world = world(TargetHealth::Initial(Initial::HealthChecking));
        let mut checker = Checker::new(None);
        check(&mut checker, &world, 0, Err(Failure::Broken));
        assert_eq!(check(&mut checker, &world, 4999, Ok(())), None, "nothing is due");
        assert_eq!(check(&mut checker, &world, 5000, Ok(())), Some("healthy"));
    }

    #[test]
    fn one_check_at_a_time_and_none_for_a_target_in_no_use() {
        let mut checked = world(TargetHealth::Healthy);
        let mut checker = Checker::new(None);
        let due = checker.due(&checked, at(0));
        assert_eq!(due.len(), 1);
        assert!(checker.due(&checked, at(60_000)).is_empty(), "the first is still under way");
        let group = checked.elbv2.target_group_mut(&group_arn()).unwrap();
        group.targets[0].become_now(TargetHealth::Unused(Unused::NotInUse), at(60_000));
        assert!(checker.due(&checked, at(120_000)).is_empty());
        assert_eq!(checker.done(&checked, &due[0], Ok(()), at(120_000)), None, "too late to matter");
        assert_eq!(checker.next(), None);
        assert_eq!(due[0].key, key());
    }
}
