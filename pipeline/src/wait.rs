//! Waiting with a deadline, for what has to be seen several times in a row.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    context::StepContext,
    error::{ErrorKind, StepError},
};

/// The first pause; each following one is twice as long, up to [`Wait::every`]. What is nearly there is then seen at once,
/// and a long wait costs few calls.
const FIRST_LOOK: Duration = Duration::from_millis(40);

/// How to wait.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// Longest time between two looks. The first looks follow each other more quickly: see [`FIRST_LOOK`].
    pub every: Duration,
    /// Longest time in all.
    pub deadline: Duration,
    /// How many good looks in a row end the wait. More than one where the view lags and may go back and forth.
    pub in_a_row: u32,
}

/// Who waits: a step of a run, or something that has to be done outside of one.
pub trait Waiter: Sync {
    /// Says what the wait sees now.
    fn waiting(&self, status: String);
    /// Ends the wait.
    fn cancellation(&self) -> &CancellationToken;
}

impl Waiter for StepContext {
    fn waiting(&self, status: String) {
        Self::waiting(self, status);
    }

    fn cancellation(&self) -> &CancellationToken {
        Self::cancellation(self)
    }
}

/// Nobody watches, and nobody ends it but its deadline.
#[derive(Debug, Default)]
pub struct Alone(CancellationToken);

impl Waiter for Alone {
    fn waiting(&self, _: String) {}

    fn cancellation(&self) -> &CancellationToken {
        &self.0
    }
}

/// What one look saw.
pub enum Look<T> {
    /// What was waited for.
    Ready(T),
    /// Not yet; for people, what is seen now.
    NotYet(String),
}

impl Wait {
    pub const fn new(every: Duration, deadline: Duration) -> Self {
        Self { every, deadline, in_a_row: 1 }
    }

    #[must_use]
    pub const fn in_a_row(mut self, times: u32) -> Self {
        self.in_a_row = times;
        self
    }

    /// Looks until it has seen `what` often enough in a row.
    ///
    /// # Errors
    /// What a look fails with; [`ErrorKind::TimedOut`] with the last thing seen; [`ErrorKind::Interrupted`].
    pub async fn until<T, F, Fut>(self, waiter: &impl Waiter, what: &str, mut look: F) -> Result<T, StepError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Look<T>, StepError>>,
    {
        let begun = Instant::now();
        let mut good = 0;
        let mut pause = FIRST_LOOK.min(self.every);
        loop {
            let seen = match look().await? {
                Look::Ready(value) => {
                    good += 1;
                    if good >= self.in_a_row {
                        return Ok(value);
                    }
                    format!("{what}: seen {good} of {} times", self.in_a_row)
                }
                Look::NotYet(status) => {
                    good = 0;
                    status
                }
            };
            if begun.elapsed() + pause > self.deadline {
                return Err(StepError::new(
                    ErrorKind::TimedOut,
                    format!("waited {} s for {what}; last seen: {seen}", self.deadline.as_secs()),
                ));
            }
            waiter.waiting(seen);
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(self.every),
                () = waiter.cancellation().cancelled() => return Err(StepError::interrupted()),
            }
        }
    }
}
