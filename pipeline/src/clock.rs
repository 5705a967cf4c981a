//! Time is injected: nothing that a run does asks the machine for it.
//!
//! Moments come from a [`Clock`]. Spans and pauses are tokio's, which a test can pause and let jump.

use jiff::Timestamp;

/// What tells the time of day.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that starts at a moment and goes as tokio's time does: for tests whose time is paused, and for machines whose
/// clock is wrong.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Timestamp,
    since: tokio::time::Instant,
}

impl TokioClock {
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, since: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start.saturating_add(self.since.elapsed()).unwrap_or(Timestamp::MAX)
    }
}
