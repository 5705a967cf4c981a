//! Looks at everything a deploy needs before one is tried: each finding says how to mend it. Read-only.

use std::time::Duration;

use serde::Serialize;

use crate::{
    build,
    cloud_error::{self, CloudError},
    facts::{self, FactsError},
    site::Site,
};

/// A clock this far from AWS's makes signatures invalid (AWS allows 5 minutes); a warning comes well before.
const CLOCK_WARNING: Duration = Duration::from_secs(60);
const CLOCK_LIMIT: Duration = Duration::from_secs(300);

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What: `engine`, `credentials`, `clock`…
    pub subject: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// How to mend it; empty where nothing is wrong.
    pub fix: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Good,
    Warning,
    Bad,
}

impl Finding {
    fn good(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, detail: detail.into(), fix: Vec::new() }
    }

    fn bad(subject: &'static str, detail: impl Into<String>, fix: Vec<String>) -> Self {
        Self { subject, verdict: Verdict::Bad, detail: detail.into(), fix }
    }

    fn of_facts(subject: &'static str, error: &FactsError) -> Self {
        let mut detail = error.to_string();
        if let FactsError::Cloud(cloud) = error {
            detail = format!("could not {}: {cloud}", cloud.doing);
        }
        Self::bad(subject, detail, error.hints())
    }
}

/// All findings, in the order a deploy would meet them. Later ones are left out where an earlier one makes them
/// meaningless (without credentials nothing can be asked).
pub async fn findings(site: &Site) -> Vec<Finding> {
    let mut findings = vec![engine().await, region(site)];
    let credentials = credentials(site).await;
    let usable = credentials.verdict == Verdict::Good;
    findings.push(credentials);
    findings.push(clock(site).await);
    if !usable {
        return findings;
    }
    findings.push(bucket(site).await);
    match facts::balancer(site).await {
        Ok(balancer) => findings
            .push(Finding::good("listener", format!("{} port {}: {}", balancer.name, balancer.port, balancer.routing))),
        Err(error) => findings.push(Finding::of_facts("listener", &error)),
    }
    findings.push(subnets(site).await);
    findings.push(security_groups(site).await);
    match facts::base(site).await {
        Ok(base) => findings.push(Finding::good("base image", format!("{} ({})", base.name, base.ami))),
        Err(error) => findings.push(Finding::of_facts("base image", &error)),
    }
    findings.push(match facts::own_address(site).await {
        Some(address) => Finding::good("own address", format!("{address}, as servers see it")),
        None => Finding::bad(
            "own address",
            format!("{} did not answer with an address", site.check_ip_url()),
            vec!["allow it, or set ALCEDO_CHECK_IP_URL to a service that answers with the address".into()],
        ),
    });
    findings
}

async fn engine() -> Finding {
    match build::connect().await {
        Ok(engine) => Finding::good("engine", format!("answers at {}", engine.address())),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Finding::bad("engine", format!("{error}: {cause}"), error.hints)
        }
    }
}

fn region(site: &Site) -> Finding {
    match (&site.clients.region, &site.clients.endpoint) {
        (Some(region), None) => Finding::good("region", region),
        (Some(region), Some(endpoint)) => Finding::good("region", format!("{region} at {endpoint}")),
        (None, _) => {
            Finding::bad("region", "no AWS region is set", vec!["set aws.region in alcedo.yaml, or AWS_REGION".into()])
        }
    }
}

async fn credentials(site: &Site) -> Finding {
    match site.clients.sts.get_caller_identity().send().await {
        Ok(identity) => Finding::good("credentials", identity.arn().unwrap_or("accepted")),
        Err(error) => {
            let error = CloudError::of("ask AWS who we are", error);
            let hint = cloud_error::hint(&error)
                .unwrap_or("set AWS_PROFILE or aws.profile, or sign in again (`aws sso login`)");
            Finding::bad("credentials", error.to_string(), vec![hint.to_owned()])
        }
    }
}

/// Compares this machine's clock with the endpoint's `Date` header.
async fn clock(site: &Site) -> Finding {
    let url = match (&site.clients.endpoint, &site.clients.region) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(region)) => format!("https://sts.{region}.amazonaws.com/"),
        (None, None) => "https://sts.amazonaws.com/".to_owned(),
    };
    let answer = site.clients.http.get(url).send().await.ok();
    let date = answer.as_ref().and_then(|answer| answer.headers().get("date")?.to_str().ok());
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
    let Some(theirs) = theirs else {
        return Finding {
            subject: "clock",
            verdict: Verdict::Warning,
            detail: "the endpoint does not tell the time, so this machine's clock was not compared".into(),
            fix: vec!["check that the clock is synchronised (`timedatectl`)".into()],
        };
    };
    let off = site.now().duration_since(theirs).unsigned_abs();
    let detail = format!("{} s from the endpoint's", off.as_secs());
    let fix = vec![
        "synchronise the clock (`timedatectl set-ntp true`): AWS refuses signatures more than 5 minutes off".to_owned(),
    ];
    match off {
        off if off > CLOCK_LIMIT => Finding::bad("clock", detail, fix),
        off if off > CLOCK_WARNING => Finding { subject: "clock", verdict: Verdict::Warning, detail, fix },
        _ => Finding::good("clock", detail),
    }
}

async fn bucket(site: &Site) -> Finding {
    let bucket = site.bucket();
    match site.clients.s3.head_bucket().bucket(bucket).send().await {
        Ok(_) if site.clients.store_clock.is_known() => Finding::good("bucket", bucket),
        Ok(_) => Finding {
            subject: "bucket",
            verdict: Verdict::Warning,
            detail: format!(
                "{bucket}; its answers have no `Date`, so the age of a lock is judged by this machine's clock"
            ),
            fix: vec!["keep it in S3, or behind a store or proxy that sends `Date` with every answer".to_owned()],
        },
        Err(error) => {
            let missing = error.as_service_error().is_some_and(|error| error.is_not_found());
            let error = CloudError::of(format!("look at the bucket {bucket}"), error);
            match missing {
                true => Finding::bad(
                    "bucket",
                    format!("there is no bucket {bucket}"),
                    vec![format!("create it (`aws s3 mb s3://{bucket}`), or name another under publish.bucket")],
                ),
                false => Finding::bad(
                    "bucket",
                    error.to_string(),
                    cloud_error::hint(&error).map(str::to_owned).into_iter().collect(),
                ),
            }
        }
    }
}

async fn subnets(site: &Site) -> Finding {
    match facts::subnets(site).await {
        Ok(ids) => Finding::good("subnets", ids.join(", ")),
        Err(error) => Finding::of_facts("subnets", &error),
    }
}

async fn security_groups(site: &Site) -> Finding {
    match facts::security_groups(site).await {
        Ok(ids) => Finding::good("security groups", ids.join(", ")),
        Err(error) => Finding::of_facts("security groups", &error),
    }
}
