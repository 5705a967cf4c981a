//! Who else changed a listener: CloudTrail's record of the account's calls.
//!
//! **Caveat.** A call is on record some minutes after it was made, five on average (AWS CloudTrail user guide, *What is AWS
//! CloudTrail?*). Where nobody is named yet, what is told is how to ask later.

use std::{collections::BTreeMap, time::Duration};

use alcedo_pipeline::{
    error::StepError,
    event::{Event, What},
    plan::Plan,
};
use aws_sdk_cloudtrail::{
    primitives::DateTime,
    types::{LookupAttribute, LookupAttributeKey},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    action::Action,
    clients::{APP_NAME, Clients},
    cloud_error::CloudError,
    flip::SWITCH,
    listener::{Place, Routing, Weighted},
    preview::ATTACH,
};

/// Longest time that is spent on asking: what is to be told is bad enough without it.
const WITHIN: Duration = Duration::from_secs(10);
/// How far clocks may be apart beyond what is known of it.
const SLACK: SignedDuration = SignedDuration::from_mins(1);
/// The most events that one answer holds, and how many answers are read, the newest events first. Two calls a second are
/// allowed to all of an account.
const EVENTS: i32 = 50;
const PAGES: usize = 4;
/// How to ask by hand.
const BY_HAND: &str = "aws cloudtrail lookup-events";

/// What CloudTrail says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Who made the call, when, from where and by what: `arn:aws:iam::111122223333:user/ada called …`.
    Known(String),
    /// Nobody is on record: how to find out.
    Unknown(String),
    /// The credentials may not ask: how to find out.
    Refused(String),
}

impl Who {
    /// An error with what is known of who is behind it.
    pub fn blamed(self, mut error: StepError) -> StepError {
        error.message += &self.in_words();
        match self.way() {
            Some(way) => error.hint("nothing was overwritten; agree with whoever it was, then run again").hint(way),
            None => error.hint("nothing was overwritten; agree with them, then run again"),
        }
    }

    /// To follow what was done.
    pub fn in_words(&self) -> String {
        match self {
            Self::Known(call) => format!("; {call}"),
            Self::Unknown(_) | Self::Refused(_) => String::new(),
        }
    }

    /// How to find out, where nobody is known.
    pub fn way(&self) -> Option<String> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(way) | Self::Refused(way) => Some(way.clone()),
        }
    }
}

/// Who made a place do what was found there, since then.
pub async fn made(clients: &Clients, place: &Place, found: &Routing, since: Timestamp) -> Who {
    ask(clients, place, since, |event| makes(actions(event), found)).await
}

/// Asks anew for whoever stopped a run by changing the production listener, where nobody could tell at the time; `None` where
/// there is nothing to ask.
pub async fn stopped(clients: &Clients, plan: &Plan, events: &[Event]) -> Option<Who> {
    let unknown = |event: &&Event| match &event.what {
        What::StepFailed { step, error, .. } => {
            step.as_str() != ATTACH && error.hints.iter().any(|hint| hint.contains(BY_HAND))
        }
        _ => false,
    };
    let failed = events.iter().find(unknown)?.at;
    let Ok(Action::Switch(switch)) = serde_json::from_value(plan.step(&SWITCH.into())?.action.clone()) else {
        return None;
    };
    // What the run found is not kept as a value: it came between the plan, which saw the listener as it was, and the failure.
    let between = |event: &Value| {
        let at = event["eventTime"].as_str()?.parse::<Timestamp>().ok()?;
        Some(at.as_second() >= plan.made_at.as_second() && at <= failed)
    };
    let is_meant = |event: &Value| between(event) == Some(true) && !actions(event).is_null();
    Some(ask(clients, &switch.place, plan.made_at, is_meant).await)
}

