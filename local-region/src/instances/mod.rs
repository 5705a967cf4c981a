//! What runs behind an instance record. Two backings offer the same front: *containers* (real servers) and *records
//! only* (no engine; instances "boot" by the clock alone).

use std::net::Ipv4Addr;

use async_trait::async_trait;
use ipnet::Ipv4Net;

pub mod containers;
pub mod records;

/// The network that the region's instances are on, as the engine made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The VPC's addresses, e.g. `10.213.0.0/16`.
    pub block: Ipv4Net,
    /// The address under which this machine (developer, balancer, metadata service) is seen by the instances.
    pub gateway: Ipv4Addr,
}

/// What a server is made of. Everything that a guest learns at run time it asks the metadata service for.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// `i-…`; names the containers, so that a restart of the region finds them again.
    pub instance_id: String,
    /// The engine's reference of the image's root.
    pub image: String,
    pub private_ip: Ipv4Addr,
    pub hostname: String,
    /// Memory limit in MiB, from the instance type.
    pub memory_mib: u32,
    pub vcpus: u32,
}

/// One inbound permission, resolved to addresses. An instance with none accepts nothing but answers to its own traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirewallRule {
    pub protocol: Protocol,
    /// Inclusive; ignored for [`Protocol::All`] and [`Protocol::Icmp`].
    pub from_port: u16,
    pub to_port: u16,
    pub source: Ipv4Net,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    All,
    Tcp,
    Udp,
    Icmp,
}

/// An image's root in the engine.
#[derive(Debug, Clone)]
pub struct CapturedImage {
    /// What [`MachineSpec::image`] takes.
    pub reference: String,
    pub size_bytes: u64,
}

/// A recipe's root that the engine holds (label `io.alcedo.recipe`), offered by the region as an AMI.
#[derive(Debug, Clone)]
pub struct BaseImage {
    pub recipe: String,
    /// `sha256:…`: the recipe's digest (label `io.alcedo.recipe.digest`), which names the same root everywhere.
    pub digest: String,
    pub reference: String,
    pub size_bytes: u64,
}

/// Why the engine could not do it. `hint` is what the user can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct MachineError {
    pub what: String,
    pub hint: Option<String>,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Makes, changes and ends servers. Every call is idempotent: doing it twice is doing it once.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// Makes the network if it is not there. Called once, before anything else.
    async fn prepare(&self) -> Result<Network, MachineError>;

    /// Starts a server and returns when its init process runs; it still has to boot.
    async fn launch(&self, spec: &MachineSpec, firewall: &[FirewallRule]) -> Result<(), MachineError>;

    async fn stop(&self, instance_id: &str) -> Result<(), MachineError>;
    async fn start(&self, instance_id: &str) -> Result<(), MachineError>;
    async fn reboot(&self, instance_id: &str) -> Result<(), MachineError>;

    /// Ends it at once (connections are cut) and removes what it was made of.
    async fn terminate(&self, instance_id: &str) -> Result<(), MachineError>;

    /// Replaces all of a server's inbound permissions in one transaction. Established connections stay.
    async fn set_firewall(&self, instance_id: &str, rules: &[FirewallRule]) -> Result<(), MachineError>;

    /// Whether the engine still has what the server is made of, running or not.
    async fn exists(&self, instance_id: &str) -> Result<bool, MachineError>;

    /// Whether the server's init process still runs.
    async fn is_running(&self, instance_id: &str) -> Result<bool, MachineError>;

    /// The last 64 KiB of the serial console.
    async fn console(&self, instance_id: &str) -> Result<Vec<u8>, MachineError>;

    /// Captures a server's root as an image under `name`.
    async fn capture(&self, instance_id: &str, name: &str) -> Result<CapturedImage, MachineError>;

    async fn remove_image(&self, reference: &str) -> Result<(), MachineError>;

    /// The recipe roots that the engine holds now.
    async fn base_images(&self) -> Result<Vec<BaseImage>, MachineError>;

    /// Ends every server and removes the network and captured images of this region. Base images stay.
    async fn remove_all(&self) -> Result<(), MachineError>;
}
