//! Small pieces of text that several commands and renderers write alike.

use jiff::{Timestamp, tz::TimeZone};

/// A line that something else has written, made safe for a terminal: without escape sequences, what is left of control
/// characters made visible, and of a line that redraws itself (`10%\r20%`) only its last state.
pub fn clean(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let last = line.rsplit('\r').next().unwrap_or(line);
    alcedo_pipeline::diagnostic::clean(&console::strip_ansi_codes(last))
}

/// `20 ms`, `0.4 s`, `12.3 s`, `2 min 05 s`, `1 h 02 min`.
pub fn seconds(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 0.0995 {
        return format!("{:.0} ms", seconds * 1000.0);
    }
    // What would round up to a whole minute is a minute.
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 { format!("{} min {:02} s", whole / 60, whole % 60) } else { hours(whole) }
}

fn hours(seconds: u64) -> String {
    let minutes = seconds / 60;
    if minutes < 48 * 60 {
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    } else {
        format!("{} d {} h", minutes / (24 * 60), minutes / 60 % 24)
    }
}

/// `512 B`, `3.2 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 server`, `2 servers`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// `2026-11-20 19:05:12 UTC`.
pub fn moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// How long ago, in its two largest units: `just now`, `3 min ago`, `2 h 05 min ago`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let elapsed = u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0);
    match elapsed {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", elapsed / 60),
        _ => format!("{} ago", hours(elapsed)),
    }
}

/// Rows in columns that are as wide as their widest cell, two spaces apart, without spaces at the ends of lines.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| console::measure_text_width(cell)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(console::measure_text_width(cell));
        }
    }
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - console::measure_text_width(cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_build_cannot_touch_the_terminal() {
        assert_eq!(clean("\u{1b}[1;31merror\u{1b}[0m: x\r\n"), "error: x");
        assert_eq!(clean("10%\r55%\r100%\r\n"), "100%");
        // An operating system command that would set the window's title, and a bell.
        let cleaned = clean("\u{1b}]0;owned\u{7}hello\u{7}\u{9b}2J");
        assert!(!cleaned.chars().any(char::is_control), "{cleaned:?}");
        assert!(cleaned.contains("hello"));
    }

    #[test]
    fn times_and_sizes_read_as_people_say_them() {
        let said: Vec<String> = [0.0, 0.04, 9.96, 59.94, 59.96, 125.0, 3720.0, 200_000.0].map(seconds).into();
        assert_eq!(said, ["0 ms", "40 ms", "10.0 s", "59.9 s", "1 min 00 s", "2 min 05 s", "1 h 02 min", "2 d 7 h"]);
        let said: Vec<String> = [0, 1023, 1024, 1_048_575, 3_400_000].map(bytes).into();
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "3.2 MiB"]);
        let now: Timestamp = "2026-11-20T19:05:12Z".parse().unwrap();
        assert_eq!(moment(now), "2026-11-20 19:05:12 UTC");
        assert_eq!(ago("2026-11-20T16:00:12Z".parse().unwrap(), now), "3 h 05 min ago");
        // A clock that runs behind.
        assert_eq!(ago("2026-11-20T19:06:12Z".parse().unwrap(), now), "just now");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["2026.1120.190512".to_owned(), "ü".to_owned()], vec!["x".to_owned(), String::new()]];
        assert_eq!(table(&["VERSION", "IMAGE"], &rows), "VERSION           IMAGE\n2026.1120.190512  ü\nx\n");
    }
}
