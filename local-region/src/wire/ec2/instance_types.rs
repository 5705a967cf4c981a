//! DescribeInstanceTypes and DescribeInstanceTypeOfferings.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Answer,
    filter::{Filters, one},
    page::page,
};
use crate::{
    region::Region,
    state::ec2::{
        Tags,
        instance_type::{self, InstanceType, TYPES},
    },
    wire::{ApiError, Params, Xml},
};

pub fn describe_instance_types(params: &Params, _region: &Arc<Region>) -> Answer {
    let named = params.list("InstanceType");
    if let Some(absent) = named.iter().find(|name| instance_type::find(name).is_none()) {
        return Err(ApiError::bad(
            "InvalidInstanceType",
            format!("The following supplied instance types do not exist: [{absent}]"),
        ));
    }
    let no_tags = Tags::new();
    let candidates = TYPES.iter().filter(|kind| named.is_empty() || named.contains(&kind.name));
    let chosen = Filters::of(params).select(candidates, |_| &no_tags, |kind, name| filter_values(*kind, name))?;
    let (kinds, next) = page(params, chosen, |kind| kind.name)?;
    let mut answer = vec![Xml::list("instanceTypeSet", "item", kinds.into_iter().map(|kind| describe(*kind)))];
    answer.extend(next);
    Ok(answer)
}

fn filter_values(kind: InstanceType, name: &str) -> Option<Vec<String>> {
    match name {
        "bare-metal" => one(false),
        "burstable-performance-supported" => one(kind.burstable),
        "current-generation" => one(!kind.name.starts_with("t2.")),
        "instance-type" => one(kind.name),
        "memory-info.size-in-mib" => one(kind.memory_mib),
        "processor-info.supported-architecture" => one("x86_64"),
        "supported-root-device-type" => one("ebs"),
        "supported-virtualization-type" => one("hvm"),
        "vcpu-info.default-vcpus" => one(kind.vcpus),
        _ => None,
    }
}

fn describe(kind: InstanceType) -> Vec<Xml> {
    let list = |name: &str, value: &str| Xml::node(name, [Xml::text("item", value)]);
    vec![
        Xml::text("instanceType", kind.name),
        Xml::text("currentGeneration", !kind.name.starts_with("t2.")),
        Xml::text("freeTierEligible", matches!(kind.name, "t2.micro" | "t3.micro")),
        list("supportedUsageClasses", "on-demand"),
        list("supportedRootDeviceTypes", "ebs"),
        list("supportedVirtualizationTypes", "hvm"),
        Xml::text("bareMetal", false),
        Xml::text("hypervisor", "nitro"),
        Xml::node("processorInfo", [list("supportedArchitectures", "x86_64")]),
        Xml::node("vCpuInfo", [Xml::text("defaultVCpus", kind.vcpus)]),
        Xml::node("memoryInfo", [Xml::text("sizeInMiB", kind.memory_mib)]),
        Xml::text("instanceStorageSupported", false),
        Xml::node(
            "ebsInfo",
            [Xml::text("ebsOptimizedSupport", "default"), Xml::text("encryptionSupport", "supported")],
        ),
        Xml::node(
            "networkInfo",
            [
                Xml::text("maximumNetworkInterfaces", 1),
                Xml::text("ipv4AddressesPerInterface", 1),
                Xml::text("ipv6Supported", false),
                Xml::text("enaSupport", "supported"),
            ],
        ),
        Xml::text("burstablePerformanceSupported", kind.burstable),
        Xml::text("hibernationSupported", false),
        Xml::text("autoRecoverySupported", false),
    ]
}

pub fn describe_instance_type_offerings(params: &Params, region: &Arc<Region>) -> Answer {
    let place = params.get("LocationType").unwrap_or("region");
    let locations: BTreeSet<String> = match place {
        "region" => BTreeSet::from([region.config.region.clone()]),
        "availability-zone" => {
            region.read(|world| world.ec2.subnets().map(|subnet| subnet.availability_zone.clone()).collect())
        }
        other => return Err(ApiError::unsupported(&format!("instance type offerings by {other}"))),
    };
    let filters = Filters::of(params);
    let mut rows = Vec::new();
    for kind in TYPES {
        for location in &locations {
            let admitted = filters.admit(&Tags::new(), |name| match name {
                "instance-type" => one(kind.name),
                "location" => one(location),
                _ => None,
            })?;
            if admitted {
                rows.push((format!("{}/{location}", kind.name), kind.name, location));
            }
        }
    }
    let (rows, next) = page(params, rows.iter().collect(), |row| row.0.as_str())?;
    let items = rows.into_iter().map(|(_, kind, location)| {
        vec![Xml::text("instanceType", kind), Xml::text("locationType", place), Xml::text("location", location)]
    });
    let mut answer = vec![Xml::list("instanceTypeOfferingSet", "item", items)];
    answer.extend(next);
    Ok(answer)
}
