//! The network: whether what the file names is there, and whether it fits together. The subnets are judged here.

use std::collections::{BTreeMap, BTreeSet};

use alcedo_pipeline::file::Pipeline;
use aws_sdk_ec2::types::{SecurityGroup, Subnet};
use aws_sdk_elasticloadbalancingv2::types::LoadBalancer;
use ipnet::Ipv4Net;

use super::{Complaints, Finding, balancer::listener, groups::of_groups};
use crate::{
    cloud_error::CloudError,
    facts::{self, Balancer},
    site::Site,
};

/// Where servers and builder are launched.
pub(super) struct Places {
    pub subnet: String,
    pub groups: Vec<String>,
    pub builder_subnet: String,
    pub builder_group: String,
}

pub(super) struct Network {
    pub findings: Vec<Finding>,
    /// Where all of it is there.
    pub places: Option<Places>,
}

pub(super) async fn look(site: &Site) -> Network {
    let (mut listener, balancer) = listener(site).await;
    let (subnets, groups) = futures::join!(Named::subnets(site), Named::groups(site));
    // Where the balancer is not known, what has to fit it is not judged; its own finding says so.
    let around = match &balancer {
        Some((balancer, shape)) => Some(Around::look(site, balancer, shape).await),
        None => None,
    };
    let around = match around {
        Some(Err(error)) => {
            // The same calls tell of the file's own subnets and groups: one complaint about each is enough.
            if subnets.is_ok() && groups.is_ok() {
                listener = Finding::of_cloud("listener", site, &error);
            }
            None
        }
        Some(Ok(around)) => Some(around),
        None => None,
    };
    let of_subnets = match &subnets {
        Ok(named) => of_subnets(site, named, around.as_ref()),
        Err(finding) => finding.clone(),
    };
    let of_groups = match &groups {
        Ok(named) => of_groups(site, named, subnets.as_ref().ok(), around.as_ref()),
        Err(finding) => finding.clone(),
    };
    let places = subnets.ok().zip(groups.ok()).map(|(subnets, groups)| Places {
        subnet: id(&subnets.of_servers[0]).to_owned(),
        groups: groups.of_servers.iter().map(|group| group_id(group).to_owned()).collect(),
        builder_subnet: id(&subnets.of_builder).to_owned(),
        builder_group: group_id(&groups.of_builder).to_owned(),
    });
    Network { findings: vec![listener, of_subnets, of_groups], places }
}

/// What the file names, as AWS tells of it.
pub(super) struct Named<T> {
    pub of_servers: Vec<T>,
    pub of_builder: T,
}

impl Named<Subnet> {
    async fn subnets(site: &Site) -> Result<Self, Finding> {
        let ids = facts::subnets(site).await.map_err(|error| Finding::of_facts("subnets", site, &error))?;
        let all = subnets(site, ids.clone()).await.map_err(|error| Finding::of_cloud("subnets", site, &error))?;
        Self::of(&ids, &all, id).ok_or_else(|| gone("subnets"))
    }
}

impl Named<SecurityGroup> {
    async fn groups(site: &Site) -> Result<Self, Finding> {
        let subject = "security groups";
        let ids = facts::security_groups(site).await.map_err(|error| Finding::of_facts(subject, site, &error))?;
        let all = groups(site, ids.clone()).await.map_err(|error| Finding::of_cloud(subject, site, &error))?;
        Self::of(&ids, &all, group_id).ok_or_else(|| gone(subject))
    }
}

impl<T: Clone> Named<T> {
    /// The last of the ids is the builder's.
    fn of(ids: &[String], all: &[T], id: fn(&T) -> &str) -> Option<Self> {
        let find = |wanted: &String| all.iter().find(|it| id(it) == wanted).cloned();
        let (builder, servers) = ids.split_last()?;
        Some(Self { of_servers: servers.iter().map(find).collect::<Option<_>>()?, of_builder: find(builder)? })
    }
}

fn gone(subject: &'static str) -> Finding {
    Finding::bad(subject, "one of them was there a moment ago and is not now", vec!["look again".to_owned()])
}

fn id(subnet: &Subnet) -> &str {
    subnet.subnet_id().unwrap_or_default()
}

pub(super) fn group_id(group: &SecurityGroup) -> &str {
    group.group_id().unwrap_or_default()
}

