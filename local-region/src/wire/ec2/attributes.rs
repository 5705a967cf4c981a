//! DescribeInstanceAttribute, ModifyInstanceAttribute and ModifyInstanceMetadataOptions.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Answer, done, instances, refuse_dry_run};
use crate::{
    firewall,
    region::Region,
    servers,
    state::ec2::{InstanceState, image::ROOT_DEVICE, instance_type},
    wire::{ApiError, Params, Xml},
};

pub fn describe_instance_attribute(params: &Params, region: &Arc<Region>) -> Answer {
    let instance_id = params.require("InstanceId")?;
    let attribute = params.require("Attribute")?;
    let moment = region.moment();
    region.read(|world| {
        let it = world.ec2.find_instance(instance_id, moment)?;
        let value = |text: String| Xml::node(attribute, [Xml::text("value", text)]);
        let found = match attribute {
            "instanceType" => value(it.instance_type.clone()),
            "disableApiTermination" => value(it.disable_api_termination.to_string()),
            "instanceInitiatedShutdownBehavior" => {
                value(if it.terminate_on_shutdown { "terminate" } else { "stop" }.to_owned())
            }
            "rootDeviceName" => value(ROOT_DEVICE.to_owned()),
            "ebsOptimized" => value(it.ebs_optimized.to_string()),
            "enaSupport" => value("true".to_owned()),
            "sourceDestCheck" => value(it.source_dest_check.to_string()),
            "userData" => match &it.user_data {
                Some(data) => value(STANDARD.encode(data)),
                None => Xml::node(attribute, []),
            },
            "groupSet" => instances::group_set(&world.ec2, &it.security_groups),
            other => return Err(ApiError::unsupported(&format!("the instance attribute {other}"))),
        };
        Ok(vec![Xml::text("instanceId", instance_id), found])
    })
}

pub async fn modify_instance_attribute(params: &Params, region: &Arc<Region>) -> Answer {
    let instance_id = params.require("InstanceId")?;
    refuse_dry_run(params)?;
    let change = read_change(params)?;
    let moment = region.moment();
    region.change(|world| {
        if let Change::Groups(ids) = &change {
            for id in ids {
                world.ec2.find_group(id, moment)?;
            }
        }
        world.ec2.modify_instance(instance_id, moment, |it| {
            let stopped = it.state == InstanceState::Stopped;
            if !stopped && matches!(change, Change::Type(_) | Change::UserData(_)) {
                let message = format!("The instance '{instance_id}' is not in the 'stopped' state.");
                return Err(ApiError::bad("IncorrectInstanceState", message));
            }
            match change.clone() {
                Change::Termination(disabled) => it.disable_api_termination = disabled,
                Change::TerminateOnShutdown(ends) => it.terminate_on_shutdown = ends,
                Change::EbsOptimized(on) => it.ebs_optimized = on,
                Change::SourceDestCheck(on) => it.source_dest_check = on,
                Change::Type(name) => it.instance_type = name,
                Change::UserData(data) => it.user_data = Some(data),
                Change::Groups(ids) => it.security_groups = ids,
                Change::Nothing => {}
            }
            Ok(())
        })
    })?;
    firewall::apply(region).await.map_err(|error| servers::engine_error(&error))?;
    done()
}

#[derive(Clone)]
enum Change {
    Termination(bool),
    TerminateOnShutdown(bool),
    EbsOptimized(bool),
    SourceDestCheck(bool),
    Type(String),
    UserData(Vec<u8>),
    Groups(Vec<String>),
    /// What the call carries changes nothing here, such as enabling ENA support, which every instance has.
    Nothing,
}

/// The one attribute that a call changes, in either of the two forms that EC2 takes.
fn read_change(params: &Params) -> Result<Change, ApiError> {
    let named =
        params.get("Attribute").map(|name| (name.to_owned(), params.get("Value").unwrap_or_default().to_owned()));
    let structured = params.iter().find_map(|(name, value)| {
        let (attribute, rest) = name.split_once('.')?;
        (rest == "Value").then(|| (attribute[..1].to_lowercase() + &attribute[1..], value.to_owned()))
    });
    let groups = params.list("GroupId");
    if !groups.is_empty() {
        return Ok(Change::Groups(groups.into_iter().map(str::to_owned).collect()));
    }
    let (name, value) = named.or(structured).ok_or_else(|| ApiError::missing("Attribute"))?;
    let flag = || value.parse::<bool>().map_err(|_| ApiError::invalid(&name, &value, "It is true or false."));
    Ok(match name.as_str() {
        "disableApiTermination" => Change::Termination(flag()?),
        "instanceInitiatedShutdownBehavior" => Change::TerminateOnShutdown(value == "terminate"),
        "ebsOptimized" => Change::EbsOptimized(flag()?),
        "sourceDestCheck" => Change::SourceDestCheck(flag()?),
        "enaSupport" if flag()? => Change::Nothing,
        "instanceType" => match instance_type::find(&value) {
            Some(_) => Change::Type(value),
            None => {
                return Err(ApiError::bad(
                    "InvalidParameterValue",
                    format!("Invalid value '{value}' for InstanceType."),
                ));
            }
        },
        "userData" => Change::UserData(
            STANDARD.decode(&value).map_err(|_| ApiError::invalid("UserData", &value, "It is not base64."))?,
        ),
        other => return Err(ApiError::unsupported(&format!("changing the instance attribute {other}"))),
    })
}

pub fn modify_instance_metadata_options(params: &Params, region: &Arc<Region>) -> Answer {
    let instance_id = params.require("InstanceId")?;
    refuse_dry_run(params)?;
    let hop_limit = params.parse("HttpPutResponseHopLimit")?;
    let is = |name: &str, yes: &str| params.get(name).map(|value| value == yes);
    let moment = region.moment();
    region.change(|world| {
        world.ec2.modify_instance(instance_id, moment, |it| {
            let options = &mut it.metadata_options;
            options.tokens_required = is("HttpTokens", "required").unwrap_or(options.tokens_required);
            options.enabled = is("HttpEndpoint", "enabled").unwrap_or(options.enabled);
            options.instance_tags = is("InstanceMetadataTags", "enabled").unwrap_or(options.instance_tags);
            options.hop_limit = hop_limit.unwrap_or(options.hop_limit);
            Ok(())
        })
    })?;
    region.read(|world| {
        let it = world.ec2.find_instance(instance_id, moment)?;
        let mut options = instances::metadata_options(it);
        options.rename("instanceMetadataOptions");
        Ok(vec![Xml::text("instanceId", instance_id), options])
    })
}
