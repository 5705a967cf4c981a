//! Fleets, read from target groups, tags and instances: the cloud is the state.

use std::collections::{BTreeMap, BTreeSet};

use alcedo_pipeline::version::Version;
use aws_sdk_ec2::types::Filter;
use aws_sdk_elasticloadbalancingv2::types::TargetGroup;
use serde::Serialize;

use super::{Balancer, Fleet, Use};
use crate::{
    cloud_error::CloudError,
    listener::{Routing, group_name},
    parts::Parts,
    site::Site,
    tags::{self, Tags},
};

/// DescribeTags takes at most this many resources (ELBv2 API reference).
const TAGS_AT_ONCE: usize = 20;

/// The version and the run that servers are of.
type Owner = (String, Option<String>);

/// Every fleet of the site's app and environment, oldest version first.
pub async fn fleets(site: &Site, balancer: Option<&Balancer>) -> Result<Vec<Fleet>, CloudError> {
    of_environment(site, tagged(site, balancer).await?, balancer).await
}

/// The same, and beside it the versions that fleets of the app's *other* environments have or would go back to: images
/// and artifacts belong to all of them.
pub(super) async fn fleets_and_others(
    site: &Site,
    balancer: &Balancer,
) -> Result<(Vec<Fleet>, Vec<Version>), CloudError> {
    let tagged = tagged(site, Some(balancer)).await?;
    let mut others: Vec<Version> = tagged
        .groups
        .values()
        .filter(|tags| tags.get(tags::ENVIRONMENT) != Some(&site.environment))
        .flat_map(|tags| [tags.get(tags::VERSION), tags.get(tags::REPLACES)])
        .filter_map(|version| version?.parse().ok())
        .collect();
    others.sort();
    others.dedup();
    Ok((of_environment(site, tagged, Some(balancer)).await?, others))
}

/// A fleet of another environment of the app, as its tags tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Elsewhere {
    pub version: Version,
    pub environment: String,
    /// Whether it waits behind the flip that replaced it; otherwise it is in service there, or a run is about to bring it there.
    pub held: bool,
}

/// Every fleet of the site's app and environment, oldest version first, and beside it those of the app's other
/// environments in the same account and region.
pub async fn everywhere(site: &Site, balancer: &Balancer) -> Result<(Vec<Fleet>, Vec<Elsewhere>), CloudError> {
    let tagged = tagged(site, Some(balancer)).await?;
    let others = tagged.groups.values().filter(|tags| tags.get(tags::ENVIRONMENT) != Some(&site.environment));
    let elsewhere = others.filter_map(|tags| {
        Some(Elsewhere {
            version: tags.get(tags::VERSION)?.parse().ok()?,
            environment: tags.get(tags::ENVIRONMENT)?.to_owned(),
            held: tags.get(tags::HELD_UNTIL).is_some(),
        })
    });
    let mut elsewhere: Vec<Elsewhere> = elsewhere.collect();
    elsewhere.sort();
    Ok((of_environment(site, tagged, Some(balancer)).await?, elsewhere))
}

/// The fleets that the listener or a rule of it names, without their servers, which the balancer knows as well: two calls
/// less, for whoever only wants to see. A target group that nothing refers to yet is not among them.
pub async fn reachable(site: &Site, balancer: &Balancer) -> Result<Vec<Fleet>, CloudError> {
    let named: BTreeSet<&str> =
        balancer.uses.iter().flat_map(|it| it.target_groups.iter().map(String::as_str)).collect();
    let prefix = prefix(site);
    let ours = named.into_iter().filter(|arn| group_name(arn).starts_with(&prefix)).map(str::to_owned).collect();
    Ok(assemble(site, tagged_of(site, ours, Some(balancer)).await?, Some(balancer), &BTreeMap::new()))
}

async fn of_environment(site: &Site, tagged: Tagged, balancer: Option<&Balancer>) -> Result<Vec<Fleet>, CloudError> {
    Ok(assemble(site, tagged, balancer, &instances(site).await?))
}

fn assemble(
    site: &Site,
    tagged: Tagged,
    balancer: Option<&Balancer>,
    instances: &BTreeMap<Owner, Vec<String>>,
) -> Vec<Fleet> {
    let nothing = Routing::Forward { groups: Vec::new(), sticky_seconds: None };
    let listener = balancer.map_or((&nothing, [].as_slice()), |balancer| (&balancer.routing, &balancer.uses));
    of_tags(site, tagged, listener, instances)
}

fn of_tags(
    site: &Site,
    Tagged { groups, rules: ours }: Tagged,
    (routing, uses): (&Routing, &[Use]),
    instances: &BTreeMap<Owner, Vec<String>>,
) -> Vec<Fleet> {
    let weights = match routing {
        Routing::Forward { groups, .. } => groups.as_slice(),
        _ => &[],
    };
    let mut fleets: Vec<Fleet> = groups
        .into_iter()
        .filter(|(_, tags)| tags.get(tags::ENVIRONMENT) == Some(&site.environment))
        .filter_map(|(arn, tags)| {
            let version = tags.get(tags::VERSION)?.parse().ok()?;
            let run = tags.get(tags::RUN).map(str::to_owned);
            // A rule that somebody else made for our group is theirs, whatever it does.
            let rule = uses.iter().find(|rule| rule.target_groups == [arn.as_str()] && ours.contains(&rule.arn));
            Some(Fleet {
                version,
                commit: tags.get(tags::COMMIT).map(str::to_owned),
                name: group_name(&arn).to_owned(),
                instances: instances
                    .get(&(tags.get(tags::VERSION)?.to_owned(), run.clone()))
                    .cloned()
                    .unwrap_or_default(),
                preview_rule: rule.map(|rule| rule.arn.clone()),
                weight: weights.iter().filter(|group| group.target_group == arn).map(|group| group.weight).sum(),
                replaces: tags.get(tags::REPLACES).and_then(|version| version.parse().ok()),
                held_since: tags.get(tags::HELD_SINCE).and_then(|time| time.parse().ok()),
                held_until: tags.get(tags::HELD_UNTIL).and_then(|time| time.parse().ok()),
                run,
                launched_with: tags.get(tags::LAUNCHED_WITH).map(Parts::read),
                target_group: arn,
            })
        })
        .collect();
    fleets.sort_by(|a, b| a.version.cmp(&b.version).then_with(|| a.run.cmp(&b.run)));
    fleets
}

