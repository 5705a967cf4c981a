//! The project's own chores, run as `cargo xtask <chore>` from anywhere inside the project.
//!
//! Exit codes: 0 done; 1 something failed or is missing (it is said what, and how to get it); 2 wrong usage.

mod alcedo;
mod app_copy;
mod bench;
mod demo;
mod engine;
mod extras;
mod film;
mod fuzz;
mod fuzz_stats;
mod mutants;
mod needs;
mod process;
mod project;
mod recording;
mod setup;
mod stage_table;
mod terminal;
mod test;
mod test_counts;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check what the project needs; as root on Debian or Ubuntu, install what is missing
    Setup {
        /// Also what only the tests need: Python packages, Packer, Ansible, cargo-deny
        #[arg(long)]
        tests: bool,
    },
    /// Deploy the example app to real servers on this machine, change it, deploy again, and roll back
    Demo {
        /// Where the example's load balancer listens on this machine
        #[arg(long, default_value_t = demo::LISTENER_PORT)]
        port: u16,
    },
    /// Run every check and test of the project
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Feed what reads artifacts and files with inputs that look for a way in, by the code that they reach
    Fuzz {
        /// How long, for each of the two
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
    },
    /// Break everything at every call, for hours, fuzz, then try the mutants; a failure names its seed
    Soak {
        /// How many random schedules
        #[arg(long, default_value_t = 1000)]
        schedules: u64,
    },
    /// Put known bugs into a copy of the project and see that the tests notice each
    Mutants {
        /// Only those whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
    /// Measure deploys of the example app and print the numbers as JSON
    Bench {
        /// `flip`: measure flips and rollbacks under visitors of every kind instead, and a green that goes bad
        what: Option<Benched>,
        /// How many flips
        #[arg(long, default_value_t = 20, requires = "what")]
        flips: u32,
        /// In how many local regions at the same time
        #[arg(long, default_value_t = 1, requires = "what", value_parser = clap::value_parser!(u32).range(1..=8))]
        lanes: u32,
        /// How long the balancer's nodes may take to take up a change, such as 30s; by default 2s
        #[arg(long, requires = "what")]
        propagation: Option<String>,
        /// Measure `alcedo` as users install it; building it that way takes a quarter of an hour the first time
        #[arg(long)]
        release: bool,
    },
    /// Film a deploy of the example app in a local region, for the README
    Recording,
    /// Run a program and write its peak memory to a file; `bench` calls this
    #[command(hide = true)]
    Measure(process::Measure),
}

/// What can be measured besides whole deploys.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Benched {
    Flip,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Setup { tests } => setup::run_chore(tests),
        Chore::Demo { port } => demo::run(port),
        Chore::Test { filter } => test::run(filter.as_deref()),
        Chore::Fuzz { seconds } => fuzz::run(seconds),
        Chore::Soak { schedules } => test::soak(schedules),
        Chore::Mutants { only } => mutants::run(only.as_deref()),
        Chore::Bench { what: Some(Benched::Flip), flips, lanes, propagation, .. } => {
            test::bench_flips(test::Flips { count: flips, propagation: propagation.as_deref(), lanes, within_s: None })
        }
        Chore::Bench { release, .. } => {
            bench::run(if release { alcedo::Profile::Release } else { alcedo::Profile::Dev })
        }
        Chore::Recording => recording::run(),
        Chore::Measure(what) => return process::measure(&what),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::failure(&error);
            ExitCode::FAILURE
        }
    }
}
