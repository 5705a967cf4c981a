//! Breaking everything: every step, every undo and every call of a deploy from source, on records alone. Nothing may be left
//! behind, nothing lost, and what was in service stays in service.

mod answers;
pub mod kills;
mod schedules;
mod steps;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alcedo_local_region::{
    config::Lags,
    faults::{Call, Faults},
};
use alcedo_pipeline::{
    event::Outcome,
    ids::RunId,
    journal,
    plan::Plan,
    recovery::Wish,
    runner::{Ending, Halt},
    version::Version,
};
use alcedo_stages::{facts::Request, releases, site::Site};
use regex::Regex;

use crate::{
    life::{assert_done, deploy},
    support::{
        account::Account,
        inventory::{self, Inventory},
        journey,
        region::LocalRegion,
        simulation::Simulation,
        staged::Staged,
    },
};

/// An account in which one version is in service and another is held, about to get a third from source.
pub struct Bench {
    pub simulation: Simulation,
    pub account: Arc<Account>,
    pub site: Site,
    pub archive: tempfile::NamedTempFile,
    pub before: Inventory,
    in_service: Version,
}

impl Bench {
    pub async fn new() -> Self {
        Self::of_seed(0).await
    }

    /// What is random in it comes of this.
    pub async fn of_seed(seed: u64) -> Self {
        Self::with(seed, LocalRegion::no_lags(), Duration::from_millis(60)).await
    }

    /// New things are visible to some readers and not to others, for a while.
    pub async fn with_lags() -> Self {
        let lag = Duration::from_secs(2);
        let lags = Lags { readers_differ: true, ..LocalRegion::no_lags() };
        let bench = Self::with(0, lags, lag * 3).await;
        bench.simulation.region.region.lag_new_records(lag);
        bench
    }

    async fn with(seed: u64, lags: Lags, visible: Duration) -> Self {
        let simulation = Simulation::start(seed, lags).await;
        let account = Arc::new(Account::within(simulation.clients.clone(), seed).await);
        let mut site = account.site().await;
        site.clients.visible = visible;
        let first = account.release(&site, "2026.1101.100000").await;
        let second = account.release(&site, "2026.1102.100000").await;
        for version in [first, second] {
            let (plan, ending) = journey::run(&site, deploy(version)).await;
            assert_done(&plan, &ending);
        }
        // As publishing it would have.
        let pointer = format!("{second}\n").into_bytes();
        site.store.create(&releases::pointer_key(&site.root), pointer).await.unwrap();
        let archive = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(archive.path(), "an archive").unwrap();
        account.edit("#!/bin/sh\necho changed\n");
        let before = inventory::of(&account).await;
        Self { simulation, account, site, archive, before, in_service: second }
    }

    pub fn faults(&self) -> &Faults {
        &self.simulation.region.region.faults
    }

    pub async fn plan(&self) -> Plan {
        journey::plan(&self.site, Request::Deploy { version: None }).await.0
    }

    /// The site's own steps; what needs an engine or a shell has done its work.
    pub fn steps(&self) -> Staged {
        Staged::new(&self.site).built(self.archive.path()).provisioned()
    }

    pub async fn walk(&self, plan: &Plan, steps: &Staged) -> Result<Ending, Halt> {
        journey::try_walk(&self.site, plan.clone(), steps).await
    }

    /// What another process makes of it; `None` where there was nothing to do. A run that died before it had a plan has
    /// nothing but its marker, which whoever settles it takes away.
    pub async fn recover(&self, run: &RunId, wish: Wish) -> Option<Ending> {
        let ending = journey::recover(&self.site, run, wish, &self.steps()).await;
        if ending.is_none() {
            journal::forget(self.site.store.as_ref(), &self.site.root, &self.site.environment, run).await.unwrap();
        }
        ending
    }

    /// Takes stock once every reader sees the same.
    pub async fn inventory(&self) -> Inventory {
        tokio::time::sleep(self.site.clients.visible).await;
        inventory::of(&self.account).await
    }

    /// Nothing more and nothing less than before, and what was in service is.
    pub async fn assert_as_before(&self, what: &str) {
        let now = self.inventory().await;
        let more: Vec<_> = now.difference(&self.before).collect();
        let less: Vec<_> = self.before.difference(&now).collect();
        assert!(more.is_empty() && less.is_empty(), "{what}: left behind: {more:#?}\nmissing: {less:#?}");
        let service = crate::life::fleet(&self.site, self.in_service).await.unwrap();
        assert!(service.is_in_service() && service.instances.len() == 2, "{what}: {service:?}");
    }

    /// The calls of one deploy that nothing disturbs, and what there is after it.
    pub async fn undisturbed() -> (Vec<Call>, BTreeMap<String, usize>) {
        let bench = Self::new().await;
        let plan = bench.plan().await;
        bench.faults().forget_calls();
        let ending = bench.walk(&plan, &bench.steps()).await.unwrap();
        let calls = bench.faults().calls();
        assert_done(&plan, &ending);
        (calls, bench.kinds().await)
    }

    /// What there is, without the names that differ from run to run.
    pub async fn kinds(&self) -> BTreeMap<String, usize> {
        let names = Regex::new(
            r"\d{4}\.\d+\.\d+|\d{8}-\d{6}-[0-9a-f]{4}|\d{4}-\d\d-\d\dT[0-9:.]+Z|[0-9a-f]{8,}|hello-[0-9a-f]{8}",
        );
        let names = names.unwrap();
        let mut kinds = BTreeMap::new();
        for line in self.inventory().await {
            *kinds.entry(names.replace_all(&line, "…").into_owned()).or_default() += 1;
        }
        kinds
    }
}

/// Every how many-th of a long list is tried: all of them in a soak, which takes hours.
pub fn every(in_the_test_command: usize) -> usize {
    if std::env::var_os("ALCEDO_SOAK").is_some() { 1 } else { in_the_test_command }
}

/// Whether a run has left nothing that it made.
pub fn is_undone(ending: &Ending) -> bool {
    matches!(ending.outcome, Outcome::Unwound | Outcome::Interrupted)
}
