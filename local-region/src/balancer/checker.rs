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
