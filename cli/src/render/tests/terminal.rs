//! A terminal in memory: the picture is looked at as it stands there, with what has scrolled away.

use crate::render::progress::Size;

pub struct Terminal {
    inside: avt::Terminal,
    size: Size,
}

impl Terminal {
    pub fn new(size: Size) -> Self {
        let inside = avt::Terminal::with_scrollback(size.columns, size.rows, None).unwrap();
        Self { inside, size }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// Takes what a program has written. Sequences that the picture does not use are somebody else's, and a failure.
    pub fn take(&mut self, written: &mut Vec<u8>) {
        let text = String::from_utf8(std::mem::take(written)).unwrap();
        assert_only_known_sequences(&text);
        // As a terminal driver does.
        self.inside.feed(text.replace('\n', "\r\n").as_str());
    }

    /// Somebody drags the window's corner.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.inside.resize(columns, rows);
        self.size = Size { columns, rows };
    }

    /// The same, of which the program does not know yet.
    pub fn resize_untold(&mut self, columns: usize, rows: usize) {
        self.inside.resize(columns, rows);
    }

    /// Everything that stands there, scrolled away or not, a row at a time, without the blank rows at the end.
    pub fn rows(&self) -> Vec<String> {
        let rows = self.inside.primary_screen().all_lines();
        let mut rows: Vec<String> = rows.map(|row| row.text().trim_end().to_owned()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    /// The same with rows that the terminal has broken put together again.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.inside.primary_screen().text();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }
}

fn assert_only_known_sequences(written: &str) {
    let mut rest = written;
    while let Some(at) = rest.find('\u{1b}') {
        // Keeps the cursor's place, and brings it back there.
        if let Some(after) = rest[at..].strip_prefix("\u{1b}7").or(rest[at..].strip_prefix("\u{1b}8")) {
            rest = after;
            continue;
        }
        let end = at + rest[at..].find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence") + 1;
        let sequence = &rest[at..end];
        let ends = ['A', 'B', 'C', 'J', 'K', 'h', 'l', 'm'];
        let known = sequence.starts_with("\u{1b}[") && ends.iter().any(|it| sequence.ends_with(*it));
        assert!(known, "unknown sequence {sequence:?}");
        rest = &rest[end..];
    }
}
