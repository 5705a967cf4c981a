//! One run per environment: a lease, kept alive by a heartbeat, taken, renewed and released by compare-and-swap.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    ids::RunId,
    store::{Store, StoreError},
};

/// How long a lease lasts without renewal. Long enough for a laptop's network to come back, short enough that nobody
/// waits for a dead machine.
pub const LEASE: Duration = Duration::from_secs(120);
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Who holds an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Version of this format.
    pub format: u32,
    pub run: RunId,
    /// `user@host`.
    pub holder: String,
    pub reason: String,
    pub since: Timestamp,
    pub expires: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is deploying here: {}, run {}, since {}", .0.holder, .0.reason, .0.run, .0.since)]
    Held(Box<Lease>),
    #[error("the lock could not be read or written")]
    Store(#[source] StoreError),
    #[error("the lock holds something that this version of alcedo does not read")]
    Unreadable(#[source] serde_json::Error),
}

/// A held lease. Dropping it stops the heartbeat, and the lease ends by itself; [`Lock::release`] ends it at once.
pub struct Lock {
    store: Arc<dyn Store>,
    key: String,
    tag: Arc<tokio::sync::Mutex<String>>,
    heartbeat: JoinHandle<()>,
    lost: CancellationToken,
    /// The lease that had expired and was taken over.
    pub taken_over: Option<Lease>,
}

impl Lock {
    pub fn key(root: &str, environment: &str) -> String {
        format!("{root}environments/{environment}/lock.json")
    }

    /// Takes the lease if it is free or has expired.
    pub async fn acquire(
        store: Arc<dyn Store>,
        key: &str,
        run: &RunId,
        holder: &str,
        reason: &str,
    ) -> Result<Self, LockError> {
        let now = Timestamp::now();
        let lease = Lease {
            format: 1,
            run: run.clone(),
            holder: holder.to_owned(),
            reason: reason.to_owned(),
            since: now,
            expires: expiry(now),
        };
        let mut taken_over = None;
        let tag = match store.create(key, encode(&lease)).await {
            Ok(tag) => tag,
            Err(StoreError::Conflict { .. }) => match store.read(key).await.map_err(LockError::Store)? {
                // Released between the two calls; whoever is quicker has it.
                None => store.create(key, encode(&lease)).await.map_err(LockError::Store)?,
                Some(object) => {
                    let there: Lease = serde_json::from_slice(&object.bytes).map_err(LockError::Unreadable)?;
                    if there.run == *run {
                        // Our own write, whose answer was lost.
                        object.tag
                    } else if there.expires > now {
                        return Err(LockError::Held(Box::new(there)));
                    } else {
                        let taken = store.replace(key, encode(&lease), &object.tag).await;
                        taken_over = Some(there);
                        taken.map_err(LockError::Store)?
                    }
                }
            },
            Err(error) => return Err(LockError::Store(error)),
        };
        let lost = CancellationToken::new();
        let tag = Arc::new(tokio::sync::Mutex::new(tag));
        let heartbeat = tokio::spawn(keep_alive(store.clone(), key.to_owned(), tag.clone(), lease, lost.clone()));
        Ok(Self { store, key: key.to_owned(), tag, heartbeat, lost, taken_over })
    }

    /// Ends when the lease is lost: somebody took it, or it could not be renewed in time. The holder must stop.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives the lease back. One that was lost is no longer ours to give.
    pub async fn release(self) -> Result<(), LockError> {
        // A renewal under way is let finish: cut off, it would leave a tag that nobody knows.
        let tag = self.tag.lock().await;
        self.heartbeat.abort();
        match self.store.remove(&self.key, &tag).await {
            Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(LockError::Store(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

/// Who holds the lock now, if anybody.
pub async fn holder(store: &dyn Store, key: &str) -> Result<Option<Lease>, LockError> {
    let Some(object) = store.read(key).await.map_err(LockError::Store)? else { return Ok(None) };
    let lease: Lease = serde_json::from_slice(&object.bytes).map_err(LockError::Unreadable)?;
    Ok((lease.expires > Timestamp::now()).then_some(lease))
}

async fn keep_alive(
    store: Arc<dyn Store>,
    key: String,
    tag: Arc<tokio::sync::Mutex<String>>,
    mut lease: Lease,
    lost: CancellationToken,
) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        lease.expires = expiry(Timestamp::now());
        let mut held = tag.lock().await;
        match store.replace(&key, encode(&lease), &held).await {
            Ok(tag) => {
                *held = tag;
                renewed = Instant::now();
            }
            Err(StoreError::Conflict { .. }) => {
                // An earlier renewal may have been written although its answer was lost.
                match store.read(&key).await {
                    Ok(Some(object)) if is_ours(&object.bytes, &lease) => {
                        held.clone_from(&object.tag);
                        renewed = Instant::now();
                    }
                    Ok(_) => return lost.cancel(),
                    Err(_) if renewed.elapsed() + HEARTBEAT > LEASE => return lost.cancel(),
                    Err(_) => {}
                }
            }
            Err(_) if renewed.elapsed() + HEARTBEAT > LEASE => return lost.cancel(),
            Err(_) => {}
        }
    }
}

fn is_ours(bytes: &[u8], lease: &Lease) -> bool {
    serde_json::from_slice::<Lease>(bytes).is_ok_and(|there| there.run == lease.run && there.since == lease.since)
}

fn encode(lease: &Lease) -> Vec<u8> {
    serde_json::to_vec_pretty(lease).expect("a lease is JSON")
}

fn expiry(now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::try_from(LEASE).expect("two minutes")).unwrap_or(Timestamp::MAX)
}
