//! One running region: what everything else is handed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use jiff::SignedDuration;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    balancer::Ports,
    clock::Clock,
    config::Config,
    faults::Faults,
    firewall::Firewalls,
    iam::{Check, Policy},
    instances::{Machines, Network},
    metrics::Metrics,
    state::{World, ec2::Moment},
    throttle::Throttle,
    trail::Trail,
};

/// How many calls the policy in force remembers.
const ASKED: usize = 100_000;

/// Configuration, clock, records and machines. The records are only changed through [`Region::change`], which saves them.
pub struct Region {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub machines: Arc<dyn Machines>,
    pub network: Network,
    /// The ports that load balancers listen on.
    pub ports: Ports,
    /// What runs beside the requests: machines on their way to what the records say.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) firewalls: Firewalls,
    pub(crate) throttle: Throttle,
    /// What the load balancers have measured.
    pub metrics: Arc<Metrics>,
    /// Who has changed load balancers.
    pub(crate) trail: Trail,
    /// What goes wrong on demand, and the log of calls.
    pub faults: Faults,
    /// What callers may do; `None`: everything.
    policy: Mutex<Option<Arc<Policy>>>,
    /// What was asked of it: the newest calls, each as its checks.
    asked: Mutex<VecDeque<Vec<Check>>>,
    /// See [`Region::lag_new_records`].
    new_record: Mutex<Duration>,
    world: Mutex<World>,
    changed: watch::Sender<u64>,
    /// Why the last save failed, until one succeeds again.
    unsaved: Mutex<Option<String>>,
    machine_locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    dice: Mutex<StdRng>,
    persistence: Persistence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Persistence {
    /// Every change is on disk before anyone can see it.
    Durable,
    /// Nothing is left of it, which saves the time that disks take.
    Simulated,
}

impl Region {
    pub fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        machines: Arc<dyn Machines>,
        network: Network,
        world: World,
    ) -> Self {
        Self {
            new_record: Mutex::new(config.lags.new_record),
            config,
            clock,
            machines,
            network,
            ports: Ports::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            firewalls: Firewalls::default(),
            throttle: Throttle::default(),
            metrics: Arc::default(),
            trail: Trail::default(),
            faults: Faults::default(),
            policy: Mutex::default(),
            asked: Mutex::default(),
            world: Mutex::new(world),
            changed: watch::Sender::new(0),
            unsaved: Mutex::new(None),
            machine_locks: Mutex::default(),
            dice: Mutex::new(StdRng::from_os_rng()),
            persistence: Persistence::Durable,
        }
    }

    /// The same region for a simulation: nothing of it outlives the process, and what is random in it comes of `dice`.
    #[must_use]
    pub fn simulated(self, dice: StdRng) -> Self {
        Self { dice: Mutex::new(dice), persistence: Persistence::Simulated, ..self }
    }

    /// How far what CloudWatch shows is behind.
    pub fn metrics_lag(&self) -> SignedDuration {
        SignedDuration::try_from(self.config.lags.metrics).unwrap_or(SignedDuration::MAX)
    }

