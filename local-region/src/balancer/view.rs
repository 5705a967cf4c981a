//! Routes made ready for requests: which rule fits, which group gets the request, which target of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{Rng, rngs::StdRng};

use super::{
    routes::{ForwardedFor, ListenerRoutes, Routes},
    stickiness,
    upstreams::{Fitness, Upstream, Upstreams},
};
use crate::state::elbv2::{
    Action, Forward, TargetKey,
    condition::{Condition, Request},
};

/// What one node knows: its listeners, by ARN.
#[derive(Debug, Default)]
pub struct View {
    pub listeners: HashMap<String, Arc<ListenerView>>,
}

#[derive(Debug)]
pub struct ListenerView {
    pub port: u16,
    pub idle_timeout: Duration,
    pub forwarded_for: ForwardedFor,
    rules: Vec<(Vec<Condition>, Action)>,
    default: Action,
    groups: HashMap<String, GroupView>,
}

#[derive(Debug)]
pub struct GroupView {
    pub arn: String,
    /// For how long the balancer's cookie binds a client to a target; `None` where it does not.
    pub sticky_seconds: Option<u32>,
    targets: Vec<Arc<Upstream>>,
    least_outstanding: bool,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl View {
    pub fn new(routes: &Routes, upstreams: &Upstreams) -> Self {
        let listeners = routes.listeners.iter();
        Self {
            listeners: listeners
                .map(|(arn, listener)| (arn.clone(), Arc::new(ListenerView::new(listener, upstreams))))
                .collect(),
        }
    }

    /// Every target that may get requests.
    pub fn targets(&self) -> impl Iterator<Item = &TargetKey> {
        let groups = self.listeners.values().flat_map(|listener| listener.groups.values());
        groups.flat_map(|group| group.targets.iter().map(|upstream| &upstream.key))
    }
}

impl ListenerView {
    fn new(routes: &ListenerRoutes, upstreams: &Upstreams) -> Self {
        let groups = routes.groups.iter().map(|(arn, group)| {
            let targets = group.targets.iter().map(|(key, address)| upstreams.get_or_add(key, *address)).collect();
            let view = GroupView {
                arn: arn.clone(),
                sticky_seconds: group.sticky_seconds,
                targets,
                least_outstanding: group.least_outstanding,
                turn: AtomicUsize::new(0),
            };
            (arn.clone(), view)
        });
        Self {
            port: routes.port,
            idle_timeout: routes.idle_timeout,
            forwarded_for: routes.forwarded_for,
            rules: routes.rules.clone(),
            default: routes.default.clone(),
            groups: groups.collect(),
        }
    }

    pub fn group_by_arn(&self, arn: &str) -> Option<&GroupView> {
        self.groups.get(arn)
    }

    /// The action of the first rule whose conditions all hold, or the default.
    pub fn action(&self, request: &impl Request) -> &Action {
        let fitting = self.rules.iter().find(|(conditions, _)| conditions.iter().all(|known| known.holds(request)));
        fitting.map_or(&self.default, |(_, action)| action)
    }

