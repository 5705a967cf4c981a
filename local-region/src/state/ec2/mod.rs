//! EC2's records: what is, and how a call changes it. Nothing here does I/O or asks a clock.
//!
//! A `find_…` answers what a reader sees at a [`Moment`], with EC2's error where it sees nothing; the plain accessors
//! answer what is.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod ids;
pub mod image;
pub mod instance;
pub mod instance_type;
pub mod key_pair;
pub mod lagged;
pub mod launch;
pub mod lifecycle;
pub mod network;
pub mod security_group;
pub mod tagging;
pub mod volume;

pub use image::{Image, ImageState};
pub use instance::{Instance, InstanceState, MetadataOptions};
pub use key_pair::KeyPair;
pub use lagged::{Lagged, Moment};
pub use network::{Subnet, Vpc};
pub use security_group::SecurityGroup;
pub use volume::{Snapshot, Volume};

use ids::Ids;

/// A resource's tags.
pub type Tags = BTreeMap<String, String>;

/// All of EC2's records, by id; key pairs by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ec2 {
    ids: Ids,
    instances: BTreeMap<String, Instance>,
    vpcs: BTreeMap<String, Vpc>,
    subnets: BTreeMap<String, Subnet>,
    security_groups: BTreeMap<String, SecurityGroup>,
    images: BTreeMap<String, Image>,
    snapshots: BTreeMap<String, Snapshot>,
    volumes: BTreeMap<String, Volume>,
    key_pairs: BTreeMap<String, KeyPair>,
    /// What RunInstances answered to each client token.
    launches: BTreeMap<String, launch::Launch>,
}

impl Ec2 {
    /// The records of a new region: a default VPC over `block`, a subnet in each of three zones, a default group.
    pub fn fresh(block: Ipv4Net, region: &str, seed: &str, now: Timestamp) -> Self {
        let mut ec2 = Self { ids: Ids::new(seed), ..Self::default() };
        let vpc_id = ec2.ids.next("vpc");
        let vpc = Vpc {
            vpc_id: vpc_id.clone(),
            block,
            is_default: true,
            tags: Lagged::new(Tags::from([("Name".to_owned(), "default".to_owned())]), now),
        };
        ec2.vpcs.insert(vpc_id.clone(), vpc);
        let slices = block.subnets((block.prefix_len() + 2).min(32)).into_iter().flatten();
        for (zone, slice) in ["a", "b", "c"].into_iter().zip(slices) {
            let subnet_id = ec2.ids.next("subnet");
            let subnet = Subnet {
                subnet_id: subnet_id.clone(),
                vpc_id: vpc_id.clone(),
                block: slice,
                availability_zone: format!("{region}{zone}"),
                tags: Lagged::new(Tags::from([("Name".to_owned(), zone.to_owned())]), now),
                next_address: 0,
            };
            ec2.subnets.insert(subnet_id, subnet);
        }
        let group_id = ec2
            .create_group("default", "default VPC security group", &vpc_id, Tags::new(), now)
            .expect("a new VPC has no groups");
        let everything_within = security_group::Rule {
            rule_id: ec2.ids.next("sgr"),
            permission: security_group::Permission {
                protocol: "-1".to_owned(),
                from_port: None,
                to_port: None,
                peer: security_group::Peer::Group(group_id.clone()),
            },
            description: None,
            tags: Tags::new(),
        };
        let group = ec2.security_groups.get_mut(&group_id).expect("it was just made");
        group.ingress = Lagged::new(vec![everything_within], now);
        ec2
    }

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

    pub fn vpcs(&self) -> impl Iterator<Item = &Vpc> {
        self.vpcs.values()
    }

    pub fn default_vpc(&self) -> Option<&Vpc> {
        self.vpcs.values().find(|vpc| vpc.is_default)
    }

    pub fn security_group(&self, group_id: &str) -> Option<&SecurityGroup> {
        self.security_groups.get(group_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_region_has_a_vpc_three_zones_and_a_default_group() {
        let ec2 = Ec2::fresh("10.213.0.0/16".parse().unwrap(), "eu-west-1", "s", Timestamp::UNIX_EPOCH);
        let mut zones: Vec<_> = ec2.subnets().map(|it| (it.availability_zone.as_str(), it.block.to_string())).collect();
        zones.sort_unstable();
        assert_eq!(
            zones,
            [
                ("eu-west-1a", "10.213.0.0/18".to_owned()),
                ("eu-west-1b", "10.213.64.0/18".to_owned()),
                ("eu-west-1c", "10.213.128.0/18".to_owned())
            ]
        );
        let vpc = ec2.default_vpc().unwrap();
        assert_eq!(ec2.default_group(&vpc.vpc_id).unwrap().ingress.current().len(), 1);
    }
}
