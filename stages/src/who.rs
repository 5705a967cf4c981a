//! Who else changed a listener: CloudTrail's record of the account's calls.
//!
//! **Caveat.** A call is on record some minutes after it was made, five on average (AWS CloudTrail user guide, *What is AWS
//! CloudTrail?*). Where nobody is named yet, what is told is how to ask later.

use std::time::Duration;

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

/// Who made a place do what was found there, since then by this machine's clock.
pub async fn made(clients: &Clients, place: &Place, found: &Routing, since: Timestamp) -> Who {
    let ahead = clients.store_clock.ahead().unwrap_or_default();
    let since = since.saturating_add(ahead).unwrap_or(since);
    ask(clients, place, (earlier(since), None), |told| agrees(told, found)).await
}

/// Asks anew for whoever stopped a run by changing the production listener, where nobody could tell at the time; `None` where
/// there is nothing to ask.
pub async fn stopped(clients: &Clients, plan: &Plan, events: &[Event]) -> Option<Who> {
    let unknown = |event: &Event| match &event.what {
        What::StepFailed { step, error, .. }
            if step.as_str() != ATTACH && error.hints.iter().any(|hint| hint.contains(BY_HAND)) =>
        {
            Some((event.at, error.message.clone()))
        }
        _ => None,
    };
    let (failed, message) = events.iter().find_map(unknown)?;
    let Ok(Action::Switch(switch)) = serde_json::from_value(plan.step(&SWITCH.into())?.action.clone()) else {
        return None;
    };
    let until = failed.saturating_add(SLACK).unwrap_or(failed);
    // Of what was found, the journal has the words.
    let is_it = |told: &Routing| message.contains(&found_in_words(told));
    Some(ask(clients, &switch.place, (earlier(plan.made_at), Some(until)), is_it).await)
}

/// How an error says what the listener was found to do.
pub fn found_in_words(found: &Routing) -> String {
    format!("found `{found}`")
}

fn earlier(at: Timestamp) -> Timestamp {
    at.saturating_sub(SLACK).unwrap_or(Timestamp::MIN)
}

async fn ask(
    clients: &Clients,
    place: &Place,
    (since, until): (Timestamp, Option<Timestamp>),
    is_it: impl Fn(&Routing) -> bool,
) -> Who {
    let (call, arn) = match place {
        Place::Listener { arn } => ("ModifyListener", arn),
        Place::Rule { arn } => ("ModifyRule", arn),
    };
    let way = |why: &str| {
        let option =
            |name: &str, value: Option<String>| value.map(|value| format!(" --{name} {value}")).unwrap_or_default();
        format!(
            "{why}; to look for {arn}: {BY_HAND}{}{}{} --lookup-attributes AttributeKey=EventName,AttributeValue={call} \
             --start-time {since:.0}{}",
            option("profile", clients.profile.clone()),
            option("region", clients.region.clone()),
            option("endpoint-url", clients.endpoint.clone()),
            option("end-time", until.map(|until| format!("{until:.0}"))),
        )
    };
    let is_it = |event: &Value| {
        is_anothers_change(event, arn) && told(&event["requestParameters"]).is_some_and(|told| is_it(&told))
    };
    match tokio::time::timeout(WITHIN, newest(clients, call, (since, until), is_it)).await {
        Ok(Ok(Newest::Call(who))) => Who::Known(who),
        Ok(Ok(Newest::Nobody)) => Who::Unknown(way(
            "CloudTrail has no such call on record by another program than Alcedo yet: it is told some minutes after it was made",
        )),
        Ok(Ok(Newest::Others)) => Who::Unknown(way("CloudTrail has more calls on record than were read")),
        Ok(Err(error)) if error.is_refused() => {
            Who::Refused(way("permit cloudtrail:LookupEvents to be told who it was"))
        }
        Ok(Err(_)) | Err(_) => Who::Unknown(way("CloudTrail did not say who it was")),
    }
}

enum Newest {
    Call(String),
    Nobody,
    /// Nobody among those that were read, and there are others.
    Others,
}

async fn newest(
    clients: &Clients,
    call: &str,
    (since, until): (Timestamp, Option<Timestamp>),
    is_it: impl Fn(&Value) -> bool,
) -> Result<Newest, CloudError> {
    let seconds = |at: Timestamp| DateTime::from_secs(at.as_second());
    let named = LookupAttribute::builder().attribute_key(LookupAttributeKey::EventName).attribute_value(call).build();
    let asked = clients.cloudtrail.lookup_events().set_lookup_attributes(named.ok().map(|named| vec![named]));
    let asked = asked.start_time(seconds(since)).set_end_time(until.map(seconds)).max_results(EVENTS);
    let mut pages = asked.into_paginator().send();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { return Ok(Newest::Nobody) };
        let page = page.map_err(|error| CloudError::of("look calls up in CloudTrail", error))?;
        let mut events = page.events().iter().filter_map(|event| serde_json::from_str(event.cloud_trail_event()?).ok());
        if let Some(event) = events.find(|event| is_it(event)) {
            return Ok(Newest::Call(in_words(&event)));
        }
        if page.next_token().is_none() {
            return Ok(Newest::Nobody);
        }
    }
    Ok(Newest::Others)
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

