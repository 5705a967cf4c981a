//! Volumes, as records.

use std::sync::Arc;

use super::{
    Answer, done,
    filter::{Filters, maybe, one},
    page::page,
    refuse_dry_run,
    tags::tag_set,
    time,
};
use crate::{
    region::Region,
    state::ec2::Volume,
    wire::{Params, Xml},
};

pub fn describe_volumes(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let named = params.list("VolumeId");
    region.read(|world| {
        for id in &named {
            world.ec2.find_volume(id, moment)?;
        }
        let candidates = world
            .ec2
            .volumes()
            .filter(|volume| moment.sees(volume.created_at))
            .filter(|volume| named.is_empty() || named.contains(&volume.volume_id.as_str()));
        let chosen = Filters::of(params).select(candidates, |volume| volume.tags.seen(moment), filter_values)?;
        let (volumes, next) = page(params, chosen, |volume| &volume.volume_id)?;
        let items = volumes.into_iter().map(|volume| {
            let attachments = volume.attachment.iter().map(|attachment| {
                vec![
                    Xml::text("volumeId", &volume.volume_id),
                    Xml::text("instanceId", &attachment.instance_id),
                    Xml::text("device", &attachment.device),
                    Xml::text("status", "attached"),
                    Xml::text("attachTime", time(attachment.attached_at)),
                    Xml::text("deleteOnTermination", attachment.delete_on_termination),
                ]
            });
            vec![
                Xml::text("volumeId", &volume.volume_id),
                Xml::text("size", volume.size_gib),
                Xml::text("snapshotId", volume.snapshot_id.as_deref().unwrap_or_default()),
                Xml::text("availabilityZone", &volume.availability_zone),
                Xml::text("status", volume.state()),
                Xml::text("createTime", time(volume.created_at)),
                Xml::list("attachmentSet", "item", attachments),
                Xml::text("volumeType", &volume.volume_type),
                Xml::text("encrypted", volume.encrypted),
                Xml::text("multiAttachEnabled", false),
                tag_set(volume.tags.seen(moment)),
            ]
        });
        let mut answer = vec![Xml::list("volumeSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

fn filter_values(volume: &Volume, name: &str) -> Option<Vec<String>> {
    let attachment = volume.attachment.as_ref();
    match name {
        "attachment.delete-on-termination" => maybe(attachment.map(|it| it.delete_on_termination)),
        "attachment.device" => maybe(attachment.map(|it| &it.device)),
        "attachment.instance-id" => maybe(attachment.map(|it| &it.instance_id)),
        "attachment.status" => maybe(attachment.map(|_| "attached")),
        "availability-zone" => one(&volume.availability_zone),
        "encrypted" => one(volume.encrypted),
        "size" => one(volume.size_gib),
        "snapshot-id" => maybe(volume.snapshot_id.as_ref()),
        "status" => one(volume.state()),
        "volume-id" => one(&volume.volume_id),
        "volume-type" => one(&volume.volume_type),
        _ => None,
    }
}

pub fn delete_volume(params: &Params, region: &Arc<Region>) -> Answer {
    let volume_id = params.require("VolumeId")?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    region.change(|world| world.ec2.delete_volume(volume_id, moment))?;
    done()
}
