//! How a command says that it failed: what happened, why, and what to do, in words or as JSON.

use alcedo_pipeline::{diagnostic::Diagnostics, error::ErrorRecord};
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    output::{Output, Paint},
    words::clean,
};

/// A command's failure, ready to be shown.
#[derive(Debug)]
pub struct Failure {
    pub code: ExitCode,
    /// What `alcedo explain` knows it by; empty where there is nothing to explain.
    pub id: String,
    /// What happened, in one sentence without a full stop.
    pub message: String,
    /// Why, from the nearest cause to the deepest.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// What is wrong with a file, where that is the failure; shown instead of the message.
    pub diagnostics: Option<Box<Diagnostics>>,
}

/// What a command answers.
pub type Result<T = ExitCode> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        let id = match code {
            ExitCode::USAGE => "usage",
            ExitCode::STUCK => "stuck",
            ExitCode::LOCKED => "locked",
            _ => "",
        };
        let (id, message) = (id.to_owned(), message.into());
        Self { code, id, message, causes: Vec::new(), hints: Vec::new(), diagnostics: None }
    }

    /// Something did not work; nothing is left of it.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ExitCode::FAILED, message)
    }

    /// The command line or a file is wrong; nothing was begun.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::USAGE, message)
    }

    /// A file with problems.
    pub fn file(diagnostics: Diagnostics) -> Self {
        let message = diagnostics.summary().unwrap_or_else(|| "the file cannot be used".to_owned());
        Self { diagnostics: Some(Box::new(diagnostics)), ..Self::usage(message) }
    }

    /// A step's failure as the journal keeps it.
    pub fn of_record(code: ExitCode, error: &ErrorRecord) -> Self {
        Self { causes: error.causes.clone(), hints: error.hints.clone(), ..Self::new(code, error.message.clone()) }
    }

    /// An error whose own words say what happened, with its causes.
    pub fn of(code: ExitCode, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { causes: causes(error), ..Self::new(code, error.to_string()) }
    }

    /// Adds an error and everything beneath it as causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes(error));
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same, its texts as `clean` gives them back.
    #[must_use]
    pub fn cleaned(mut self, clean: impl Fn(&str) -> String) -> Self {
        self.message = clean(&self.message);
        self.causes.iter_mut().chain(&mut self.hints).for_each(|text| *text = clean(text));
        self
    }

    /// Shows it: in words on stderr, and with `--output json` also as one line of JSON on stdout.
    pub fn show(&self, output: &Output) {
        output.note(&self.to_text(output.paint_stderr));
        if output.is_json() {
            output.json(&self.to_json());
        }
    }

    fn to_text(&self, paint: Paint) -> String {
        let mut text = String::new();
        match &self.diagnostics {
            Some(diagnostics) => text.push_str(&diagnostics.to_text(paint.diagnostics())),
            None => {
                text.push_str(&entry(&paint.red("error:"), &self.message));
                for cause in &self.causes {
                    text.push_str(&entry("  because:", cause));
                }
            }
        }
        for hint in &self.hints {
            text.push_str(&entry(&paint.green("help:"), hint));
        }
        // What is wrong with a command line or a file says all there is to say.
        if self.code != ExitCode::USAGE && !self.id.is_empty() {
            text.push_str(&entry(&paint.green("more:"), &format!("alcedo explain {}", self.id)));
        }
        text
    }

    pub fn to_json(&self) -> serde_json::Value {
        let mut line = json!({
            "v": 1,
            "event": "error",
            "exit_code": self.code.0,
            "id": self.id,
            "message": self.message,
            "causes": self.causes,
            "hints": self.hints,
        });
        if let Some(diagnostics) = &self.diagnostics {
            line["diagnostics"] = json!(diagnostics);
        }
        line
    }
}

/// A word and what follows it; further lines are set below the first.
fn entry(word: &str, said: &str) -> String {
    let lines: Vec<String> = said.lines().map(clean).collect();
    format!("{word} {}\n", lines.join("\n    "))
}

fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the engine does not answer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_is_shown_with_its_causes_and_what_to_do() {
        let failure = Failure::of(ExitCode::FAILED, &Outer(io::Error::other("no \u{1b}[31msocket"))).hint("start it");
        insta::assert_snapshot!(failure.to_text(Paint::PLAIN), @r"
        error: the engine does not answer
          because: no socket
        help: start it
        ");
        assert_eq!(failure.to_json()["causes"][0], "no \u{1b}[31msocket");
        assert_eq!(failure.to_json()["exit_code"], 1);
    }
}