/// What a call made the place do; `None` where it left that alone, as one that changes a certificate does, or where it cannot be
/// told.
fn told(parameters: &Value) -> Option<Routing> {
    let actions = ["defaultActions", "actions"].iter().find_map(|key| parameters[*key].as_array())?;
    let [action] = actions.as_slice() else { return None };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number =
        |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok()).and_then(|it| it.try_into().ok());
    match action["type"].as_str()? {
        "forward" => {
            let config = &action["forwardConfig"];
            let weighted = |group: &Value| {
                // As AWS has it where it is left out.
                let weight = if group["weight"].is_null() { Some(1) } else { number(&group["weight"]) };
                Some(Weighted { target_group: text(&group["targetGroupArn"])?, weight: weight? })
            };
            let groups = match config["targetGroups"].as_array() {
                Some(groups) => groups.iter().map(weighted).collect::<Option<Vec<_>>>()?,
                None => vec![Weighted { target_group: text(&action["targetGroupArn"])?, weight: 1 }],
            };
            let sticky = &config["targetGroupStickinessConfig"];
            let enabled = sticky["enabled"].as_bool() == Some(true) || sticky["enabled"].as_str() == Some("true");
            Some(Routing::shared(groups, if enabled { number(&sticky["durationSeconds"]) } else { None }))
        }
        "fixed-response" => {
            let config = &action["fixedResponseConfig"];
            let (content_type, body) = (text(&config["contentType"]), text(&config["messageBody"]));
            Some(Routing::FixedResponse { status: text(&config["statusCode"])?, content_type, body })
        }
        "redirect" => {
            let config = &action["redirectConfig"];
            let [protocol, host, port, path, query] =
                ["protocol", "host", "port", "path", "query"].map(|key| text(&config[key]));
            Some(Routing::Redirect { status: text(&config["statusCode"])?, protocol, host, port, path, query })
        }
        _ => None,
    }
}

/// Whether what a call asked for is what was found; AWS fills in what a call leaves out.
fn agrees(told: &Routing, found: &Routing) -> bool {
    let or_left_out = |told: &Option<String>, found: &Option<String>| told.is_none() || told == found;
    match (told, found) {
        (
            Routing::FixedResponse { status, content_type, body },
            Routing::FixedResponse { status: status_found, content_type: type_found, body: body_found },
        ) => status == status_found && or_left_out(content_type, type_found) && or_left_out(body, body_found),
        (
            Routing::Redirect { status, protocol, host, port, path, query },
            Routing::Redirect {
                status: status_found,
                protocol: protocol_found,
                host: host_found,
                port: port_found,
                path: path_found,
                query: query_found,
            },
        ) => {
            let parts = [
                (protocol, protocol_found),
                (host, host_found),
                (port, port_found),
                (path, path_found),
                (query, query_found),
            ];
            status == status_found && parts.iter().all(|(told, found)| or_left_out(told, found))
        }
        _ => told == found,
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
        let makes = |action: Value, found: &Routing| {
            told(&json!({ "listenerArn": "l", "defaultActions": [action] })).is_some_and(|told| agrees(&told, found))
        };
        let groups = |groups: Value| json!({ "type": "forward", "forwardConfig": { "targetGroups": groups } });
        let of = |a: Value, b: Value| {
            groups(json!([{ "targetGroupArn": "b", "weight": b }, { "targetGroupArn": "a", "weight": a }]))
        };
        assert!(makes(of(json!(90), json!(10)), &shared) && makes(of(json!("90"), json!("10")), &shared));
        for (a, b) in
            [(json!(10), json!(90)), (json!(90), Value::Null), (json!(90.5), json!(10)), (json!(90), json!([]))]
        {
            assert!(!makes(of(a.clone(), b.clone()), &shared), "{a} {b}");
        }
        assert!(!makes(groups(json!([{ "targetGroupArn": "a", "weight": 90 }])), &shared));
        let one = json!({ "type": "forward", "targetGroupArn": "a" });
        assert!(makes(one.clone(), &Routing::to("a")));
        assert!(!makes(one.clone(), &Routing::to("b")) && !makes(one.clone(), &shared));
        let sticky = Routing::Forward { groups: vec![weighted("a", 1)], sticky_seconds: Some(60) };
        assert!(!makes(one.clone(), &sticky));

        let fixed = |body: &str| Routing::FixedResponse {
            status: "503".into(),
            content_type: Some("text/plain".into()),
            body: Some(body.into()),
        };
        let answer = |config: Value| json!({ "type": "fixed-response", "fixedResponseConfig": config });
        assert!(makes(answer(json!({ "statusCode": "503" })), &fixed("closed")));
        assert!(makes(answer(json!({ "statusCode": "503", "messageBody": "closed" })), &fixed("closed")));
        assert!(!makes(answer(json!({ "statusCode": "503", "messageBody": "open" })), &fixed("closed")));
        assert!(!makes(answer(json!({ "statusCode": "404" })), &fixed("closed")) && !makes(one, &fixed("closed")));

        let redirect = |host: &str| Routing::Redirect {
            status: "HTTP_301".into(),
            protocol: Some("#{protocol}".into()),
            host: Some(host.into()),
            port: Some("#{port}".into()),
            path: Some("/#{path}".into()),
            query: Some("#{query}".into()),
        };
        let to =
            |host: &str| json!({ "type": "redirect", "redirectConfig": { "statusCode": "HTTP_301", "host": host } });
        assert!(makes(to("a"), &redirect("a")) && !makes(to("a"), &redirect("b")));

        // One that changes a certificate makes nothing of this, and what a rule does has another name.
        assert_eq!(told(&json!({ "listenerArn": "a", "certificates": [] })), None);
        let of_rule = json!({ "ruleArn": "r", "actions": [{ "type": "forward", "targetGroupArn": "a" }] });
        assert_eq!(told(&of_rule), Some(Routing::to("a")));
    }
}
