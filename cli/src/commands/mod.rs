//! The command line, one file a command.

pub mod approve;
pub mod completions;
pub mod deploy;
pub mod doctor;
pub mod explain;
pub mod hold;
pub mod iam_policy;
pub mod image;
pub mod init;
pub mod lock;
pub mod logs;
pub mod man;
pub mod plan;
pub mod region;
pub mod releases;
pub mod resume;
pub mod rollback;
mod run;
pub mod runs;
pub mod status;
pub mod sweep;
pub mod validate;

use clap::{Parser, Subcommand};

use crate::{
    failure::Result,
    session::{Global, Session},
};

const ABOUT: &str = "Take a commit to calm traffic on a new, immutable fleet";

// Wrapped to the terminal by clap, so the paragraph is one line.
const LONG_ABOUT: &str = "Take a commit to calm traffic on a new, immutable fleet.\n\n\
    Alcedo builds the app in a container that matches production, publishes a versioned artifact to S3, bakes a server \
    image, launches a green fleet beside the blue one, smoke-tests it, flips the load balancer and retires blue. One \
    file, alcedo.yaml, says how. Rolling back is pinning a version.";

const EXAMPLES: &str = "\
Examples:
  alcedo init                       write a commented alcedo.yaml for the app in this folder
  alcedo plan                       show what a deploy would do, and do nothing
  alcedo deploy --env production    deploy the checked-out commit
  alcedo rollback                   go back to the version in service before
  alcedo region start               start a local region with real servers to rehearse on

Exit codes:
  0  done
  1  failed; everything that was begun is undone
  2  bad usage or a bad file; nothing was begun
  3  stuck: something could be neither finished nor undone; the output says what
  4  another run holds the environment
  129, 130, 141, 143  stopped by SIGHUP, SIGINT, SIGPIPE, SIGTERM; everything that was begun is undone";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "alcedo", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(max_term_width = 100, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented alcedo.yaml for the app in a folder
    Init(init::Arguments),
    /// Check the pipeline file and show every problem in it
    Validate(validate::Arguments),
    /// Show what a deploy would do, and do nothing
    Plan(plan::Arguments),
    /// Take what is here, or a published version, into service
    Deploy(deploy::Arguments),
    /// Take an earlier version back into service
    Rollback(rollback::Arguments),
    /// Let a run that waits before a stage go on
    Approve(approve::Approve),
    /// Have a run that waits before a stage undone
    Reject(approve::Reject),
    /// End, lengthen or abort the hold of what was in service before
    Hold(hold::Arguments),
    /// Finish a run that died, was stopped or got stuck
    Resume(resume::Arguments),
    /// Show what is in service, what is held, and how healthy it is
    Status(status::Arguments),
    /// List published versions
    Releases(releases::Arguments),
    /// List runs, or show one
    Runs(runs::Arguments),
    /// Show what a run has shown, build output included
    Logs(logs::Arguments),
    /// Show who holds an environment, or take it away from them
    Lock(lock::Arguments),
    /// Remove what runs have left that nobody needs
    Sweep(sweep::Arguments),
    /// Check everything that a deploy needs, and say how to mend what is not right
    Doctor(doctor::Arguments),
    /// Say what an error means
    Explain(explain::Arguments),
    /// Print the least IAM policy that this file's deploys need
    IamPolicy(iam_policy::Arguments),
    /// Run, reset or describe the local region
    Region(region::Arguments),
    /// Make or list base images
    Image(image::Arguments),
    /// End what a run has leased when its process dies
    #[command(hide = true)]
    Watchdog(crate::watchdog::Arguments),
    /// Write manual pages
    Man(man::Arguments),
    /// Write completions for a shell
    Completions(completions::Arguments),
}

/// Runs a command to its end.
pub fn run(command: Command, session: &Session) -> Result {
    match command {
        Command::Init(arguments) => init::run(&arguments, session),
        Command::Validate(arguments) => validate::run(&arguments, session),
        Command::Plan(arguments) => plan::run(&arguments, session),
        Command::Deploy(arguments) => deploy::run_command(&arguments, session),
        Command::Rollback(arguments) => rollback::run_command(&arguments, session),
        Command::Approve(arguments) => approve::approve(&arguments, session),
        Command::Reject(arguments) => approve::reject(&arguments, session),
        Command::Hold(arguments) => hold::run_command(&arguments, session),
        Command::Resume(arguments) => resume::run_command(&arguments, session),
        Command::Sweep(arguments) => sweep::run(&arguments, session),
        Command::Lock(arguments) => lock::run(&arguments, session),
        Command::Status(arguments) => status::run(&arguments, session),
        Command::Releases(arguments) => releases::run(&arguments, session),
        Command::Runs(arguments) => runs::run(&arguments, session),
        Command::Logs(arguments) => logs::run(&arguments, session),
        Command::Man(arguments) => man::run(&arguments, session),
        Command::Explain(arguments) => explain::run(&arguments, session),
        Command::IamPolicy(arguments) => iam_policy::run(&arguments, session),
        Command::Doctor(arguments) => doctor::run(&arguments, session),
        Command::Region(arguments) => region::run(arguments, session),
        Command::Image(arguments) => image::run(arguments, session),
        Command::Watchdog(arguments) => crate::watchdog::run(&arguments, session),
        Command::Completions(arguments) => completions::run(&arguments, session),
    }
}
