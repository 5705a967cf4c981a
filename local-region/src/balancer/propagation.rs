//! When which node takes up a change: one after another, in an order and at times that are drawn anew for each change,
//! from a seed. AWS publishes neither.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rand::{Rng, rngs::StdRng, seq::SliceRandom};

/// How long after a change each node takes it up, by node.
pub fn delays(nodes: usize, propagation: Duration, random: &mut StdRng) -> Vec<Duration> {
    let mut delays: Vec<Duration> = (0..nodes).map(|_| propagation.mul_f64(random.random::<f64>())).collect();
    delays.shuffle(random);
    delays
}

/// The changes that one node has yet to take up, oldest first.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: VecDeque<(Timestamp, Arc<T>)>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// Adds a change. A node never takes up a later change before an earlier one.
    pub fn push(&mut self, at: Timestamp, change: Arc<T>) {
        let last = self.waiting.back().map_or(Timestamp::MIN, |(at, _)| *at);
        self.waiting.push_back((at.max(last), change));
    }

    /// The changes that are due, oldest first.
    pub fn due(&mut self, now: Timestamp) -> Vec<Arc<T>> {
        let count = self.waiting.iter().take_while(|(at, _)| *at <= now).count();
        self.waiting.drain(..count).map(|(_, change)| change).collect()
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.waiting.front().map(|(at, _)| *at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, change)| change.as_ref())
    }
}

/// When a change made at `now` is taken up after `delay`.
pub fn after(now: Timestamp, delay: Duration) -> Timestamp {
    now.saturating_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(millis)
    }

    #[test]
    fn the_same_seed_draws_the_same_delays_within_the_bound() {
        let draw = |seed| delays(4, Duration::from_secs(30), &mut StdRng::seed_from_u64(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).iter().all(|delay| *delay <= Duration::from_secs(30)));
        let mut distinct = draw(1);
        distinct.dedup();
        assert_eq!(distinct.len(), 4, "one after another");
    }

    #[test]
    fn a_node_takes_changes_up_in_their_order() {
        let mut queue = Queue::default();
        queue.push(at(200), Arc::new("first"));
        queue.push(at(100), Arc::new("second"));
        assert!(queue.due(at(150)).is_empty(), "the second waits for the first");
        assert_eq!(queue.next(), Some(at(200)));
        let due: Vec<_> = queue.due(at(200)).iter().map(|change| **change).collect();
        assert_eq!(due, ["first", "second"]);
    }
}
