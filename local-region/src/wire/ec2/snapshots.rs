//! Snapshots, as records: an image's root is kept by the engine.

use std::sync::Arc;

use super::{
    Answer, done,
    filter::{Filters, one},
    page::page,
    refuse_dry_run,
    tags::{specified, tag_set},
    time,
};
use crate::{
    region::Region,
    state::ec2::{Moment, Snapshot, image::ACCOUNT, volume::SnapshotState},
    wire::{Params, Xml},
};

fn describe(snapshot: &Snapshot, moment: Moment) -> Vec<Xml> {
    let progress = if snapshot.state == SnapshotState::Completed { "100%" } else { "0%" };
    vec![
        Xml::text("snapshotId", &snapshot.snapshot_id),
        Xml::text("volumeId", &snapshot.volume_id),
        Xml::text("status", snapshot.state_name()),
        Xml::text("startTime", time(snapshot.started_at)),
        Xml::text("progress", progress),
        Xml::text("ownerId", ACCOUNT),
        Xml::text("volumeSize", snapshot.size_gib),
        Xml::text("description", &snapshot.description),
        Xml::text("encrypted", false),
        tag_set(snapshot.tags.seen(moment)),
    ]
}

pub fn create_snapshot(params: &Params, region: &Arc<Region>) -> Answer {
    let volume_id = params.require("VolumeId")?;
    let description = params.get("Description").unwrap_or_default();
    let tags = specified(params, "snapshot", &["snapshot"])?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    let snapshot_id = region.change(|world| world.ec2.create_snapshot(volume_id, description, tags, moment))?;
    Ok(region.read(|world| {
        let made = world.ec2.snapshots().find(|snapshot| snapshot.snapshot_id == snapshot_id);
        made.map(|snapshot| describe(snapshot, moment)).unwrap_or_default()
    }))
}

pub fn describe_snapshots(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let named = params.list("SnapshotId");
    let owners = params.list("Owner");
    region.read(|world| {
        for id in &named {
            world.ec2.find_snapshot(id, moment)?;
        }
        let owned = owners.is_empty() || owners.iter().any(|owner| *owner == "self" || *owner == ACCOUNT);
        let candidates = world
            .ec2
            .snapshots()
            .filter(|snapshot| owned && moment.sees(snapshot.started_at))
            .filter(|snapshot| named.is_empty() || named.contains(&snapshot.snapshot_id.as_str()));
        let values = |snapshot: &Snapshot, name: &str| match name {
            "description" => one(&snapshot.description),
            "encrypted" => one(false),
            "owner-id" => one(ACCOUNT),
            "snapshot-id" => one(&snapshot.snapshot_id),
            "start-time" => one(time(snapshot.started_at)),
            "status" => one(snapshot.state_name()),
            "volume-id" => one(&snapshot.volume_id),
            "volume-size" => one(snapshot.size_gib),
            _ => None,
        };
        let chosen = Filters::of(params).select(candidates, |snapshot| snapshot.tags.seen(moment), values)?;
        let (snapshots, next) = page(params, chosen, |snapshot| &snapshot.snapshot_id)?;
        let items = snapshots.into_iter().map(|snapshot| describe(snapshot, moment));
        let mut answer = vec![Xml::list("snapshotSet", "item", items)];
        answer.extend(next);
        Ok(answer)
    })
}

pub fn delete_snapshot(params: &Params, region: &Arc<Region>) -> Answer {
    let snapshot_id = params.require("SnapshotId")?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    region.change(|world| world.ec2.delete_snapshot(snapshot_id, moment))?;
    done()
}
