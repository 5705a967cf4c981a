//! ELBv2's actions: parameters in, records asked or changed, XML out. What a call may do is decided in
//! [`crate::state::elbv2`].
//!
//! Where the answers differ from AWS's, on purpose: `DNSName` is `localhost`, and the addresses of the balancer's
//! nodes are in `AvailabilityZones[].LoadBalancerAddresses[].IpAddress` (which AWS fills for network load balancers
//! only), because that is how a client reaches a particular node. Load balancers are of type `application`, listeners
//! and target groups of protocol `HTTP`; other kinds are answered `Unsupported` by name.

use std::sync::Arc;

use jiff::Timestamp;

use super::{ApiError, Params, Xml};
use crate::{
    region::Region,
    state::{World, elbv2::Refusal},
};

mod actions;
mod conditions;
mod input;
mod listeners;
mod load_balancers;
mod rules;
mod tags;
mod target_groups;
mod targets;

const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

/// The elements of a `…Result`.
type Answer = Result<Vec<Xml>, ApiError>;

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::bad(refusal.code, refusal.message)
    }
}

/// Answers one ELBv2 call with the whole response document.
///
/// # Errors
/// The codes of the ELBv2 API reference; `Unsupported`, naming it, for an action that the local region does not have.
pub async fn handle(action: &str, params: &Params, region: &Arc<Region>) -> Result<Xml, ApiError> {
    settle(region);
    let answer = match action {
        "CreateLoadBalancer" => load_balancers::create(params, region),
        "DescribeLoadBalancers" => load_balancers::describe(params, region),
        "DeleteLoadBalancer" => load_balancers::delete(params, region),
        "DescribeLoadBalancerAttributes" => load_balancers::describe_attributes(params, region),
        "ModifyLoadBalancerAttributes" => load_balancers::modify_attributes(params, region),
        "SetSecurityGroups" => load_balancers::set_security_groups(params, region),
        "DescribeAccountLimits" => load_balancers::describe_account_limits(params),
        "CreateTargetGroup" => target_groups::create(params, region),
        "DescribeTargetGroups" => target_groups::describe(params, region),
        "ModifyTargetGroup" => target_groups::modify(params, region),
        "DeleteTargetGroup" => target_groups::delete(params, region),
        "DescribeTargetGroupAttributes" => target_groups::describe_attributes(params, region),
        "ModifyTargetGroupAttributes" => target_groups::modify_attributes(params, region),
        "RegisterTargets" => targets::register(params, region),
        "DeregisterTargets" => targets::deregister(params, region),
        "DescribeTargetHealth" => targets::describe_health(params, region),
        "CreateListener" => listeners::create(params, region).await,
        "DescribeListeners" => listeners::describe(params, region),
        "ModifyListener" => listeners::modify(params, region),
        "DeleteListener" => listeners::delete(params, region),
        "CreateRule" => rules::create(params, region),
        "DescribeRules" => rules::describe(params, region),
        "ModifyRule" => rules::modify(params, region),
        "DeleteRule" => rules::delete(params, region),
        "SetRulePriorities" => rules::set_priorities(params, region),
        "AddTags" => tags::add(params, region),
        "RemoveTags" => tags::remove(params, region),
        "DescribeTags" => tags::describe(params, region),
        _ => Err(ApiError::unsupported(&format!("the ELBv2 action {action}"))),
    }?;
    let metadata = Xml::node("ResponseMetadata", [Xml::text("RequestId", region.request_id())]);
    let result = Xml::node(format!("{action}Result"), answer);
    Ok(Xml::node(format!("{action}Response"), [result, metadata]).in_namespace(NAMESPACE))
}

/// Brings the targets up to the present, so that every call sees what time did.
fn settle(region: &Region) {
    let now = region.clock.now();
    let registration = region.config.lags.registration;
    let due = region.read(|world| world.elbv2.unsettled(&world.ec2, registration, now));
    if !due.is_empty() {
        // Changing nothing cannot be refused.
        let _: Result<(), ApiError> = change(region, |_, _| Ok(()));
    }
}

/// Changes the records, and the targets with them: references that the change made or took away show at once.
fn change<T>(region: &Region, change: impl FnOnce(&mut World, Timestamp) -> Result<T, Refusal>) -> Result<T, ApiError> {
    let now = region.clock.now();
    region.change(|world| {
        let answer = change(world, now)?;
        let World { elbv2, ec2, .. } = world;
        elbv2.settle_all(&*ec2, region.config.lags.registration, now);
        Ok(answer)
    })
}

/// The last part of an ARN, as random as AWS's.
fn new_id(region: &Region) -> String {
    format!("{:016x}", region.random::<u64>())
}
