//! Subnets and security groups that the file names, as ids.

use aws_sdk_ec2::types::Filter;

use super::{FactsError, Network};
use crate::{cloud_error::CloudError, site::Site};

pub(super) async fn observe(site: &Site) -> Result<Network, FactsError> {
    let (mut subnets, mut security_groups) = futures::try_join!(subnets(site), security_groups(site))?;
    let builder_subnet = subnets.pop().expect("one subnet was added for the builder");
    let builder_security_group = security_groups.pop().expect("one group was added for the builder");
    Ok(Network { subnets, security_groups, builder_subnet, builder_security_group })
}

/// The servers' subnets, and last the builder's.
pub async fn subnets(site: &Site) -> Result<Vec<String>, FactsError> {
    let (bake, launch) = (&site.pipeline.bake, &site.pipeline.launch);
    let builder = bake.subnet.as_ref().unwrap_or(&launch.subnets[0]);
    futures::future::try_join_all(launch.subnets.iter().chain([builder]).map(|name| subnet(site, name))).await
}

/// The servers' security groups, and last the builder's.
pub async fn security_groups(site: &Site) -> Result<Vec<String>, FactsError> {
    let groups = site.pipeline.launch.security_groups.iter().chain([&site.pipeline.bake.security_group]);
    futures::future::try_join_all(groups.map(|name| security_group(site, name))).await
}

async fn subnet(site: &Site, name: &str) -> Result<String, FactsError> {
    if name.starts_with("subnet-") {
        return Ok(name.to_owned());
    }
    let call = site.clients.ec2.describe_subnets().filters(Filter::builder().name("tag:Name").values(name).build());
    let answer = call.send().await.map_err(|error| CloudError::of(format!("find the subnet {name}"), error))?;
    let ids: Vec<&str> = answer.subnets().iter().filter_map(aws_sdk_ec2::types::Subnet::subnet_id).collect();
    one("subnet", "whose Name tag is", name, &ids)
}

async fn security_group(site: &Site, name: &str) -> Result<String, FactsError> {
    if name.starts_with("sg-") {
        return Ok(name.to_owned());
    }
    let filter = Filter::builder().name("group-name").values(name).build();
    let call = site.clients.ec2.describe_security_groups().filters(filter);
    let answer = call.send().await.map_err(|error| CloudError::of(format!("find the security group {name}"), error))?;
    let ids: Vec<&str> =
        answer.security_groups().iter().filter_map(aws_sdk_ec2::types::SecurityGroup::group_id).collect();
    one("security group", "named", name, &ids)
}

/// A name that means two things is refused rather than guessed.
fn one(kind: &str, relation: &str, name: &str, ids: &[&str]) -> Result<String, FactsError> {
    match ids {
        [id] => Ok((*id).to_owned()),
        [] => Err(FactsError::missing(
            format!("there is no {kind} {relation} `{name}`"),
            format!("create the {kind}, or name one that exists, by id or by name"),
        )),
        several => Err(FactsError::missing(
            format!("{} {kind}s are {relation} `{name}`", several.len()),
            format!("name one by its id: {}", several.join(", ")),
        )),
    }
}