    /// From now on a call is done only if this policy allows it; `None`: whatever is signed.
    pub fn restrict(&self, policy: Option<Arc<Policy>>) {
        *held(&self.policy) = policy;
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<Arc<Policy>> {
        held(&self.policy).clone()
    }

    /// What has been asked of the policy since this was last called, the oldest first.
    pub fn take_asked(&self) -> Vec<Vec<Check>> {
        held(&self.asked).drain(..).collect()
    }

    /// Refuses a call that the policy in force does not allow.
    pub(crate) fn authorize(&self, checks: impl FnOnce() -> Vec<Check>) -> Result<(), Check> {
        // What is checked for is made up from the records: the policy must not be held meanwhile.
        let Some(policy) = held(&self.policy).clone() else { return Ok(()) };
        let checks = checks();
        let mut asked = held(&self.asked);
        if asked.len() >= ASKED {
            asked.pop_front();
        }
        asked.push_back(checks.clone());
        drop(asked);
        policy.refuses(&checks).map_or(Ok(()), |check| Err(check.clone()))
    }

    /// Looks at the records.
    pub fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&held(&self.world))
    }

    /// Changes the records and saves them before anyone can see the change. A save that fails does not undo the change,
    /// which may already be true of a machine: it is kept, reported by [`Region::unsaved`], and saved with the next one.
    ///
    /// # Errors
    /// Whatever `change` answers; the records are then expected to be untouched.
    pub fn change<T, E>(&self, change: impl FnOnce(&mut World) -> Result<T, E>) -> Result<T, E> {
        let mut world = held(&self.world);
        let answer = change(&mut world)?;
        self.save(&world);
        drop(world);
        self.changed.send_modify(|count| *count += 1);
        Ok(answer)
    }

    /// Under the lock of the records, so that what is on disk never goes back to an older change.
    fn save(&self, world: &World) {
        if self.persistence == Persistence::Simulated {
            return;
        }
        let failure = world.save(&self.config.folder).err().map(|error| {
            tracing::error!(%error, folder = %self.config.folder.display(), "the records could not be saved");
            error.to_string()
        });
        *held(&self.unsaved) = failure;
    }

    /// Saves the records if an earlier save failed, and answers why they still are not saved.
    pub fn catch_up(&self) -> Option<String> {
        self.unsaved()?;
        self.save(&held(&self.world));
        self.unsaved()
    }

    /// Wakes on every change of the records; the number counts them.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Why the records on disk are behind, e.g. a full disk; `None` while they are not.
    pub fn unsaved(&self) -> Option<String> {
        held(&self.unsaved).clone()
    }

    /// Now, with the lag by which readers see changes.
    pub fn moment(&self) -> Moment {
        let lag = *held(&self.new_record);
        let lag = if self.config.lags.readers_differ { lag.mul_f64(held(&self.dice).random::<f64>()) } else { lag };
        Moment::new(self.clock.now(), lag)
    }

    /// A random number: the same one in two regions that were given the same dice.
    pub(crate) fn random<T>(&self) -> T
    where
        rand::distr::StandardUniform: rand::distr::Distribution<T>,
    {
        held(&self.dice).random()
    }

    /// By the machine's clock, which is the one that clients sign by; a test may move the region's own. A simulation's
    /// clients know no other clock than its own.
    pub(crate) fn time_of_signatures(&self) -> SystemTime {
        match self.persistence {
            Persistence::Durable => SystemTime::now(),
            Persistence::Simulated => SystemTime::from(self.clock.now()),
        }
    }

    /// An id of a request in a UUID's form, as AWS's have.
    pub(crate) fn request_id(&self) -> String {
        let digits = format!("{:032x}", self.random::<u128>());
        format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
    }

    /// Changes how long new records stay unknown, from now on; a start has it from the configuration.
    pub fn lag_new_records(&self, lag: Duration) {
        *held(&self.new_record) = lag;
    }

    /// The right to work on one server: two changes of one machine follow one another.
    pub(crate) async fn lock_machine(&self, instance_id: &str) -> OwnedMutexGuard<()> {
        let lock = held(&self.machine_locks).entry(instance_id.to_owned()).or_default().clone();
        lock.lock_owned().await
    }

    /// Drops the lock of a server that is gone for good.
    pub(crate) fn forget_machine(&self, instance_id: &str) {
        held(&self.machine_locks).remove(instance_id);
    }

    /// Waits by the region's clock. Answers `false` where the region stops first.
    pub(crate) async fn pause(&self, lasting: Duration) -> bool {
        let until = self.clock.now().saturating_add(lasting).unwrap_or(jiff::Timestamp::MAX);
        tokio::select! {
            biased;
            () = self.clock.sleep_until(until) => true,
            () = self.stopping.cancelled() => false,
        }
    }
}

/// A poisoned lock means that a change panicked half-way: going on would save half a change.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while a lock of the region is held")
}
