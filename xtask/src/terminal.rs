//! How the chores talk: to stderr, so that stdout stays for results.

use std::{env, io::IsTerminal, time::Duration};

/// Begins a part of the work.
pub fn heading(text: &str) {
    if colours() {
        eprintln!("\n\x1b[1m{text}\x1b[0m");
    } else {
        eprintln!("\n{text}");
    }
}

/// One line below a heading.
pub fn say(text: &str) {
    eprintln!("  {text}");
}

/// The error, then what caused it, one line each.
pub fn failure(error: &anyhow::Error) {
    let (start, end) = if colours() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    eprintln!("\n{start}error:{end} {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// `0.4 s`, `12.3 s` or `3 min 05 s`.
pub fn seconds(time: Duration) -> String {
    if time.as_secs() < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

fn colours() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}
