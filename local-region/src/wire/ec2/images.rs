//! Images: CreateImage, DescribeImages, DeregisterImage and the image attributes.

use std::sync::Arc;

use super::{
    Answer, done,
    filter::{Filters, maybe, one},
    page::page,
    refuse_dry_run,
    tags::{specified, tag_set},
    time,
};
use crate::{
    region::Region,
    servers,
    state::ec2::{
        Image, ImageState, Moment,
        image::{ACCOUNT, ImageRequest, LaunchPermission, ROOT_DEVICE},
    },
    wire::{ApiError, Params, Xml},
};

/// What CreateImage can tag.
const TAGGED: [&str; 2] = ["image", "snapshot"];

pub fn create_image(params: &Params, region: &Arc<Region>) -> Answer {
    let request = ImageRequest {
        instance_id: params.require("InstanceId")?.to_owned(),
        name: params.require("Name")?.to_owned(),
        description: params.get("Description").map(str::to_owned),
        no_reboot: params.parse("NoReboot")?.unwrap_or(false),
        image_tags: specified(params, "image", &TAGGED)?,
        snapshot_tags: specified(params, "snapshot", &TAGGED)?,
    };
    refuse_dry_run(params)?;
    let image_id = servers::create_image(region, &request)?;
    Ok(vec![Xml::text("imageId", image_id)])
}

pub async fn describe_images(params: &Params, region: &Arc<Region>) -> Answer {
    servers::refresh_base_images(region).await?;
    let moment = region.moment();
    let named = params.list("ImageId");
    let owners = params.list("Owner");
    region.read(|world| {
        for id in &named {
            world.ec2.find_image(id, moment)?;
        }
        // The region's one account owns everything, recipe roots included.
        let owned = owners.is_empty() || owners.iter().any(|owner| *owner == "self" || *owner == ACCOUNT);
        let candidates = world
            .ec2
            .images()
            .filter(|image| owned && moment.sees(image.created_at))
            .filter(|image| named.is_empty() || named.contains(&image.image_id.as_str()));
        let chosen = Filters::of(params).select(candidates, |image| image.tags.seen(moment), filter_values)?;
        let (images, next) = page(params, chosen, |image| &image.image_id)?;
        let mut answer = vec![Xml::list("imagesSet", "item", images.into_iter().map(|image| describe(image, moment)))];
        answer.extend(next);
        Ok(answer)
    })
}

fn is_public(image: &Image) -> bool {
    image.launch_permissions.contains(&LaunchPermission::Group("all".to_owned()))
}

fn filter_values(image: &Image, name: &str) -> Option<Vec<String>> {
    match name {
        "architecture" => one("x86_64"),
        "block-device-mapping.snapshot-id" => maybe(image.snapshot_id.as_ref()),
        "block-device-mapping.volume-type" => one("gp2"),
        "creation-date" => one(time(image.created_at)),
        "description" => maybe(image.description.as_ref()),
        "ena-support" => one(true),
        "hypervisor" => one("xen"),
        "image-id" => one(&image.image_id),
        "image-type" => one("machine"),
        "is-public" => one(is_public(image)),
        "name" => one(&image.name),
        "owner-alias" => Some(vec!["self".to_owned()]),
        "owner-id" => one(ACCOUNT),
        "platform" => Some(Vec::new()),
        "root-device-name" => one(ROOT_DEVICE),
        "root-device-type" => one("ebs"),
        "source-instance-id" => maybe(image.source_instance.as_ref()),
        "state" => one(image.state.name()),
        "virtualization-type" => one("hvm"),
        _ => None,
    }
}

