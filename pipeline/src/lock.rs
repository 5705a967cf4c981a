//! One run per environment: a lease, kept alive by a heartbeat, taken, renewed and released by compare-and-swap.
//!
//! **Guarantees.** At most one holder changes anything. Who waits judges a lease by the store's clock, who holds it by
//! its own passing of time from *before* the renewal was sent; no two machines' clocks are ever compared, so a clock that
//! is wrong takes nobody's lease. A holder that was paused, or cut off, finds its [`Fence`] down before its next change.
//! **Assumptions.** Time passes at the same speed everywhere, to within [`MARGIN`]; a call that was sent arrives, or never
//! does, within the same margin.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    ids::RunId,
    process::Process,
    store::{Object, Store, StoreError},
};

/// How long a lease lasts without renewal. Long enough for a laptop's network to come back, short enough that nobody
/// waits for a dead machine.
pub const LEASE: Duration = Duration::from_secs(120);
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How much sooner a holder stops than others may take over.
const MARGIN: Duration = Duration::from_secs(15);
/// How often somebody who waits looks again.
const LOOK: Duration = Duration::from_secs(2);

/// Who holds an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Version of this format; see [`Lease::FORMAT`].
    pub format: u32,
    pub run: RunId,
    /// `user@host`.
    pub holder: String,
    pub reason: String,
    pub since: Timestamp,
    /// When it ends without another renewal, by the holder's clock: for people. Whether it *has* ended is told by the age
    /// of the object that holds it.
    pub expires: Timestamp,
    /// Different for each time that somebody takes the lease, even for the same run.
    #[serde(default)]
    pub nonce: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

impl Lease {
    /// Format 1 had neither `nonce` nor `process`; it is read as a lease of another machine.
    pub const FORMAT: u32 = 2;

    /// Why it no longer holds, if it does not. `age` is how long ago it was written or renewed.
    pub fn ended(&self, age: Duration) -> Option<Ended> {
        if self.process.as_ref().is_some_and(Process::has_ended) {
            return Some(Ended::ProcessDied);
        }
        (age >= LEASE).then_some(Ended::NotRenewed)
    }
}

/// Why a lease no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It was a process of this machine that runs no more.
    ProcessDied,
    /// Nobody has renewed it for [`LEASE`].
    NotRenewed,
}

/// What is wanted of the lock.
#[derive(Debug, Clone)]
pub struct Claim {
    pub run: RunId,
    /// `user@host`.
    pub holder: String,
    pub reason: String,
    /// Chosen anew for each claim; see [`Lease::nonce`].
    pub nonce: String,
    pub process: Option<Process>,
}

impl Claim {
    fn lease(&self, now: Timestamp) -> Lease {
        Lease {
            format: Lease::FORMAT,
            run: self.run.clone(),
            holder: self.holder.clone(),
            reason: self.reason.clone(),
            since: now,
            expires: expiry(now),
            nonce: self.nonce.clone(),
            process: self.process.clone(),
        }
    }
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

/// Whether the lease still holds, for whoever is about to change something. Cheap: it makes no call.
#[derive(Clone)]
pub struct Fence(Arc<Standing>);

struct Standing {
    /// Until when the last confirmed renewal lets the holder act; by tokio's time and by the clock, whichever ends first: a
    /// machine that slept may have stopped the one and not the other.
    until: Mutex<(Instant, Timestamp)>,
    clock: Arc<dyn Clock>,
    lost: CancellationToken,
}

/// The lease was lost: what was about to be done was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process no longer holds the environment: its lease was not renewed in time, or somebody took it")]
pub struct LeaseLost;

impl Fence {
    /// # Errors
    /// Another process may hold the environment by now; nothing may be changed any more.
    pub fn check(&self) -> Result<(), LeaseLost> {
        if self.0.lost.is_cancelled() {
            return Err(LeaseLost);
        }
        let (instant, moment) = *self.0.until.lock().unwrap_or_else(PoisonError::into_inner);
        match Instant::now() < instant && self.0.clock.now() < moment {
            true => Ok(()),
            false => Err(LeaseLost),
        }
    }

    /// Ends when the lease is lost for good.
    pub fn lost(&self) -> &CancellationToken {
        &self.0.lost
    }

    /// A renewal that was sent at this moment has come through.
    fn extend(&self, (instant, moment): (Instant, Timestamp)) {
        let span = LEASE - MARGIN;
        let moment = moment.saturating_add(span).unwrap_or(Timestamp::MAX);
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = (instant + span, moment);
    }

