//! The server itself, in the foreground, until it is told to end.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config},
    instances::Machines,
    region::Region,
    server,
    state::ec2::InstanceState,
};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{
    folder::Folder,
    record::{FORMAT, Record},
    settings::Settings,
};
use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    logging,
    signals::Signals,
};

/// Serves the region of a folder that has settings.
///
/// # Errors
/// Another server has the folder, or the region cannot start.
pub async fn serve(folder: &Folder) -> Result {
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
    let config = Config {
        name: settings.name.clone(),
        folder: folder.state(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port)),
        region: settings.region.clone(),
        access_key: settings.access_key.clone(),
        secret_key: settings.secret_key.clone(),
        backing: Backing::Containers,
        lags: settings.profile.lags(),
        capacity: Capacity::default(),
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
        name: settings.name,
        profile: settings.profile,
        started: Timestamp::now(),
    };
    record.write(folder)?;
    signals.stop().cancelled().await;
    Record::remove(folder);
    let region = running.region.clone();
    running.stop().await;
    end_servers(&region).await;
    Ok(ExitCode::DONE)
}

/// Ends the machines of instances that run, so that a region that does not run takes no memory. Their records stay: the
/// next start starts them again.
async fn end_servers(region: &Arc<Region>) {
    let running: Vec<String> = region.read(|world| {
        let instances = world.ec2.instances();
        instances.filter(|one| one.state == InstanceState::Running).map(|one| one.instance_id.clone()).collect()
    });
    let mut ending = JoinSet::new();
    for instance_id in running {
        let machines: Arc<dyn Machines> = region.machines.clone();
        ending.spawn(async move {
            if let Err(error) = machines.stop(&instance_id).await {
                tracing::warn!(instance_id, error = &error as &dyn std::error::Error, "a server could not be ended");
            }
        });
    }
    while ending.join_next().await.is_some() {}
}
