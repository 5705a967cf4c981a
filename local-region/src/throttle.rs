//! Token buckets per API action, by the numbers that AWS publishes.
//!
//! Source: *Request throttling for the Amazon EC2 API* in the EC2 developer guide, which lists bucket size and refill
//! rate per category and for single actions.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::wire::{ApiError, Params};

/// How many calls fit in a burst, and how many come back each second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    burst: f64,
    per_second: f64,
}

const fn limit(burst: u32, per_second: u32) -> Limit {
    Limit { burst: burst as f64, per_second: per_second as f64 }
}

/// Describe and Get actions that name what they want.
const NON_MUTATING: Limit = limit(100, 20);
/// Describe actions with neither ids nor filters nor `MaxResults`.
const UNFILTERED: Limit = limit(50, 10);
const MUTATING: Limit = limit(50, 5);
/// Instances, not calls, of RunInstances.
const INSTANCES: Limit = limit(1000, 2);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Timestamp,
}

impl Bucket {
    /// Takes `amount` tokens, or none where there are not so many.
    fn take(&mut self, amount: f64, limit: Limit, now: Timestamp) -> bool {
        let seconds = now.duration_since(self.filled).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + seconds * limit.per_second).min(limit.burst);
        self.filled = now;
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }
}

/// The buckets of one region, made full on first use.
#[derive(Debug, Default)]
pub struct Throttle {
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl Throttle {
    /// Counts one EC2 call.
    ///
    /// # Errors
    /// `RequestLimitExceeded` (HTTP 503) where the action's bucket is empty.
    pub fn admit(&self, action: &str, params: &Params, now: Timestamp) -> Result<(), ApiError> {
        let limit = limit_of(action, params);
        // Filtered and unfiltered calls of one action have a bucket each, as AWS lists them as categories.
        let name = if limit == UNFILTERED { format!("{action} unfiltered") } else { action.to_owned() };
        let instances = match action {
            "RunInstances" => params.parse::<u32>("MaxCount").ok().flatten().unwrap_or(1),
            _ => 0,
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut take = |name: String, amount: f64, limit: Limit| {
            let full = Bucket { tokens: limit.burst, filled: now };
            buckets.entry(name).or_insert(full).take(amount, limit, now)
        };
        if take(name, 1.0, limit) && (instances == 0 || take("instances".to_owned(), f64::from(instances), INSTANCES)) {
            return Ok(());
        }
        Err(ApiError::with_status(503, "RequestLimitExceeded", "Request limit exceeded."))
    }
}

fn limit_of(action: &str, params: &Params) -> Limit {
    match action {
        "RunInstances" | "StartInstances" => limit(5, 2),
        "TerminateInstances" => limit(100, 5),
        "CreateTags" | "DeleteTags" => limit(100, 10),
        "CopyImage" => limit(100, 1),
        _ if action.starts_with("Describe") || action.starts_with("Get") => {
            let narrowed = params.iter().any(|(name, _)| !matches!(name, "Action" | "Version" | "DryRun"));
            if narrowed { NON_MUTATING } else { UNFILTERED }
        }
        _ => MUTATING,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn admitted(throttle: &Throttle, action: &str, form: &[u8], now: Timestamp) -> usize {
        let params = Params::decode(form);
        (0..1000).take_while(|_| throttle.admit(action, &params, now).is_ok()).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_what_comes_back() {
        let throttle = Throttle::default();
        let now = Timestamp::UNIX_EPOCH;
        let form = b"GroupId=sg-1";
        assert_eq!(admitted(&throttle, "AuthorizeSecurityGroupIngress", form, now), 50);
        let later = now + SignedDuration::from_secs(2);
        assert_eq!(admitted(&throttle, "AuthorizeSecurityGroupIngress", form, later), 10);
    }

    #[test]
    fn an_unfiltered_describe_has_a_smaller_bucket_of_its_own() {
        let throttle = Throttle::default();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(admitted(&throttle, "DescribeInstances", b"Action=DescribeInstances", now), 50);
        assert_eq!(admitted(&throttle, "DescribeInstances", b"InstanceId.1=i-1", now), 100);
    }

    #[test]
    fn launches_count_instances_as_well_as_calls() {
        let throttle = Throttle::default();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(admitted(&throttle, "RunInstances", b"MaxCount=400", now), 2, "1000 instances in a burst");
        assert_eq!(admitted(&Throttle::default(), "RunInstances", b"MaxCount=1", now), 5);
    }
}