    fn sending(&self) -> (Instant, Timestamp) {
        (Instant::now(), self.0.clock.now())
    }
}

/// A held lease. Dropping it stops the heartbeat, and the lease ends by itself; [`Lock::release`] ends it at once.
pub struct Lock {
    store: Arc<dyn Store>,
    key: String,
    lease: Lease,
    tag: Arc<tokio::sync::Mutex<String>>,
    heartbeat: JoinHandle<()>,
    fence: Fence,
    /// The lease that had ended and was taken over, and why it had.
    pub taken_over: Option<(Lease, Ended)>,
}

impl Lock {
    pub fn key(root: &str, environment: &str) -> String {
        format!("{root}environments/{environment}/lock.json")
    }

    /// Takes the lease if it is free or has ended.
    ///
    /// # Errors
    /// [`LockError::Held`] by somebody else.
    pub async fn acquire(
        store: Arc<dyn Store>,
        key: &str,
        claim: &Claim,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LockError> {
        let now = clock.now();
        let lease = claim.lease(now);
        let standing = Standing { until: Mutex::new((Instant::now(), now)), clock, lost: CancellationToken::new() };
        let fence = Fence(Arc::new(standing));
        let sent = fence.sending();
        let (tag, taken_over) = take(store.as_ref(), key, &lease).await?;
        fence.extend(sent);
        let tag = Arc::new(tokio::sync::Mutex::new(tag));
        let beat = Heartbeat {
            store: store.clone(),
            key: key.to_owned(),
            tag: tag.clone(),
            lease: lease.clone(),
            fence: fence.clone(),
        };
        let heartbeat = tokio::spawn(beat.keep_alive());
        Ok(Self { store, key: key.to_owned(), lease, tag, heartbeat, fence, taken_over })
    }

    /// The same, waiting for whoever holds it, `patience` at most. `waiting` is told who that is, whenever it changes.
    ///
    /// # Errors
    /// [`LockError::Held`] by whoever holds it at the end.
    pub async fn acquire_within(
        store: Arc<dyn Store>,
        key: &str,
        claim: &Claim,
        clock: Arc<dyn Clock>,
        patience: Duration,
        mut waiting: impl FnMut(&Lease),
    ) -> Result<Self, LockError> {
        let begun = Instant::now();
        let mut told: Option<String> = None;
        loop {
            let held = match Self::acquire(store.clone(), key, claim, clock.clone()).await {
                Err(LockError::Held(held)) => held,
                done => return done,
            };
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(LockError::Held(held));
            }
            if told.as_ref() != Some(&held.nonce) {
                waiting(&held);
                told = Some(held.nonce.clone());
            }
            tokio::time::sleep(LOOK.min(left)).await;
        }
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Gives the lease back. One that was lost is no longer ours to give.
    pub async fn release(self) -> Result<(), LockError> {
        // A renewal under way is let finish: cut off, it would leave a tag that nobody knows.
        let tag = self.tag.lock().await;
        self.heartbeat.abort();
        self.fence.0.lost.cancel();
        match self.store.remove(&self.key, &tag).await {
            Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(LockError::Store(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.heartbeat.abort();
        self.fence.0.lost.cancel();
    }
}

/// Writes the lease where it is free or has ended. Answers the object's tag, and what was taken over.
async fn take(store: &dyn Store, key: &str, lease: &Lease) -> Result<(String, Option<(Lease, Ended)>), LockError> {
    match store.create(key, encode(lease)).await {
        Ok(tag) => return Ok((tag, None)),
        Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(LockError::Store(error)),
    }
    let Some(object) = store.read(key).await.map_err(LockError::Store)? else {
        // Released between the two calls; whoever is quicker has it.
        return match store.create(key, encode(lease)).await {
            Ok(tag) => Ok((tag, None)),
            Err(StoreError::Conflict { .. }) => Err(held_by_whoever(store, key).await?),
            Err(error) => Err(LockError::Store(error)),
        };
    };
    let there = decode(&object)?;
    if there.is_same_claim(lease) {
        // Our own write, whose answer was lost.
        return Ok((object.tag, None));
    }
    let Some(why) = there.ended(object.age) else { return Err(LockError::Held(Box::new(there))) };
    match store.replace(key, encode(lease), &object.tag).await {
        Ok(tag) => Ok((tag, Some((there, why)))),
        // It was renewed after all, or somebody else has taken it over.
        Err(StoreError::Conflict { .. }) => match store.read(key).await.map_err(LockError::Store)? {
            Some(object) if decode(&object)?.is_same_claim(lease) => Ok((object.tag, Some((there, why)))),
            _ => Err(held_by_whoever(store, key).await?),
        },
        Err(error) => Err(LockError::Store(error)),
    }
}

/// Who was quicker. Where that one has released it again already, nobody is named that is not there.
async fn held_by_whoever(store: &dyn Store, key: &str) -> Result<LockError, LockError> {
    Ok(match store.read(key).await.map_err(LockError::Store)? {
        Some(object) => LockError::Held(Box::new(decode(&object)?)),
        None => LockError::Store(StoreError::Conflict { key: key.to_owned() }),
    })
}

impl Lease {
    fn is_same_claim(&self, other: &Self) -> bool {
        self.run == other.run && self.nonce == other.nonce && self.since == other.since
    }
}

/// The lock as it is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    #[serde(flatten)]
    pub lease: Lease,
    /// `None` while it holds.
    pub ended: Option<Ended>,
}

/// What the lock holds now, whether or not it has ended.
///
/// # Errors
/// The store, or an object that is no lease.
pub async fn look(store: &dyn Store, key: &str) -> Result<Option<Held>, LockError> {
    let Some(object) = store.read(key).await.map_err(LockError::Store)? else { return Ok(None) };
    let lease = decode(&object)?;
    Ok(Some(Held { ended: lease.ended(object.age), lease }))
}

/// Who holds the lock now, if anybody.
///
/// # Errors
/// As [`look`].
pub async fn holder(store: &dyn Store, key: &str) -> Result<Option<Lease>, LockError> {
    Ok(look(store, key).await?.filter(|held| held.ended.is_none()).map(|held| held.lease))
}

/// Takes the lock away from whoever has it, by compare-and-swap. Its holder stops before its next change once it notices,
/// at the latest when its lease would have ended. Answers whose it was.
///
/// # Errors
/// As [`look`]; [`LockError::Held`] by somebody who took it in between.
pub async fn break_it(store: &dyn Store, key: &str) -> Result<Option<Lease>, LockError> {
    break_if(store, key, |_| true).await
}

/// The same, where the lease is the one that is meant.
///
/// # Errors
/// As [`break_it`].
pub async fn break_if(
    store: &dyn Store,
    key: &str,
    meant: impl FnOnce(&Lease) -> bool,
) -> Result<Option<Lease>, LockError> {
    let Some(object) = store.read(key).await.map_err(LockError::Store)? else { return Ok(None) };
    let lease = decode(&object)?;
    if !meant(&lease) {
        return Ok(None);
    }
    match store.remove(key, &object.tag).await {
        Ok(()) => Ok(Some(lease)),
        Err(StoreError::Conflict { .. }) => match look(store, key).await? {
            // Released, or our own removal whose answer was lost.
            None => Ok(Some(lease)),
            Some(held) => Err(LockError::Held(Box::new(held.lease))),
        },
        Err(error) => Err(LockError::Store(error)),
    }
}

struct Heartbeat {
    store: Arc<dyn Store>,
    key: String,
    tag: Arc<tokio::sync::Mutex<String>>,
    lease: Lease,
    fence: Fence,
}

impl Heartbeat {
    /// Renews until the lease is somebody else's. A store that does not answer is asked again and again: as long as nobody
    /// has taken the lease over, it can be had back, and until then the fence is down.
    async fn keep_alive(mut self) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if !self.renew().await {
                return self.fence.0.lost.cancel();
            }
        }
    }

    /// Answers whether the lease is still ours, as far as anybody knows.
    async fn renew(&mut self) -> bool {
        let mut tag = self.tag.lock().await;
        let sent = self.fence.sending();
        self.lease.expires = expiry(sent.1);
        match self.store.replace(&self.key, encode(&self.lease), &tag).await {
            Ok(new) => {
                *tag = new;
                self.fence.extend(sent);
                true
            }
            // An earlier renewal may have been written although its answer was lost; nobody knows when, so it is only
            // the next one that counts.
            Err(StoreError::Conflict { .. }) => match self.store.read(&self.key).await {
                Ok(Some(object)) if decode(&object).is_ok_and(|there| there.is_same_claim(&self.lease)) => {
                    tag.clone_from(&object.tag);
                    let sent = self.fence.sending();
                    if let Ok(new) = self.store.replace(&self.key, encode(&self.lease), &tag).await {
                        *tag = new;
                        self.fence.extend(sent);
                    }
                    true
                }
                Ok(_) => false,
                Err(_) => true,
            },
            Err(_) => true,
        }
    }
}

fn decode(object: &Object) -> Result<Lease, LockError> {
    serde_json::from_slice(&object.bytes).map_err(LockError::Unreadable)
}

fn encode(lease: &Lease) -> Vec<u8> {
    serde_json::to_vec_pretty(lease).expect("a lease is JSON")
}

fn expiry(now: Timestamp) -> Timestamp {
    now.saturating_add(SignedDuration::try_from(LEASE).expect("two minutes")).unwrap_or(Timestamp::MAX)
}