async fn ask(clients: &Clients, place: &Place, since: Timestamp, is_meant: impl Fn(&Value) -> bool) -> Who {
    let ahead = clients.store_clock.ahead().unwrap_or_default();
    let since = since.saturating_sub(ahead).and_then(|since| since.saturating_sub(SLACK)).unwrap_or(Timestamp::MIN);
    let (call, arn) = match place {
        Place::Listener { arn } => ("ModifyListener", arn),
        Place::Rule { arn } => ("ModifyRule", arn),
    };
    let way = |why: &str| {
        let option = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!(" --{name} {value}")).unwrap_or_default()
        };
        format!(
            "{why}; to look for {arn}: {BY_HAND}{}{} --lookup-attributes AttributeKey=EventName,AttributeValue={call} \
             --start-time {since:.0}",
            option("region", &clients.region),
            option("endpoint-url", &clients.endpoint),
        )
    };
    let is_it = |event: &Value| is_anothers_change(event, arn) && is_meant(event);
    match tokio::time::timeout(WITHIN, newest(clients, call, since, is_it)).await {
        Ok(Ok(Some(who))) => Who::Known(who),
        Ok(Ok(None)) => Who::Unknown(way(
            "CloudTrail has no such call on record by another program than Alcedo yet: it is told some minutes after it was made",
        )),
        Ok(Err(error)) if error.is_refused() => {
            Who::Refused(way("permit cloudtrail:LookupEvents to be told who it was"))
        }
        Ok(Err(_)) | Err(_) => Who::Unknown(way("CloudTrail did not say who it was")),
    }
}

async fn newest(
    clients: &Clients,
    call: &str,
    since: Timestamp,
    is_it: impl Fn(&Value) -> bool,
) -> Result<Option<String>, CloudError> {
    let named = LookupAttribute::builder().attribute_key(LookupAttributeKey::EventName).attribute_value(call).build();
    let asked = clients.cloudtrail.lookup_events().set_lookup_attributes(named.ok().map(|named| vec![named]));
    let asked = asked.start_time(DateTime::from_secs(since.as_second())).max_results(EVENTS);
    let mut pages = asked.into_paginator().send();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { break };
        let page = page.map_err(|error| CloudError::of("look calls up in CloudTrail", error))?;
        let events = page.events().iter().filter_map(|event| serde_json::from_str(event.cloud_trail_event()?).ok());
        if let Some(event) = events.into_iter().find(|event| is_it(event)) {
            return Ok(Some(in_words(&event)));
        }
    }
    Ok(None)
}

/// Our own calls are on record as well. One that failed changed nothing.
fn is_anothers_change(event: &Value, arn: &str) -> bool {
    let parameters = &event["requestParameters"];
    let own = event["userAgent"]
        .as_str()
        .is_some_and(|agent| agent.split_whitespace().any(|word| word.strip_prefix("app/") == Some(APP_NAME)));
    let named = ["listenerArn", "ruleArn"].iter().any(|key| parameters[key].as_str() == Some(arn));
    named && !own && event["errorCode"].is_null()
}

/// What a call made the place do; null where it left that alone, as one that changes a certificate does.
fn actions(event: &Value) -> &Value {
    let parameters = &event["requestParameters"];
    match &parameters["defaultActions"] {
        Value::Null => &parameters["actions"],
        actions => actions,
    }
}

/// Whether these actions are what was found, as far as both tell.
fn makes(actions: &Value, found: &Routing) -> bool {
    let Some([action]) = actions.as_array().map(Vec::as_slice) else { return false };
    let text = |value: &Value| value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|it| it.to_string()));
    let is = |value: &Value, wanted: &str| text(value).is_some_and(|text| text == wanted);
    match found {
        Routing::Forward { groups, .. } => {
            let named = |group: &Value| Some((text(&group["targetGroupArn"])?, text(&group["weight"])));
            let told: BTreeMap<_, _> = match action["forwardConfig"]["targetGroups"].as_array() {
                Some(told) => told.iter().filter_map(named).collect(),
                None => named(action).into_iter().collect(),
            };
            // A single group has all of the traffic, whatever its weight.
            let weighs = |group: &Weighted, weight: &Option<String>| {
                groups.len() == 1 || weight.as_ref().is_none_or(|weight| *weight == group.weight.to_string())
            };
            told.len() == groups.len()
                && groups.iter().all(|it| told.get(&it.target_group).is_some_and(|weight| weighs(it, weight)))
        }
        Routing::FixedResponse { status, .. } => is(&action["fixedResponseConfig"]["statusCode"], status),
        Routing::Redirect { status, .. } => is(&action["redirectConfig"]["statusCode"], status),
    }
}

