//! Ends what a run that died has left: its SSH ingress, its builder, its half-made fleet, its
//! ephemeral key.
//!
//! **Assumption.** The caller holds the environment's lock, so no other run of this app and environment is alive, and
//! what carries its tags with a step that only a running bake or smoke test needs is left over. **Guarantees.** A fleet is
//! ended only where it has no traffic, is not held, and is not the one that the fleet in service has replaced.
//! **Caveat.** Images and artifacts of a run that died are not looked at here.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Filter, InstanceStateName, Reservation};

use crate::{
    bake,
    cloud_error::CloudError,
    facts::{self, FactsError, Fleet},
    retire::DeleteGroup,
    site::Site,
    tags::{self, Tags},
};

/// Steps whose instances are leases.
const LEASED_INSTANCES: &str = bake::BUILDER;

/// Ends the leases and says what they were.
pub async fn leases(site: &Site) -> Result<Vec<String>, FactsError> {
    let mut ended = rules(site).await?;
    ended.extend(builders(site).await?);
    ended.extend(fleets(site).await?);
    ended.extend(keys(site).await?);
    Ok(ended)
}

/// Fleets that a run had begun and nobody uses. Their preview rules would answer in the place of the next candidate's.
async fn fleets(site: &Site) -> Result<Vec<String>, FactsError> {
    let balancer = facts::balancer(site).await?;
    let fleets = facts::fleets(site, Some(&balancer)).await?;
    let reserve = facts::version_before(&fleets);
    // A listener that has another group than ours says nothing of which fleet is whose reserve.
    let left: Vec<&Fleet> = fleets
        .iter()
        .filter(|fleet| !fleet.is_in_service() && !fleet.is_held() && Some(fleet.version) != reserve)
        .filter(|fleet| !balancer.routing.named().contains(&fleet.target_group.as_str()))
        .collect();
    let mut ended = Vec::new();
    for fleet in left {
        let (version, servers) = (fleet.version, fleet.instances.len());
        if !fleet.instances.is_empty() {
            let call = site.clients.ec2.terminate_instances().set_instance_ids(Some(fleet.instances.clone()));
            call.send().await.map_err(|error| CloudError::of(format!("terminate the servers of {version}"), error))?;
        }
        let delete = DeleteGroup {
            target_group: fleet.target_group.clone(),
            preview_rule: fleet.preview_rule.clone(),
            preview_listener: balancer.preview_listener.as_ref().map(|(arn, _)| arn.clone()),
            place: balancer.place.clone(),
        };
        delete.run(&site.clients).await?;
        ended.push(format!("removed the fleet of {version} ({servers} servers), which a run that died had left"));
    }
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

/// Key pairs whose private half has gone with the process that made it.
async fn keys(site: &Site) -> Result<Vec<String>, CloudError> {
    let found = site.clients.ec2.describe_key_pairs().send().await;
    let found = found.map_err(|error| CloudError::of("look for ephemeral keys", error))?;
    let mut ended = Vec::new();
    for key in found.key_pairs().iter().filter(|key| is_ours(site, &Tags::from_ec2(key.tags()))) {
        let name = key.key_name().unwrap_or_default();
        let call = site.clients.ec2.delete_key_pair().key_name(name);
        call.send().await.map_err(|error| CloudError::of(format!("delete the key pair {name}"), error))?;
        ended.push(format!("deleted the ephemeral key {name}, which a run that died had left"));
    }
    Ok(ended)
}

fn is_ours(site: &Site, tags: &Tags) -> bool {
    tags.get(tags::APP) == Some(&site.pipeline.app)
        && tags.get(tags::ENVIRONMENT) == Some(&site.environment)
        && tags.get(tags::RUN).is_some()
}
