//! What ELBv2 has to know about EC2's instances.

use std::net::Ipv4Addr;

use crate::state::ec2::{Ec2, InstanceState};

/// An instance as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub address: Ipv4Addr,
    pub zone: String,
    pub vpc_id: String,
    pub state: ServerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Not running yet.
    Pending,
    Running,
    /// Stopped, or on its way to it.
    Stopped,
    /// Terminated, or on its way to it.
    Ended,
}

/// Where instances are looked up.
pub trait Servers {
    fn server(&self, instance_id: &str) -> Option<Server>;
}

impl Servers for Ec2 {
    fn server(&self, instance_id: &str) -> Option<Server> {
        let instance = self.instance(instance_id)?;
        Some(Server {
            address: instance.private_ip,
            zone: instance.availability_zone.clone(),
            vpc_id: instance.vpc_id.clone(),
            state: match instance.state {
                InstanceState::Pending => ServerState::Pending,
                InstanceState::Running => ServerState::Running,
                InstanceState::Stopping | InstanceState::Stopped => ServerState::Stopped,
                InstanceState::ShuttingDown | InstanceState::Terminated => ServerState::Ended,
            },
        })
    }
}
