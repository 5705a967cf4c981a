//! A run as JSON lines: every event as it is, then one line that sums it up.

use std::io::Write;

use alcedo_pipeline::{event::Event, report::Report};
use serde::Serialize;

/// Version of the closing line; events carry their own.
const REPORT_FORMAT: u32 = 1;

/// Writes JSON lines.
pub struct Json<W> {
    out: W,
}

/// `{"v":1,"event":"report",…}`
#[derive(Serialize)]
struct Closing<'a> {
    v: u32,
    event: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

impl<W: Write> Json<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    pub fn event(&mut self, event: &Event) {
        self.line(event);
    }

    pub fn report(&mut self, report: &Report) {
        self.line(&Closing { v: REPORT_FORMAT, event: "report", report });
    }

    fn line(&mut self, value: &impl Serialize) {
        let mut line = serde_json::to_vec(value).expect("events and reports have string keys");
        line.push(b'\n');
        // A reader that has gone away does not stop the run.
        let _ = self.out.write_all(&line).and_then(|()| self.out.flush());
    }
}
