//! Where instances are: VPC, subnets, zones, the region itself, and the routes that clients look for.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Answer,
    filter::{Filters, one},
    page::page,
    tags::tag_set,
};
use crate::{
    region::Region,
    state::ec2::{Ec2, InstanceState, Subnet, Tags, Vpc, image::ACCOUNT},
    wire::{ApiError, Params, Xml},
};

pub fn describe_vpcs(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let named = params.list("VpcId");
    region.read(|world| {
        if let Some(absent) = named.iter().find(|id| world.ec2.vpc(id).is_none()) {
            let message = format!("The vpc ID '{absent}' does not exist");
            return Err(ApiError::bad("InvalidVpcID.NotFound", message));
        }
        let candidates = world.ec2.vpcs().filter(|vpc| named.is_empty() || named.contains(&vpc.vpc_id.as_str()));
        let chosen = Filters::of(params).select(candidates, |vpc| vpc.tags.seen(moment), vpc_values)?;
        let (vpcs, next) = page(params, chosen, |vpc| &vpc.vpc_id)?;
        let items = vpcs.into_iter().map(|vpc| {
            let association = vec![
                Xml::text("associationId", vpc.vpc_id.replace("vpc-", "vpc-cidr-assoc-")),
                Xml::text("cidrBlock", vpc.block),
                Xml::node("cidrBlockState", [Xml::text("state", "associated")]),
            ];
            vec![
                Xml::text("vpcId", &vpc.vpc_id),
                Xml::text("ownerId", ACCOUNT),
                Xml::text("state", "available"),
                Xml::text("cidrBlock", vpc.block),
                Xml::list("cidrBlockAssociationSet", "item", [association]),
                Xml::text("dhcpOptionsId", "default"),
                Xml::text("instanceTenancy", "default"),
                Xml::text("isDefault", vpc.is_default),
                tag_set(vpc.tags.seen(moment)),
            ]
        });
        let mut answer = vec![Xml::list("vpcSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

fn vpc_values(vpc: &Vpc, name: &str) -> Option<Vec<String>> {
    match name {
        "cidr" | "cidr-block" | "cidrBlock" => one(vpc.block),
        "is-default" | "isDefault" => one(vpc.is_default),
        "owner-id" => one(ACCOUNT),
        "state" => one("available"),
        "vpc-id" => one(&vpc.vpc_id),
        _ => None,
    }
}

pub fn describe_subnets(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let named = params.list("SubnetId");
    region.read(|world| {
        if let Some(absent) = named.iter().find(|id| world.ec2.subnet(id).is_none()) {
            let message = format!("The subnet ID '{absent}' does not exist");
            return Err(ApiError::bad("InvalidSubnetID.NotFound", message));
        }
        let candidates =
            world.ec2.subnets().filter(|subnet| named.is_empty() || named.contains(&subnet.subnet_id.as_str()));
        let values = |subnet: &Subnet, name: &str| subnet_values(&world.ec2, subnet, name);
        let chosen = Filters::of(params).select(candidates, |subnet| subnet.tags.seen(moment), values)?;
        let (subnets, next) = page(params, chosen, |subnet| &subnet.subnet_id)?;
        let items = subnets.into_iter().map(|subnet| {
            let arn = format!("arn:aws:ec2:{}:{ACCOUNT}:subnet/{}", region.config.region, subnet.subnet_id);
            vec![
                Xml::text("subnetId", &subnet.subnet_id),
                Xml::text("subnetArn", arn),
                Xml::text("state", "available"),
                Xml::text("ownerId", ACCOUNT),
                Xml::text("vpcId", &subnet.vpc_id),
                Xml::text("cidrBlock", subnet.block),
                Xml::list("ipv6CidrBlockAssociationSet", "item", []),
                Xml::text("availableIpAddressCount", free_addresses(&world.ec2, subnet)),
                Xml::text("availabilityZone", &subnet.availability_zone),
                Xml::text("availabilityZoneId", zone_id(&region.config.region, &subnet.availability_zone)),
                Xml::text("defaultForAz", true),
                Xml::text("mapPublicIpOnLaunch", true),
                Xml::text("assignIpv6AddressOnCreation", false),
                tag_set(subnet.tags.seen(moment)),
            ]
        });
        let mut answer = vec![Xml::list("subnetSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

fn free_addresses(ec2: &Ec2, subnet: &Subnet) -> usize {
    let used =
        ec2.instances().filter(|it| it.subnet_id == subnet.subnet_id && it.state != InstanceState::Terminated).count();
    (subnet.capacity() as usize).saturating_sub(used)
}

fn subnet_values(ec2: &Ec2, subnet: &Subnet, name: &str) -> Option<Vec<String>> {
    match name {
        "availability-zone" | "availabilityZone" => one(&subnet.availability_zone),
        "available-ip-address-count" => one(free_addresses(ec2, subnet)),
        "cidr" | "cidr-block" | "cidrBlock" => one(subnet.block),
        "default-for-az" | "defaultForAz" => one(true),
        "map-public-ip-on-launch" => one(true),
        "owner-id" => one(ACCOUNT),
        "state" => one("available"),
        "subnet-id" => one(&subnet.subnet_id),
        "vpc-id" => one(&subnet.vpc_id),
        _ => None,
    }
}

/// Zone ids look like `use1-az1`: the region without vowels of its direction, and a number.
fn zone_id(region: &str, zone: &str) -> String {
    let mut parts = region.split('-');
    let area = parts.next().unwrap_or_default();
    let short: String = parts.map(|part| part.chars().next().unwrap_or_default()).collect();
    let number = zone.bytes().last().map_or(1, |letter| letter.wrapping_sub(b'a').wrapping_add(1));
    format!("{area}{short}-az{number}")
}

pub fn describe_availability_zones(params: &Params, region: &Arc<Region>) -> Answer {
    let named = params.list("ZoneName");
    let filters = Filters::of(params);
    let name = &region.config.region;
    let zones: BTreeSet<String> =
        region.read(|world| world.ec2.subnets().map(|it| it.availability_zone.clone()).collect());
    if let Some(absent) = named.iter().find(|zone| !zones.contains(**zone)) {
        return Err(ApiError::invalid("ZoneName", absent, "There is no such availability zone."));
    }
    let mut items = Vec::new();
    for zone in zones.iter().filter(|zone| named.is_empty() || named.contains(&zone.as_str())) {
        let admitted = filters.admit(&Tags::new(), |filter| match filter {
            "group-name" | "region-name" => one(name),
            "opt-in-status" => one("opt-in-not-required"),
            "state" => one("available"),
            "zone-id" => one(zone_id(name, zone)),
            "zone-name" => one(zone),
            "zone-type" => one("availability-zone"),
            _ => None,
        })?;
        if admitted {
            items.push(vec![
                Xml::text("zoneName", zone),
                Xml::text("zoneState", "available"),
                Xml::text("regionName", name),
                Xml::text("zoneId", zone_id(name, zone)),
                Xml::text("groupName", name),
                Xml::text("networkBorderGroup", name),
                Xml::text("optInStatus", "opt-in-not-required"),
                Xml::text("zoneType", "availability-zone"),
                Xml::list("messageSet", "item", []),
            ]);
        }
    }
    Ok(vec![Xml::list("availabilityZoneInfo", "item", items)])
}

/// There is one region; clients that ask whether a region exists get an honest answer.
pub fn describe_regions(params: &Params, region: &Arc<Region>) -> Answer {
    let own = &region.config.region;
    if let Some(other) = params.list("RegionName").into_iter().find(|name| name != own) {
        return Err(ApiError::invalid("RegionName", other, &format!("The local region answers as {own} only.")));
    }
    let admitted = Filters::of(params).admit(&Tags::new(), |name| match name {
        "endpoint" => one(format!("ec2.{own}.amazonaws.com")),
        "opt-in-status" => one("opt-in-not-required"),
        "region-name" => one(own),
        _ => None,
    })?;
    let item = vec![
        Xml::text("regionName", own),
        Xml::text("regionEndpoint", format!("ec2.{own}.amazonaws.com")),
        Xml::text("optInStatus", "opt-in-not-required"),
    ];
    Ok(vec![Xml::list("regionInfo", "item", admitted.then_some(item))])
}

pub fn describe_account_attributes(params: &Params, region: &Arc<Region>) -> Answer {
    let vpc = region.read(|world| world.ec2.default_vpc().map(|vpc| vpc.vpc_id.clone())).unwrap_or_default();
    // Instances are counted by vCPUs; the older limit that this attribute shows is where that leaves it.
    let most = region.config.capacity.vcpus.to_string();
    let known = [
        ("supported-platforms", "VPC".to_owned()),
        ("default-vpc", vpc),
        ("max-instances", most),
        ("vpc-max-security-groups-per-interface", "5".to_owned()),
    ];
    let wanted = params.list("AttributeName");
    let items =
        known.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)).map(|(name, value)| {
            let values = Xml::list("attributeValueSet", "item", [vec![Xml::text("attributeValue", value)]]);
            vec![Xml::text("attributeName", name), values]
        });
    Ok(vec![Xml::list("accountAttributeSet", "item", items)])
}

/// The default VPC has a gateway, since instances reach the internet; it cannot be changed.
pub fn describe_internet_gateways(params: &Params, region: &Arc<Region>) -> Answer {
    let filters = Filters::of(params);
    let named = params.list("InternetGatewayId");
    let vpcs: Vec<String> = region.read(|world| world.ec2.vpcs().map(|vpc| vpc.vpc_id.clone()).collect());
    let mut items = Vec::new();
    for vpc_id in vpcs {
        let id = vpc_id.replace("vpc-", "igw-");
        let admitted = filters.admit(&Tags::new(), |name| match name {
            "attachment.state" => one("available"),
            "attachment.vpc-id" => one(&vpc_id),
            "internet-gateway-id" => one(&id),
            "owner-id" => one(ACCOUNT),
            _ => None,
        })?;
        if admitted && (named.is_empty() || named.contains(&id.as_str())) {
            let attachment = vec![Xml::text("vpcId", &vpc_id), Xml::text("state", "available")];
            items.push(vec![
                Xml::text("internetGatewayId", &id),
                Xml::text("ownerId", ACCOUNT),
                Xml::list("attachmentSet", "item", [attachment]),
                tag_set(&Tags::new()),
            ]);
        }
    }
    Ok(vec![Xml::list("internetGatewaySet", "item", items)])
}

/// The main route table of each VPC: its own addresses, and the internet.
pub fn describe_route_tables(params: &Params, region: &Arc<Region>) -> Answer {
    let filters = Filters::of(params);
    let named = params.list("RouteTableId");
    let vpcs: Vec<Vpc> = region.read(|world| world.ec2.vpcs().cloned().collect());
    let mut items = Vec::new();
    for vpc in vpcs {
        let id = vpc.vpc_id.replace("vpc-", "rtb-");
        let gateway = vpc.vpc_id.replace("vpc-", "igw-");
        let admitted = filters.admit(&Tags::new(), |name| match name {
            "association.main" => one(true),
            "association.subnet-id" => Some(Vec::new()),
            "owner-id" => one(ACCOUNT),
            "route-table-id" | "association.route-table-id" => one(&id),
            "route.gateway-id" => Some(vec!["local".to_owned(), gateway.clone()]),
            "vpc-id" => one(&vpc.vpc_id),
            _ => None,
        })?;
        if !admitted || !(named.is_empty() || named.contains(&id.as_str())) {
            continue;
        }
        let route = |target: String, gateway: &str, origin: &str| {
            vec![
                Xml::text("destinationCidrBlock", target),
                Xml::text("gatewayId", gateway),
                Xml::text("state", "active"),
                Xml::text("origin", origin),
            ]
        };
        let routes = [
            route(vpc.block.to_string(), "local", "CreateRouteTable"),
            route("0.0.0.0/0".to_owned(), &gateway, "CreateRoute"),
        ];
        let association = vec![
            Xml::text("routeTableAssociationId", id.replace("rtb-", "rtbassoc-")),
            Xml::text("routeTableId", &id),
            Xml::text("main", true),
            Xml::node("associationState", [Xml::text("state", "associated")]),
        ];
        items.push(vec![
            Xml::text("routeTableId", &id),
            Xml::text("vpcId", &vpc.vpc_id),
            Xml::text("ownerId", ACCOUNT),
            Xml::list("routeSet", "item", routes),
            Xml::list("associationSet", "item", [association]),
            tag_set(&Tags::new()),
        ]);
    }
    Ok(vec![Xml::list("routeTableSet", "item", items)])
}
