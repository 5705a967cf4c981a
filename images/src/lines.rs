//! Output as lines: split, kept at the end for errors, and handed on without ever making the program that writes wait.

use std::{collections::VecDeque, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::event::{ImageEvent, LINE_LIMIT, Sink, Stream};

/// Lines kept for an error's message.
pub const TAIL_LINES: usize = 30;

/// Lines that may wait for a reader before further ones are skipped; about a second of a noisy compiler.
const WAITING_LINES: usize = 4096;

/// How long the end waits for a reader that has lines left to take.
const READER_GRACE: Duration = Duration::from_secs(2);

/// Takes output as it comes.
pub(crate) struct Lines {
    queue: mpsc::Sender<ImageEvent>,
    reader: JoinHandle<()>,
    /// Unfinished lines of stdout and stderr.
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
    skipped: u64,
}

impl Lines {
    /// Lines go to `sink`, from a thread of its own: a sink that blocks holds up nothing but itself.
    pub(crate) fn to(sink: &Sink) -> Self {
        let (queue, mut waiting) = mpsc::channel::<ImageEvent>(WAITING_LINES);
        let sink = Sink::clone(sink);
        let reader = tokio::task::spawn_blocking(move || {
            while let Some(event) = waiting.blocking_recv() {
                sink(event);
            }
        });
        Self { queue, reader, partial: [Vec::new(), Vec::new()], tail: VecDeque::new(), skipped: 0 }
    }

    pub(crate) fn feed(&mut self, stream: Stream, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            self.extend(stream, &rest[..at]);
            self.end_line(stream);
            rest = &rest[at + 1..];
        }
        self.extend(stream, rest);
    }

    fn extend(&mut self, stream: Stream, bytes: &[u8]) {
        let partial = &mut self.partial[stream as usize];
        let room = LINE_LIMIT.saturating_sub(partial.len());
        partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.partial[stream as usize]);
        let text = String::from_utf8_lossy(&line);
        // A progress display rewrites its line with carriage returns; what it showed last is the line.
        let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        if self.skipped > 0 && self.queue.try_send(ImageEvent::Skipped { lines: self.skipped }).is_ok() {
            self.skipped = 0;
        }
        if self.skipped > 0 || self.queue.try_send(ImageEvent::Line { stream, text }).is_err() {
            self.skipped += 1;
        }
    }

    /// Ends the last line, lets the reader catch up, and returns the last lines.
    pub(crate) async fn finish(mut self) -> Vec<String> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial[stream as usize].is_empty() {
                self.end_line(stream);
            }
        }
        if self.skipped > 0 {
            let last = self.queue.send(ImageEvent::Skipped { lines: self.skipped });
            let _ = timeout(READER_GRACE, last).await;
        }
        drop(self.queue);
        let _ = timeout(READER_GRACE, self.reader).await;
        self.tail.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn collecting() -> (Sink, Arc<Mutex<Vec<ImageEvent>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        (Arc::new(move |event| into.lock().unwrap().push(event)), seen)
    }

    #[tokio::test]
    async fn chunks_become_lines() {
        let (sink, seen) = collecting();
        let mut lines = Lines::to(&sink);
        lines.feed(Stream::Stdout, b"one\ntw");
        lines.feed(Stream::Stderr, b"oh no\r\n");
        lines.feed(Stream::Stdout, b"o\n10%\r20%\r\nend");
        assert_eq!(lines.finish().await, ["one", "oh no", "two", "20%", "end"]);
        let line = |stream, text: &str| ImageEvent::Line { stream, text: text.into() };
        assert_eq!(
            *seen.lock().unwrap(),
            [
                line(Stream::Stdout, "one"),
                line(Stream::Stderr, "oh no"),
                line(Stream::Stdout, "two"),
                line(Stream::Stdout, "20%"),
                line(Stream::Stdout, "end")
            ]
        );
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_holds_nothing_up() {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let (collect, seen) = collecting();
        let sink: Sink = Arc::new(move |event| {
            if seen.lock().unwrap().is_empty() {
                // Stands still at the first event, until every line has been fed.
                let _ = gate.lock().unwrap().recv();
            }
            collect(event);
        });
        let (sink_seen, events) = (sink, Arc::new(Mutex::new(Vec::new())));
        let into = Arc::clone(&events);
        let both: Sink = Arc::new(move |event: ImageEvent| {
            into.lock().unwrap().push(event.clone());
            sink_seen(event);
        });
        let mut lines = Lines::to(&both);
        for number in 0..WAITING_LINES + 1000 {
            lines.feed(Stream::Stdout, format!("{number}\n").as_bytes());
        }
        release.send(()).unwrap();
        let tail = lines.finish().await;
        assert_eq!(tail.last().unwrap(), &(WAITING_LINES + 999).to_string(), "the tail has what the reader missed");
        let events = events.lock().unwrap();
        let (mut shown, mut skipped) = (0, 0);
        for event in events.iter() {
            match event {
                ImageEvent::Skipped { lines } => skipped += lines,
                _ => shown += 1,
            }
        }
        assert_eq!(shown + skipped, (WAITING_LINES + 1000) as u64, "every line is shown or counted");
        assert!(skipped > 0);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let (sink, _seen) = collecting();
        let mut lines = Lines::to(&sink);
        lines.feed(Stream::Stdout, &vec![b'x'; LINE_LIMIT * 3]);
        assert_eq!(lines.finish().await[0].len(), LINE_LIMIT);
    }
}
