//! Wrong command lines, help, and how things are shown.

mod support;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{alcedo, stderr, stdout};

/// What the issue of the command line promises.
const HELP_LIMIT: Duration = Duration::from_millis(20);

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (vec!["deplay"], "deploy"),
        (vec!["deploy", "--enf", "x"], "--env"),
        (vec!["deploy", "--version", "1.2.3"], "2026.1120.190512"),
        (vec!["rollback", "--to", "yesterday"], "not a version"),
        (vec!["runs", "show", "7"], "20261120-190512-7f3a"),
        (vec!["region", "start", "--port", "0"], "1..=65535"),
        (vec!["region", "start", "--profile", "slow"], "quick"),
        (vec!["status", "--output", "xml"], "json"),
        (vec!["completions", "cmd"], "bash"),
        (vec![], "Usage"),
    ] {
        let output = alcedo(folder.path()).args(&arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_wrong_command_line_is_an_object_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [["deplay", "--output", "json"].as_slice(), &["--output=json", "deplay"]] {
        let text = stdout(alcedo(folder.path()).args(arguments));
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["v"], &line["event"], &line["exit_code"]), (&1.into(), &"error".into(), &2.into()));
        assert!(line["message"].as_str().unwrap().contains("deplay"), "{line}");
    }
}

#[test]
fn help_is_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let text = stdout(alcedo(folder.path()).arg("--help"));
    let commands = [
        "validate",
        "plan",
        "deploy",
        "rollback",
        "status",
        "releases",
        "runs",
        "logs",
        "man",
        "iam-policy",
        "explain",
        "region",
        "image",
        "init",
        "doctor",
        "completions",
    ];
    for command in commands {
        assert!(text.contains(&format!("\n  {command} ")), "{command}: {text}");
        alcedo(folder.path()).args([command, "--help"]).assert().success();
    }
    assert!(text.contains("Examples:") && text.contains("Exit codes:"), "{text}");
    let region = stdout(alcedo(folder.path()).args(["region", "--help"]));
    assert!(!region.contains("\n  serve "), "{region}");
    let start = stdout(alcedo(folder.path()).args(["region", "start", "--help"]));
    assert!(start.contains("[default: 4599]"), "{start}");
}

#[test]
fn help_is_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // What else the machine does only makes it slower: the quickest of several is what the program itself takes.
    let quickest = (0..50)
        .map(|_| {
            let begun = Instant::now();
            let status = Command::new(env!("CARGO_BIN_EXE_alcedo"))
                .arg("--help")
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
            begun.elapsed()
        })
        .find_or_least(HELP_LIMIT);
    assert!(quickest < HELP_LIMIT, "{quickest:?}");
}

trait FindOrLeast {
    fn find_or_least(self, limit: Duration) -> Duration;
}

impl<I: Iterator<Item = Duration>> FindOrLeast for I {
    /// The first that is below the limit, else the least of all.
    fn find_or_least(self, limit: Duration) -> Duration {
        let mut least = Duration::MAX;
        for one in self {
            least = least.min(one);
            if least < limit {
                break;
            }
        }
        least
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = stdout(alcedo(folder.path()).args(["completions", shell]));
        assert!(script.contains("rollback") && script.contains("doctor"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    alcedo(folder.path()).args(["man", "pages/man1"]).assert().success();
    let page = |name: &str| std::fs::read_to_string(folder.path().join("pages/man1").join(name)).unwrap();
    assert!(page("alcedo.1").contains("alcedo\\-rollback(1)"), "{}", page("alcedo.1"));
    assert!(page("alcedo-deploy.1").contains("freeze\\-on\\-failure"), "{}", page("alcedo-deploy.1"));
    assert!(page("alcedo-hold-extend.1").contains(".TH"));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let folder = tempfile::tempdir().unwrap();
    // `script` gives the command a terminal.
    let said = |flag: &str, variable: Option<(&str, &str)>| {
        let line = format!("{} validate {flag}", env!("CARGO_BIN_EXE_alcedo"));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).current_dir(folder.path()).stdin(Stdio::null());
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        let output = command.output().expect("script is a part of every Debian");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("there is no alcedo.yaml"), "{text}");
        text.contains('\u{1b}')
    };
    assert!(said("", None));
    // The convention leaves an empty value without meaning.
    assert!(said("", Some(("NO_COLOR", ""))));
    assert!(!said("", Some(("NO_COLOR", "1"))));
    assert!(!said("--no-color", None));
    assert!(!said("", Some(("TERM", "dumb"))));
    let piped = stderr(alcedo(folder.path()).arg("validate"));
    assert!(piped.starts_with("error: there is no alcedo.yaml"), "{piped}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("{} completions bash | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_alcedo"));
    let output = Command::new("bash").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
