//! Servers as containers, on any engine that speaks Docker's API.
//!
//! An instance is two containers: its network interface, which owns the address and the firewall, and the server, which
//! lives in the interface's network and cannot change it (see [`bodies`]). The region's whole state in the engine carries
//! the label `io.alcedo.region=<name>`, so a region that starts again finds its servers, and [`Machines::remove_all`]
//! leaves nothing.
//!
//! Order at start: [`Containers::connect`], [`Machines::prepare`] (gives the gateway), [`crate::metadata::serve`] on the
//! gateway, [`Containers::set_metadata_port`]; then servers can be launched.

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock},
};

use async_trait::async_trait;
use bollard::{
    models::ContainerSummary,
    query_parameters::{
        CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder,
        StartContainerOptions, StopContainerOptionsBuilder,
    },
};
use futures::future::try_join_all;

use self::{
    engine::{Engine, Failure, QUICK, SLOW, within},
    interface::{INBOUND, METADATA, Ruleset},
    names::{INSTANCE_LABEL, Names},
};
use super::{BaseImage, CapturedImage, FirewallRule, MachineError, MachineSpec, Machines, Network};

mod bodies;
mod console;
pub mod engine;
mod firewall;
mod interface;
mod look;
pub mod names;
mod network;
mod reboots;
mod roots;

pub use bodies::mac_address;

/// How long a guest may take to shut down before it is killed, in seconds. EC2 gives minutes; its guests have more to end.
const SHUTDOWN_S: i32 = 20;

/// The containers of one region.
pub struct Containers {
    engine: Engine,
    names: Names,
    network: OnceLock<Network>,
    metadata_port: Mutex<Option<u16>>,
    /// Images that were removed while servers still ran from them; gone with the last of those.
    outlived: Mutex<BTreeSet<String>>,
    reboots: Mutex<Option<reboots::Watch>>,
}

impl Containers {
    /// Finds the engine for the region `name`. Makes nothing yet.
    ///
    /// # Errors
    /// No engine answers, or it cannot run servers; the hint says what to install or start.
    pub async fn connect(name: &str) -> Result<Self, MachineError> {
        Ok(Self::on(Engine::find().await?, name))
    }

    /// The region `name` on an engine that was found already.
    pub fn on(engine: Engine, name: &str) -> Self {
        Self {
            engine,
            names: Names::of(name),
            network: OnceLock::new(),
            metadata_port: Mutex::default(),
            outlived: Mutex::default(),
            reboots: Mutex::default(),
        }
    }

    /// Stops every server of the region with its interface, as if the machine were switched off: nothing of the region
    /// runs any more, and [`Machines::start`] brings each server back. For a region that does not run.
    ///
    /// # Errors
    /// The engine does not stop one of them; others may be stopped then.
    pub async fn stop_all(&self) -> Result<(), MachineError> {
        let instances: BTreeSet<String> = self.engine.list(&self.names).await?.iter().filter_map(instance_of).collect();
        try_join_all(instances.iter().map(|id| self.switch_off(id))).await?;
        Ok(())
    }

    async fn switch_off(&self, instance_id: &str) -> Result<(), MachineError> {
        self.stop(instance_id).await?;
        // Nothing runs in an interface that would have to end in order.
        let options = StopContainerOptionsBuilder::new().t(0).build();
        let interface = self.names.interface(instance_id);
        let call = self.engine.docker.stop_container(&interface, Some(options));
        within(SLOW, format!("cannot stop the interface of {instance_id}"), call).await?;
        Ok(())
    }

    /// Says on which port of the gateway the metadata service listens. Servers launched from now on, and those that run
    /// since before the region's restart, find it there at 169.254.169.254.
    ///
    /// # Errors
    /// A running server's interface could not be told.
    pub async fn set_metadata_port(&self, port: u16) -> Result<(), MachineError> {
        *self.metadata_port.lock().expect("no panic while the port is held") = Some(port);
        let containers = self.engine.list(&self.names).await?;
        let interfaces = containers.iter().filter_map(|container| {
            let id = instance_of(container)?;
            let name = format!("/{}", self.names.interface(&id));
            container.names.iter().flatten().any(|own| *own == name).then_some(id)
        });
        try_join_all(interfaces.map(|id| async move {
            interface::change(&self.engine, &self.names, &id, &[self.metadata_rules()?]).await
        }))
        .await?;
        Ok(())
    }

