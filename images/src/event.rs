//! What a build or a bake tells while it works. Nothing in this crate prints.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImageEvent {
    /// Work of some length begins; a short sentence without a full stop: `installing gcc, make`.
    Started { what: String },
    /// One line of output, without its end. At most [`LINE_LIMIT`] bytes of a longer one.
    Line { stream: Stream, text: String },
    /// Lines that came faster than the reader took them, and are not shown. The work itself never waits for a reader.
    Skipped { lines: u64 },
}

/// Where a line came from. Commands in containers and on servers have both outputs in one, `Stdout`, so that their lines
/// keep their order; programs of this machine have two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Bytes kept of one line of output.
pub const LINE_LIMIT: usize = 8 << 10;

/// Takes events. Called from the task that works, or from one beside it; must return at once.
pub type Sink = Arc<dyn Fn(ImageEvent) + Send + Sync>;

/// A sink for callers that do not listen.
pub fn silent() -> Sink {
    Arc::new(|_| {})
}
