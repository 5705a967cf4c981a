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
                biased;
                () = waiter.cancellation().cancelled() => return Err(StepError::interrupted()),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(self.every),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Wait = Wait::new(Duration::from_secs(5), Duration::from_secs(60));

    /// Looks that see these things, the last of them again and again. Answers how the wait ended and how many looks it took.
    async fn waited(wait: Wait, seen: &[Result<bool, ErrorKind>]) -> (Result<usize, StepError>, usize) {
        let mut looks = 0;
        let waiter = Alone::default();
        let ended = wait.until(&waiter, "the door to open", || {
            looks += 1;
            let look = match seen[looks.min(seen.len()) - 1] {
                Ok(true) => Ok(Look::Ready(looks)),
                Ok(false) => Ok(Look::NotYet(format!("closed at look {looks}"))),
                Err(kind) => Err(StepError::new(kind, "there is no door")),
            };
            async { look }
        });
        // A wait without an end fails the test instead of lasting.
        let ended = tokio::time::timeout(wait.deadline * 2, ended).await.expect("every wait ends");
        (ended, looks)
    }

    #[tokio::test(start_paused = true)]
    async fn one_good_look_is_enough_where_no_more_are_wanted() {
        let (ended, looks) = waited(WAIT, &[Ok(false), Ok(false), Ok(true)]).await;
        assert_eq!((ended.unwrap(), looks), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_look_begins_the_count_anew() {
        let seen = [Ok(true), Ok(true), Ok(false), Ok(true), Ok(true), Ok(true)];
        let (ended, looks) = waited(WAIT.in_a_row(3), &seen).await;
        assert_eq!((ended.unwrap(), looks), (6, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_that_goes_back_and_forth_is_never_good_enough() {
        let seen: Vec<_> = (0..100).map(|look| Ok(look % 2 == 0)).collect();
        let (ended, _) = waited(WAIT.in_a_row(2), &seen).await;
        assert_eq!(ended.unwrap_err().kind, ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_it_and_says_what_was_seen_last() {
        let begun = Instant::now();
        let (ended, looks) = waited(WAIT, &[Ok(false)]).await;
        let error = ended.unwrap_err();
        assert_eq!(error.kind, ErrorKind::TimedOut);
        assert_eq!(error.message, format!("waited 60 s for the door to open; last seen: closed at look {looks}"));
        let lasted = begun.elapsed();
        assert!(lasted <= WAIT.deadline && lasted > WAIT.deadline - WAIT.every, "{lasted:?}");
        // Twice as long between two looks each time, from 40 ms on, up to five seconds.
        assert!(looks < 25, "{looks} looks");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_ends_it_at_once() {
        let (ended, looks) = waited(WAIT, &[Ok(false), Err(ErrorKind::Service), Ok(true)]).await;
        assert_eq!((ended.unwrap_err().kind, looks), (ErrorKind::Service, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_it_does_not_wait_for_the_next_look() {
        let waiter = Alone::default();
        let begun = Instant::now();
        let never = || async { Ok(Look::<()>::NotYet("closed".into())) };
        let cancel = async {
            tokio::time::sleep(Duration::from_secs(31)).await;
            waiter.0.cancel();
        };
        let (ended, ()) = tokio::join!(WAIT.until(&waiter, "the door to open", never), cancel);
        assert_eq!(ended.unwrap_err().kind, ErrorKind::Interrupted);
        assert_eq!(begun.elapsed().as_secs(), 31);
    }
}
