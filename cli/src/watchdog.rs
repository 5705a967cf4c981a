//! The watchdog: a small process beside a run that leases something. When the run's process dies without having come to
//! an end, SIGKILL included, the pipe between the two closes, and the watchdog ends the leases.
//!
//! **Guarantees.** It is of a session of its own, so that what ends the run's process group does not end it. It does
//! nothing while the run is alive, and nothing once another process holds the environment.
//! **Assumptions.** It has the run's environment variables, file and credentials. Credentials that come from the parent's
//! own process, and end with it, are of no use to it: then the next command's sweep closes what is open.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use alcedo_pipeline::{ids::RunId, secret::program};
use alcedo_stages::last_resort::Deceased;
use clap::Args;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    project,
    session::{Environment, Session},
};

/// What a run that has come to an end says.
const CALM: &[u8] = b"calm\n";
/// How long the end of the watchdog is waited for, once it was told that all is calm.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long it tries to end the leases: longer than they last, nothing of it is needed any more.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// `alcedo watchdog`, which runs start and nobody types.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// The run that is watched
    #[arg(long)]
    run: RunId,
    /// The nonce of its lease on the environment
    #[arg(long)]
    nonce: String,
}

/// Waits for the run's process to end, and then does what it has left undone.
pub fn run(arguments: &Arguments, session: &Session) -> Result {
    // Whatever signals the terminal's session does not signal this one.
    nix::unistd::setsid().ok();
    let mut said = Vec::new();
    // A pipe that breaks is a pipe that is closed.
    let _ = io::stdin().read_to_end(&mut said);
    if said.ends_with(CALM) {
        return Ok(ExitCode::DONE);
    }
    session.block_on_one_thread(async {
        let site = session.site_as_it_is(&arguments.environment).await?;
        let deceased = Deceased { run: &arguments.run, nonce: &arguments.nonce };
        let done = deceased.bury(&site, PATIENCE).await.map_err(|error| Failure::of(ExitCode::FAILED, &error))?;
        session.output.note(&format!("run {}: {done}\n", arguments.run));
        Ok(ExitCode::DONE)
    })
}

/// A watchdog at work. Dropped, it takes the run's process for dead.
pub struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Starts one for a run.
    ///
    /// # Errors
    /// No process could be started; the run is then as safe as the next command's sweep makes it.
    pub fn start(session: &Session, environment: &str, run: &RunId, nonce: &str) -> io::Result<Self> {
        let file = project::find_file(session.file()).map_err(|failure| io::Error::other(failure.message))?;
        let file: PathBuf = std::path::absolute(file)?;
        let child = program(std::env::current_exe()?)
            .arg("watchdog")
            .arg("--file")
            .arg(file)
            .args(["--env", environment, "--run", run.as_str(), "--nonce", nonce])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Until it has a session of its own.
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// Says that the run has come to an end by itself.
    pub fn calm(mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            // Where it has died before, there is nobody to tell.
            let _ = pipe.write_all(CALM);
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
