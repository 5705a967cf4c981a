//! A guest that reboots itself comes back, as a server does. Engines only know that its init process ended, so this
//! watches how: the kernel ends the init process of a rebooting container with a signal of its own.

use std::time::Duration;

use bollard::{
    Docker,
    query_parameters::{EventsOptionsBuilder, StartContainerOptions},
};
use futures::StreamExt;
use tokio::task::JoinHandle;

use super::{
    bodies::REBOOT_EXIT_CODE,
    engine::{Engine, QUICK, filter, within},
    names::Names,
};

/// The pause before the engine's events are asked for again, e.g. while the engine restarts.
const PAUSE: Duration = Duration::from_secs(2);

/// Ends the watch when dropped.
pub struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches until the answer is dropped.
pub fn watch(engine: &Engine, names: &Names) -> Watch {
    let (docker, label) = (engine.docker.clone(), names.region_filter());
    Watch(tokio::spawn(async move {
        loop {
            follow(&docker, &label).await;
            tokio::time::sleep(PAUSE).await;
        }
    }))
}

async fn follow(docker: &Docker, label: &str) {
    // Not filtered by event: engines name it alike in what they tell, but not in what they are asked.
    let options = EventsOptionsBuilder::new().filters(&filter("label", label)).build();
    let mut events = std::pin::pin!(docker.events(Some(options)));
    while let Some(Ok(event)) = events.next().await {
        if event.action.as_deref() != Some("die") {
            continue;
        }
        let actor = event.actor.unwrap_or_default();
        let attributes = actor.attributes.unwrap_or_default();
        let exit_code = attributes.get("exitCode");
        let is_reboot = exit_code.and_then(|code| code.parse().ok()) == Some(REBOOT_EXIT_CODE);
        if let (true, Some(container)) = (is_reboot, actor.id) {
            let call = docker.start_container(&container, None::<StartContainerOptions>);
            if let Err(failure) = within(QUICK, format!("cannot bring {container} back from its reboot"), call).await {
                tracing::warn!(?failure, "a guest's reboot");
            }
        }
    }
}
