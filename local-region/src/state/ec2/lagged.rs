//! Eventual consistency: what was just made or changed is not yet what a reader sees.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Now, and how long a change stays unseen.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Timestamp,
    pub lag: SignedDuration,
}

impl Moment {
    pub fn new(now: Timestamp, lag: Duration) -> Self {
        Self { now, lag: SignedDuration::try_from(lag).unwrap_or(SignedDuration::MAX) }
    }

    /// Whether a reader already sees what was made or changed at `since`.
    pub fn sees(self, since: Timestamp) -> bool {
        self.now.duration_since(since) >= self.lag
    }
}

/// A value whose changes are seen late.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lagged<T> {
    current: T,
    /// What is seen until the change is; `None` once nothing was changed since the value was made.
    before: Option<T>,
    changed: Timestamp,
}

impl<T: Clone> Lagged<T> {
    /// A value that is part of a new record: seen as soon as the record is.
    pub fn new(value: T, at: Timestamp) -> Self {
        Self { current: value, before: None, changed: at }
    }

    /// What holds, whoever sees it.
    pub fn current(&self) -> &T {
        &self.current
    }

    /// What a Describe call answers.
    pub fn seen(&self, moment: Moment) -> &T {
        match &self.before {
            Some(before) if !moment.sees(self.changed) => before,
            _ => &self.current,
        }
    }

    /// Changes the value. A second change within the lag hides the first one too, until its own lag has passed.
    pub fn change<R>(&mut self, moment: Moment, change: impl FnOnce(&mut T) -> R) -> R {
        self.before = Some(self.seen(moment).clone());
        self.changed = moment.now;
        change(&mut self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_after_the_lag_and_not_before() {
        let start = Timestamp::UNIX_EPOCH;
        let lag = Duration::from_secs(2);
        let mut value = Lagged::new(1, start);
        value.change(Moment::new(start, lag), |value| *value = 2);
        assert_eq!(*value.current(), 2);
        let after = |millis| Moment::new(start + SignedDuration::from_millis(millis), lag);
        assert_eq!(*value.seen(after(1_999)), 1);
        assert_eq!(*value.seen(after(2_000)), 2);
    }
}