fn in_words(event: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let identity = &event["userIdentity"];
    let by = ["arn", "invokedBy", "principalId", "type"].iter().find_map(|key| text(&identity[*key]));
    let from = text(&event["sourceIPAddress"]).map(|from| format!(" from {from}")).unwrap_or_default();
    let tool = event["userAgent"].as_str().and_then(|agent| agent.split_whitespace().next());
    format!(
        "{} called {} at {}{from}{}",
        by.as_deref().unwrap_or("somebody"),
        event["eventName"].as_str().unwrap_or("something"),
        event["eventTime"].as_str().unwrap_or("some time"),
        tool.map(|tool| format!(" ({tool})")).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As CloudTrail writes it (AWS CloudTrail user guide, *CloudTrail record contents*).
    fn event(agent: &str) -> Value {
        json!({
            "eventVersion": "1.08",
            "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/ada", "accountId": "111122223333" },
            "eventTime": "2026-11-20T14:03:05Z",
            "eventSource": "elasticloadbalancing.amazonaws.com",
            "eventName": "ModifyListener",
            "sourceIPAddress": "203.0.113.9",
            "userAgent": agent,
            "requestParameters": { "listenerArn": "arn:of:listener", "defaultActions": [{ "type": "forward" }] },
        })
    }

    #[test]
    fn whoever_called_is_named_with_the_time_and_the_place() {
        let words = in_words(&event("aws-cli/2.31.0 md/awscrt#0.27 ua/2.1 os/linux"));
        let ada = "arn:aws:iam::111122223333:user/ada called ModifyListener at 2026-11-20T14:03:05Z from 203.0.113.9";
        assert_eq!(words, format!("{ada} (aws-cli/2.31.0)"));
        let service = json!({ "userIdentity": { "type": "AWSService", "invokedBy": "ecs.amazonaws.com" }, "eventName": "ModifyRule" });
        assert_eq!(in_words(&service), "ecs.amazonaws.com called ModifyRule at some time");
    }

    #[test]
    fn only_anothers_call_that_changed_the_thing_counts() {
        let by_hand = event("aws-cli/2.31.0 ua/2.1");
        assert!(is_anothers_change(&by_hand, "arn:of:listener"));
        assert!(!is_anothers_change(&by_hand, "arn:of:another"));
        assert!(!is_anothers_change(&event("aws-sdk-rust/1.3 ua/2.1 app/alcedo"), "arn:of:listener"));
        assert!(is_anothers_change(&event("aws-sdk-rust/1.3 ua/2.1 app/alcedo-like"), "arn:of:listener"));
        let mut failed = by_hand.clone();
        failed["errorCode"] = json!("AccessDenied");
        assert!(!is_anothers_change(&failed, "arn:of:listener"));
        let mut of_rule = by_hand;
        of_rule["requestParameters"] = json!({ "ruleArn": "arn:of:rule", "actions": [] });
        assert!(is_anothers_change(&of_rule, "arn:of:rule"));
    }

    #[test]
    fn only_the_call_that_made_what_was_found_counts() {
        let weighted = |name: &str, weight| Weighted { target_group: name.into(), weight };
        let shared = Routing::shared(vec![weighted("a", 90), weighted("b", 10)], None);
        let groups = |groups: Value| json!([{ "type": "forward", "forwardConfig": { "targetGroups": groups } }]);
        let of = |a: Value, b: Value| {
            groups(json!([{ "targetGroupArn": "b", "weight": b }, { "targetGroupArn": "a", "weight": a }]))
        };
        assert!(makes(&of(json!(90), json!(10)), &shared) && makes(&of(json!("90"), json!("10")), &shared));
        assert!(!makes(&of(json!(10), json!(90)), &shared));
        assert!(!makes(&groups(json!([{ "targetGroupArn": "a", "weight": 90 }])), &shared));
        let one = json!([{ "type": "forward", "targetGroupArn": "a" }]);
        assert!(makes(&one, &Routing::to("a")) && !makes(&one, &Routing::to("b")) && !makes(&one, &shared));
        assert!(makes(&groups(json!([{ "targetGroupArn": "a", "weight": 7 }])), &Routing::to("a")));
        let fixed = Routing::FixedResponse { status: "503".into(), content_type: None, body: None };
        let answer = |status| json!([{ "type": "fixed-response", "fixedResponseConfig": { "statusCode": status } }]);
        assert!(makes(&answer("503"), &fixed) && !makes(&answer("404"), &fixed) && !makes(&one, &fixed));
        // One that changes a certificate makes nothing of this.
        let certificate = json!({ "requestParameters": { "listenerArn": "a", "certificates": [] } });
        assert!(!makes(actions(&certificate), &fixed));
    }
}
