//! RunInstances: reads the call, makes the records, and sends the machines on their way.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{Answer, instances, refuse_dry_run, tags};
use crate::{
    region::Region,
    servers,
    state::ec2::{
        image::{ACCOUNT, ROOT_DEVICE},
        launch::{LaunchRequest, RootVolume},
    },
    wire::{ApiError, Params},
};

/// What RunInstances can tag. Spot requests, fleets and elastic graphics are not made here.
const TAGGED: [&str; 3] = ["instance", "volume", "network-interface"];

pub async fn run_instances(params: &Params, region: &Arc<Region>) -> Answer {
    let request = read(params)?;
    servers::refresh_base_images(region).await?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    let launched = region.change(|world| {
        world.ec2.forget_terminated(moment.now);
        world.ec2.launch(&request, &region.config.capacity, moment)
    })?;
    // Written before the machines start, so that the answer says `pending`, as EC2's does.
    let answer = region.read(|world| {
        let made = launched.instance_ids.iter().filter_map(|id| world.ec2.instance(id)).collect();
        instances::reservation(&launched.reservation_id, made, &world.ec2, |tags| tags.current())
    });
    if !launched.repeated {
        for instance_id in &launched.instance_ids {
            servers::follow(region, instance_id);
        }
    }
    Ok(answer)
}

fn read(params: &Params) -> Result<LaunchRequest, ApiError> {
    let interface = read_interface(params)?;
    let prefixed = |name: &str| interface.as_deref().map(|prefix| format!("{prefix}.{name}"));
    let own = |name: &str, of_interface: &str| {
        params.get(name).or_else(|| prefixed(of_interface).and_then(|name| params.get(&name))).map(str::to_owned)
    };
    let mut security_groups: Vec<String> = params.list("SecurityGroupId").into_iter().map(str::to_owned).collect();
    if let Some(name) = prefixed("SecurityGroupId") {
        security_groups.extend(params.list(&name).into_iter().map(str::to_owned));
    }
    let private_ip = own("PrivateIpAddress", "PrivateIpAddress")
        .map(|text| text.parse().map_err(|_| ApiError::invalid("PrivateIpAddress", &text, "It is no IPv4 address.")))
        .transpose()?;
    Ok(LaunchRequest {
        image_id: params.require("ImageId")?.to_owned(),
        instance_type: params.get("InstanceType").unwrap_or("m1.small").to_owned(),
        min_count: params.parse("MinCount")?.ok_or_else(|| ApiError::missing("MinCount"))?,
        max_count: params.parse("MaxCount")?.ok_or_else(|| ApiError::missing("MaxCount"))?,
        subnet_id: own("SubnetId", "SubnetId"),
        availability_zone: params.get("Placement.AvailabilityZone").map(str::to_owned),
        private_ip,
        security_groups,
        security_group_names: params.list("SecurityGroup").into_iter().map(str::to_owned).collect(),
        key_name: params.get("KeyName").map(str::to_owned),
        user_data: read_user_data(params)?,
        client_token: params.get("ClientToken").map(str::to_owned),
        fingerprint: fingerprint(params),
        instance_profile: read_profile(params),
        tokens_required: read_choice(params, "MetadataOptions.HttpTokens", ["required", "optional"])?,
        hop_limit: params.parse("MetadataOptions.HttpPutResponseHopLimit")?,
        metadata_enabled: read_choice(params, "MetadataOptions.HttpEndpoint", ["enabled", "disabled"])?,
        instance_tags_in_metadata: read_choice(
            params,
            "MetadataOptions.InstanceMetadataTags",
            ["enabled", "disabled"],
        )?
        .unwrap_or(false),
        root_volume: read_root_volume(params)?,
        instance_tags: tags::specified(params, "instance", &TAGGED)?,
        volume_tags: tags::specified(params, "volume", &TAGGED)?,
        network_interface_tags: tags::specified(params, "network-interface", &TAGGED)?,
        network_interface_description: prefixed("Description")
            .and_then(|name| params.get(&name))
            .unwrap_or_default()
            .to_owned(),
        disable_api_termination: params.parse("DisableApiTermination")?.unwrap_or(false),
        terminate_on_shutdown: read_choice(params, "InstanceInitiatedShutdownBehavior", ["terminate", "stop"])?
            .unwrap_or(false),
        ebs_optimized: params.parse("EbsOptimized")?.unwrap_or(false),
        monitoring: params.parse("Monitoring.Enabled")?.unwrap_or(false),
    })
}

