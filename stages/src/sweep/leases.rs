//! Ends what a run that died has left: its SSH ingress, its builder, its half-made fleet, its ephemeral key.
//!
//! [`overdue`] needs no lock and is done by every command: SSH ingress and builders whose lease has ended, or whose run
//! holds the environment no more. [`leases`] is done by a run that holds the lock, so that no other of this app and
//! environment is alive: what carries its tags with a step that only a running bake or smoke test needs is left over.
//! **Guarantees.** A fleet is ended only where it has no traffic, is not held, and is not the one that the fleet in service
//! has replaced. A rule that another run uses as well stays for that one.
//! **Caveat.** Images and artifacts of a run that died are not looked at here.

use alcedo_pipeline::{
    event::Outcome,
    journal::{self, JournalError},
    lock::{self, Lease},
    report::Report,
};
use aws_sdk_ec2::types::{Filter, Instance, InstanceStateName, Reservation, SecurityGroupRule};
use jiff::Timestamp;

use crate::{
    bake,
    clients::Clients,
    cloud_error::CloudError,
    facts::{self, FactsError, Fleet},
    ingress,
    retire::DeleteGroup,
    site::Site,
    tags::{self, Tags},
};

/// Steps whose instances are leases.
const LEASED_INSTANCES: &str = bake::BUILDER;

/// Ends the leases and says what they were.
pub async fn leases(site: &Site) -> Result<Vec<String>, FactsError> {
    let (rules, builders) = futures::try_join!(rules(site), builders(site))?;
    let mut ended = end_rules(&site.clients, &rules, site.now()).await?;
    ended.extend(end_builders(&site.clients, &builders).await?);
    ended.extend(fleets(site).await?);
    ended.extend(keys(site).await?);
    Ok(ended)
}

/// Ends what is open longer than anybody needs it, and says what it was.
///
/// The lock is looked at last: a run that has opened something was already its holder then.
pub async fn overdue(site: &Site) -> Result<Vec<String>, FactsError> {
    let (rules, builders) = futures::try_join!(rules(site), builders(site))?;
    if rules.is_empty() && builders.is_empty() {
        return Ok(Vec::new());
    }
    // A lock that cannot be read says nothing of who is alive: then only what has expired is ended.
    let holder = match lock::holder(site.store.as_ref(), &site.lock_key()).await {
        Ok(holder) => Holder::Known(holder),
        Err(_) => Holder::Unknown,
    };
    let now = site.now();
    let is_overdue = |tags: &Tags| {
        let expires = tags.get(tags::EXPIRES).and_then(|at| at.parse::<Timestamp>().ok());
        expires.is_some_and(|at| at <= now) || !holder.may_be(tags.get(tags::RUN))
    };
    let rules: Vec<SecurityGroupRule> =
        rules.into_iter().filter(|rule| is_overdue(&Tags::from_ec2(rule.tags()))).collect();
    let builders: Vec<Instance> = builders.into_iter().filter(|it| is_overdue(&Tags::from_ec2(it.tags()))).collect();
    let mut ended = end_rules(&site.clients, &rules, now).await?;
    ended.extend(end_builders(&site.clients, &builders).await?);
    Ok(ended)
}

enum Holder {
    Known(Option<Lease>),
    Unknown,
}

impl Holder {
    fn may_be(&self, run: Option<&str>) -> bool {
        match self {
            Self::Known(lease) => lease.as_ref().is_some_and(|lease| Some(lease.run.as_str()) == run),
            Self::Unknown => true,
        }
    }
}

/// Fleets that a run had begun and nobody uses. Their preview rules would answer in the place of the next candidate's.
async fn fleets(site: &Site) -> Result<Vec<String>, FactsError> {
    let balancer = facts::balancer_with_all_uses(site).await?;
    let fleets = facts::fleets(site, Some(&balancer)).await?;
    let reserve = facts::version_before(&fleets);
    // A listener that has another group than ours says nothing of which fleet is whose reserve.
    let left: Vec<&Fleet> = fleets
        .iter()
        .filter(|fleet| !fleet.is_in_service() && !fleet.is_held() && Some(fleet.version) != reserve)
        .filter(|fleet| !balancer.routing.named().contains(&fleet.target_group.as_str()))
        // Somebody else has found a use for it.
        .filter(|fleet| balancer.foreign_use_of(fleet).is_none())
        .collect();
    let mut ended = Vec::new();
    for fleet in left {
        if !has_died(site, fleet).await {
            continue;
        }
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
        delete.delete(&site.clients).await?;
        ended.push(format!("removed the fleet of {version} ({servers} servers), which a run that died had left"));
    }
    Ok(ended)
}

