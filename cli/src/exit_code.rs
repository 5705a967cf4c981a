//! How `alcedo` ends, as a number. Scripts rely on these; a number never changes its meaning.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed; everything that was begun is undone, and what was in service still is |
//! | 2 | bad usage or a bad file; nothing was begun |
//! | 3 | stuck: something could be neither finished nor undone; the output says what and how to go on |
//! | 4 | another run holds the environment |
//! | 129, 130, 141, 143 | SIGHUP, SIGINT, SIGPIPE, SIGTERM; everything that was begun is undone |

use alcedo_pipeline::{event::Outcome, journal::JournalError, lock::LockError};

use crate::signals::Signal;

/// The number that the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    /// What was asked for is done.
    pub const DONE: Self = Self(0);
    /// It failed, and nothing of it is left.
    pub const FAILED: Self = Self(1);
    /// The command line, a file or an environment variable is wrong. The same number that clap ends with.
    pub const USAGE: Self = Self(2);
    /// Something is left that could be neither finished nor undone.
    pub const STUCK: Self = Self(3);
    /// Another run holds the environment's lock.
    pub const LOCKED: Self = Self(4);
    /// 128 and the signal's number, as shells count.
    pub const HANGUP: Self = Self(129);
    pub const INTERRUPTED: Self = Self(130);
    pub const TERMINATED: Self = Self(143);
    pub const PIPE: Self = Self(141);

    /// The end of a run. `signal` is the first that came in, if any did. A run that did what it was asked although a
    /// signal came in is done; one that got stuck is stuck, whatever stopped it.
    pub const fn of_run(outcome: Outcome, signal: Option<Signal>) -> Self {
        match (outcome, signal) {
            (Outcome::Done | Outcome::Superseded, _) => Self::DONE,
            (Outcome::Stuck, _) => Self::STUCK,
            (Outcome::Interrupted, Some(signal)) => Self::of_signal(signal),
            // Without a signal it was stopped by something else: the lease on the environment was lost.
            (Outcome::Interrupted, None) | (Outcome::Unwound, _) => Self::FAILED,
        }
    }

    /// Stopped by a signal, with nothing left.
    pub const fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::Hangup => Self::HANGUP,
            Signal::Interrupt => Self::INTERRUPTED,
            Signal::Terminate => Self::TERMINATED,
            Signal::Pipe => Self::PIPE,
        }
    }

    pub const fn of_lock(error: &LockError) -> Self {
        match error {
            LockError::Held(_) => Self::LOCKED,
            LockError::Store(_) | LockError::Unreadable(_) => Self::FAILED,
        }
    }

    /// A journal that cannot be kept stops the run where it is, so what it has made stands: stuck.
    pub const fn of_journal(error: &JournalError) -> Self {
        match error {
            JournalError::Fenced { .. } => Self::LOCKED,
            JournalError::NoRun { .. } => Self::USAGE,
            JournalError::Store { .. }
            | JournalError::Unreadable { .. }
            | JournalError::Foreign { .. }
            | JournalError::Torn { .. } => Self::STUCK,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_its_outcome_and_the_first_signal() {
        let table = [
            (Outcome::Done, None, 0),
            (Outcome::Done, Some(Signal::Interrupt), 0),
            (Outcome::Unwound, None, 1),
            // It had failed by itself before the signal could stop it.
            (Outcome::Unwound, Some(Signal::Interrupt), 1),
            (Outcome::Stuck, None, 3),
            (Outcome::Stuck, Some(Signal::Terminate), 3),
            (Outcome::Interrupted, Some(Signal::Hangup), 129),
            (Outcome::Interrupted, Some(Signal::Interrupt), 130),
            (Outcome::Interrupted, Some(Signal::Terminate), 143),
            (Outcome::Interrupted, None, 1),
        ];
        for (outcome, signal, code) in table {
            assert_eq!(ExitCode::of_run(outcome, signal), ExitCode(code), "{outcome:?} {signal:?}");
        }
    }
}