async fn subnets(site: &Site, ids: Vec<String>) -> Result<Vec<Subnet>, CloudError> {
    let ids: BTreeSet<String> = ids.into_iter().collect();
    // No ids would mean all subnets.
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let call = site.clients.ec2.describe_subnets().set_subnet_ids(Some(ids.into_iter().collect()));
    let answer = call.send().await.map_err(|error| CloudError::of("look at the subnets", error))?;
    Ok(answer.subnets().to_vec())
}

async fn groups(site: &Site, ids: Vec<String>) -> Result<Vec<SecurityGroup>, CloudError> {
    let ids: BTreeSet<String> = ids.into_iter().collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let call = site.clients.ec2.describe_security_groups().set_group_ids(Some(ids.into_iter().collect()));
    let answer = call.send().await.map_err(|error| CloudError::of("look at the security groups", error))?;
    Ok(answer.security_groups().to_vec())
}

/// What surrounds the balancer.
pub(super) struct Around {
    pub name: String,
    pub port: u16,
    pub vpc: String,
    pub zones: BTreeSet<String>,
    /// The address blocks that its nodes may be in.
    pub blocks: Vec<Ipv4Net>,
    pub groups: Vec<SecurityGroup>,
}

impl Around {
    async fn look(site: &Site, balancer: &Balancer, shape: &LoadBalancer) -> Result<Self, CloudError> {
        let zones = shape.availability_zones();
        let ids = zones.iter().filter_map(|zone| zone.subnet_id().map(str::to_owned)).collect();
        let own = subnets(site, ids).await?;
        let groups = groups(site, shape.security_groups().to_vec()).await?;
        Ok(Self {
            name: balancer.name.clone(),
            port: balancer.port,
            vpc: balancer.vpc.clone(),
            zones: zones.iter().filter_map(|zone| zone.zone_name().map(str::to_owned)).collect(),
            blocks: own.iter().filter_map(|subnet| subnet.cidr_block()?.parse().ok()).collect(),
            groups,
        })
    }
}

fn of_subnets(site: &Site, named: &Named<Subnet>, around: Option<&Around>) -> Finding {
    let Pipeline { bake, launch, .. } = site.pipeline.as_ref();
    let mut complaints = Complaints::default();
    let called: BTreeMap<&str, &str> =
        named.of_servers.iter().map(id).zip(launch.subnets.iter().map(String::as_str)).collect();
    let each = launch.count.div_ceil(u32::try_from(named.of_servers.len()).unwrap_or(u32::MAX));
    for subnet in &named.of_servers {
        let name = called[id(subnet)];
        let (vpc, zone) = (subnet.vpc_id().unwrap_or_default(), subnet.availability_zone().unwrap_or_default());
        match around {
            Some(around) if vpc != around.vpc => complaints.bad(
                format!("{name} is in {vpc}; the balancer {} is in {}", around.name, around.vpc),
                format!("name subnets of {} under launch.subnets", around.vpc),
            ),
            // AWS sends nothing to targets in a zone that is not enabled.
            Some(around) if !around.zones.contains(zone) => complaints.bad(
                format!("{name} is in {zone}, where the balancer {} is not", around.name),
                format!(
                    "enable {zone} for the balancer (`aws elbv2 set-subnets`), or name subnets under launch.subnets in {}",
                    around.zones.iter().cloned().collect::<Vec<_>>().join(", ")
                ),
            ),
            _ => {}
        }
        let free = subnet.available_ip_address_count().unwrap_or(i32::MAX);
        if i64::from(free) < i64::from(each) {
            complaints.bad(
                format!("{name} has {free} free addresses; {each} servers are to be launched there"),
                "end what is not needed in it, or name further subnets under launch.subnets",
            );
        }
    }
    let zones: BTreeSet<&str> = named.of_servers.iter().filter_map(Subnet::availability_zone).collect();
    if launch.count > 1
        && let [zone] = zones.iter().collect::<Vec<_>>()[..]
    {
        complaints.warning(
            format!("all servers would be in {zone}: when that zone fails, so does the app"),
            "name a subnet of another zone as well under launch.subnets",
        );
    }
    let own = named.of_builder.map_public_ip_on_launch();
    if own == Some(false) && !bake.private_address {
        let name = bake.subnet.as_ref().unwrap_or(&launch.subnets[0]);
        complaints.warning(
            format!("{name}, where builders are launched, gives them no public address"),
            "run alcedo within the VPC and set bake.private_address: true, or name another subnet under bake.subnet",
        );
    }
    let ids: Vec<&str> = named.of_servers.iter().chain([&named.of_builder]).map(id).collect();
    complaints.finding("subnets", ids.join(", "))
}
