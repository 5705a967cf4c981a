//! Who else changed a listener: CloudTrail's record of the account's calls.
//!
//! **Caveat.** A call is on record some minutes after it was made, five on average (AWS CloudTrail user guide, *What is AWS
//! CloudTrail?*). Where nobody is named yet, what is told is how to ask later.

use std::time::Duration;

use alcedo_pipeline::error::StepError;
use aws_sdk_cloudtrail::{
    primitives::DateTime,
    types::{LookupAttribute, LookupAttributeKey},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    clients::{APP_NAME, Clients},
    cloud_error::CloudError,
    listener::Place,
};

/// Longest time that is spent on asking: what is to be told is bad enough without it.
const WITHIN: Duration = Duration::from_secs(5);
/// How far this machine's clock may be wrong.
const SLACK: SignedDuration = SignedDuration::from_mins(5);
/// The most that one answer holds; the newest come first.
const EVENTS: i32 = 50;

/// What CloudTrail says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Who made the newest such call, when, from where and by what: `arn:aws:iam::111122223333:user/ada called …`.
    Known(String),
    /// Nobody is on record yet, or asking failed: how to find out.
    Unknown(String),
}

impl Who {
    /// An error with what is known of who is behind it.
    pub fn blamed(self, mut error: StepError) -> StepError {
        error.message += &self.in_words();
        match self.way() {
            Some(way) => error.hint(format!("nothing was overwritten; {way}; then run again")),
            None => error.hint("nothing was overwritten; agree with them, then run again"),
        }
    }

    /// To follow what was done.
    pub fn in_words(&self) -> String {
        match self {
            Self::Known(call) => format!("; {call}"),
            Self::Unknown(_) => String::new(),
        }
    }

    /// How to find out, where nobody knows yet.
    pub fn way(&self) -> Option<String> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(way) => Some(way.clone()),
        }
    }
}

/// Who has changed what this place does since then.
pub async fn changed(clients: &Clients, place: &Place, since: Timestamp) -> Who {
    let since = since.saturating_sub(SLACK).unwrap_or(Timestamp::MIN);
    let call = match place {
        Place::Listener { .. } => "ModifyListener",
        Place::Rule { .. } => "ModifyRule",
    };
    let way = |why: &str| {
        Who::Unknown(format!(
            "{why}: aws cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue={call} \
             --start-time {since:.0}"
        ))
    };
    match tokio::time::timeout(WITHIN, newest(clients, call, place.arn(), since)).await {
        Ok(Ok(Some(who))) => Who::Known(who),
        Ok(Ok(None)) => way("CloudTrail has nobody else's call on record yet, some minutes later it may"),
        Ok(Err(error)) if error.is_refused() => way("permit cloudtrail:LookupEvents to be told who it was, or ask"),
        Ok(Err(_)) | Err(_) => way("CloudTrail did not say who it was, ask again"),
    }
}

async fn newest(clients: &Clients, call: &str, thing: &str, since: Timestamp) -> Result<Option<String>, CloudError> {
    let named = LookupAttribute::builder().attribute_key(LookupAttributeKey::EventName).attribute_value(call).build();
    let asked = clients.cloudtrail.lookup_events().set_lookup_attributes(named.ok().map(|named| vec![named]));
    let asked = asked.start_time(DateTime::from_secs(since.as_second())).max_results(EVENTS);
    let answer = asked.send().await.map_err(|error| CloudError::of("look calls up in CloudTrail", error))?;
    let events = answer.events().iter().filter_map(|event| serde_json::from_str(event.cloud_trail_event()?).ok());
    Ok(events.filter(|event| is_foreign_change(event, thing)).map(|event| in_words(&event)).next())
}

/// A call of ours is another run's at most, which holds the same lock. One that failed changed nothing.
fn is_foreign_change(event: &Value, thing: &str) -> bool {
    let parameters = &event["requestParameters"];
    let own = event["userAgent"]
        .as_str()
        .is_some_and(|agent| agent.split_whitespace().any(|word| word.strip_prefix("app/") == Some(APP_NAME)));
    let named = ["listenerArn", "ruleArn"].iter().any(|key| parameters[key].as_str() == Some(thing));
    named && !own && event["errorCode"].is_null()
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
        assert!(is_foreign_change(&by_hand, "arn:of:listener"));
        assert!(!is_foreign_change(&by_hand, "arn:of:another"));
        assert!(!is_foreign_change(&event("aws-sdk-rust/1.3 ua/2.1 app/alcedo"), "arn:of:listener"));
        assert!(is_foreign_change(&event("aws-sdk-rust/1.3 ua/2.1 app/alcedo-like"), "arn:of:listener"));
        let mut failed = by_hand;
        failed["errorCode"] = json!("AccessDenied");
        assert!(!is_foreign_change(&failed, "arn:of:listener"));
    }
}
