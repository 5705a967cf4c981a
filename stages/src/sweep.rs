//! Ends what a run that died has left open: its SSH ingress and its builder.
//!
//! **Assumption.** The caller holds the environment's lock, so no other run of this app and environment is alive, and
//! what carries its tags with a step that only a running bake or smoke test needs is left over. **Caveat.** Fleets, images
//! and artifacts of a run that died are not looked at here.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Filter, InstanceStateName, Reservation};

use crate::{
    bake,
    cloud_error::CloudError,
    facts::{self, FactsError},
    site::Site,
    tags::{self, Tags},
};

/// Steps whose instances are leases.
const LEASED_INSTANCES: &str = bake::BUILDER;

/// Ends the leases and says what they were.
pub async fn leases(site: &Site) -> Result<Vec<String>, FactsError> {
    let mut ended = rules(site).await?;
    ended.extend(builders(site).await?);
    Ok(ended)
}

/// Whatever of ours is open in the groups that the file names. Only ingress steps make rules with these tags.
async fn rules(site: &Site) -> Result<Vec<String>, FactsError> {
    let groups: BTreeSet<String> = facts::security_groups(site).await?.into_iter().collect();
    let ec2 = &site.clients.ec2;
    let mut ended = Vec::new();
    for group in groups {
        let filter = Filter::builder().name("group-id").values(&group).build();
        let mut pages = ec2.describe_security_group_rules().filters(filter).into_paginator().send();
        let mut ours = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| CloudError::of(format!("read the rules of {group}"), error))?;
            for rule in page.security_group_rules().iter().filter(|rule| is_ours(site, &Tags::from_ec2(rule.tags()))) {
                let port = rule.from_port().unwrap_or_default();
                let source = rule.cidr_ipv4().unwrap_or_default();
                ended.push(format!("closed port {port} of {group} for {source}, which a run that died had left open"));
                ours.extend(rule.security_group_rule_id().map(str::to_owned));
            }
        }
        if !ours.is_empty() {
            let call = ec2.revoke_security_group_ingress().group_id(&group).set_security_group_rule_ids(Some(ours));
            call.send().await.map_err(|error| CloudError::of(format!("close what is open in {group}"), error))?;
        }
    }
    Ok(ended)
}

async fn builders(site: &Site) -> Result<Vec<String>, CloudError> {
    let ec2 = &site.clients.ec2;
    let filter = |name: &str, value: &str| Filter::builder().name(format!("tag:{name}")).values(value).build();
    let call = ec2
        .describe_instances()
        .filters(filter(tags::APP, &site.pipeline.app))
        .filters(filter(tags::ENVIRONMENT, &site.environment))
        .filters(filter(tags::STEP, LEASED_INSTANCES));
    let mut pages = call.into_paginator().send();
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("look for builders", error))?;
        let alive = page.reservations().iter().flat_map(Reservation::instances).filter(|it| {
            let state = it.state().and_then(|state| state.name());
            !matches!(state, Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown))
        });
        ids.extend(alive.filter_map(|it| it.instance_id().map(str::to_owned)));
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ended = ids.iter().map(|id| format!("terminated {id}, a builder that a run that died had left")).collect();
    let call = ec2.terminate_instances().set_instance_ids(Some(ids));
    call.send().await.map_err(|error| CloudError::of("terminate the builders", error))?;
    Ok(ended)
}

fn is_ours(site: &Site, tags: &Tags) -> bool {
    tags.get(tags::APP) == Some(&site.pipeline.app)
        && tags.get(tags::ENVIRONMENT) == Some(&site.environment)
        && tags.get(tags::RUN).is_some()
}
