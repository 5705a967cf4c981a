//! CloudTrail's event history, as far as [`Trail`](crate::trail::Trail) has it.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, sts};
use crate::{
    region::Region,
    trail::{Event, SOURCE},
};

/// The service's name in `X-Amz-Target`.
pub const TARGET: &str = "CloudTrail_20131101";
/// The most events in one answer.
const MOST_EVENTS: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LookupEvents {
    #[serde(default)]
    lookup_attributes: Vec<Attribute>,
    /// Seconds since 1970, as `end_time` is.
    start_time: Option<f64>,
    end_time: Option<f64>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    attribute_key: String,
    attribute_value: String,
}

/// Answers a call.
///
/// # Errors
/// The operation is not supported here, or its parameters are not allowed.
pub fn handle(operation: &str, body: &[u8], region: &Region) -> Result<Value, ApiError> {
    match operation {
        "LookupEvents" => lookup_events(body, region),
        other => Err(ApiError::unsupported(&format!("CloudTrail's {other}"))),
    }
}

fn lookup_events(body: &[u8], region: &Region) -> Result<Value, ApiError> {
    let asked: LookupEvents = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad("SerializationException", format!("The request cannot be read: {error}")))?;
    let most = asked.max_results.unwrap_or(MOST_EVENTS);
    if most == 0 || most > MOST_EVENTS {
        let words = format!("A maximum results value of {most} is not from 1 to {MOST_EVENTS}.");
        return Err(ApiError::bad("InvalidMaxResultsException", words));
    }
    if asked.start_time.zip(asked.end_time).is_some_and(|(start, end)| start > end) {
        return Err(ApiError::bad("InvalidTimeRangeException", "The start time is after the end time."));
    }
    let is_meant = match asked.lookup_attributes.as_slice() {
        [] => None,
        [one] => Some((is_part(&one.attribute_key)?, one.attribute_value.as_str())),
        _ => {
            let words = "You can specify only one attribute key.";
            return Err(ApiError::bad("InvalidLookupAttributesException", words));
        }
    };
    let skipped: usize = match asked.next_token.as_deref().map(str::parse) {
        None => 0,
        Some(Ok(skipped)) => skipped,
        Some(Err(_)) => return Err(ApiError::bad("InvalidNextTokenException", "The token is none of this region's.")),
    };
    let told = SignedDuration::try_from(region.config.lags.trail).unwrap_or(SignedDuration::MAX);
    let told = region.clock.now().saturating_sub(told).unwrap_or(Timestamp::MIN);
    let seconds = |at: Timestamp| at.as_second() as f64;
    let is_meant = |event: &Event| {
        event.at <= told
            && asked.start_time.is_none_or(|start| seconds(event.at) >= start)
            && asked.end_time.is_none_or(|end| seconds(event.at) <= end)
            && is_meant.is_none_or(|(part, value)| part(event) == value)
    };
    let (page, more) = region.trail.newest(is_meant, skipped, most);
    let mut answer = json!({ "Events": page.iter().map(shown).collect::<Vec<_>>() });
    if more {
        answer["NextToken"] = skipped.saturating_add(page.len()).to_string().into();
    }
    Ok(answer)
}

/// What an attribute's value is compared with.
fn is_part(key: &str) -> Result<fn(&Event) -> &str, ApiError> {
    Ok(match key {
        "EventId" => |event| &event.id,
        "EventName" => |event| &event.name,
        "EventSource" => |_| SOURCE,
        other => return Err(ApiError::unsupported(&format!("LookupEvents by {other}"))),
    })
}

fn shown(event: &Event) -> Value {
    json!({
        "EventId": event.id,
        "EventName": event.name,
        "ReadOnly": "false",
        "EventTime": event.at.as_second(),
        "EventSource": SOURCE,
        "AccessKeyId": event.access_key,
        "Username": sts::USER,
        "Resources": [],
        "CloudTrailEvent": event.record,
    })
}
