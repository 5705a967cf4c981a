//! The load balancer, its listener and rules.

use aws_sdk_elasticloadbalancingv2::types::{Listener, LoadBalancer, Rule};

use super::{Balancer, FactsError, Secured, uses};
use crate::{
    clients::Clients,
    cloud_error::CloudError,
    listener::{Place, Routing},
    site::Site,
};

/// The balancer that the file names, and what its listener does now. Of its other listeners the default actions are read, and
/// not the rules.
///
/// # Errors
/// Something that the file names is not there, or the cloud could not be asked.
pub async fn observe(site: &Site) -> Result<Balancer, FactsError> {
    Ok(read(site).await?.0)
}

/// The same with the rules of every listener: for whoever is about to end what may be in use.
///
/// # Errors
/// As [`observe`].
pub async fn observe_all(site: &Site) -> Result<Balancer, FactsError> {
    let (mut balancer, listeners) = read(site).await?;
    let others = listeners.iter().filter(|it| it.listener_arn() != Some(&balancer.listener));
    balancer.uses.extend(uses::of_rules(&site.clients, others).await?);
    Ok(balancer)
}

async fn read(site: &Site) -> Result<(Balancer, Vec<Listener>), FactsError> {
    let wanted = &site.pipeline.flip.listener;
    let found = find_balancer(site, &wanted.load_balancer).await?;
    let arn = found.load_balancer_arn().unwrap_or_default().to_owned();
    let listeners = listeners(&site.clients, &arn).await?;
    let on_port = |port: u16| listeners.iter().find(|listener| listener.port() == Some(i32::from(port)));
    let listener = on_port(wanted.port).ok_or_else(|| {
        let ports: Vec<String> = listeners.iter().filter_map(|it| it.port()).map(|port| port.to_string()).collect();
        FactsError::missing(
            format!("load balancer {} has no listener on port {}", wanted.load_balancer, wanted.port),
            match ports.is_empty() {
                true => {
                    "create the listener, for example with a fixed response of 503 as its default action".to_owned()
                }
                false => format!("set flip.listener.port to one that exists: {}", ports.join(", ")),
            },
        )
    })?;
    let listener_arn = listener.listener_arn().unwrap_or_default().to_owned();
    let rules = rules(&site.clients, &listener_arn).await?;
    let priorities = rules.iter().filter_map(|rule| rule.priority()?.parse().ok()).collect();
    let defaults = listeners.iter().filter_map(uses::of_default);
    let uses = defaults.chain(rules.iter().filter_map(|rule| uses::of_rule(rule, wanted.port))).collect();
    let (place, actions) = match wanted.rule {
        None => (Place::Listener { arn: listener_arn.clone() }, listener.default_actions().to_vec()),
        Some(priority) => {
            let rule = rules.iter().find(|rule| rule.priority() == Some(&priority.to_string())).ok_or_else(|| {
                FactsError::missing(
                    format!("the listener on port {} has no rule with priority {priority}", wanted.port),
                    "create the rule that routes this app, or leave out flip.listener.rule to use the default action",
                )
            })?;
            (Place::Rule { arn: rule.rule_arn().unwrap_or_default().to_owned() }, rule.actions().to_vec())
        }
    };
    let readable = |actions: &[_], port: u16| {
        Routing::read(actions).map_err(|why| {
            FactsError::missing(
                format!("the listener on port {port} cannot be used: {why}"),
                "name a listener or rule whose only action forwards, redirects or answers a fixed response",
            )
        })
    };
    let preview_listener = match site.pipeline.flip.preview.port.and_then(|port| Some((port, on_port(port)?))) {
        None => None,
        Some((port, listener)) => {
            Some((listener.listener_arn().unwrap_or_default().to_owned(), readable(listener.default_actions(), port)?))
        }
    };
    let balancer = Balancer {
        name: found.load_balancer_name().unwrap_or_default().to_owned(),
        dns_name: found.dns_name().unwrap_or_default().to_owned(),
        addresses: addresses(&found),
        vpc: found.vpc_id().unwrap_or_default().to_owned(),
        protocol: listener.protocol().map(|protocol| protocol.as_str().to_owned()).unwrap_or_default(),
        port: wanted.port,
        secured: secured(listener),
        routing: readable(&actions, wanted.port)?,
        listener: listener_arn,
        place,
        priorities,
        uses,
        preview_listener,
        arn,
    };
    Ok((balancer, listeners))
}

fn secured(listener: &Listener) -> Option<Secured> {
    let certificate = listener.certificates().iter().find_map(|it| it.certificate_arn())?.to_owned();
    Some(Secured { certificate, policy: listener.ssl_policy().map(str::to_owned) })
}

async fn find_balancer(site: &Site, name: &str) -> Result<LoadBalancer, FactsError> {
    let call = site.clients.elb.describe_load_balancers();
    let call = if name.starts_with("arn:") { call.load_balancer_arns(name) } else { call.names(name) };
    let absent = || {
        FactsError::missing(
            format!("there is no load balancer {name}"),
            "create it (an application load balancer), or name another under flip.listener.load_balancer",
        )
    };
    match call.send().await {
        Ok(answer) => answer.load_balancers().first().cloned().ok_or_else(absent),
        Err(error) => {
            let error = CloudError::of(format!("find the load balancer {name}"), error);
            if error.is("LoadBalancerNotFound") { Err(absent()) } else { Err(error.into()) }
        }
    }
}

/// All listeners of a balancer.
pub(super) async fn listeners(clients: &Clients, balancer: &str) -> Result<Vec<Listener>, CloudError> {
    let call = clients.elb.describe_listeners().load_balancer_arn(balancer);
    let mut pages = call.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("read the balancer's listeners", error))?;
        found.extend_from_slice(page.listeners());
    }
    Ok(found)
}

/// All rules of a listener.
pub(super) async fn rules(clients: &Clients, listener: &str) -> Result<Vec<Rule>, CloudError> {
    let mut found = Vec::new();
    let mut marker = None;
    loop {
        let call = clients.elb.describe_rules().listener_arn(listener).set_marker(marker);
        let page = call.send().await.map_err(|error| CloudError::of("read the listener's rules", error))?;
        found.extend_from_slice(page.rules());
        marker = page.next_marker().map(str::to_owned);
        if marker.is_none() {
            return Ok(found);
        }
    }
}

fn addresses(balancer: &LoadBalancer) -> Vec<String> {
    let zones = balancer.availability_zones().iter();
    let mut addresses: Vec<String> = zones
        .flat_map(aws_sdk_elasticloadbalancingv2::types::AvailabilityZone::load_balancer_addresses)
        .filter_map(|address| address.ip_address().map(str::to_owned))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