/// The prefix of the one network interface that a call may describe.
fn read_interface(params: &Params) -> Result<Option<String>, ApiError> {
    let mut interfaces = params.groups("NetworkInterface");
    if interfaces.len() > 1 {
        return Err(ApiError::unsupported("more than one network interface per instance"));
    }
    let Some(prefix) = interfaces.pop() else { return Ok(None) };
    if params.get(&format!("{prefix}.NetworkInterfaceId")).is_some() {
        return Err(ApiError::unsupported("launching with an existing network interface"));
    }
    // EC2 refuses to be told twice where the instance goes.
    for name in ["SubnetId", "SecurityGroupId.1", "SecurityGroup.1", "PrivateIpAddress"] {
        if params.get(name).is_some() {
            return Err(ApiError::bad(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level subnet ID, security groups or private address may not be \
                 specified on the same request",
            ));
        }
    }
    Ok(Some(prefix))
}

fn read_user_data(params: &Params) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(text) = params.get("UserData") else { return Ok(None) };
    // Some clients break the lines of their base64.
    let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    STANDARD
        .decode(compact)
        .map(Some)
        .map_err(|_| ApiError::bad("InvalidParameterValue", "Invalid BASE64 encoding of user data."))
}

/// The ARN of the instance profile, which the region takes as given: it has no IAM.
fn read_profile(params: &Params) -> Option<String> {
    let by_name =
        || Some(format!("arn:aws:iam::{ACCOUNT}:instance-profile/{}", params.get("IamInstanceProfile.Name")?));
    params.get("IamInstanceProfile.Arn").map(str::to_owned).or_else(by_name)
}

/// A parameter with two values, the first meaning `true`.
fn read_choice(params: &Params, name: &str, [yes, no]: [&str; 2]) -> Result<Option<bool>, ApiError> {
    match params.get(name) {
        None => Ok(None),
        Some(value) if value == yes => Ok(Some(true)),
        Some(value) if value == no => Ok(Some(false)),
        Some(value) => Err(ApiError::invalid(name, value, &format!("It is {yes} or {no}."))),
    }
}

/// The mapping of the root device; another device would need a second disk, which a container has not.
fn read_root_volume(params: &Params) -> Result<RootVolume, ApiError> {
    let mut root = RootVolume::default();
    for prefix in params.groups("BlockDeviceMapping") {
        let device = params.require(&format!("{prefix}.DeviceName"))?;
        if device != ROOT_DEVICE {
            return Err(ApiError::unsupported(&format!(
                "block devices beside the root ({ROOT_DEVICE}), such as {device}"
            )));
        }
        root.size_gib = params.parse(&format!("{prefix}.Ebs.VolumeSize"))?;
        root.volume_type = params.get(&format!("{prefix}.Ebs.VolumeType")).map(str::to_owned);
        root.keep_on_termination = !params.parse(&format!("{prefix}.Ebs.DeleteOnTermination"))?.unwrap_or(true);
        root.encrypted = params.parse(&format!("{prefix}.Ebs.Encrypted"))?.unwrap_or(false);
    }
    Ok(root)
}

/// The digest of everything that must be equal when a client token comes again.
fn fingerprint(params: &Params) -> String {
    let mut digest = Sha256::new();
    for (name, value) in params.iter().filter(|(name, _)| !matches!(*name, "ClientToken" | "Version" | "Action")) {
        // Lengths keep `a=bc` and `ab=c` apart.
        digest.update(format!("{}:{name}={}:{value};", name.len(), value.len()));
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_leaves_out_the_token_and_nothing_else() {
        let print = |form: &str| fingerprint(&Params::decode(form.as_bytes()));
        assert_eq!(print("ImageId=ami-1&ClientToken=x"), print("ClientToken=y&ImageId=ami-1"));
        assert_ne!(print("ImageId=ami-1"), print("ImageId=ami-2"));
        assert_ne!(print("ImageId=ami-1"), print("ImageId=ami-1&MinCount=1"));
    }

    #[test]
    fn a_call_with_an_interface_takes_subnet_and_groups_from_it() {
        let form = b"ImageId=ami-1&MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=\
            subnet-1&NetworkInterface.1.SecurityGroupId.1=sg-1";
        let request = read(&Params::decode(form)).unwrap();
        assert_eq!(request.subnet_id.as_deref(), Some("subnet-1"));
        assert_eq!(request.security_groups, ["sg-1"]);
        let twice = [form.as_slice(), b"&SubnetId=subnet-2"].concat();
        assert_eq!(read(&Params::decode(&twice)).unwrap_err().code, "InvalidParameterCombination");
    }
}
