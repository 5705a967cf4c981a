//! SIGINT, SIGTERM, SIGHUP and SIGPIPE: the first tells the run to stop and unwind, a second SIGINT leaves at once.
//!
//! SIGPIPE itself is ignored, as Rust's runtime has it: a write to a closed pipe fails instead, and whoever shows the run
//! reports that here. Words beside a run are no such reason: [`crate::output`] drops them.

use std::{fmt, io, sync::OnceLock};

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
    /// Nobody reads what the run tells.
    Pipe,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
            Self::Pipe => "SIGPIPE",
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

/// Reports that nobody reads any more.
#[derive(Clone)]
pub struct Pipe {
    stop: CancellationToken,
    first: std::sync::Arc<OnceLock<Signal>>,
}

impl Pipe {
    pub fn is_closed(&self) {
        let _ = self.first.set(Signal::Pipe);
        self.stop.cancel();
    }
}

/// Writes on, and reports a pipe that is closed.
pub struct Watched<W> {
    inner: W,
    pipe: Pipe,
}

impl<W> Watched<W> {
    pub fn new(inner: W, pipe: Pipe) -> Self {
        Self { inner, pipe }
    }

    fn look<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.pipe.is_closed();
        }
        done
    }
}

impl<W: io::Write> io::Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.inner.write(bytes);
        self.look(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.inner.flush();
        self.look(done)
    }
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

    /// For whoever finds the pipe closed that the run is told through.
    pub fn pipe(&self) -> Pipe {
        Pipe { stop: self.stop.clone(), first: self.first.clone() }
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
