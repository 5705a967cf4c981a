//! Tags: `TagSpecification.N`, `tagSet`, and the three actions on tags alone.

use std::sync::Arc;

use super::{
    Answer, done,
    filter::{Filters, one},
    page::page,
    refuse_dry_run,
};
use crate::{
    region::Region,
    state::ec2::{Tags, tagging},
    wire::{ApiError, Params, Xml},
};

/// `<tagSet>` of a resource.
pub fn tag_set(tags: &Tags) -> Xml {
    Xml::list("tagSet", "item", tags.iter().map(|(key, value)| vec![Xml::text("key", key), Xml::text("value", value)]))
}

/// The tags that a creating call brings for one kind of resource.
///
/// # Errors
/// A specification for a kind that the call does not make, or tags that break the rules.
pub fn specified(params: &Params, kind: &str, kinds: &[&str]) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for prefix in params.groups("TagSpecification") {
        let named = params.require(&format!("{prefix}.ResourceType"))?;
        if !kinds.contains(&named) {
            return Err(ApiError::bad(
                "InvalidParameterValue",
                format!("'{named}' is not a valid taggable resource type for this operation."),
            ));
        }
        if named == kind {
            tags.extend(pairs(params, &format!("{prefix}.Tag"))?);
        }
    }
    tagging::check(&tags)?;
    Ok(tags)
}

fn pairs(params: &Params, name: &str) -> Result<Tags, ApiError> {
    params
        .groups(name)
        .into_iter()
        .map(|prefix| {
            let key = params.require(&format!("{prefix}.Key"))?.to_owned();
            Ok((key, params.get(&format!("{prefix}.Value")).unwrap_or_default().to_owned()))
        })
        .collect()
}

pub fn create_tags(params: &Params, region: &Arc<Region>) -> Answer {
    refuse_dry_run(params)?;
    let ids = params.list("ResourceId");
    let tags = pairs(params, "Tag")?;
    if ids.is_empty() || tags.is_empty() {
        return Err(ApiError::missing(if ids.is_empty() { "ResourceId" } else { "Tag" }));
    }
    tagging::check(&tags)?;
    let moment = region.moment();
    region.change(|world| {
        world.ec2.change_tags(&ids, moment, |current| {
            current.extend(tags.iter().map(|(key, value)| (key.clone(), value.clone())));
        })
    })?;
    done()
}

/// Without `Tag.N` all tags leave; with a value given, only where it is the tag's value.
pub fn delete_tags(params: &Params, region: &Arc<Region>) -> Answer {
    refuse_dry_run(params)?;
    let ids = params.list("ResourceId");
    if ids.is_empty() {
        return Err(ApiError::missing("ResourceId"));
    }
    let mut leaving = Vec::new();
    for prefix in params.groups("Tag") {
        let key = params.require(&format!("{prefix}.Key"))?.to_owned();
        leaving.push((key, params.get(&format!("{prefix}.Value")).map(str::to_owned)));
    }
    let moment = region.moment();
    region.change(|world| {
        world.ec2.change_tags(&ids, moment, |current| {
            if leaving.is_empty() {
                current.clear();
            }
            for (key, value) in &leaving {
                if value.is_none() || current.get(key) == value.as_ref() {
                    current.remove(key);
                }
            }
        })
    })?;
    done()
}

pub fn describe_tags(params: &Params, region: &Arc<Region>) -> Answer {
    let filters = Filters::of(params);
    let moment = region.moment();
    let all = region.read(|world| world.ec2.all_tags(moment));
    let mut rows: Vec<(String, [String; 4])> = Vec::new();
    for (id, kind, tags) in all {
        for (key, value) in &tags {
            let only = Tags::from([(key.clone(), value.clone())]);
            let admitted = filters.admit(&only, |name| match name {
                "resource-id" => one(&id),
                "resource-type" => one(kind),
                "key" => one(key),
                "value" => one(value),
                _ => None,
            })?;
            if admitted {
                rows.push((format!("{id}/{key}"), [id.clone(), kind.to_owned(), key.clone(), value.clone()]));
            }
        }
    }
    let (rows, next) = page(params, rows.iter().collect(), |row| row.0.as_str())?;
    let items = rows.into_iter().map(|(_, [id, kind, key, value])| {
        vec![
            Xml::text("resourceId", id),
            Xml::text("resourceType", kind),
            Xml::text("key", key),
            Xml::text("value", value),
        ]
    });
    let mut answer = vec![Xml::list("tagSet", "item", items)];
    answer.extend(next);
    Ok(answer)
}
