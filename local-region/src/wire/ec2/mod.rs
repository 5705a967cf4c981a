//! EC2's actions, as the EC2 API reference (version 2016-11-15) writes them: one file per kind of resource.

use std::sync::Arc;

use super::{ApiError, Params, Xml};
use crate::region::Region;

mod attributes;
mod console;
mod filter;
mod groups;
mod images;
mod instance_types;
mod instances;
mod interfaces;
mod key_material;
mod key_pairs;
mod lifecycle;
mod page;
mod places;
mod rules;
mod run;
mod snapshots;
mod tags;
mod volumes;

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// Answers one EC2 action: the whole `<…Response>` element, without its request id.
///
/// # Errors
/// EC2's error for what is wrong; `Unsupported`, naming the action, for one that the region does not have.
pub async fn handle(action: &str, params: &Params, region: &Arc<Region>) -> Result<Xml, ApiError> {
    let children = match action {
        "RunInstances" => run::run_instances(params, region).await,
        "DescribeInstances" => instances::describe_instances(params, region),
        "DescribeInstanceStatus" => instances::describe_instance_status(params, region),
        "TerminateInstances" => lifecycle::terminate_instances(params, region),
        "StopInstances" => lifecycle::stop_instances(params, region),
        "StartInstances" => lifecycle::start_instances(params, region),
        "RebootInstances" => lifecycle::reboot_instances(params, region),
        "GetConsoleOutput" => console::get_console_output(params, region).await,
        "DescribeInstanceAttribute" => attributes::describe_instance_attribute(params, region),
        "ModifyInstanceAttribute" => attributes::modify_instance_attribute(params, region).await,
        "ModifyInstanceMetadataOptions" => attributes::modify_instance_metadata_options(params, region),
        "CreateImage" => images::create_image(params, region),
        "DescribeImages" => images::describe_images(params, region).await,
        "DeregisterImage" => images::deregister_image(params, region).await,
        "DescribeImageAttribute" => images::describe_image_attribute(params, region),
        "ModifyImageAttribute" => images::modify_image_attribute(params, region),
        "CreateKeyPair" => key_pairs::create_key_pair(params, region).await,
        "ImportKeyPair" => key_pairs::import_key_pair(params, region),
        "DescribeKeyPairs" => key_pairs::describe_key_pairs(params, region),
        "DeleteKeyPair" => key_pairs::delete_key_pair(params, region),
        "CreateSecurityGroup" => groups::create_security_group(params, region),
        "DeleteSecurityGroup" => groups::delete_security_group(params, region),
        "DescribeSecurityGroups" => groups::describe_security_groups(params, region),
        "DescribeSecurityGroupRules" => rules::describe_security_group_rules(params, region),
        "AuthorizeSecurityGroupIngress" => rules::authorize_ingress(params, region).await,
        "AuthorizeSecurityGroupEgress" => rules::authorize_egress(params, region).await,
        "RevokeSecurityGroupIngress" => rules::revoke_ingress(params, region).await,
        "RevokeSecurityGroupEgress" => rules::revoke_egress(params, region).await,
        "DescribeVpcs" => places::describe_vpcs(params, region),
        "DescribeSubnets" => places::describe_subnets(params, region),
        "DescribeAvailabilityZones" => places::describe_availability_zones(params, region),
        "DescribeRegions" => places::describe_regions(params, region),
        "DescribeAccountAttributes" => places::describe_account_attributes(params, region),
        "DescribeInternetGateways" => places::describe_internet_gateways(params, region),
        "DescribeRouteTables" => places::describe_route_tables(params, region),
        "DescribeInstanceTypes" => instance_types::describe_instance_types(params, region),
        "DescribeInstanceTypeOfferings" => instance_types::describe_instance_type_offerings(params, region),
        "DescribeVolumes" => volumes::describe_volumes(params, region),
        "DeleteVolume" => volumes::delete_volume(params, region),
        "CreateSnapshot" => snapshots::create_snapshot(params, region),
        "DescribeSnapshots" => snapshots::describe_snapshots(params, region),
        "DeleteSnapshot" => snapshots::delete_snapshot(params, region),
        "DescribeNetworkInterfaces" => interfaces::describe_network_interfaces(params, region),
        "CreateTags" => tags::create_tags(params, region),
        "DeleteTags" => tags::delete_tags(params, region),
        "DescribeTags" => tags::describe_tags(params, region),
        _ => Err(ApiError::unsupported(&format!("the EC2 action {action}"))),
    }?;
    Ok(Xml::node(format!("{action}Response"), children).in_namespace(NAMESPACE))
}

/// What the actions answer: the children of the response element.
type Answer = Result<Vec<Xml>, ApiError>;

/// The answer of actions that answer nothing but success.
fn done() -> Answer {
    Ok(vec![Xml::text("return", true)])
}

/// Refuses a `DryRun`, with the code by which EC2 says that the call would have been made.
fn refuse_dry_run(params: &Params) -> Result<(), ApiError> {
    if params.parse::<bool>("DryRun")?.unwrap_or(false) {
        return Err(ApiError::with_status(
            412,
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        ));
    }
    Ok(())
}

/// A time as EC2 writes it, with milliseconds.
fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