/// The fleets of some target groups, without their servers and preview rules, as the production listener weighs them.
pub(super) fn with_weights(site: &Site, tagged: Tagged, routing: &Routing) -> Vec<Fleet> {
    of_tags(site, tagged, (routing, &[]), &BTreeMap::new())
}

/// What carries this app's tag, whatever its environment.
pub(super) struct Tagged {
    /// Target groups, with their tags.
    pub groups: BTreeMap<String, Tags>,
    /// Listener rules that send to one group alone.
    rules: BTreeSet<String>,
}

pub(super) async fn tagged(site: &Site, balancer: Option<&Balancer>) -> Result<Tagged, CloudError> {
    let prefix = prefix(site);
    let mut pages = site.clients.elb.describe_target_groups().into_paginator().send();
    let mut arns = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("list target groups", error))?;
        let ours = page.target_groups().iter().filter(|group| named_like(group, &prefix));
        arns.extend(ours.filter_map(|group| group.target_group_arn().map(str::to_owned)));
    }
    tagged_of(site, arns, balancer).await
}

/// Which of these target groups, and of the rules that send to one of them alone, carry this app's tag: asked for together.
async fn tagged_of(site: &Site, groups: Vec<String>, balancer: Option<&Balancer>) -> Result<Tagged, CloudError> {
    let uses = balancer.map(|balancer| balancer.uses.as_slice()).unwrap_or_default().iter();
    let rules = uses.filter(|it| it.arn.contains(":listener-rule/"));
    let to_one_of_them = rules.filter(|rule| matches!(rule.target_groups.as_slice(), [one] if groups.contains(one)));
    let rules: BTreeSet<String> = to_one_of_them.map(|rule| rule.arn.clone()).collect();
    let mut found = tags_of(site, groups.into_iter().chain(rules.iter().cloned()).collect()).await?;
    let rules = rules.into_iter().filter(|arn| found.remove(arn).is_some()).collect();
    Ok(Tagged { groups: found, rules })
}

/// The tags of what carries this app's.
async fn tags_of(site: &Site, arns: Vec<String>) -> Result<BTreeMap<String, Tags>, CloudError> {
    let mut found = BTreeMap::new();
    for chunk in arns.chunks(TAGS_AT_ONCE) {
        let call = site.clients.elb.describe_tags().set_resource_arns(Some(chunk.to_vec()));
        let answer =
            call.send().await.map_err(|error| CloudError::of("read the tags of target groups and rules", error))?;
        for description in answer.tag_descriptions() {
            let tags = Tags::from_elb(description.tags());
            let ours = tags.get(tags::APP) == Some(&site.pipeline.app);
            if let (true, Some(arn)) = (ours, description.resource_arn()) {
                found.insert(arn.to_owned(), tags);
            }
        }
    }
    Ok(found)
}

/// What the names of the app's target groups begin with.
fn prefix(site: &Site) -> String {
    format!("{}-", site.pipeline.app)
}

fn named_like(group: &TargetGroup, prefix: &str) -> bool {
    group.target_group_name().is_some_and(|name| name.starts_with(prefix))
}

/// States of a server that is not ending. One that is stopped is its fleet's all the same: it can be started again.
const ALIVE: [&str; 4] = ["pending", "running", "stopping", "stopped"];

/// The app's servers that are not ending, by version and run.
async fn instances(site: &Site) -> Result<BTreeMap<Owner, Vec<String>>, CloudError> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let call = site
        .clients
        .ec2
        .describe_instances()
        .filters(filter(&format!("tag:{}", tags::APP), &site.pipeline.app))
        .filters(filter(&format!("tag:{}", tags::ENVIRONMENT), &site.environment))
        .filters(filter(&format!("tag:{}", tags::STEP), crate::launch::INSTANCES))
        .filters(
            Filter::builder().name("instance-state-name").set_values(Some(ALIVE.map(str::to_owned).to_vec())).build(),
        );
    let mut pages = call.into_paginator().send();
    let mut found: BTreeMap<Owner, Vec<String>> = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("list the app's servers", error))?;
        for instance in page.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances) {
            let tags = Tags::from_ec2(instance.tags());
            let key = (tags.get(tags::VERSION).unwrap_or_default().to_owned(), tags.get(tags::RUN).map(str::to_owned));
            found.entry(key).or_default().push(instance.instance_id().unwrap_or_default().to_owned());
        }
    }
    found.values_mut().for_each(|ids| ids.sort());
    Ok(found)
}
