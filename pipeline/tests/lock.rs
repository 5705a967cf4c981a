//! The environment's lock: one holder, an end without renewal, and no way to take what is not free.

use std::{sync::Arc, time::Duration};

use alcedo_pipeline::{
    clock::{Clock, TokioClock},
    ids::RunId,
    lock::{self, Claim, Ended, LEASE, Lease, Lock, LockError},
    process::Process,
    store::{MemoryStore, Object, Store, StoreError},
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

const KEY: &str = "hello/environments/test/lock.json";

fn noon() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// A clock that is right, but for this many seconds.
fn clock(off_by: i64) -> Arc<dyn Clock> {
    Arc::new(TokioClock::starting_at(noon() + SignedDuration::from_secs(off_by)))
}

fn run(salt: u16) -> RunId {
    RunId::new(noon(), salt)
}

fn claim(salt: u16, holder: &str) -> Claim {
    Claim {
        run: run(salt),
        holder: holder.into(),
        reason: "deploy".into(),
        nonce: format!("nonce-{salt}-{holder}"),
        process: None,
    }
}

async fn take(store: &Arc<dyn Store>, claim: &Claim) -> Result<Lock, LockError> {
    Lock::acquire(store.clone(), KEY, claim, clock(0)).await
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

#[tokio::test]
async fn one_holder_at_a_time_and_released_means_free() {
    let store = memory();
    let held = take(&store, &claim(1, "ann@build")).await.unwrap();
    match take(&store, &claim(2, "bob@laptop")).await {
        Err(LockError::Held(lease)) => assert_eq!((lease.holder.as_str(), &lease.run), ("ann@build", &run(1))),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two runs hold one environment"),
    }
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(1));
    let fence = held.fence().clone();
    assert!(fence.check().is_ok());
    held.release().await.unwrap();
    assert!(fence.check().is_err(), "what was given back is no longer held");
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap(), None);
    take(&store, &claim(2, "bob@laptop")).await.unwrap();
}

#[tokio::test]
async fn of_many_that_want_it_at_once_exactly_one_gets_it() {
    let store = memory();
    let attempts = (0..16).map(|salt| {
        let store = store.clone();
        tokio::spawn(async move { take(&store, &claim(salt, "someone")).await })
    });
    let mut locks = Vec::new();
    for attempt in attempts {
        locks.extend(attempt.await.unwrap().ok());
    }
    assert_eq!(locks.len(), 1);
}