    fn metadata_rules(&self) -> Result<Ruleset, MachineError> {
        let port = *self.metadata_port.lock().expect("no panic while the port is held");
        let (Some(network), Some(port)) = (self.network.get(), port) else {
            return Err(MachineError {
                what: "the region's network or metadata service is not ready".to_owned(),
                hint: None,
                source: None,
            });
        };
        Ok(Ruleset { file: METADATA, text: firewall::metadata(network.gateway, port) })
    }

    async fn make(&self, spec: &MachineSpec, rules: &[FirewallRule]) -> Result<(), MachineError> {
        let rulesets = [Ruleset { file: INBOUND, text: firewall::inbound(rules) }, self.metadata_rules()?];
        // The newest recipe's root has nft for certain; a user's own image may have lost it.
        let bases = roots::bases(&self.engine).await?;
        let interface_image = bases.first().map_or(&spec.image, |base| &base.reference);

        interface::create(&self.engine, &self.names, spec, interface_image, &rulesets).await?;
        // The server's container can be made while the rules are loaded, but must not run before they are.
        tokio::try_join!(interface::start(&self.engine, &self.names, &spec.instance_id), self.create_server(spec))?;
        self.start_server(&spec.instance_id).await
    }

    async fn create_server(&self, spec: &MachineSpec) -> Result<(), MachineError> {
        let container = self.names.server(&spec.instance_id);
        let options = CreateContainerOptionsBuilder::new().name(&container).build();
        let body = bodies::server(&self.engine, &self.names, spec);
        let call = self.engine.docker.create_container(Some(options), body);
        match within(QUICK, format!("cannot make the server {}", spec.instance_id), call).await {
            Err(failure) if failure.is_absent() => {
                Err(failure.with_hint(format!("the engine has no image {}; was it removed?", spec.image)))
            }
            Err(failure) => Ok(self.engine.adopt(&self.names, &container, failure).await?),
            Ok(_) => Ok(()),
        }
    }

    async fn start_server(&self, instance_id: &str) -> Result<(), MachineError> {
        let server = self.names.server(instance_id);
        let call = self.engine.docker.start_container(&server, None::<StartContainerOptions>);
        Ok(within(QUICK, format!("cannot start the server {instance_id}"), call).await?)
    }

    /// Kills a container and removes it, if it is there, and waits until it is gone.
    async fn remove_container(&self, container: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let what = || format!("cannot remove the container {container}");
        match within(SLOW, what(), self.engine.docker.remove_container(container, Some(options))).await {
            Err(failure) if failure.is_absent() => Ok(()),
            Err(failure) if failure.is_conflict() => self.wait_until_removed(container).await,
            answer => answer,
        }
    }

    /// Someone else's removal of the same container is under way; this call's promise is that it is done.
    async fn wait_until_removed(&self, container: &str) -> Result<(), Failure> {
        let gone = async {
            loop {
                match self.engine.inspect(container).await {
                    Err(failure) if failure.is_absent() => return Ok(()),
                    Err(failure) => return Err(failure),
                    Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        };
        match tokio::time::timeout(QUICK, gone).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure {
                what: format!("the container {container} is still being removed"),
                reason: engine::Reason::Late(QUICK),
            }),
        }
    }

    /// Removes the images whose removal had to wait for their servers to end.
    async fn remove_outlived(&self) {
        let waiting = self.outlived.lock().expect("no panic while the images are held").clone();
        for reference in waiting {
            if roots::remove(&self.engine, &reference).await.is_ok() {
                self.outlived.lock().expect("no panic while the images are held").remove(&reference);
            }
        }
    }
}

fn instance_of(container: &ContainerSummary) -> Option<String> {
    container.labels.as_ref()?.get(INSTANCE_LABEL).cloned()
}

#[async_trait]
impl Machines for Containers {
    async fn prepare(&self) -> Result<Network, MachineError> {
        let found = network::ensure(&self.engine, &self.names).await?;
        let network = *self.network.get_or_init(|| found);
        let mut watch = self.reboots.lock().expect("no panic while the watch is held");
        watch.get_or_insert_with(|| reboots::watch(&self.engine, &self.names));
        Ok(network)
    }

