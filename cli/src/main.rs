//! `alcedo`: from a commit to calm traffic on a new, immutable fleet.

mod commands;
mod exit_code;
mod explanations;
mod failure;
mod local_region;
mod logging;
mod output;
mod problems;
mod project;
mod render;
mod secrecy;
mod session;
mod signals;
mod watchdog;
mod words;

use clap::{CommandFactory, FromArgMatches};

use crate::{
    commands::Cli,
    exit_code::ExitCode,
    failure::Failure,
    output::{Choice, Output},
    session::Session,
};

fn main() -> std::process::ExitCode {
    let mut command = Cli::command();
    // Clap shows usage errors before there is a value to look at.
    let given = |flag: &str| std::env::args_os().any(|argument| argument == flag);
    if given("--no-color") {
        command = command.color(clap::ColorChoice::Never);
    }
    let cli = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Ok(cli) => run(cli).into(),
        Err(error) => refuse(&error, given("json") || given("--output=json")).into(),
    }
}

fn run(cli: Cli) -> ExitCode {
    let session = Session::new(cli.global);
    match commands::run(cli.command, &session) {
        Ok(code) => code,
        Err(failure) => {
            let failure = failure.cleaned(logging::clean);
            failure.show(&session.output);
            failure.code
        }
    }
}

/// Help and version, or what is wrong with the command line.
fn refuse(error: &clap::Error, as_json: bool) -> ExitCode {
    // A reader that has gone away does not change the answer.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::DONE;
    }
    if as_json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let output = Output::new(Choice::Json, true, false);
        output.json(&Failure::usage(message).to_json());
    }
    ExitCode::USAGE
}
