//! Ending the server, and forgetting all that it knew.

use std::time::{Duration, Instant};

use alcedo_local_region::instances::{MachineError, Machines, containers::Containers};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{folder::Folder, record::Record, settings::Settings};
use crate::{
    failure::{Failure, Result},
    problems::of_machines,
};

/// The server ends its instances' containers, which get 20 s to shut down, before it ends itself.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// Longer than a start or a stop that another process is at.
const LOCK_PATIENCE: Duration = Duration::from_secs(90);

/// What a stop found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Ended {
        pid: u32,
    },
    /// No server ran.
    NotRunning,
}

/// Ends the server. Its instances end too; its state stays.
///
/// # Errors
/// It does not end in time, or the process with its number cannot be recognised as the region.
pub async fn stop(folder: &Folder) -> Result<Stopped> {
    if !folder.exists() {
        return Ok(Stopped::NotRunning);
    }
    let _lock = folder.lock_changes(LOCK_PATIENCE).await?;
    stop_locked(folder).await
}

/// Ends the server and removes everything it ever made: instances, images, network, objects, keys. Answers the bytes
/// that were freed.
pub async fn reset(folder: &Folder) -> Result<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    let _lock = folder.lock_changes(LOCK_PATIENCE).await?;
    stop_locked(folder).await?;
    let size = folder.size();
    // Without settings nothing was ever started. Damaged ones do not say what to remove from the engine.
    if let Ok(Some(settings)) = Settings::read(folder) {
        remove_machines(&settings.name).await?;
    }
    folder.remove()?;
    Ok(size)
}

async fn stop_locked(folder: &Folder) -> Result<Stopped> {
    // The lock on the folder proves that a server lives, whatever `region.json` says.
    if folder.lock_server()?.is_some() {
        Record::remove(folder);
        return Ok(Stopped::NotRunning);
    }
    let Some(record) = Record::read(folder)? else {
        return Err(Failure::failed("a server has the local region's folder but has not said its process number yet")
            .hint("try again in a few seconds"));
    };
    // A process number is used again after its process has ended; ours is who answers at the endpoint, or at least who
    // was started as a region.
    if record.health().await.is_none() && !looks_like_a_server(record.pid) {
        return Err(Failure::failed(format!("process {} is not the local region", record.pid))
            .hint(format!("remove {} if no `alcedo region serve` runs", folder.record().display())));
    }
    let pid = Pid::from_raw(i32::try_from(record.pid).map_err(|_| Failure::failed("region.json names no process"))?);
    match kill(pid, Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => {
            return Err(Failure::failed(format!("process {} cannot be told to end", record.pid)).because(&error));
        }
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    // The place is free when the process is gone, however it ended.
    while folder.lock_server()?.is_none() {
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!(
                "process {} did not end within {} s",
                record.pid,
                STOP_DEADLINE.as_secs()
            ))
            .hint(format!("see {}; `kill -9 {}` ends it at once", folder.log().display(), record.pid)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Record::remove(folder);
    Ok(Stopped::Ended { pid: record.pid })
}

fn looks_like_a_server(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair == [b"region".as_slice(), b"serve".as_slice()])
    })
}

async fn remove_machines(name: &str) -> Result<()> {
    let failed =
        |error: MachineError| of_machines(&format!("the containers of region {name} cannot be removed"), &error);
    Containers::connect(name).await.map_err(failed)?.remove_all().await.map_err(failed)
}
