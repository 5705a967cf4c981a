//! SIGINT, SIGTERM and SIGHUP: the first tells the run to stop and unwind, a second SIGINT leaves at once.
//!
//! SIGPIPE is ignored, as Rust's runtime has it: a write to a closed pipe fails, and [`crate::output`] drops it.

use std::{fmt, sync::OnceLock};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// A signal that asks to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    Hangup,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        })
    }
}

/// Listens from its making to the end of the process.
pub struct Signals {
    stop: CancellationToken,
    first: std::sync::Arc<OnceLock<Signal>>,
    /// Every signal, in order: the first has already stopped the run, the others are for whoever shows it.
    pub received: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    /// Takes the three signals over from their default, which would kill the process.
    ///
    /// # Errors
    /// The process may not have more signal handlers.
    pub fn listen() -> Result<Self, Failure> {
        let fail = |error| Failure::failed("signals cannot be listened to").because(&error);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(fail)?;
        let stop = CancellationToken::new();
        let first = std::sync::Arc::new(OnceLock::new());
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn({
            let (stop, first) = (stop.clone(), first.clone());
            async move {
                loop {
                    let signal = tokio::select! {
                        Some(()) = interrupt.recv() => Signal::Interrupt,
                        Some(()) = terminate.recv() => Signal::Terminate,
                        Some(()) = hangup.recv() => Signal::Hangup,
                        else => return,
                    };
                    // Recorded before the run is told, so that its end finds the reason.
                    let _ = first.set(signal);
                    stop.cancel();
                    if sender.send(signal).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { stop, first, received })
    }

    /// Ends when the first signal comes in.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    pub fn first(&self) -> Option<Signal> {
        self.first.get().copied()
    }

    /// Does something that changes nothing, or as much of it as there is time for before a signal.
    ///
    /// # Errors
    /// The work's own, or that a signal ended it.
    pub async fn or_stop<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.stop.cancelled() => Err(self.stopped()),
        }
    }

    fn stopped(&self) -> Failure {
        let signal = self.first().unwrap_or(Signal::Interrupt);
        Failure::new(
            crate::exit_code::ExitCode::of_signal(signal),
            format!("stopped by {signal} before anything was changed"),
        )
    }
}