/// Whether the run that made a fleet never brought it into service, for certain. One that did has made production: where the
/// listener does something else now, somebody else has made it do so, and the fleet may be wanted again.
async fn has_died(site: &Site, fleet: &Fleet) -> bool {
    let Some(run) = fleet.run.as_ref().and_then(|run| run.parse().ok()) else { return false };
    match journal::read(site.store.as_ref(), &site.root, &run).await {
        Ok(record) => !matches!(Report::of(&record).outcome, Some(Outcome::Done | Outcome::Superseded)),
        // It died before it had written down its plan.
        Err(JournalError::NoRun { .. }) => true,
        Err(_) => false,
    }
}

/// Whatever is open by this app's and environment's tags, in any group. Only ingress steps make such rules.
pub(super) async fn rules(site: &Site) -> Result<Vec<SecurityGroupRule>, CloudError> {
    let call = site
        .clients
        .ec2
        .describe_security_group_rules()
        .filters(by_tag(tags::APP, &site.pipeline.app))
        .filters(by_tag(tags::ENVIRONMENT, &site.environment));
    let mut pages = call.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("look for open ports", error))?;
        found
            .extend(page.security_group_rules().iter().filter(|it| is_ours(site, &Tags::from_ec2(it.tags()))).cloned());
    }
    Ok(found)
}

/// Revokes rules; one that another run uses as well only loses the name of the run that made it.
pub(super) async fn end_rules(
    clients: &Clients,
    rules: &[SecurityGroupRule],
    now: Timestamp,
) -> Result<Vec<String>, CloudError> {
    let mut ended = Vec::new();
    for rule in rules {
        let tags = Tags::from_ec2(rule.tags());
        let (Some(id), Some(group), Some(run)) =
            (rule.security_group_rule_id(), rule.group_id(), tags.get(tags::RUN).and_then(|run| run.parse().ok()))
        else {
            continue;
        };
        if let Some(what) = ingress::end(clients, group, id, &tags.users(), &run, now).await? {
            let port = rule.from_port().unwrap_or_default();
            let source = rule.cidr_ipv4().unwrap_or_default();
            ended.push(format!("{what} port {port} of {group} for {source}, which run {run} had left open"));
        }
    }
    Ok(ended)
}

pub(super) async fn builders(site: &Site) -> Result<Vec<Instance>, CloudError> {
    let call = site
        .clients
        .ec2
        .describe_instances()
        .filters(by_tag(tags::APP, &site.pipeline.app))
        .filters(by_tag(tags::ENVIRONMENT, &site.environment))
        .filters(by_tag(tags::STEP, LEASED_INSTANCES));
    let mut pages = call.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("look for builders", error))?;
        let alive = page.reservations().iter().flat_map(Reservation::instances).filter(|it| {
            let state = it.state().and_then(|state| state.name());
            !matches!(state, Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown))
        });
        found.extend(alive.cloned());
    }
    Ok(found)
}

pub(super) async fn end_builders(clients: &Clients, builders: &[Instance]) -> Result<Vec<String>, CloudError> {
    let mut ended = Vec::new();
    for builder in builders {
        let (Some(id), tags) = (builder.instance_id(), Tags::from_ec2(builder.tags())) else { continue };
        if let Err(error) = clients.ec2.terminate_instances().instance_ids(id).send().await {
            let error = CloudError::of(format!("terminate the builder {id}"), error);
            if !error.is("InvalidInstanceID.NotFound") {
                return Err(error);
            }
        }
        let run = tags.get(tags::RUN).unwrap_or_default();
        ended.push(format!("terminated {id}, the builder of run {run}, which had left it"));
    }
    Ok(ended)
}

pub(super) fn by_tag(name: &str, value: &str) -> Filter {
    Filter::builder().name(format!("tag:{name}")).values(value).build()
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

pub(super) fn is_ours(site: &Site, tags: &Tags) -> bool {
    tags.get(tags::APP) == Some(&site.pipeline.app)
        && tags.get(tags::ENVIRONMENT) == Some(&site.environment)
        && tags.get(tags::RUN).is_some()
}
