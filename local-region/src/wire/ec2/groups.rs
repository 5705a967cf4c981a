//! Security groups; their rules are in [`super::rules`].

use std::sync::Arc;

use super::{
    Answer, done,
    filter::{Filters, one},
    page::page,
    refuse_dry_run, rules,
    tags::{specified, tag_set},
};
use crate::{
    region::Region,
    state::ec2::{Ec2, Moment, SecurityGroup, image::ACCOUNT, security_group::Direction},
    wire::{ApiError, Params, Xml},
};

/// The group that a call names by id, or by its name in the default VPC.
pub fn named(params: &Params, ec2: &Ec2, moment: Moment) -> Result<String, ApiError> {
    if let Some(id) = params.get("GroupId") {
        return Ok(ec2.find_group(id, moment)?.group_id.clone());
    }
    let name = params.get("GroupName").ok_or_else(|| ApiError::missing("GroupId"))?;
    let vpc_id = ec2.default_vpc().map(|vpc| vpc.vpc_id.as_str());
    ec2.security_groups()
        .find(|group| group.name == name && Some(group.vpc_id.as_str()) == vpc_id && moment.sees(group.created_at))
        .map(|group| group.group_id.clone())
        .ok_or_else(|| {
            ApiError::bad(
                "InvalidGroup.NotFound",
                format!("The security group '{name}' does not exist in default VPC '{}'", vpc_id.unwrap_or_default()),
            )
        })
}

pub fn create_security_group(params: &Params, region: &Arc<Region>) -> Answer {
    let name = params.require("GroupName")?;
    let description = params.require("GroupDescription")?;
    let tags = specified(params, "security-group", &["security-group"])?;
    refuse_dry_run(params)?;
    let now = region.clock.now();
    let group_id = region.change(|world| {
        let vpc_id = match params.get("VpcId") {
            Some(id) => id.to_owned(),
            None => world.ec2.default_vpc().map(|vpc| vpc.vpc_id.clone()).unwrap_or_default(),
        };
        world.ec2.create_group(name, description, &vpc_id, tags.clone(), now)
    })?;
    Ok(vec![Xml::text("return", true), Xml::text("groupId", group_id), tag_set(&tags)])
}

pub fn delete_security_group(params: &Params, region: &Arc<Region>) -> Answer {
    refuse_dry_run(params)?;
    let moment = region.moment();
    let group_id = region.change(|world| {
        let group_id = named(params, &world.ec2, moment)?;
        let of_balancer = world.elbv2.load_balancers().any(|balancer| balancer.security_groups.contains(&group_id));
        world.ec2.delete_group(&group_id, of_balancer, moment)?;
        Ok::<_, ApiError>(group_id)
    })?;
    let mut answer = done()?;
    answer.push(Xml::text("groupId", group_id));
    Ok(answer)
}

pub fn describe_security_groups(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let (ids, names) = (params.list("GroupId"), params.list("GroupName"));
    region.read(|world| {
        for id in &ids {
            world.ec2.find_group(id, moment)?;
        }
        for name in &names {
            if !world.ec2.security_groups().any(|group| group.name == *name && moment.sees(group.created_at)) {
                let message = format!("The security group '{name}' does not exist");
                return Err(ApiError::bad("InvalidGroup.NotFound", message));
            }
        }
        let everything = ids.is_empty() && names.is_empty();
        let candidates = world.ec2.security_groups().filter(|group| {
            moment.sees(group.created_at)
                && (everything || ids.contains(&group.group_id.as_str()) || names.contains(&group.name.as_str()))
        });
        let values = |group: &SecurityGroup, name: &str| filter_values(group, name, moment);
        let chosen = Filters::of(params).select(candidates, |group| group.tags.seen(moment), values)?;
        let (groups, next) = page(params, chosen, |group| &group.group_id)?;
        let items = groups.into_iter().map(|group| {
            vec![
                Xml::text("ownerId", ACCOUNT),
                Xml::text("groupId", &group.group_id),
                Xml::text("groupName", &group.name),
                Xml::text("groupDescription", &group.description),
                Xml::text("vpcId", &group.vpc_id),
                rules::permissions("ipPermissions", group.ingress.seen(moment)),
                rules::permissions("ipPermissionsEgress", group.egress.seen(moment)),
                tag_set(group.tags.seen(moment)),
            ]
        });
        let mut answer = vec![Xml::list("securityGroupInfo", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

fn filter_values(group: &SecurityGroup, name: &str, moment: Moment) -> Option<Vec<String>> {
    let (direction, field) = match name {
        "description" => return one(&group.description),
        "group-id" => return one(&group.group_id),
        "group-name" => return one(&group.name),
        "owner-id" => return one(ACCOUNT),
        "vpc-id" => return one(&group.vpc_id),
        _ => match name.strip_prefix("egress.ip-permission.") {
            Some(field) => (Direction::Egress, field),
            None => (Direction::Ingress, name.strip_prefix("ip-permission.")?),
        },
    };
    let found = group.rules(direction).seen(moment).iter().map(|rule| rules::permission_field(rule, field));
    found.collect::<Option<Vec<_>>>().map(|values| values.into_iter().flatten().collect())
}
