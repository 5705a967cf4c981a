//! The serial console of a server: what its terminal has shown, which the engine's log keeps over stops and starts.

use bollard::query_parameters::LogsOptionsBuilder;
use futures::TryStreamExt;

use super::engine::{Engine, Failure, QUICK, within};

/// What `GetConsoleOutput` gives back at most, as on AWS.
pub const KEPT_BYTES: usize = 64 << 10;

/// Enough lines to fill [`KEPT_BYTES`] with, at the 16 bytes that even short lines average.
const LINES: usize = KEPT_BYTES / 16;

/// The last [`KEPT_BYTES`] of the console of `container`.
///
/// # Errors
/// The engine refuses, or has no such container.
pub async fn read(engine: &Engine, container: &str) -> Result<Vec<u8>, Failure> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&LINES.to_string()).build();
    let read = async {
        let mut shown = Vec::new();
        let mut log = std::pin::pin!(engine.docker.logs(container, Some(options)));
        while let Some(part) = log.try_next().await? {
            shown.extend_from_slice(&part.into_bytes());
            if shown.len() > 2 * KEPT_BYTES {
                keep_last(&mut shown);
            }
        }
        keep_last(&mut shown);
        Ok(shown)
    };
    within(QUICK, format!("cannot read the console of {container}"), read).await
}

fn keep_last(shown: &mut Vec<u8>) {
    shown.drain(..shown.len().saturating_sub(KEPT_BYTES));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut shown = vec![b'a'; 10];
        shown.extend(vec![b'b'; KEPT_BYTES]);
        keep_last(&mut shown);
        assert_eq!(shown, vec![b'b'; KEPT_BYTES]);
        keep_last(&mut shown);
        assert_eq!(shown.len(), KEPT_BYTES);
    }
}
