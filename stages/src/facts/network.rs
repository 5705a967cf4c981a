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
    let given = Given::of(name, "subnet-");
    let call = site.clients.ec2.describe_subnets().filters(given.filter("subnet-id", "tag:Name"));
    let answer = call.send().await.map_err(|error| CloudError::of(format!("find the subnet {name}"), error))?;
    let ids: Vec<&str> = answer.subnets().iter().filter_map(aws_sdk_ec2::types::Subnet::subnet_id).collect();
    one("subnet", given.relation("whose Name tag is"), name, &ids)
}

async fn security_group(site: &Site, name: &str) -> Result<String, FactsError> {
    let given = Given::of(name, "sg-");
    let call = site.clients.ec2.describe_security_groups().filters(given.filter("group-id", "group-name"));
    let answer = call.send().await.map_err(|error| CloudError::of(format!("find the security group {name}"), error))?;
    let ids: Vec<&str> =
        answer.security_groups().iter().filter_map(aws_sdk_ec2::types::SecurityGroup::group_id).collect();
    one("security group", given.relation("named"), name, &ids)
}

/// How the file refers to something. An id is looked up as well: one that is wrong, or of another region, is better told
/// before anything is begun than by the first call that needs it.
enum Given<'a> {
    Id(&'a str),
    Name(&'a str),
}

impl<'a> Given<'a> {
    fn of(text: &'a str, prefix_of_ids: &str) -> Self {
        if text.starts_with(prefix_of_ids) { Self::Id(text) } else { Self::Name(text) }
    }

    fn filter(&self, of_id: &str, of_name: &str) -> Filter {
        let (filter, value) = match self {
            Self::Id(id) => (of_id, id),
            Self::Name(name) => (of_name, name),
        };
        Filter::builder().name(filter).values(*value).build()
    }

    fn relation(&self, of_name: &'static str) -> &'static str {
        match self {
            Self::Id(_) => "with the id",
            Self::Name(_) => of_name,
        }
    }
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
