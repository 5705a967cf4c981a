//! What servers are launched from, and whether these credentials may launch them.

use std::net::Ipv4Addr;

use alcedo_pipeline::{file::Pipeline, ids::RunId, version::Version};
use aws_sdk_ec2::types::{ImageState, IpPermission, IpRange, ResourceType};

use super::{Complaints, Finding, network::Places};
use crate::{
    cloud_error::{self, CloudError},
    facts::{self, BaseImage},
    servers::Launch,
    site::Site,
    tags::Tags,
};

/// The key pair that `launch.key` names.
pub(super) async fn key(site: &Site) -> Option<Finding> {
    let name = site.pipeline.launch.key.as_ref()?;
    Some(match site.clients.ec2.describe_key_pairs().key_names(name).send().await {
        Ok(_) => Finding::good("key pair", name),
        Err(error) => {
            let error = CloudError::of(format!("look for the key pair {name}"), error);
            match error.is("InvalidKeyPair.NotFound") {
                true => Finding::bad(
                    "key pair",
                    format!("there is no key pair {name}"),
                    vec![format!(
                        "import it (`aws ec2 import-key-pair --key-name {name} …`), or name another under launch.key"
                    )],
                ),
                false => Finding::of_cloud("key pair", site, &error),
            }
        }
    })
}

/// Whether the base image can be launched from.
pub(super) async fn base(site: &Site, base: BaseImage) -> (Finding, Option<BaseImage>) {
    let answer = site.clients.ec2.describe_images().image_ids(&base.ami).send().await;
    let image = match answer {
        Ok(answer) => answer.images().first().cloned(),
        Err(error) => {
            let error = CloudError::of(format!("look at the base image {}", base.ami), error);
            return (Finding::of_cloud("base image", site, &error), None);
        }
    };
    let shown = format!("{} ({})", base.name, base.ami);
    match image.as_ref().and_then(|image| image.state()) {
        Some(ImageState::Available) => (Finding::good("base image", shown), Some(base)),
        Some(ImageState::Pending) => {
            let fix = "wait until it is available, or name another under bake.base".to_owned();
            (Finding::bad("base image", format!("{shown} is still being made"), vec![fix]), None)
        }
        state => {
            let state = state.map_or("gone", |state| state.as_str());
            let fix = "name an image that is available under bake.base".to_owned();
            (Finding::bad("base image", format!("{shown} is {state}"), vec![fix]), None)
        }
    }
}

/// Whether EC2 would do what a deploy asks of it, by calls that are made for show (`DryRun`). The other services have no such
/// calls: what they would refuse shows when it is done.
pub(super) async fn permissions(
    site: &Site,
    places: Option<&Places>,
    base: Option<&BaseImage>,
    address: Option<Ipv4Addr>,
) -> Option<Finding> {
    let (places, base) = (places?, base?);
    let Pipeline { bake, launch, .. } = site.pipeline.as_ref();
    let run = RunId::new(site.now(), (site.random() & 0xffff) as u16);
    let tags =
        |step: &str| Tags::of(&site.pipeline.app, &site.environment, Version::at(site.now()), &run, &step.into());
    let mut complaints = Complaints::default();
    // A server's image is the app's, where one has been baked.
    let images = facts::app_images(site).await.unwrap_or_default();
    let image = images.iter().find(|image| image.available).map_or(&base.ami, |image| &image.ami);
    let server = Launch {
        image,
        count: launch.count,
        instance_type: &launch.instance_type,
        subnet: &places.subnet,
        security_groups: &places.groups,
        instance_profile: launch.instance_profile.as_deref(),
        key: launch.key.as_deref(),
        user_data: None,
        name: site.pipeline.app.clone(),
        tags: tags(crate::launch::INSTANCES),
        token: format!("{run}-doctor-servers"),
    };
    if let Err(error) = server.rehearse(&site.clients).await {
        let mut named = format!("launch.instance_type ({})", launch.instance_type);
        if let Some(profile) = &launch.instance_profile {
            named.push_str(&format!(" and launch.instance_profile ({profile})"));
        }
        complain(site, "servers could not be launched", &error, &named, &mut complaints);
    }
    let group = [places.builder_group.clone()];
    let builder = Launch {
        image: &base.ami,
        count: 1,
        instance_type: &bake.instance_type,
        subnet: &places.builder_subnet,
        security_groups: &group,
        instance_profile: None,
        key: None,
        user_data: None,
        name: format!("{}-builder", site.pipeline.app),
        tags: tags(crate::bake::BUILDER),
        token: format!("{run}-doctor-builder"),
    };
    if let Err(error) = builder.rehearse(&site.clients).await {
        let named = format!("bake.instance_type ({})", bake.instance_type);
        complain(site, "a builder could not be launched", &error, &named, &mut complaints);
    }
    if let Err(error) = open_ssh(site, &places.builder_group, address, &tags("bake/ingress")).await {
        let named = format!("bake.security_group ({})", bake.security_group);
        complain(site, "SSH could not be opened", &error, &named, &mut complaints);
    }
    Some(complaints.finding("permissions", "to launch servers and builders, and to open SSH; nothing was changed"))
}

fn complain(site: &Site, what: &str, error: &CloudError, named: &str, complaints: &mut Complaints) {
    let detail = format!("{what}: {error}");
    match error.is_refused() {
        true => complaints.bad(
            detail,
            format!("allow it: `alcedo iam-policy --env {}` prints everything that a deploy needs", site.environment),
        ),
        false => {
            complaints.bad(detail, cloud_error::hint(error).map_or_else(|| format!("check {named}"), str::to_owned))
        }
    }
}

/// Asks whether a port could be opened for this machine, and opens none. Where its address is not known, for one that is
/// nobody's (RFC 5737): it is only asked for.
async fn open_ssh(site: &Site, group: &str, address: Option<Ipv4Addr>, tags: &Tags) -> Result<(), CloudError> {
    let address = address.unwrap_or(Ipv4Addr::new(192, 0, 2, 1));
    let port = i32::from(site.pipeline.bake.ssh_port);
    let range = IpRange::builder().cidr_ip(format!("{address}/32")).build();
    let permission = IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port).ip_ranges(range).build();
    let call = site.clients.ec2.authorize_security_group_ingress().group_id(group).ip_permissions(permission);
    let call = call.tag_specifications(tags.specification(ResourceType::SecurityGroupRule)).dry_run(true);
    let answer = call.send().await;
    cloud_error::would_have_been_done(answer.map_err(|error| CloudError::of(format!("open port {port}"), error)))
}
