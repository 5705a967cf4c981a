//! Where words go: results to stdout, everything else to stderr.
//!
//! Nothing here fails. A reader that has gone away (`alcedo releases | head`, a closed terminal) is no reason to lose a
//! run that is half done, so what cannot be written is dropped.

use std::io::{self, IsTerminal, Write};

use alcedo_pipeline::diagnostic::Style;
use clap::ValueEnum;
use serde::Serialize;

/// What `--output` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// `progress` on a terminal, `lines` everywhere else
    Auto,
    /// Redraw a few lines on stderr, for people
    Progress,
    /// Write one line an event, for CI
    Lines,
    /// Write one JSON object a line, for programs
    Json,
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Progress,
    Lines,
    Json,
}

/// The process's output as it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub form: Form,
    pub paint_stdout: Paint,
    pub paint_stderr: Paint,
}

impl Output {
    /// `verbose`: log lines go to stderr, where they would tear a redrawn picture apart, so `auto` then means lines.
    pub fn new(choice: Choice, no_color: bool, verbose: bool) -> Self {
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let form = match choice {
            Choice::Auto if stdout && stderr && !dumb && !verbose => Form::Progress,
            Choice::Auto | Choice::Lines => Form::Lines,
            Choice::Progress => Form::Progress,
            Choice::Json => Form::Json,
        };
        // https://no-color.org: set and not empty.
        let refused = no_color || dumb || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { form, paint_stdout: Paint(stdout && !refused), paint_stderr: Paint(stderr && !refused) }
    }

    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Writes a result.
    pub fn text(&self, text: &str) {
        write(&mut io::stdout().lock(), text);
    }

    /// Writes a result as one line of JSON.
    pub fn json(&self, value: &impl Serialize) {
        let line = serde_json::to_string(value).expect("results have string keys and no failing parts");
        write(&mut io::stdout().lock(), &format!("{line}\n"));
    }

    /// Says something beside the result.
    pub fn note(&self, text: &str) {
        write(&mut io::stderr().lock(), &crate::logging::clean(text));
    }
}

fn write(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// For what is no terminal.
    pub const PLAIN: Self = Self(false);
    #[cfg(test)]
    pub const COLOURED: Self = Self(true);

    pub fn red(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Red.on_default().bold(), text)
    }

    pub fn green(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Green.on_default().bold(), text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Yellow.on_default().bold(), text)
    }

    pub fn blue(self, text: &str) -> String {
        self.with(anstyle::AnsiColor::Cyan.on_default(), text)
    }

    pub fn bold(self, text: &str) -> String {
        self.with(anstyle::Style::new().bold(), text)
    }

    pub fn dim(self, text: &str) -> String {
        self.with(anstyle::Style::new().dimmed(), text)
    }

    pub fn diagnostics(self) -> Style {
        if self.0 { Style::Coloured } else { Style::Plain }
    }

    fn with(self, style: anstyle::Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
