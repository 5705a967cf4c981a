//! DescribeInstances and DescribeInstanceStatus.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Answer,
    filter::{Filters, maybe, one},
    page::page,
    tags::tag_set,
    time,
};
use crate::{
    region::Region,
    state::ec2::{
        Ec2, Instance, InstanceState, Lagged, Tags,
        image::{ACCOUNT, ROOT_DEVICE},
    },
    wire::{ApiError, Params, Xml},
};

pub fn describe_instances(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    region.read(|world| {
        let seen = choose(params, &world.ec2, region, |_| true)?;
        let (instances, next) = page(params, seen, |it| &it.instance_id)?;
        let mut reservations: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        for instance in instances {
            reservations.entry(&instance.reservation_id).or_default().push(instance);
        }
        let items = reservations
            .into_iter()
            .map(|(id, instances)| reservation(id, instances, &world.ec2, |tags| tags.seen(moment)));
        let mut answer = vec![Xml::list("reservationSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

pub fn describe_instance_status(params: &Params, region: &Arc<Region>) -> Answer {
    let all = params.parse::<bool>("IncludeAllInstances")?.unwrap_or(false);
    region.read(|world| {
        let seen = choose(params, &world.ec2, region, |it| all || it.state == InstanceState::Running)?;
        let (instances, next) = page(params, seen, |it| &it.instance_id)?;
        let mut answer = vec![Xml::list("instanceStatusSet", "item", instances.into_iter().map(status))];
        answer.extend(next);
        Ok(answer)
    })
}

/// The instances that a call names or filters for.
fn choose<'a>(
    params: &Params,
    ec2: &'a Ec2,
    region: &Region,
    also: impl Fn(&Instance) -> bool,
) -> Result<Vec<&'a Instance>, ApiError> {
    let moment = region.moment();
    let named = params.list("InstanceId");
    for id in &named {
        ec2.find_instance(id, moment)?;
    }
    let candidates = ec2
        .seen_instances(moment)
        .filter(|it| named.is_empty() || named.contains(&it.instance_id.as_str()))
        .filter(|it| also(it));
    Filters::of(params).select(candidates, |it| it.tags.seen(moment), |it, name| filter_values(ec2, it, name))
}

fn filter_values(ec2: &Ec2, it: &Instance, name: &str) -> Option<Vec<String>> {
    let group_names = || {
        let groups = it.security_groups.iter().filter_map(|id| ec2.security_group(id));
        Some(groups.map(|group| group.name.clone()).collect())
    };
    match name {
        "architecture" => one("x86_64"),
        "availability-zone" => one(&it.availability_zone),
        "client-token" => maybe(it.client_token.as_ref()),
        "dns-name" | "private-dns-name" | "network-interface.private-dns-name" => one(it.private_dns_name()),
        "group-id" | "instance.group-id" | "network-interface.group-id" => Some(it.security_groups.clone()),
        "group-name" | "instance.group-name" => group_names(),
        "hypervisor" => one("xen"),
        "iam-instance-profile.arn" => maybe(it.instance_profile.as_ref()),
        "iam-instance-profile.name" => maybe(it.instance_profile_name()),
        "image-id" => one(&it.image_id),
        "instance-id" => one(&it.instance_id),
        "instance-lifecycle" => Some(Vec::new()),
        "instance-state-code" => one(it.state.code()),
        "instance-state-name" => one(it.state.name()),
        "instance-type" => one(&it.instance_type),
        "ip-address" | "private-ip-address" | "network-interface.addresses.private-ip-address" => one(it.private_ip),
        "key-name" => maybe(it.key_name.as_ref()),
        "launch-index" => one(it.launch_index),
        "metadata-options.http-tokens" => one(tokens(it)),
        "monitoring-state" => one(monitoring(it)),
        "network-interface.network-interface-id" => one(&it.network_interface.network_interface_id),
        "owner-id" => one(ACCOUNT),
        "requester-id" => Some(Vec::new()),
        "reservation-id" => one(&it.reservation_id),
        "root-device-name" => one(ROOT_DEVICE),
        "root-device-type" => one("ebs"),
        "subnet-id" | "network-interface.subnet-id" => one(&it.subnet_id),
        "tenancy" => one("default"),
        "virtualization-type" => one("hvm"),
        "vpc-id" | "network-interface.vpc-id" => one(&it.vpc_id),
        "block-device-mapping.volume-id" => Some(it.block_devices.iter().map(|it| it.volume_id.clone()).collect()),
        _ => None,
    }
}

fn tokens(it: &Instance) -> &'static str {
    if it.metadata_options.tokens_required { "required" } else { "optional" }
}

pub fn enabled(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

fn monitoring(it: &Instance) -> &'static str {
    enabled(it.monitoring)
}

/// A reservation's children. `tags_of` chooses what is seen of the tags: RunInstances answers what it was given.
pub fn reservation<'a>(
    reservation_id: &str,
    mut instances: Vec<&'a Instance>,
    ec2: &Ec2,
    tags_of: impl Fn(&'a Lagged<Tags>) -> &'a Tags,
) -> Vec<Xml> {
    instances.sort_by_key(|it| it.launch_index);
    let items = instances.into_iter().map(|it| instance(it, ec2, tags_of(&it.tags)));
    vec![
        Xml::text("reservationId", reservation_id),
        Xml::text("ownerId", ACCOUNT),
        Xml::list("groupSet", "item", []),
        Xml::list("instancesSet", "item", items),
    ]
}

pub fn state(name: &str, state: InstanceState) -> Xml {
    Xml::node(name, [Xml::text("code", state.code()), Xml::text("name", state.name())])
}

/// `groupSet` of an instance or interface.
pub fn group_set(ec2: &Ec2, ids: &[String]) -> Xml {
    let items = ids.iter().map(|id| {
        let name = ec2.security_group(id).map_or("", |group| &group.name);
        vec![Xml::text("groupId", id), Xml::text("groupName", name)]
    });
    Xml::list("groupSet", "item", items)
}

fn instance(it: &Instance, ec2: &Ec2, tags: &Tags) -> Vec<Xml> {
    // A terminated instance has given back what it was made of.
    let lives = it.state != InstanceState::Terminated;
    let dns = it.private_dns_name();
    let mut children = vec![
        Xml::text("instanceId", &it.instance_id),
        Xml::text("imageId", &it.image_id),
        state("instanceState", it.state),
        Xml::text("privateDnsName", if lives { &dns } else { "" }),
        Xml::text("dnsName", if lives { &dns } else { "" }),
        Xml::text("reason", &it.state_transition_reason),
        Xml::text("amiLaunchIndex", it.launch_index),
        Xml::list("productCodes", "item", []),
        Xml::text("instanceType", &it.instance_type),
        Xml::text("launchTime", time(it.launch_time)),
        Xml::node(
            "placement",
            [
                Xml::text("availabilityZone", &it.availability_zone),
                Xml::text("groupName", ""),
                Xml::text("tenancy", "default"),
            ],
        ),
        Xml::node("monitoring", [Xml::text("state", monitoring(it))]),
        Xml::text("architecture", "x86_64"),
        Xml::text("rootDeviceType", "ebs"),
        Xml::text("rootDeviceName", ROOT_DEVICE),
        block_devices(it),
        Xml::text("virtualizationType", "hvm"),
        Xml::text("clientToken", it.client_token.as_deref().unwrap_or_default()),
        tag_set(tags),
        Xml::text("hypervisor", "xen"),
        Xml::text("ebsOptimized", it.ebs_optimized),
        Xml::text("enaSupport", true),
        Xml::text("sourceDestCheck", it.source_dest_check),
        metadata_options(it),
    ];
    children.extend(Xml::maybe("keyName", it.key_name.as_ref()));
    if let Some(reason) = &it.state_reason {
        let code = Xml::text("code", &reason.code);
        children.push(Xml::node("stateReason", [code, Xml::text("message", &reason.message)]));
    }
    if let Some(arn) = &it.instance_profile {
        children.push(Xml::node("iamInstanceProfile", [Xml::text("arn", arn), Xml::text("id", "AIPALOCALREGION")]));
    }
    if lives {
        children.extend([
            Xml::text("subnetId", &it.subnet_id),
            Xml::text("vpcId", &it.vpc_id),
            Xml::text("privateIpAddress", it.private_ip),
            Xml::text("ipAddress", it.private_ip),
            group_set(ec2, &it.security_groups),
            Xml::list("networkInterfaceSet", "item", [interface(it, ec2)]),
        ]);
    }
    children
}

fn block_devices(it: &Instance) -> Xml {
    let items = it.block_devices.iter().map(|device| {
        let ebs = [
            Xml::text("volumeId", &device.volume_id),
            Xml::text("status", "attached"),
            Xml::text("attachTime", time(device.attached_at)),
            Xml::text("deleteOnTermination", device.delete_on_termination),
        ];
        vec![Xml::text("deviceName", &device.device_name), Xml::node("ebs", ebs)]
    });
    Xml::list("blockDeviceMapping", "item", items)
}

pub fn metadata_options(it: &Instance) -> Xml {
    let options = it.metadata_options;
    Xml::node(
        "metadataOptions",
        [
            Xml::text("state", "applied"),
            Xml::text("httpTokens", tokens(it)),
            Xml::text("httpPutResponseHopLimit", options.hop_limit),
            Xml::text("httpEndpoint", enabled(options.enabled)),
            Xml::text("httpProtocolIpv6", "disabled"),
            Xml::text("instanceMetadataTags", enabled(options.instance_tags)),
        ],
    )
}

fn interface(it: &Instance, ec2: &Ec2) -> Vec<Xml> {
    let interface = &it.network_interface;
    let association = || {
        Xml::node(
            "association",
            [
                Xml::text("publicIp", it.private_ip),
                Xml::text("publicDnsName", it.private_dns_name()),
                Xml::text("ipOwnerId", "amazon"),
            ],
        )
    };
    let address = vec![
        Xml::text("privateIpAddress", it.private_ip),
        Xml::text("privateDnsName", it.private_dns_name()),
        Xml::text("primary", true),
        association(),
    ];
    vec![
        Xml::text("networkInterfaceId", &interface.network_interface_id),
        Xml::text("subnetId", &it.subnet_id),
        Xml::text("vpcId", &it.vpc_id),
        Xml::text("description", &interface.description),
        Xml::text("ownerId", ACCOUNT),
        Xml::text("status", "in-use"),
        Xml::text("macAddress", &interface.mac),
        Xml::text("privateIpAddress", it.private_ip),
        Xml::text("privateDnsName", it.private_dns_name()),
        Xml::text("sourceDestCheck", it.source_dest_check),
        group_set(ec2, &it.security_groups),
        Xml::node(
            "attachment",
            [
                Xml::text("attachmentId", interface.network_interface_id.replace("eni-", "eni-attach-")),
                Xml::text("deviceIndex", 0),
                Xml::text("status", "attached"),
                Xml::text("attachTime", time(it.created_at)),
                Xml::text("deleteOnTermination", true),
            ],
        ),
        association(),
        Xml::list("privateIpAddressesSet", "item", [address]),
    ]
}

/// Status checks follow the state: what a guest makes of its boot, the engine does not know.
fn status(it: &Instance) -> Vec<Xml> {
    let word = match it.state {
        InstanceState::Running => "ok",
        InstanceState::Pending => "initializing",
        _ => "not-applicable",
    };
    let passed = if it.state == InstanceState::Running { "passed" } else { word };
    let summary = |name: &str| {
        let detail = vec![Xml::text("name", "reachability"), Xml::text("status", passed)];
        Xml::node(name, [Xml::text("status", word), Xml::list("details", "item", [detail])])
    };
    vec![
        Xml::text("instanceId", &it.instance_id),
        Xml::text("availabilityZone", &it.availability_zone),
        state("instanceState", it.state),
        summary("systemStatus"),
        summary("instanceStatus"),
    ]
}
