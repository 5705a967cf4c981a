//! What a run has shown, kept to be read again: plain lines, the first and the last where there are too many.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use alcedo_pipeline::event::Event;
use jiff::Timestamp;

use super::{lines::Lines, timeline::Timeline};

/// Bytes of the first lines that are kept, and of the last. A build of a large app prints some hundred KiB.
const FIRST: usize = 1 << 20;
const LAST: usize = 3 << 20;

/// The log of a run as this process sees it.
pub struct Log {
    lines: Lines<Kept>,
    pub began: Timestamp,
}

impl Log {
    pub fn new(now: Timestamp) -> Self {
        Self { lines: Lines::new(Kept::default(), now), began: now }
    }

    /// Writes down an event that `timeline` has taken in.
    pub fn event(&mut self, event: &Event, timeline: &Timeline) {
        self.lines.event(event, timeline);
    }

    pub fn text(self) -> String {
        self.lines.into_inner().text()
    }
}

/// Lines within bounds.
#[derive(Default)]
struct Kept {
    first: Vec<u8>,
    last: VecDeque<Vec<u8>>,
    last_bytes: usize,
    left_out: usize,
}

impl Kept {
    fn text(self) -> String {
        let mut text = self.first;
        if self.left_out > 0 {
            text.extend_from_slice(format!("         … {} lines left out\n", self.left_out).as_bytes());
        }
        text.extend(self.last.into_iter().flatten());
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.last.is_empty() && self.first.len() + line.len() <= FIRST {
                self.first.extend_from_slice(line);
                continue;
            }
            self.last_bytes += line.len();
            self.last.push_back(line.to_vec());
            while self.last_bytes > LAST
                && let Some(dropped) = self.last.pop_front()
            {
                self.last_bytes -= dropped.len();
                self.left_out += 1;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_lines_the_first_and_the_last_are_kept() {
        let mut kept = Kept::default();
        let line = "x".repeat(99) + "\n";
        writeln!(kept, "the beginning").unwrap();
        for _ in 0..100_000 {
            kept.write_all(line.as_bytes()).unwrap();
        }
        writeln!(kept, "the end").unwrap();
        let text = kept.text();
        assert!(text.starts_with("the beginning\n") && text.ends_with("\nthe end\n"));
        assert!(text.len() <= FIRST + LAST + 100, "{}", text.len());
        let shown = text.lines().count() - 1;
        assert!(text.contains(&format!("… {} lines left out", 100_002 - shown)), "{shown}");
    }

    #[test]
    fn a_short_log_is_kept_whole() {
        let mut kept = Kept::default();
        kept.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(kept.text(), "one\ntwo\n");
    }
}
