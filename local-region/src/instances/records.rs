//! Servers as records only: no engine, nothing runs. For simulated runs by the thousand, where only the control plane
//! matters. A server "runs" from launch to stop; whether it has booted is up to the clock of whoever asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Mutex,
};

use async_trait::async_trait;
use ipnet::Ipv4Net;

use super::{BaseImage, CapturedImage, FirewallRule, MachineError, MachineSpec, Machines, Network};

/// The one recipe root that is always offered, as the region would find it in an engine.
const BASE_RECIPE: &str = "debian-bookworm";
/// What its root takes in an engine; only its order of magnitude matters.
const BASE_SIZE_BYTES: u64 = 200 << 20;

/// Remembers what it was told to do.
#[derive(Debug, Default)]
pub struct Records {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    servers: BTreeMap<String, Server>,
    captured: BTreeSet<String>,
}

#[derive(Debug)]
struct Server {
    image: String,
    running: bool,
    boots: u32,
    firewall: Vec<FirewallRule>,
}

impl Records {
    pub fn new() -> Self {
        Self::default()
    }

    /// The inbound permissions that a server was last given, for tests; `None` if there is no such server.
    pub fn firewall(&self, instance_id: &str) -> Option<Vec<FirewallRule>> {
        self.state().servers.get(instance_id).map(|server| server.firewall.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the records are held")
    }

    fn with<T>(&self, instance_id: &str, change: impl FnOnce(&mut Server) -> T) -> Result<T, MachineError> {
        self.state().servers.get_mut(instance_id).map(change).ok_or_else(|| MachineError {
            what: format!("there is no server {instance_id}"),
            hint: None,
            source: None,
        })
    }
}

#[async_trait]
impl Machines for Records {
    async fn prepare(&self) -> Result<Network, MachineError> {
        let block = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);
        Ok(Network { block, gateway: Ipv4Addr::new(10, 213, 0, 1) })
    }

    async fn launch(&self, spec: &MachineSpec, firewall: &[FirewallRule]) -> Result<(), MachineError> {
        let fresh = || Server { image: spec.image.clone(), running: true, boots: 1, firewall: firewall.to_vec() };
        self.state().servers.entry(spec.instance_id.clone()).or_insert_with(fresh);
        Ok(())
    }

    async fn stop(&self, instance_id: &str) -> Result<(), MachineError> {
        self.with(instance_id, |server| server.running = false)
    }

    async fn start(&self, instance_id: &str) -> Result<(), MachineError> {
        self.with(instance_id, |server| {
            server.boots += u32::from(!server.running);
            server.running = true;
        })
    }

    async fn reboot(&self, instance_id: &str) -> Result<(), MachineError> {
        self.with(instance_id, |server| {
            server.boots += 1;
            server.running = true;
        })
    }

    async fn terminate(&self, instance_id: &str) -> Result<(), MachineError> {
        self.state().servers.remove(instance_id);
        Ok(())
    }

    async fn set_firewall(&self, instance_id: &str, rules: &[FirewallRule]) -> Result<(), MachineError> {
        self.with(instance_id, |server| server.firewall = rules.to_vec())
    }

    async fn exists(&self, instance_id: &str) -> Result<bool, MachineError> {
        Ok(self.state().servers.contains_key(instance_id))
    }

    async fn is_running(&self, instance_id: &str) -> Result<bool, MachineError> {
        Ok(self.state().servers.get(instance_id).is_some_and(|server| server.running))
    }

    async fn console(&self, instance_id: &str) -> Result<Vec<u8>, MachineError> {
        self.with(instance_id, |server| {
            let boot = format!("records only: {} has no console, as nothing runs behind it\n", server.image);
            boot.repeat(server.boots as usize).into_bytes()
        })
    }

    async fn capture(&self, instance_id: &str, name: &str) -> Result<CapturedImage, MachineError> {
        self.with(instance_id, |_| ())?;
        let reference = format!("records-only/{name}");
        self.state().captured.insert(reference.clone());
        Ok(CapturedImage { reference, size_bytes: BASE_SIZE_BYTES })
    }

    async fn remove_image(&self, reference: &str) -> Result<(), MachineError> {
        self.state().captured.remove(reference);
        Ok(())
    }

    async fn base_images(&self) -> Result<Vec<BaseImage>, MachineError> {
        // A digest of the right form that no recipe has: there is no root behind it.
        let digest = format!("sha256:{}", "0".repeat(64));
        let reference = format!("alcedo/{BASE_RECIPE}:{}", &digest["sha256:".len()..][..12]);
        Ok(vec![BaseImage { recipe: BASE_RECIPE.to_owned(), digest, reference, size_bytes: BASE_SIZE_BYTES }])
    }

    async fn remove_all(&self) -> Result<(), MachineError> {
        *self.state() = State::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MachineSpec {
        MachineSpec {
            instance_id: "i-1".into(),
            image: "alcedo/debian-bookworm:0".into(),
            private_ip: Ipv4Addr::new(10, 213, 0, 4),
            hostname: "ip-10-213-0-4".into(),
            memory_mib: 1024,
            vcpus: 2,
        }
    }

    #[tokio::test]
    async fn a_server_runs_from_launch_to_stop_and_again_from_start() {
        let records = Records::new();
        records.launch(&spec(), &[]).await.expect("launched");
        assert!(records.is_running("i-1").await.expect("known"));
        records.stop("i-1").await.expect("stopped");
        assert!(!records.is_running("i-1").await.expect("known"));
        // A second launch of the same instance is the first one.
        records.launch(&spec(), &[]).await.expect("launched");
        assert!(!records.is_running("i-1").await.expect("known"));
        records.start("i-1").await.expect("started");
        assert!(records.is_running("i-1").await.expect("known"));
        records.terminate("i-1").await.expect("terminated");
        records.terminate("i-1").await.expect("terminated twice");
        assert!(!records.is_running("i-1").await.expect("unknown is not running"));
        assert!(records.start("i-1").await.is_err());
    }

    #[tokio::test]
    async fn the_console_says_that_nothing_runs() {
        let records = Records::new();
        records.launch(&spec(), &[]).await.expect("launched");
        let console = String::from_utf8(records.console("i-1").await.expect("a console")).expect("text");
        assert!(console.starts_with("records only"), "{console}");
    }
}
