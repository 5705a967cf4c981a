//! The environment's lock: one holder, an expiry, and no way to take what is not free.

use std::sync::Arc;

use alcedo_pipeline::{
    ids::RunId,
    lock::{self, Lease, Lock, LockError},
    store::{MemoryStore, Store},
};
use jiff::{SignedDuration, Timestamp};

const KEY: &str = "hello/environments/test/lock.json";

fn run(salt: u16) -> RunId {
    RunId::new("2026-11-20T19:05:12Z".parse().unwrap(), salt)
}

#[tokio::test]
async fn one_holder_at_a_time_and_released_means_free() {
    let store = Arc::new(MemoryStore::default());
    let held = Lock::acquire(store.clone(), KEY, &run(1), "ann@build", "deploy").await.unwrap();
    match Lock::acquire(store.clone(), KEY, &run(2), "bob@laptop", "deploy").await {
        Err(LockError::Held(lease)) => assert_eq!((lease.holder.as_str(), &lease.run), ("ann@build", &run(1))),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two runs hold one environment"),
    }
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(1));
    held.release().await.unwrap();
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap(), None);
    Lock::acquire(store, KEY, &run(2), "bob@laptop", "deploy").await.unwrap();
}

#[tokio::test]
async fn of_many_that_want_it_at_once_exactly_one_gets_it() {
    let store = Arc::new(MemoryStore::default());
    let attempts = (0..16).map(|salt| {
        let store = store.clone();
        tokio::spawn(async move { Lock::acquire(store, KEY, &run(salt), "someone", "deploy").await })
    });
    let mut locks = Vec::new();
    for attempt in attempts {
        locks.extend(attempt.await.unwrap().ok());
    }
    assert_eq!(locks.len(), 1);
}

#[tokio::test]
async fn an_expired_lease_is_taken_over_and_its_holder_can_no_longer_release_it() {
    let store = Arc::new(MemoryStore::default());
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let dead = Lease {
        format: 1,
        run: run(1),
        holder: "ann@build".into(),
        reason: "deploy".into(),
        since: past,
        expires: past,
    };
    store.create(KEY, serde_json::to_vec(&dead).unwrap()).await.unwrap();
    let lock = Lock::acquire(store.clone(), KEY, &run(2), "bob@laptop", "deploy").await.unwrap();
    assert_eq!(lock.taken_over.as_ref().map(|lease| &lease.run), Some(&run(1)));
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(2));
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_taken_learns_of_it() {
    let store = Arc::new(MemoryStore::default());
    let lock = Lock::acquire(store.clone(), KEY, &run(1), "ann@build", "deploy").await.unwrap();
    let there = store.read(KEY).await.unwrap().unwrap();
    let mut lease: Lease = serde_json::from_slice(&there.bytes).unwrap();
    lease.run = run(2);
    store.replace(KEY, serde_json::to_vec(&lease).unwrap(), &there.tag).await.unwrap();
    // Time is paused, so this ends as soon as the next heartbeat has run.
    tokio::time::timeout(std::time::Duration::from_secs(60), lock.lost().cancelled())
        .await
        .expect("the heartbeat notices");
    lock.release().await.unwrap();
    assert_eq!(lock::holder(store.as_ref(), KEY).await.unwrap().unwrap().run, run(2), "another's lease was released");
}
