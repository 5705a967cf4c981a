//! The actions on tags.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Answer, ApiError, Params, Xml, change,
    input::{invalid, tags, texts},
};
use crate::{region::Region, state::elbv2::Refusal};

/// Most resources that DescribeTags takes (ELBv2 API reference).
const MOST_RESOURCES: usize = 20;

fn resources(params: &Params) -> Result<Vec<String>, ApiError> {
    let arns = texts(params, "ResourceArns");
    if arns.is_empty() || arns.len() > MOST_RESOURCES {
        return Err(invalid(format!("Between 1 and {MOST_RESOURCES} resource ARNs must be specified")));
    }
    Ok(arns)
}

pub fn add(params: &Params, region: &Arc<Region>) -> Answer {
    let new = tags(params)?;
    let arns = resources(params)?;
    change_all(region, &arns, |tags| tags.extend(new.clone()))
}

pub fn remove(params: &Params, region: &Arc<Region>) -> Answer {
    let keys = texts(params, "TagKeys");
    let arns = resources(params)?;
    change_all(region, &arns, |tags| tags.retain(|key, _| !keys.contains(key)))
}

/// Changes the tags of all resources, or of none.
fn change_all(region: &Arc<Region>, arns: &[String], edit: impl Fn(&mut BTreeMap<String, String>)) -> Answer {
    change(region, |world, _| {
        let mut changed = world.elbv2.clone();
        for arn in arns {
            changed.change_tags(arn, &edit)?;
        }
        world.elbv2 = changed;
        Ok(())
    })?;
    Ok(Vec::new())
}

pub fn describe(params: &Params, region: &Arc<Region>) -> Answer {
    let arns = resources(params)?;
    let described = region.read(|world| -> Result<Vec<Vec<Xml>>, Refusal> {
        arns.iter()
            .map(|arn| {
                let tags = world.elbv2.tags(arn)?.iter();
                let tags = tags.map(|(key, value)| vec![Xml::text("Key", key), Xml::text("Value", value)]);
                Ok(vec![Xml::text("ResourceArn", arn), Xml::list("Tags", "member", tags)])
            })
            .collect()
    })?;
    Ok(vec![Xml::list("TagDescriptions", "member", described)])
}
