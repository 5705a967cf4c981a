//! The actions on listeners.

use std::sync::Arc;

use super::{
    Answer, ApiError, Params, Xml, actions, change,
    input::{invalid, page, port, required, tags, texts},
    new_id,
};
use crate::{
    balancer::PortError,
    region::Region,
    state::elbv2::{Listener, Refusal, names},
};

pub async fn create(params: &Params, region: &Arc<Region>) -> Answer {
    let load_balancer_arn = required(params, "LoadBalancerArn")?.to_owned();
    let listener_port = port(params, "Port")?.ok_or_else(|| invalid("'Port' must be specified"))?;
    check_protocol(params)?;
    required(params, "Protocol")?;
    let default_action = actions::read(params, "DefaultActions")?;
    let tags = tags(params)?;
    let id = new_id(region);
    let arn = names::listener_arn(&load_balancer_arn, &id);
    let default_rule_arn = names::rule_arn(&arn, &new_id(region));
    // A port that this load balancer has already is a matter of the records alone.
    let known = region.read(|world| {
        world.elbv2.listeners_of(&load_balancer_arn).iter().any(|listener| listener.port == listener_port)
    });
    if !known {
        region.read(|world| world.elbv2.load_balancer(&load_balancer_arn).map(drop))?;
        region.ports.bind(&arn, listener_port).await.map_err(port_refused)?;
    }
    let new =
        Listener { arn: arn.clone(), load_balancer_arn, port: listener_port, default_action, default_rule_arn, tags };
    let created = change(region, |world, _| world.elbv2.create_listener(new).map(|listener| listener.arn.clone()));
    if created.as_ref().ok() != Some(&arn) {
        region.ports.release(&arn);
    }
    described(region, &created?)
}

/// A port of this machine that cannot be had. AWS has no such error: its load balancers have addresses of their own.
fn port_refused(error: PortError) -> ApiError {
    ApiError::bad("InvalidConfigurationRequest", format!("{error}. {}", error.hint()))
}

fn check_protocol(params: &Params) -> Result<(), ApiError> {
    match params.get("Protocol") {
        Some(protocol) if protocol != "HTTP" => {
            Err(ApiError::unsupported(&format!("listeners with the protocol {protocol}")))
        }
        _ => Ok(()),
    }
}

pub fn describe(params: &Params, region: &Arc<Region>) -> Answer {
    let arns = texts(params, "ListenerArns");
    let balancer = params.get("LoadBalancerArn");
    if arns.is_empty() == balancer.is_none() {
        return Err(invalid("Either a load balancer ARN or listener ARNs must be specified, and not both"));
    }
    let found = region.read(|world| -> Result<Vec<Vec<Xml>>, Refusal> {
        if let Some(arn) = balancer {
            world.elbv2.load_balancer(arn)?;
            return Ok(world.elbv2.listeners_of(arn).into_iter().map(listener).collect());
        }
        arns.iter().map(|arn| world.elbv2.listener(arn).map(listener)).collect()
    })?;
    let (page, marker) = page(params, found)?;
    Ok([Xml::list("Listeners", "member", page)].into_iter().chain(marker).collect())
}

pub fn modify(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "ListenerArn")?;
    check_protocol(params)?;
    let known = region.read(|world| world.elbv2.listener(arn).map(|listener| listener.port))?;
    if port(params, "Port")?.is_some_and(|port| port != known) {
        return Err(ApiError::unsupported("changing a listener's port; create another listener instead"));
    }
    let action = match params.groups("DefaultActions").is_empty() {
        true => None,
        false => Some(actions::read(params, "DefaultActions")?),
    };
    change(region, |world, _| world.elbv2.modify_listener(arn, action).map(drop))?;
    described(region, arn)
}

pub fn delete(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "ListenerArn")?;
    change(region, |world, _| world.elbv2.delete_listener(arn))?;
    region.ports.leave(arn);
    Ok(Vec::new())
}

fn described(region: &Region, arn: &str) -> Answer {
    let described = region.read(|world| world.elbv2.listener(arn).map(listener))?;
    Ok(vec![Xml::list("Listeners", "member", [described])])
}

fn listener(listener: &Listener) -> Vec<Xml> {
    vec![
        Xml::text("ListenerArn", &listener.arn),
        Xml::text("LoadBalancerArn", &listener.load_balancer_arn),
        Xml::text("Port", listener.port),
        Xml::text("Protocol", "HTTP"),
        Xml::list("DefaultActions", "member", [actions::xml(&listener.default_action)]),
    ]
}
