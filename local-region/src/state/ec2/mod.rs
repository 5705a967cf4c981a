//! EC2's records: what is, and how a call changes it. Nothing here does I/O or asks a clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod instance;
pub mod lagged;
pub mod network;
pub mod security_group;

pub use instance::{Instance, InstanceState, MetadataOptions};
pub use lagged::{Lagged, Moment};
pub use network::{Subnet, Vpc};
pub use security_group::SecurityGroup;

/// A resource's tags.
pub type Tags = BTreeMap<String, String>;

/// All of EC2's records.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ec2 {
    instances: BTreeMap<String, Instance>,
    vpcs: BTreeMap<String, Vpc>,
    subnets: BTreeMap<String, Subnet>,
    security_groups: BTreeMap<String, SecurityGroup>,
}

impl Ec2 {
    /// The instance as it is, whatever Describe calls already see of it.
    pub fn instance(&self, instance_id: &str) -> Option<&Instance> {
        self.instances.get(instance_id)
    }

    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    pub fn subnet(&self, subnet_id: &str) -> Option<&Subnet> {
        self.subnets.get(subnet_id)
    }

    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.subnets.values()
    }

    pub fn vpc(&self, vpc_id: &str) -> Option<&Vpc> {
        self.vpcs.get(vpc_id)
    }

    pub fn security_group(&self, group_id: &str) -> Option<&SecurityGroup> {
        self.security_groups.get(group_id)
    }
}
