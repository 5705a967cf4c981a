//! Looks at everything a deploy needs before one is tried: each finding says how to mend it. Read-only.
//!
//! What belongs to this machine and what belongs to the account are looked at apart. Where something is missing that
//! others are asked through, those are left out: without credentials nothing can be asked.

mod access;
mod balancer;
mod bucket;
mod groups;
mod machine;
mod network;
mod servers;

use serde::Serialize;

pub use self::machine::engine;
use crate::{
    cloud_error::{self, CloudError},
    facts::{self, FactsError},
    site::Site,
};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Good,
    /// A deploy can work all the same.
    Warning,
    /// A deploy cannot work.
    Bad,
}

impl Finding {
    fn good(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, detail: detail.into(), fix: Vec::new() }
    }

    fn warning(subject: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warning, detail: detail.into(), fix: vec![fix.into()] }
    }

    /// What keeps a deploy from working.
    pub fn bad(subject: &'static str, detail: impl Into<String>, fix: Vec<String>) -> Self {
        Self { subject, verdict: Verdict::Bad, detail: detail.into(), fix }
    }

    /// A call that failed.
    fn of_cloud(subject: &'static str, site: &Site, error: &CloudError) -> Self {
        let fix = match error.is_refused() {
            true => format!(
                "allow it: `alcedo iam-policy --env {}`, run by somebody who may look, prints everything that a deploy needs",
                site.environment
            ),
            false => cloud_error::hint(error).unwrap_or("try again; AWS's answer says more").to_owned(),
        };
        Self::bad(subject, format!("could not {}: {error}", error.doing), vec![fix])
    }

    fn of_facts(subject: &'static str, site: &Site, error: &FactsError) -> Self {
        match error {
            FactsError::Cloud(cloud) => Self::of_cloud(subject, site, cloud),
            error => Self::bad(subject, error.to_string(), error.hints()),
        }
    }
}

/// What was wrong with one subject, each with its fix; what was found where nothing was.
#[derive(Debug, Default)]
struct Complaints(Vec<(Verdict, String, String)>);

impl Complaints {
    fn bad(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push((Verdict::Bad, what.into(), fix.into()));
    }

    fn warning(&mut self, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push((Verdict::Warning, what.into(), fix.into()));
    }

    fn finding(self, subject: &'static str, good: impl Into<String>) -> Finding {
        let Some(verdict) = self.0.iter().map(|it| it.0).max() else { return Finding::good(subject, good) };
        let (details, fix): (Vec<_>, Vec<_>) = self.0.into_iter().map(|(_, what, fix)| (what, fix)).unzip();
        Finding { subject, verdict, detail: details.join("; "), fix }
    }
}

/// All findings, in the order a deploy would meet them.
pub async fn findings(site: &Site) -> Vec<Finding> {
    let mut findings = of_machine(site).await;
    findings.extend(of_account(site).await);
    findings
}

/// What this machine has to have.
pub async fn of_machine(site: &Site) -> Vec<Finding> {
    let mut findings = vec![engine().await, machine::space().await, machine::programs(site)];
    findings.extend(access::signing(site));
    findings
}

/// What the account has to have. Later findings are left out where an earlier one makes them meaningless.
pub async fn of_account(site: &Site) -> Vec<Finding> {
    let region = access::region(site);
    if region.verdict == Verdict::Bad {
        return vec![region];
    }
    let (credentials, clock) = access::credentials_and_clock(site).await;
    let is_known = credentials.verdict == Verdict::Good;
    let mut findings = vec![region, credentials, clock];
    if !is_known {
        return findings;
    }
    let bucket = bucket::bucket(site).await;
    let has_bucket = bucket.verdict != Verdict::Bad;
    findings.push(bucket);
    if has_bucket {
        findings.extend(bucket::lock_and_runs(site).await);
    }
    let network = network::look(site).await;
    findings.extend(network.findings);
    findings.extend(servers::key(site).await);
    findings.extend(access::secrets(site).await);
    let (base, base_image) = match facts::base(site).await {
        Ok(base) => servers::base(site, base).await,
        Err(error) => (Finding::of_facts("base image", site, &error), None),
    };
    findings.push(base);
    let address = facts::own_address(site).await;
    findings.push(access::own_address(site, address));
    findings.extend(servers::permissions(site, network.places.as_ref(), base_image.as_ref(), address).await);
    findings
}
