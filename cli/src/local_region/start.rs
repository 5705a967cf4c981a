//! Starting the server and waiting until it answers.

use std::{
    fs::{self, OpenOptions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use alcedo_pipeline::secret;

use super::{
    folder::Folder,
    record::Record,
    settings::{Settings, Wishes},
};
use crate::{
    failure::{Failure, Result},
    words::clean,
};

/// The first start pulls nothing but makes a network and certificates; on a slow machine that takes seconds. After a
/// crash it also finds the servers that still run.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Longer than a start: whoever comes second finds the region running.
const LOCK_PATIENCE: Duration = Duration::from_secs(90);

/// How many of the log's last lines show why a start failed.
const SHOWN_LINES: usize = 20;

/// A region that runs.
#[derive(Debug)]
pub struct Started {
    pub record: Record,
    /// Whether it ran already.
    pub already: bool,
}

/// Starts the region, or finds it running.
///
/// # Errors
/// The port is taken, or the server ended or did not answer in time; then the failure holds the log's last lines.
pub async fn start(folder: &Folder, wishes: &Wishes) -> Result<Started> {
    folder.make()?;
    let lock = folder.lock_changes(LOCK_PATIENCE).await?;
    let started = start_locked(folder, wishes).await;
    drop(lock);
    started
}

async fn start_locked(folder: &Folder, wishes: &Wishes) -> Result<Started> {
    if let Some(record) = Record::running(folder).await? {
        refuse_other_wishes(&record, wishes)?;
        return Ok(Started { record, already: true });
    }
    if folder.lock_server()?.is_none() {
        return Err(Failure::failed("the local region runs but does not answer")
            .hint("alcedo region stop ends it; its log is in ".to_owned() + &folder.log().display().to_string()));
    }
    Record::remove(folder);
    let settings = Settings::next(folder, wishes)?;
    check_port(settings.port)?;
    let mut child = spawn(folder, wishes.forget_servers)?;
    let record = wait(folder, &mut child).await?;
    Ok(Started { record, already: false })
}

/// A region that runs does not take up another port or profile; saying nothing would leave the user to find out.
fn refuse_other_wishes(record: &Record, wishes: &Wishes) -> Result<()> {
    let port = record.endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
    let differs = wishes.name.as_ref().is_some_and(|name| *name != record.name)
        || wishes.profile.is_some_and(|profile| profile != record.profile)
        || !wishes.lags.is_empty()
        || wishes.port.is_some_and(|wish| Some(wish) != port);
    if !differs {
        return Ok(());
    }
    let Record { name, endpoint, profile, .. } = record;
    Err(Failure::failed(format!("the local region {name} runs already, at {endpoint} with profile {}", profile.name()))
        .hint("alcedo region stop, then start it again; its state stays"))
}

fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::failed(format!("the local region cannot listen on 127.0.0.1:{port}"))
            .because(&error)
            .hint(format!("alcedo region start --port {} takes another port, and keeps it", port.saturating_add(1)))),
    }
}

/// The server outlives this process: nothing ties it to this terminal but the session, which it leaves itself. Its log
/// begins anew with every start.
fn spawn(folder: &Folder, forget_servers: bool) -> Result<Child> {
    let fail = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Failure::failed(what).because(&error)
    };
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.log())
        .map_err(fail("the local region's log cannot be written"))?;
    let program = std::env::current_exe().map_err(fail("alcedo's own program file was not found"))?;
    // It outlives this command, and has no use for its secrets.
    secret::program(program)
        .args(["region", "serve", "--folder"])
        .arg(folder.path())
        .args(forget_servers.then_some("--forget-servers"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(fail("the local region's log cannot be written"))?)
        .stderr(log)
        .spawn()
        .map_err(fail("the local region could not be started"))
}

async fn wait(folder: &Folder, child: &mut Child) -> Result<Record> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if let Some(status) =
            child.try_wait().map_err(|error| Failure::failed("the server was lost").because(&error))?
        {
            return Err(with_log(
                Failure::failed(format!("the local region ended while it started ({status})")),
                folder,
            ));
        }
        // A record of another process would be one from before.
        if let Some(record) = Record::read(folder)?.filter(|record| record.pid == child.id())
            && record.health().await.is_some()
        {
            return Ok(record);
        }
        if Instant::now() >= deadline {
            // Nobody would find it again.
            let _ = child.kill();
            let _ = child.wait();
            let waited = START_DEADLINE.as_secs();
            return Err(with_log(
                Failure::failed(format!("the local region did not answer within {waited} s")),
                folder,
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn with_log(mut failure: Failure, folder: &Folder) -> Failure {
    let path = folder.log();
    let text = fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    failure.causes.extend(lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| clean(line)));
    failure.hint(format!("the whole log is in {}", path.display()))
}