#[tokio::test]
async fn two_processes_that_claim_it_for_the_same_run_are_two() {
    let store = memory();
    let _held = take(&store, &claim(1, "ann@build")).await.unwrap();
    assert!(matches!(take(&store, &claim(1, "bob@laptop")).await, Err(LockError::Held(_))));
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_while_it_is_renewed_and_not_much_longer() {
    let store = memory();
    let held = take(&store, &claim(1, "ann@build")).await.unwrap();
    tokio::time::sleep(LEASE * 10).await;
    assert!(matches!(take(&store, &claim(2, "bob@laptop")).await, Err(LockError::Held(_))));
    assert!(held.fence().check().is_ok());
    drop(held);
    tokio::time::sleep(LEASE - Duration::from_secs(25)).await;
    assert!(matches!(take(&store, &claim(2, "bob@laptop")).await, Err(LockError::Held(_))));
    tokio::time::sleep(Duration::from_secs(25)).await;
    let lock = take(&store, &claim(2, "bob@laptop")).await.unwrap();
    let (before, why) = lock.taken_over.as_ref().unwrap();
    assert_eq!((&before.run, *why), (&run(1), Ended::NotRenewed));
}

/// Both have read that it has ended; the second learns only later what it has read, and the first holds it by then.
#[tokio::test(start_paused = true)]
async fn of_two_that_take_it_over_at_once_exactly_one_gets_it() {
    let store = memory();
    drop(take(&store, &claim(1, "ann@build")).await.unwrap());
    tokio::time::sleep(LEASE).await;
    let from = |reads_take| -> Arc<dyn Store> {
        Arc::new(Distant { store: store.clone(), reads_take: Duration::from_secs(reads_take) })
    };
    let (near, far) = (from(1), from(3));
    let (bobs, carols) = (claim(2, "bob@laptop"), claim(3, "carol@laptop"));
    let (bob, carol) = tokio::join!(take(&near, &bobs), take(&far, &carols));
    let bob = bob.unwrap();
    assert_eq!(bob.taken_over.as_ref().unwrap().0.run, run(1));
    match carol {
        Err(LockError::Held(lease)) => assert_eq!(lease.run, run(2)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two runs hold one environment"),
    }
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(2));
    assert!(bob.fence().check().is_ok());
}

/// A store far away: what was read is a while under way.
struct Distant {
    store: Arc<dyn Store>,
    reads_take: Duration,
}

#[async_trait]
impl Store for Distant {
    async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
        self.store.create(key, bytes).await
    }

    async fn replace(&self, key: &str, bytes: Vec<u8>, tag: &str) -> Result<String, StoreError> {
        self.store.replace(key, bytes, tag).await
    }

    async fn read(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let there = self.store.read(key).await;
        tokio::time::sleep(self.reads_take).await;
        there
    }

    async fn remove(&self, key: &str, tag: &str) -> Result<(), StoreError> {
        self.store.remove(key, tag).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.store.list(prefix).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.store.folders(prefix).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_takes_nobodys_lease() {
    let store = memory();
    let held = Lock::acquire(store.clone(), KEY, &claim(1, "ann@build"), clock(-3600)).await.unwrap();
    let other = Lock::acquire(store.clone(), KEY, &claim(2, "bob@laptop"), clock(3600)).await;
    assert!(matches!(other, Err(LockError::Held(_))));
    drop(held);
    tokio::time::sleep(LEASE).await;
    // It had written that it ends in two hours, by this one's clock.
    Lock::acquire(store, KEY, &claim(2, "bob@laptop"), clock(-7200)).await.unwrap();
}

#[tokio::test]
async fn a_dead_process_of_this_machine_holds_nothing() {
    let store = memory();
    let me = Process::current().unwrap();
    let dead = Process { started: me.started + 1, ..me };
    let lock = take(&store, &Claim { process: Some(dead), ..claim(1, "ann@here") }).await.unwrap();
    std::mem::forget(lock);
    let lock = take(&store, &claim(2, "ann@here")).await.unwrap();
    assert_eq!(lock.taken_over.as_ref().unwrap().1, Ended::ProcessDied);
}

#[tokio::test]
async fn a_lease_of_the_first_format_is_read() {
    let store = memory();
    let lease = r#"{"format":1,"run":"20261120-120000-0001","holder":"ann@build","reason":"deploy","since":"2026-11-20T12:00:00Z","expires":"2026-11-20T12:02:00Z"}"#;
    store.create(KEY, lease.into()).await.unwrap();
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(1));
    assert!(matches!(take(&store, &claim(2, "bob@laptop")).await, Err(LockError::Held(_))));
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_taken_learns_of_it() {
    let store = memory();
    let lock = take(&store, &claim(1, "ann@build")).await.unwrap();
    let there = store.read(KEY).await.unwrap().unwrap();
    let mut lease: Lease = serde_json::from_slice(&there.bytes).unwrap();
    lease.run = run(2);
    store.replace(KEY, serde_json::to_vec(&lease).unwrap(), &there.tag).await.unwrap();
    // Time is paused, so this ends as soon as the next heartbeat has run.
    tokio::time::timeout(Duration::from_secs(60), lock.fence().lost().cancelled())
        .await
        .expect("the heartbeat notices");
    assert!(lock.fence().check().is_err());
    lock.release().await.unwrap();
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(2), "another's lease was released");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_broken_is_free_and_its_holder_stops() {
    let store = memory();
    let held = take(&store, &claim(1, "ann@build")).await.unwrap();
    assert_eq!(lock::break_if(store.as_ref(), KEY, |lease| lease.run == run(2)).await.unwrap(), None);
    assert_eq!(lock::break_it(store.as_ref(), KEY).await.unwrap().unwrap().run, run(1));
    let next = take(&store, &claim(2, "bob@laptop")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), held.fence().lost().cancelled())
        .await
        .expect("the heartbeat notices");
    assert!(next.fence().check().is_ok());
    assert_eq!(lock::break_if(store.as_ref(), "nothing/here", |_| true).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_it_when_it_is_free_and_is_told_who_has_it() {
    let store = memory();
    let held = take(&store, &claim(1, "ann@build")).await.unwrap();
    let mut told = Vec::new();
    let patience = Duration::from_secs(5);
    let wanted = claim(2, "bob@laptop");
    let gave_up =
        Lock::acquire_within(store.clone(), KEY, &wanted, clock(0), patience, |lease| told.push(lease.holder.clone()));
    assert!(matches!(gave_up.await, Err(LockError::Held(_))));
    assert_eq!(told, ["ann@build"]);
    let release = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        held.release().await.unwrap();
    };
    let patience = Duration::from_secs(60);
    let (lock, ()) =
        tokio::join!(Lock::acquire_within(store.clone(), KEY, &wanted, clock(0), patience, |_| {}), release);
    lock.unwrap();
}

/// A store that can be cut off.
#[derive(Default)]
struct Cut {
    inner: MemoryStore,
    off: std::sync::atomic::AtomicBool,
}

impl Cut {
    fn check(&self, key: &str) -> Result<(), StoreError> {
        match self.off.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(StoreError::Unavailable { key: key.into(), source: "no route".into() }),
            false => Ok(()),
        }
    }

    fn set(&self, off: bool) {
        self.off.store(off, std::sync::atomic::Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for Cut {
    async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
        self.check(key)?;
        self.inner.create(key, bytes).await
    }

    async fn replace(&self, key: &str, bytes: Vec<u8>, tag: &str) -> Result<String, StoreError> {
        self.check(key)?;
        self.inner.replace(key, bytes, tag).await
    }

    async fn read(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.check(key)?;
        self.inner.read(key).await
    }

    async fn remove(&self, key: &str, tag: &str) -> Result<(), StoreError> {
        self.check(key)?;
        self.inner.remove(key, tag).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.folders(prefix).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_stops_before_others_may_begin_and_goes_on_where_nobody_has() {
    let cut = Arc::new(Cut::default());
    let store: Arc<dyn Store> = cut.clone();
    let held = take(&store, &claim(1, "ann@build")).await.unwrap();
    cut.set(true);
    tokio::time::sleep(LEASE - Duration::from_secs(10)).await;
    assert!(held.fence().check().is_err(), "others may take it over in ten seconds");
    assert!(!held.fence().lost().is_cancelled(), "nobody has taken it");
    cut.set(false);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(held.fence().check().is_ok(), "it was there to be renewed");
    // Another time somebody else is quicker.
    cut.set(true);
    tokio::time::sleep(LEASE).await;
    cut.set(false);
    let other = Lock::acquire(store.clone(), KEY, &claim(2, "bob@laptop"), clock(0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(held.fence().lost().is_cancelled());
    assert!(other.fence().check().is_ok());
}
