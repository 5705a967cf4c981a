//! DescribeNetworkInterfaces: every instance that is not terminated has one.

use std::sync::Arc;

use super::{
    Answer,
    filter::{Filters, one},
    instances::group_set,
    page::page,
    tags::tag_set,
    time,
};
use crate::{
    region::Region,
    state::ec2::{Instance, InstanceState, image::ACCOUNT},
    wire::{ApiError, Params, Xml},
};

pub fn describe_network_interfaces(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let named = params.list("NetworkInterfaceId");
    region.read(|world| {
        let seen: Vec<&Instance> =
            world.ec2.seen_instances(moment).filter(|it| it.state != InstanceState::Terminated).collect();
        let id_of = |it: &&Instance| it.network_interface.network_interface_id.clone();
        if let Some(absent) = named.iter().find(|id| !seen.iter().any(|it| id_of(it) == **id)) {
            let message = format!("The networkInterface ID '{absent}' does not exist");
            return Err(ApiError::bad("InvalidNetworkInterfaceID.NotFound", message));
        }
        let candidates = seen.into_iter().filter(|it| named.is_empty() || named.contains(&id_of(it).as_str()));
        let chosen =
            Filters::of(params).select(candidates, |it| it.network_interface.tags.seen(moment), filter_values)?;
        let (chosen, next) = page(params, chosen, |it| &it.network_interface.network_interface_id)?;
        let items = chosen.into_iter().map(|it| {
            let interface = &it.network_interface;
            vec![
                Xml::text("networkInterfaceId", &interface.network_interface_id),
                Xml::text("subnetId", &it.subnet_id),
                Xml::text("vpcId", &it.vpc_id),
                Xml::text("availabilityZone", &it.availability_zone),
                Xml::text("description", &interface.description),
                Xml::text("ownerId", ACCOUNT),
                Xml::text("requesterManaged", false),
                Xml::text("status", "in-use"),
                Xml::text("macAddress", &interface.mac),
                Xml::text("privateIpAddress", it.private_ip),
                Xml::text("sourceDestCheck", it.source_dest_check),
                Xml::text("interfaceType", "interface"),
                group_set(&world.ec2, &it.security_groups),
                Xml::node(
                    "attachment",
                    [
                        Xml::text("attachmentId", interface.network_interface_id.replace("eni-", "eni-attach-")),
                        Xml::text("instanceId", &it.instance_id),
                        Xml::text("instanceOwnerId", ACCOUNT),
                        Xml::text("deviceIndex", 0),
                        Xml::text("status", "attached"),
                        Xml::text("attachTime", time(it.created_at)),
                        Xml::text("deleteOnTermination", true),
                    ],
                ),
                Xml::node("association", [Xml::text("publicIp", it.private_ip), Xml::text("ipOwnerId", "amazon")]),
                tag_set(interface.tags.seen(moment)),
            ]
        });
        let mut answer = vec![Xml::list("networkInterfaceSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

fn filter_values(it: &Instance, name: &str) -> Option<Vec<String>> {
    match name {
        "addresses.private-ip-address" | "private-ip-address" | "association.public-ip" => one(it.private_ip),
        "attachment.instance-id" => one(&it.instance_id),
        "attachment.status" => one("attached"),
        "availability-zone" => one(&it.availability_zone),
        "description" => one(&it.network_interface.description),
        "group-id" => Some(it.security_groups.clone()),
        "mac-address" => one(&it.network_interface.mac),
        "network-interface-id" => one(&it.network_interface.network_interface_id),
        "owner-id" => one(ACCOUNT),
        "status" => one("in-use"),
        "subnet-id" => one(&it.subnet_id),
        "vpc-id" => one(&it.vpc_id),
        _ => None,
    }
}