    async fn launch(&self, spec: &MachineSpec, firewall: &[FirewallRule]) -> Result<(), MachineError> {
        let Err(error) = self.make(spec, firewall).await else { return Ok(()) };
        // Half a server is no use to anyone. Should its removal fail as well, its label still names it to remove_all.
        if let Err(left) = self.terminate(&spec.instance_id).await {
            tracing::warn!(instance = spec.instance_id, %left, "a failed launch left containers behind");
        }
        Err(error)
    }

    async fn stop(&self, instance_id: &str) -> Result<(), MachineError> {
        // The interface stays: it holds the address and the rules.
        let options = StopContainerOptionsBuilder::new().t(SHUTDOWN_S).build();
        let server = self.names.server(instance_id);
        let call = self.engine.docker.stop_container(&server, Some(options));
        within(SLOW, format!("cannot stop the server {instance_id}"), call).await?;
        Ok(())
    }

    async fn start(&self, instance_id: &str) -> Result<(), MachineError> {
        // The interface is down only if the engine was; it comes back with the rules it holds.
        interface::start(&self.engine, &self.names, instance_id).await?;
        self.start_server(instance_id).await
    }

    async fn reboot(&self, instance_id: &str) -> Result<(), MachineError> {
        let options = RestartContainerOptionsBuilder::new().t(SHUTDOWN_S).build();
        let server = self.names.server(instance_id);
        let call = self.engine.docker.restart_container(&server, Some(options));
        within(SLOW, format!("cannot reboot the server {instance_id}"), call).await?;
        Ok(())
    }

    async fn terminate(&self, instance_id: &str) -> Result<(), MachineError> {
        self.remove_container(&self.names.server(instance_id)).await?;
        self.remove_container(&self.names.interface(instance_id)).await?;
        self.remove_outlived().await;
        Ok(())
    }

    async fn set_firewall(&self, instance_id: &str, rules: &[FirewallRule]) -> Result<(), MachineError> {
        let rulesets = [Ruleset { file: INBOUND, text: firewall::inbound(rules) }];
        interface::change(&self.engine, &self.names, instance_id, &rulesets).await
    }

    async fn exists(&self, instance_id: &str) -> Result<bool, MachineError> {
        match self.engine.inspect(&self.names.server(instance_id)).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_absent() => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn is_running(&self, instance_id: &str) -> Result<bool, MachineError> {
        match self.engine.inspect(&self.names.server(instance_id)).await {
            Ok(inspected) => {
                let state = inspected.state.unwrap_or_default();
                // Between a guest's reboot and its return, which are one thing to whoever asks.
                let reboots = state.exit_code == Some(bodies::REBOOT_EXIT_CODE);
                Ok(state.running == Some(true) || reboots)
            }
            Err(failure) if failure.is_absent() => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn console(&self, instance_id: &str) -> Result<Vec<u8>, MachineError> {
        Ok(console::read(&self.engine, &self.names.server(instance_id)).await?)
    }

    async fn capture(&self, instance_id: &str, name: &str) -> Result<CapturedImage, MachineError> {
        Ok(roots::capture(&self.engine, &self.names, instance_id, name).await?)
    }

    async fn remove_image(&self, reference: &str) -> Result<(), MachineError> {
        match roots::remove(&self.engine, reference).await {
            // Servers keep running from an image that is deregistered, as on AWS.
            Err(failure) if failure.is_conflict() => {
                self.outlived.lock().expect("no panic while the images are held").insert(reference.to_owned());
                Ok(())
            }
            answer => Ok(answer?),
        }
    }

    async fn base_images(&self) -> Result<Vec<BaseImage>, MachineError> {
        Ok(roots::bases(&self.engine).await?)
    }

    async fn remove_all(&self) -> Result<(), MachineError> {
        *self.reboots.lock().expect("no panic while the watch is held") = None;
        let instances: BTreeSet<String> = self.engine.list(&self.names).await?.iter().filter_map(instance_of).collect();
        try_join_all(instances.iter().map(|id| self.terminate(id))).await?;
        network::remove(&self.engine, &self.names).await?;
        roots::remove_captured(&self.engine, &self.names).await?;
        Ok(())
    }
}