    /// The group that a request goes to: the one its client is bound to, else one by weight; `None` where all weights
    /// are 0.
    ///
    /// A client stays bound to a group of weight 0 for as long as the action names it.
    pub fn group(&self, forward: &Forward, cookie: Option<&str>, random: &Mutex<StdRng>) -> Option<&GroupView> {
        if forward.sticky_seconds.is_some() {
            let bound = forward.groups.iter().find(|group| cookie == Some(&stickiness::token(&group.arn)));
            if let Some(group) = bound {
                return self.groups.get(&group.arn);
            }
        }
        let total: u32 = forward.groups.iter().map(|group| u32::from(group.weight)).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = match forward.groups.len() {
            1 => 0,
            _ => random.lock().expect("no panic while the numbers are held").random_range(0..total),
        };
        let chosen = forward.groups.iter().find(|group| {
            let weight = u32::from(group.weight);
            let hit = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            hit
        })?;
        self.groups.get(&chosen.arn)
    }
}

impl GroupView {
    /// The target that is next: the one the client is bound to, else by the group's algorithm. Only healthy targets
    /// get requests, unless there is none: then all do (*fail-open*). Targets that are not checked yet count as
    /// unhealthy, because AWS answers 503 only where a group has no targets or all of them are unused.
    pub fn target(&self, node: usize, cookie: Option<&str>) -> Option<&Arc<Upstream>> {
        let open = |upstream: &&Arc<Upstream>| upstream.fitness() != Fitness::Dead && !upstream.is_leaving(node);
        let mut candidates: Vec<&Arc<Upstream>> = self.targets.iter().filter(open).collect();
        if candidates.iter().any(|upstream| upstream.fitness() == Fitness::Healthy) {
            candidates.retain(|upstream| upstream.fitness() == Fitness::Healthy);
        }
        if self.sticky_seconds.is_some() {
            let bound = candidates.iter().find(|upstream| cookie == Some(&stickiness::target_token(&upstream.key)));
            if let Some(upstream) = bound {
                return Some(upstream);
            }
        }
        let turn = self.turn.fetch_add(1, Relaxed);
        if candidates.is_empty() {
            return None;
        }
        let first = turn % candidates.len();
        candidates.rotate_left(first);
        if self.least_outstanding {
            // The first of equals: those take turns.
            return candidates.into_iter().min_by_key(|upstream| upstream.in_flight(node));
        }
        Some(candidates[0])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use rand::SeedableRng;

    use super::*;
    use crate::{
        balancer::routes::GroupRoutes,
        state::elbv2::{ActionKind, WeightedGroup},
    };

    fn key(group: &str, port: u16) -> TargetKey {
        TargetKey { group_arn: group.into(), id: "127.0.0.1".into(), port }
    }

    fn listener(groups: &[(&str, u16)], targets: u16, least_outstanding: bool) -> (ListenerView, Forward, Upstreams) {
        let upstreams = Upstreams::new(1);
        let routes = groups.iter().map(|(arn, _)| {
            let targets = (1..=targets).map(|port| (key(arn, port), ([127, 0, 0, 1], port).into())).collect();
            ((*arn).to_owned(), GroupRoutes { targets, sticky_seconds: None, least_outstanding })
        });
        let weighted = groups.iter().map(|(arn, weight)| WeightedGroup { arn: (*arn).into(), weight: *weight });
        let forward = Forward { groups: weighted.collect(), sticky_seconds: Some(60) };
        let routes = ListenerRoutes {
            port: 80,
            idle_timeout: Duration::from_secs(60),
            forwarded_for: ForwardedFor::Append,
            rules: Vec::new(),
            default: Action { order: None, kind: ActionKind::Forward(forward.clone()) },
            groups: routes.collect::<BTreeMap<_, _>>(),
        };
        (ListenerView::new(&routes, &upstreams), forward, upstreams)
    }

    fn ports(group: &GroupView, requests: usize) -> Vec<u16> {
        (0..requests).filter_map(|_| group.target(0, None)).map(|upstream| upstream.key.port).collect()
    }

    #[test]
    fn weights_share_requests_out_and_zero_gets_none() {
        let (view, forward, _) = listener(&[("a", 90), ("b", 10), ("c", 0)], 1, false);
        let random = Mutex::new(StdRng::seed_from_u64(7));
        let mut hits = HashMap::new();
        for _ in 0..10_000 {
            *hits.entry(view.group(&forward, None, &random).unwrap().arn.clone()).or_insert(0) += 1;
        }
        // Four standard deviations of a binomial distribution with n = 10,000 and p = 0.1 are 120.
        assert!((880..=1120).contains(&hits["b"]), "{hits:?}");
        assert!(!hits.contains_key("c"));
    }

    #[test]
    fn a_bound_client_keeps_its_group_even_at_weight_zero() {
        let (view, forward, _) = listener(&[("a", 1), ("b", 0)], 1, false);
        let random = Mutex::new(StdRng::seed_from_u64(7));
        let cookie = stickiness::token("b");
        assert_eq!(view.group(&forward, Some(&cookie), &random).unwrap().arn, "b");
        let unbound = Forward { sticky_seconds: None, ..forward };
        assert_eq!(view.group(&unbound, Some(&cookie), &random).unwrap().arn, "a");
    }

    #[test]
    fn healthy_targets_take_turns_and_all_do_when_none_is_healthy() {
        let (view, _, upstreams) = listener(&[("a", 1)], 3, false);
        let group = &view.groups["a"];
        let fit = |port, fitness| upstreams.get(&key("a", port)).unwrap().set_fitness(fitness);
        let mut open = ports(group, 3);
        open.sort_unstable();
        assert_eq!(open, [1, 2, 3], "none is healthy: fail-open");
        fit(1, Fitness::Healthy);
        fit(3, Fitness::Healthy);
        assert_eq!(ports(group, 4), [3, 1, 3, 1]);
        (1..=3).for_each(|port| fit(port, Fitness::Dead));
        assert!(ports(group, 2).is_empty(), "nobody is there at all");
    }

    #[test]
    fn the_fewest_requests_in_flight_win_where_that_is_the_algorithm() {
        let (view, _, upstreams) = listener(&[("a", 1)], 2, true);
        let busy = upstreams.get(&key("a", 1)).unwrap();
        let _request = busy.begin(0, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(ports(&view.groups["a"], 3), [2, 2, 2]);
    }
}
