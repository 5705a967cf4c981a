//! The one task that moves the data plane: it follows the records, lets the nodes take changes up, and has the targets
//! checked.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use rand::{Rng, rngs::StdRng};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    checker::{Checker, Due},
    nodes::{Gates, Node},
    probe::Prober,
    propagation::{Queue, after, delays},
    routes::{Routes, is_dead},
    upstreams::{Fitness, Upstreams},
    view::View,
};
use crate::{
    region::Region,
    state::{
        World,
        elbv2::{
            TargetKey,
            health::{Failure, TargetHealth},
        },
    },
};

/// A state of the records, and the same made ready for requests.
struct Change {
    routes: Routes,
    view: Arc<View>,
}

pub struct Control {
    region: Arc<Region>,
    nodes: Vec<Arc<Node>>,
    gates: Vec<Gates>,
    /// What each node has yet to take up.
    queues: Vec<Queue<Change>>,
    /// What the nodes will know once they have taken everything up.
    latest: Option<Routes>,
    upstreams: Arc<Upstreams>,
    checker: Checker,
    prober: Arc<dyn Prober>,
    checks: TaskTracker,
    closing: TaskTracker,
    random: StdRng,
}

impl Control {
    pub fn new(
        region: Arc<Region>,
        nodes: Vec<Arc<Node>>,
        upstreams: Arc<Upstreams>,
        prober: Arc<dyn Prober>,
        random: StdRng,
    ) -> Self {
        Self {
            gates: nodes.iter().map(|_| Gates::default()).collect(),
            queues: nodes.iter().map(|_| Queue::default()).collect(),
            checker: Checker::new(region.config.lags.initial_check),
            region,
            nodes,
            latest: None,
            upstreams,
            prober,
            checks: TaskTracker::new(),
            closing: TaskTracker::new(),
            random,
        }
    }

    /// Runs until it is stopped, then lets the requests under way finish.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.region.changes();
        let (finished, mut finishing) = mpsc::unbounded_channel();
        loop {
            changes.borrow_and_update();
            let now = self.region.clock.now();
            self.settle(now);
            self.follow(now).await;
            self.take_up(now);
            self.begin_checks(now, &finished);
            let clock = Arc::clone(&self.region.clock);
            let wake = async {
                match self.next_due() {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In this order, so that a simulation goes the same way twice.
                biased;
                () = stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                Some((check, outcome)) = finishing.recv() => self.end_check(&check, outcome),
                () = wake => {}
            }
        }
        self.close_gates(|_| false).await;
        self.closing.close();
        self.closing.wait().await;
    }

    /// Brings the targets' records up to the present.
    fn settle(&self, now: Timestamp) {
        let registration = self.region.config.lags.registration;
        let due = self.region.read(|world| world.elbv2.unsettled(&world.ec2, registration, now));
        if !due.is_empty() {
            let Ok(()) = self.region.change(|world| {
                let World { elbv2, ec2, .. } = world;
                elbv2.settle_all(&*ec2, registration, now);
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }

    /// Sends the nodes what changed in the records. Deleted listeners close at once, and what is known of targets holds
    /// at once: only changes of what is configured travel from node to node.
    async fn follow(&mut self, now: Timestamp) {
        let routes = self.region.read(Routes::of);
        self.close_gates(|arn| routes.listeners.contains_key(arn)).await;
        if self.latest.as_ref() != Some(&routes) {
            let view = Arc::new(View::new(&routes, &self.upstreams));
            let change = Arc::new(Change { routes: routes.clone(), view });
            // What the region knows when it starts, every node knows.
            let propagation =
                self.latest.as_ref().map_or_else(Default::default, |_| self.region.config.lags.propagation);
            let delays = delays(self.nodes.len(), propagation, &mut self.random);
            for (queue, delay) in self.queues.iter_mut().zip(delays) {
                queue.push(after(now, delay), Arc::clone(&change));
            }
            self.latest = Some(routes);
        }
        self.region.read(|world| update_fitness(world, &self.upstreams));
    }

    /// Closes the gates of listeners that are not `wanted`: their ports are free when this returns, and requests under
    /// way go on beside.
    async fn close_gates(&mut self, wanted: impl Fn(&str) -> bool) {
        let leaving: Vec<_> = self.gates.iter_mut().flat_map(|gates| gates.leave(&wanted)).collect();
        let mut arns = BTreeSet::new();
        for (arn, mut gate) in leaving {
            gate.stop_accepting().await;
            self.closing.spawn(gate.finish());
            arns.insert(arn);
        }
        arns.iter().for_each(|arn| self.region.ports.release(arn));
    }

    fn take_up(&mut self, now: Timestamp) {
        for (place, node) in self.nodes.iter().enumerate() {
            let due = self.queues[place].due(now);
            // Each in turn: one of them may be the end of a target's draining.
            for change in &due {
                node.adopt(&change.routes, Arc::clone(&change.view), &self.upstreams);
            }
            if !due.is_empty() {
                tracing::debug!(node = %node.address, "took up a change of the listeners or targets");
                self.gates[place].open(node, &self.region, self.random.random());
            }
        }
        let wanted: BTreeSet<TargetKey> = self
            .queues
            .iter()
            .flat_map(|queue| queue.iter().flat_map(|change| change.view.targets()))
            .chain(self.nodes.iter().map(|node| node.view()).collect::<Vec<_>>().iter().flat_map(|view| view.targets()))
            .cloned()
            .collect();
        self.upstreams.prune(|key| wanted.contains(key));
    }

    fn begin_checks(&mut self, now: Timestamp, finished: &mpsc::UnboundedSender<(Due, Result<(), Failure>)>) {
        let due = self.region.read(|world| self.checker.due(world, now));
        for check in due {
            let (prober, finished) = (Arc::clone(&self.prober), finished.clone());
            self.checks.spawn(async move {
                let outcome = prober.check(&check.probe).await;
                // Nobody listens any more when the balancer has stopped.
                let _ = finished.send((check, outcome));
            });
        }
    }

    fn end_check(&mut self, check: &Due, outcome: Result<(), Failure>) {
        let now = self.region.clock.now();
        let changed = self.region.read(|world| self.checker.done(world, check, outcome, now));
        if let Some(health) = changed {
            tracing::debug!(target = %check.key.id, state = health.state(), "a target's health changed");
            let Ok(()) = self.region.change(|world| {
                world.elbv2.set_health(&check.key, health, now);
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        let registration = self.region.config.lags.registration;
        let records = self.region.read(|world| world.elbv2.next_due(registration));
        self.queues.iter().filter_map(Queue::next).chain(records).chain(self.checker.next()).min()
    }
}

/// Tells the data plane what the records know of each target. A group that nothing refers to any more keeps what was
/// known last: nodes that have not heard of it yet still send it requests.
fn update_fitness(world: &World, upstreams: &Upstreams) {
    for upstream in upstreams.all() {
        let Ok(group) = world.elbv2.target_group(&upstream.key.group_arn) else { continue };
        if is_dead(world, group, &upstream.key.id) {
            upstream.set_fitness(Fitness::Dead);
            continue;
        }
        match world.elbv2.target(&upstream.key).map(|target| target.health()) {
            Some(TargetHealth::Healthy) => upstream.set_fitness(Fitness::Healthy),
            Some(TargetHealth::Unhealthy(_) | TargetHealth::Initial(_)) => upstream.set_fitness(Fitness::Doubtful),
            Some(TargetHealth::Unused(_) | TargetHealth::Draining) | None => {}
        }
    }
}
