//! `alcedo completions SHELL`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::{exit_code::ExitCode, failure::Result, session::Session};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo completions bash > /etc/bash_completion.d/alcedo
  alcedo completions fish > ~/.config/fish/completions/alcedo.fish")]
pub struct Arguments {
    /// Write them for this shell
    pub shell: Shell,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "alcedo", &mut script);
    session.output.text(&String::from_utf8_lossy(&script));
    Ok(ExitCode::DONE)
}