fn describe(image: &Image, moment: Moment) -> Vec<Xml> {
    let mut ebs = vec![
        Xml::text("volumeSize", image.volume_gib),
        Xml::text("deleteOnTermination", true),
        Xml::text("volumeType", "gp2"),
        Xml::text("encrypted", false),
    ];
    ebs.extend(Xml::maybe("snapshotId", image.snapshot_id.as_ref()));
    let root = vec![Xml::text("deviceName", ROOT_DEVICE), Xml::node("ebs", ebs)];
    let mut children = vec![
        Xml::text("imageId", &image.image_id),
        Xml::text("imageLocation", format!("{ACCOUNT}/{}", image.name)),
        Xml::text("imageState", image.state.name()),
        Xml::text("imageOwnerId", ACCOUNT),
        Xml::text("creationDate", time(image.created_at)),
        Xml::text("isPublic", is_public(image)),
        Xml::text("architecture", "x86_64"),
        Xml::text("imageType", "machine"),
        Xml::text("name", &image.name),
        Xml::text("platformDetails", "Linux/UNIX"),
        Xml::text("usageOperation", "RunInstances"),
        Xml::text("rootDeviceType", "ebs"),
        Xml::text("rootDeviceName", ROOT_DEVICE),
        Xml::list("blockDeviceMapping", "item", [root]),
        Xml::text("virtualizationType", "hvm"),
        Xml::text("hypervisor", "xen"),
        Xml::text("enaSupport", true),
        Xml::text("bootMode", "legacy-bios"),
        tag_set(image.tags.seen(moment)),
    ];
    children.extend(Xml::maybe("description", image.description.as_ref()));
    children.extend(Xml::maybe("sourceInstanceId", image.source_instance.as_ref()));
    children.extend(image.imds_v2.then(|| Xml::text("imdsSupport", "v2.0")));
    if let (ImageState::Failed, Some(reason)) = (image.state, &image.state_reason) {
        let code = Xml::text("code", "Server.InternalError");
        children.push(Xml::node("stateReason", [code, Xml::text("message", reason)]));
    }
    children
}

/// The record goes at once. The captured root leaves the engine too, unless an instance still needs it to start again.
pub async fn deregister_image(params: &Params, region: &Arc<Region>) -> Answer {
    let image_id = params.require("ImageId")?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    let root = region.change(|world| world.ec2.deregister_image(image_id, moment))?;
    if let Some(root) = root {
        let used = region.read(|world| {
            world.ec2.instances().any(|it| it.root_reference == root && !it.has_machine && !it.state.is_ended())
        });
        if !used && let Err(error) = region.machines.remove_image(&root).await {
            // The image is gone for EC2; what stays is disk space that a reset of the region frees.
            tracing::warn!(image_id, %error, "the image's root could not be removed from the engine");
        }
    }
    done()
}

pub fn describe_image_attribute(params: &Params, region: &Arc<Region>) -> Answer {
    let image_id = params.require("ImageId")?;
    let attribute = params.require("Attribute")?;
    let moment = region.moment();
    region.read(|world| {
        let image = world.ec2.find_image(image_id, moment)?;
        let found = match attribute {
            "launchPermission" => {
                let items = image.launch_permissions.iter().map(|permission| match permission {
                    LaunchPermission::User(account) => vec![Xml::text("userId", account)],
                    LaunchPermission::Group(group) => vec![Xml::text("group", group)],
                });
                Xml::list("launchPermission", "item", items)
            }
            "description" => {
                Xml::node("description", [Xml::text("value", image.description.as_deref().unwrap_or_default())])
            }
            other => return Err(ApiError::unsupported(&format!("the image attribute {other}"))),
        };
        Ok(vec![Xml::text("imageId", image_id), found])
    })
}

pub fn modify_image_attribute(params: &Params, region: &Arc<Region>) -> Answer {
    let image_id = params.require("ImageId")?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    let description = params
        .get("Description.Value")
        .or_else(|| params.get("Value").filter(|_| params.get("Attribute") == Some("description")));
    let (add, remove) = (permissions(params, "Add")?, permissions(params, "Remove")?);
    if description.is_none() && add.is_empty() && remove.is_empty() {
        return Err(ApiError::unsupported("ModifyImageAttribute for anything but launchPermission and description"));
    }
    region.change(|world| {
        if let Some(text) = description {
            world.ec2.describe_image_as(image_id, text, moment)?;
        }
        world.ec2.change_launch_permissions(image_id, add, &remove, moment)
    })?;
    done()
}

/// Launch permissions in either of the two forms that EC2 takes.
fn permissions(params: &Params, operation: &str) -> Result<Vec<LaunchPermission>, ApiError> {
    let mut found = Vec::new();
    for prefix in params.groups(&format!("LaunchPermission.{operation}")) {
        let user = params.get(&format!("{prefix}.UserId")).map(|id| LaunchPermission::User(id.to_owned()));
        let group = params.get(&format!("{prefix}.Group")).map(|name| LaunchPermission::Group(name.to_owned()));
        found.push(user.or(group).ok_or_else(|| ApiError::missing(&format!("{prefix}.UserId")))?);
    }
    if params.get("OperationType") == Some(operation.to_lowercase().as_str()) {
        found.extend(params.list("UserId").into_iter().map(|id| LaunchPermission::User(id.to_owned())));
        found.extend(params.list("UserGroup").into_iter().map(|name| LaunchPermission::Group(name.to_owned())));
    }
    Ok(found)
}
