//! One running region: what everything else is handed.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::{
    clock::Clock,
    config::Config,
    instances::{Machines, Network},
    state::World,
};

/// Configuration, clock, records and machines. The records are only changed through [`Region::change`], which saves them.
pub struct Region {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub machines: Arc<dyn Machines>,
    pub network: Network,
    world: Mutex<World>,
    changed: watch::Sender<u64>,
}

impl Region {
    pub fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        machines: Arc<dyn Machines>,
        network: Network,
        world: World,
    ) -> Self {
        Self { config, clock, machines, network, world: Mutex::new(world), changed: watch::Sender::new(0) }
    }

    /// Looks at the records.
    pub fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.world.lock().expect("no panic while the records are held"))
    }

    /// Changes the records and saves them before anyone can see the change.
    ///
    /// # Errors
    /// Whatever `change` answers; the records are then expected to be untouched.
    pub fn change<T, E>(&self, change: impl FnOnce(&mut World) -> Result<T, E>) -> Result<T, E> {
        let mut world = self.world.lock().expect("no panic while the records are held");
        let answer = change(&mut world)?;
        if let Err(error) = world.save(&self.config.folder) {
            tracing::error!(%error, "the region's records could not be saved");
        }
        drop(world);
        self.changed.send_modify(|count| *count += 1);
        Ok(answer)
    }

    /// Wakes on every change of the records; the number counts them.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
