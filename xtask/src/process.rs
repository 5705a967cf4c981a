//! Other programs: run them, wait for them no longer than planned, measure them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    signal::{Signal, kill},
};

/// Whether `program` is found on the search path.
pub fn exists(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
        // Administrators' programs are not on everyone's path.
        || ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).is_file())
}

/// Whether the command runs and succeeds; what it prints is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs the command with its output shown.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{} does not start", shown(command)))?;
    ensure!(status.success(), "{} failed ({status})", shown(command));
    Ok(())
}

/// Runs the command and returns what it wrote to its standard output.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} does not start", shown(command)))?;
    ensure!(output.status.success(), "{} failed ({})", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something that is not text", shown(command)))
}

/// Runs the command with its output shown, and ends it (SIGTERM) when `deadline` has passed.
///
/// # Errors
/// When it cannot be started or had to be ended.
pub fn run_within(command: &mut Command, deadline: Duration) -> Result<ExitStatus> {
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("{} does not start", shown(command)))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > deadline {
            kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
            child.wait()?;
            bail!("{} was not done within {} s", shown(command), deadline.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The command line, as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A program to run and measure.
#[derive(clap::Args)]
pub struct Measure {
    /// Where the peak memory is written, in KiB
    #[arg(long)]
    memory: PathBuf,
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

/// Runs the program in place of this one, as far as exit code and output go, and writes the peak resident memory of the
/// largest process among it and the children it waited for.
pub fn measure(what: &Measure) -> ExitCode {
    let measured = || -> Result<ExitStatus> {
        let status = Command::new(&what.command[0]).args(&what.command[1..]).status()?;
        // This process has started nothing else, so "children" is that program.
        let peak_kib = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
        fs::write(&what.memory, peak_kib.to_string())?;
        Ok(status)
    };
    match measured() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
