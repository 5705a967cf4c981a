//! The actions on rules.

use std::sync::Arc;

use super::{
    Answer, ApiError, Params, Xml, actions, change, conditions,
    input::{invalid, page, read, required, tags, texts},
    new_id,
};
use crate::{
    region::Region,
    state::elbv2::{Action, Elbv2, Listener, Refusal, Rule, RuleChange, condition::Condition, names},
};

pub fn create(params: &Params, region: &Arc<Region>) -> Answer {
    let listener_arn = required(params, "ListenerArn")?.to_owned();
    let priority = read(params, "Priority")?.ok_or_else(|| invalid("'Priority' must be specified"))?;
    let conditions = conditions::read(params)?;
    let action = actions::read(params, "Actions")?;
    let tags = tags(params)?;
    let arn = names::rule_arn(&listener_arn, &new_id(region));
    let new = Rule { arn: arn.clone(), listener_arn, priority, conditions, action, tags };
    change(region, |world, _| world.elbv2.create_rule(new).map(drop))?;
    described(region, &[arn])
}

pub fn describe(params: &Params, region: &Arc<Region>) -> Answer {
    let arns = texts(params, "RuleArns");
    let listener = params.get("ListenerArn");
    if arns.is_empty() == listener.is_none() {
        return Err(invalid("Either a listener ARN or rule ARNs must be specified, and not both"));
    }
    let found = region.read(|world| -> Result<Vec<Vec<Xml>>, Refusal> {
        let all = &world.elbv2;
        let Some(arn) = listener else { return arns.iter().map(|arn| any_rule(all, arn)).collect() };
        let listener = all.listener(arn)?;
        Ok(all.rules_of(arn).into_iter().map(rule).chain([default_rule(listener)]).collect())
    })?;
    let (page, marker) = page(params, found)?;
    Ok([Xml::list("Rules", "member", page)].into_iter().chain(marker).collect())
}

pub fn modify(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "RuleArn")?.to_owned();
    let conditions: Option<Vec<Condition>> = match params.groups("Conditions").is_empty() {
        true => None,
        false => Some(conditions::read(params)?),
    };
    let action: Option<Action> = match params.groups("Actions").is_empty() {
        true => None,
        false => Some(actions::read(params, "Actions")?),
    };
    change(region, |world, _| world.elbv2.modify_rule(&arn, RuleChange { conditions, action }).map(drop))?;
    described(region, &[arn])
}

pub fn delete(params: &Params, region: &Arc<Region>) -> Answer {
    let arn = required(params, "RuleArn")?;
    change(region, |world, _| world.elbv2.delete_rule(arn))?;
    Ok(Vec::new())
}

pub fn set_priorities(params: &Params, region: &Arc<Region>) -> Answer {
    let mut priorities = Vec::new();
    for prefix in params.groups("RulePriorities") {
        let arn = required(params, &format!("{prefix}.RuleArn"))?.to_owned();
        let name = format!("{prefix}.Priority");
        priorities.push((arn, read(params, &name)?.ok_or_else(|| invalid(format!("'{name}' must be specified")))?));
    }
    if priorities.is_empty() {
        return Err(invalid("'RulePriorities' must be specified"));
    }
    change(region, |world, _| world.elbv2.set_priorities(&priorities))?;
    let arns: Vec<String> = priorities.into_iter().map(|(arn, _)| arn).collect();
    described(region, &arns)
}

fn described(region: &Region, arns: &[String]) -> Result<Vec<Xml>, ApiError> {
    let described =
        region.read(|world| arns.iter().map(|arn| any_rule(&world.elbv2, arn)).collect::<Result<Vec<_>, Refusal>>())?;
    Ok(vec![Xml::list("Rules", "member", described)])
}

/// A rule, or the default rule of a listener.
fn any_rule(all: &Elbv2, arn: &str) -> Result<Vec<Xml>, Refusal> {
    match all.default_rule_of(arn) {
        Some(listener) => Ok(default_rule(listener)),
        None => all.rule(arn).map(rule),
    }
}

fn rule(rule: &Rule) -> Vec<Xml> {
    vec![
        Xml::text("RuleArn", &rule.arn),
        Xml::text("Priority", rule.priority),
        Xml::list("Conditions", "member", rule.conditions.iter().map(conditions::xml)),
        Xml::list("Actions", "member", [actions::xml(&rule.action)]),
        Xml::text("IsDefault", false),
    ]
}

fn default_rule(listener: &Listener) -> Vec<Xml> {
    vec![
        Xml::text("RuleArn", &listener.default_rule_arn),
        Xml::text("Priority", "default"),
        Xml::node("Conditions", []),
        Xml::list("Actions", "member", [actions::xml(&listener.default_action)]),
        Xml::text("IsDefault", true),
    ]
}
