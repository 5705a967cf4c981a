//! CloudTrail: who has changed load balancers, as its event history tells it (AWS CloudTrail user guide, *CloudTrail record
//! contents*).
//!
//! AWS keeps every call that changes anything for ninety days, also those that were refused. Here it is the newest thousand of
//! ELBv2 that were done, in memory: a region that starts anew knows of none. Parameters' numbers are text, and nothing is said of
//! answers.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    state::ec2::image::ACCOUNT,
    wire::{Params, sts},
};

const KEPT: usize = 1000;
/// Longer lists, deeper names, more text than this are left out, as CloudTrail leaves out what is too large.
const MOST_MEMBERS: usize = 100;
const MOST_PARTS: usize = 12;
const MOST_BYTES: usize = 32 << 10;
/// Characters of the caller's own words.
const MOST_OF_AGENT: usize = 1000;

/// One call.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub at: Timestamp,
    pub name: String,
    pub access_key: String,
    /// The whole record, as CloudTrail writes it, in JSON.
    pub record: String,
}

/// The service whose calls are on record.
pub const SOURCE: &str = "elasticloadbalancing.amazonaws.com";

/// Who asks for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub request_id: &'a str,
    pub access_key: &'a str,
    pub user_agent: &'a str,
    pub from: Ipv4Addr,
    pub region: &'a str,
    pub name: &'a str,
    pub params: &'a Params,
}

/// The newest calls, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Trail(Mutex<VecDeque<Event>>);

impl Trail {
    pub(crate) fn add(&self, id: String, at: Timestamp, call: Call<'_>) {
        let record = json!({
            "eventVersion": "1.08",
            "userIdentity": {
                "type": "IAMUser",
                "principalId": sts::USER_ID,
                "arn": sts::user_arn(),
                "accountId": ACCOUNT,
                "accessKeyId": call.access_key,
                "userName": sts::USER,
            },
            "eventTime": format!("{at:.0}"),
            "eventSource": SOURCE,
            "eventName": call.name,
            "awsRegion": call.region,
            "sourceIPAddress": call.from,
            "userAgent": call.user_agent.chars().take(MOST_OF_AGENT).collect::<String>(),
            "requestParameters": nested(call.params),
            "responseElements": null,
            "requestID": call.request_id,
            "eventID": id,
            "readOnly": false,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": ACCOUNT,
            "eventCategory": "Management",
        });
        let mut events = self.held();
        if events.len() == KEPT {
            events.pop_front();
        }
        let (name, access_key) = (call.name.to_owned(), call.access_key.to_owned());
        events.push_back(Event { id, at, name, access_key, record: record.to_string() });
    }

    /// Those that are meant, the newest first: so many of them are passed over, and no more than so many are told, with
    /// whether there are others.
    pub(crate) fn newest(&self, is_meant: impl Fn(&Event) -> bool, skipped: usize, most: usize) -> (Vec<Event>, bool) {
        let events = self.held();
        let mut meant = events.iter().rev().filter(|event| is_meant(event)).skip(skipped);
        let page = meant.by_ref().take(most).cloned().collect();
        (page, meant.next().is_some())
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A form as CloudTrail writes it: nested, and in camel case. `Actions.member.1.Type=forward` is in `{"actions": [{"type": …}]}`.
fn nested(params: &Params) -> Value {
    let mut root = json!({});
    let size: usize = params.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST_BYTES {
        return Value::Null;
    }
    for (name, value) in params.iter().filter(|(name, _)| !matches!(*name, "Action" | "Version")) {
        if name.split('.').count() > MOST_PARTS {
            continue;
        }
        let place = name.split('.').filter(|part| *part != "member").try_fold(&mut root, within);
        // What cannot be both a text and a structure stays what came first.
        if let Some(place @ Value::Null) = place {
            *place = value.into();
        }
    }
    // Few words can ask for many empty places.
    if root.to_string().len() > MOST_BYTES { Value::Null } else { root }
}

/// A member of a list by its number, from 1 on, or a structure's by its name; made where there is nothing yet.
fn within<'a>(place: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    match part.parse::<usize>() {
        Ok(number @ 1..=MOST_MEMBERS) => {
            if place.is_null() {
                *place = json!([]);
            }
            let list = place.as_array_mut()?;
            list.resize(list.len().max(number), Value::Null);
            list.get_mut(number - 1)
        }
        Ok(_) => None,
        Err(_) => {
            if place.is_null() {
                *place = Map::new().into();
            }
            let first = part.chars().next()?.to_ascii_lowercase();
            let name: String = std::iter::once(first).chain(part.chars().skip(1)).collect();
            Some(place.as_object_mut()?.entry(name).or_insert(Value::Null))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_told_as_what_it_stands_for() {
        let form = b"Action=ModifyListener&Version=2015-12-01&ListenerArn=arn%3Aa&DefaultActions.member.1.Type=forward\
                     &DefaultActions.member.1.ForwardConfig.TargetGroups.member.2.Weight=20\
                     &DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn%3Ab";
        let told = nested(&Params::decode(form));
        let groups = json!([{ "targetGroupArn": "arn:b" }, { "weight": "20" }]);
        let action = json!({ "type": "forward", "forwardConfig": { "targetGroups": groups } });
        assert_eq!(told, json!({ "listenerArn": "arn:a", "defaultActions": [action] }));
    }

    #[test]
    fn a_form_that_contradicts_itself_is_told_as_far_as_it_goes() {
        for form in ["A=1&A.B=2", "A.1=1&A.B=2", "A.B=1&A.1=2", "A.0=1", "A.99999999=1", "=1", ".=1", "A.=1"] {
            assert!(nested(&Params::decode(form.as_bytes())).is_object(), "{form}");
        }
    }

    #[test]
    fn a_form_that_is_too_much_is_left_out() {
        let deep = format!("Name=a&{}=1", "A.".repeat(10_000));
        assert_eq!(nested(&Params::decode(deep.as_bytes())), json!({ "name": "a" }));
        let wide: Vec<String> = (0..100).map(|at| format!("A{at}.100.100.100=1")).collect();
        let long = format!("Name={}", "a".repeat(MOST_BYTES));
        for form in [wide.join("&"), long] {
            assert_eq!(nested(&Params::decode(form.as_bytes())), Value::Null);
        }
    }
}
