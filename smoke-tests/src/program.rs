//! `run`: any program on this machine, told where the server is.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use alcedo_pipeline::{secret, suite::RunCheck};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    task::JoinHandle,
    time::timeout,
};

use crate::{report::Failure, target::Target};

/// Lines of output shown in a failure.
const SHOWN_LINES: usize = 20;

/// Bytes of one line that are kept; the rest of a longer line is left out.
const LINE_LIMIT: usize = 4096;

/// How long an ended program's output may stay open. Only a process it left behind keeps it open longer.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Runs the program to its end or to the deadline, at which its whole process group is killed; so is the group where
/// this future is dropped, and whatever the program leaves running. Exit code 0 passes.
///
/// The program's environment has `ALCEDO_URL`, `ALCEDO_HOST`, `ALCEDO_PORT` and, where known, `ALCEDO_VERSION`; for a
/// route behind a preview rule `ALCEDO_HEADER_NAME` and `ALCEDO_HEADER_VALUE`, one header of it. Its working directory
/// is the folder of `alcedo.yaml`.
pub async fn check(check: &RunCheck, target: &Target, deadline: Duration) -> Result<(), Failure> {
    let program = resolve(&check.program, &target.folder);
    let mut command = Command::from(secret::program(&program));
    command
        .args(&check.arguments)
        .current_dir(&target.folder)
        .env("ALCEDO_URL", target.url.as_str())
        .env("ALCEDO_HOST", &target.host)
        .env("ALCEDO_PORT", target.port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    match &target.version {
        Some(version) => command.env("ALCEDO_VERSION", version),
        None => command.env_remove("ALCEDO_VERSION"),
    };
    // Set or removed, never inherited: another run's header would lead this one astray.
    match target.preview_headers.iter().next() {
        Some((name, value)) => command.env("ALCEDO_HEADER_NAME", name).env("ALCEDO_HEADER_VALUE", value),
        None => command.env_remove("ALCEDO_HEADER_NAME").env_remove("ALCEDO_HEADER_VALUE"),
    };

    let expected = || format!("exit code 0 of {}", check.program);
    let mut child =
        command.spawn().map_err(|error| Failure::new(expected(), format!("it could not be started: {error}")))?;
    let group = Group::of(child.id());
    let tail = Arc::new(Mutex::new(Tail::default()));
    let readers = [
        child.stdout.take().map(|pipe| read(pipe, Arc::clone(&tail))),
        child.stderr.take().map(|pipe| read(pipe, Arc::clone(&tail))),
    ];

    let ended = timeout(deadline, child.wait()).await;
    drop(group);
    for reader in readers.into_iter().flatten() {
        // A reader that is still going after the grace is ended with its pipe.
        let stop = reader.abort_handle();
        if timeout(OUTPUT_GRACE, reader).await.is_err() {
            stop.abort();
        }
    }
    let detail = tail.lock().map(|tail| tail.text()).unwrap_or_default();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::new(expected(), describe(status)).with_detail(detail)),
        Ok(Err(error)) => Err(Failure::new(expected(), format!("its end is not known: {error}")).with_detail(detail)),
        Err(_) => Err(Failure::new(
            format!("{} to end within {} ms", check.program, deadline.as_millis()),
            "it was killed, with everything it had started",
        )
        .with_detail(detail)),
    }
}

/// A name with a slash, or one that exists in the folder, starts at the folder; any other is looked up in `PATH`.
fn resolve(program: &str, folder: &Path) -> PathBuf {
    let here = folder.join(program);
    if program.contains('/') || here.is_file() { std::path::absolute(&here).unwrap_or(here) } else { program.into() }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            let name = Signal::try_from(signal).map_or("unknown", Signal::as_str);
            format!("signal {signal} ({name})")
        }
        (None, None) => "an unknown end".into(),
    }
}

/// The program's process group, killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(id: Option<u32>) -> Self {
        Self(id.and_then(|id| i32::try_from(id).ok()).filter(|&id| id > 1).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // ESRCH, where everything has ended by itself, is the ordinary case.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The last lines of an output, in bounded memory.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    fn push(&mut self, line: &[u8]) {
        if self.lines.len() == SHOWN_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(String::from_utf8_lossy(line).trim_end_matches('\r').to_owned());
    }

    fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn read(mut pipe: impl AsyncRead + Unpin + Send + 'static, tail: Arc<Mutex<Tail>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut buffer = [0; 8192];
        let mut line = Vec::new();
        let keep = |line: &mut Vec<u8>| {
            if let Ok(mut tail) = tail.lock() {
                tail.push(line);
            }
            line.clear();
        };
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            for &byte in &buffer[..count] {
                match byte {
                    b'\n' => keep(&mut line),
                    _ if line.len() < LINE_LIMIT => line.push(byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            keep(&mut line);
        }
    })
}
