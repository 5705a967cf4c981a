//! The server itself, in the foreground, until it is told to end.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config},
    instances::containers::Containers,
    server,
};
use jiff::Timestamp;

use super::{
    folder::Folder,
    record::{FORMAT, Record},
    settings::Settings,
};
use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    logging,
    problems::of_machines,
    signals::Signals,
};

/// Serves the region of a folder that has settings.
///
/// # Errors
/// Another server has the folder, or the region cannot start.
pub async fn serve(folder: &Folder, forget_servers: bool) -> Result {
    // A session of its own: closing the terminal that the region was started from is no reason for it to end. Refused to
    // a process that leads its group, as one in a terminal's foreground does; then the terminal is where it belongs.
    let _ = nix::unistd::setsid();
    logging::of_region();
    let signals = Signals::listen()?;
    let Some(_place) = folder.lock_server()? else {
        return Err(Failure::failed(format!("another server has {}", folder.path().display())));
    };
    let settings = Settings::read(folder)?
        .ok_or_else(|| Failure::usage("there is no region in this folder").hint("alcedo region start makes one"))?;
    let name = settings.name.clone();
    let config = Config {
        name: name.clone(),
        folder: folder.state(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port)),
        region: settings.region.clone(),
        access_key: settings.access_key.clone(),
        secret_key: settings.secret_key.clone(),
        backing: Backing::Containers,
        lags: settings.delays()?,
        capacity: Capacity::default(),
        forget_servers,
    };
    let running = server::start(config, Arc::new(SystemClock)).await.map_err(|error| {
        let mut failure = Failure::of(ExitCode::FAILED, &error);
        failure.hints.extend(error.hint());
        failure
    })?;
    let record = Record {
        format: FORMAT,
        pid: std::process::id(),
        endpoint: running.endpoint.clone(),
        access_key: settings.access_key,
        secret_key: settings.secret_key,
        region: settings.region,
        name: name.clone(),
        profile: settings.profile,
        started: Timestamp::now(),
    };
    record.write(folder)?;
    signals.stop().cancelled().await;
    Record::remove(folder);
    running.stop().await;
    // A region that does not run takes no memory. Its records stay: the next start starts its servers again.
    let machines =
        Containers::connect(&name).await.map_err(|error| of_machines("its servers cannot be ended", &error))?;
    machines.stop_all().await.map_err(|error| of_machines("its servers cannot be ended", &error))?;
    Ok(ExitCode::DONE)
}
