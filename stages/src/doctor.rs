//! Looks at everything a deploy needs before one is tried: each finding says how to mend it. Read-only.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use alcedo_pipeline::file::Pipeline;
use serde::Serialize;

use crate::{
    build,
    cloud_error::{self, CloudError},
    facts::{self, FactsError},
    secrets,
    signature::VARIABLE,
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

    /// What keeps a deploy from working.
    pub fn bad(subject: &'static str, detail: impl Into<String>, fix: Vec<String>) -> Self {
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
    let mut findings = vec![engine().await, tools(site), region(site)];
    findings.extend(signing(site));
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
    findings.extend(key(site).await);
    match facts::base(site).await {
        Ok(base) => findings.push(Finding::good("base image", format!("{} ({})", base.name, base.ami))),
        Err(error) => findings.push(Finding::of_facts("base image", &error)),
    }
    findings.extend(secrets(site).await);
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

/// Programs that a deploy starts, and what for.
fn tools(site: &Site) -> Finding {
    let Pipeline { build, bake, .. } = site.pipeline.as_ref();
    let mut needed =
        vec![("ssh", "openssh-client", "to reach builders"), ("ssh-keygen", "openssh-client", "for their keys")];
    if build.recipe.is_some() || bake.base.recipe.is_some() {
        needed.push(("mmdebstrap", "mmdebstrap", "to make the recipe's root where the engine has none"));
    }
    if bake.provision.iter().any(|step| step.ansible.is_some()) {
        needed.push(("ansible-playbook", "ansible-core", "for the playbook in bake.provision"));
    }
    if site.folder.ancestors().any(|folder| folder.join(".git").exists()) {
        needed.push(("git", "git", "to tell the commit"));
    }
    let missing: Vec<_> = needed.iter().filter(|(program, ..)| !is_there(program)).collect();
    if missing.is_empty() {
        let names: Vec<&str> = needed.iter().map(|(program, ..)| *program).collect();
        return Finding::good("programs", names.join(", "));
    }
    let detail: Vec<String> =
        missing.iter().map(|(program, _, why)| format!("there is no {program} ({why})")).collect();
    let packages: BTreeSet<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    let fix = format!("on Debian and Ubuntu: `sudo apt-get install {}`", packages.join(" "));
    Finding::bad("programs", detail.join("; "), vec![fix])
}

/// Whether a shell would find the program.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |file: PathBuf| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).any(|folder| is_program(folder.join(program)))
}

/// The engine alone: for whoever could not come so far as to ask for more.
pub async fn engine() -> Finding {
    match build::connect().await {
        Ok(engine) => Finding::good("engine", format!("answers at {}", engine.address())),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Finding::bad("engine", format!("{error}: {cause}"), error.hints)
        }
    }
}

/// The keys that versions are signed with.
fn signing(site: &Site) -> Option<Finding> {
    let publish = &site.pipeline.publish;
    if !publish.signs() {
        return None;
    }
    let trusted = match publish.signed_by.len() {
        0 => "any version is used".to_owned(),
        count => format!("versions are used that one of {count} keys has signed"),
    };
    Some(match site.signer() {
        Ok(Some(signer)) => {
            Finding::good("signing", format!("{VARIABLE} holds the key {}; {trusted}", signer.id.short()))
        }
        Ok(None) => Finding {
            subject: "signing",
            verdict: Verdict::Warning,
            detail: format!("{VARIABLE} is not set, so no new version can be published here; {trusted}"),
            fix: vec!["set it where versions are built; where they are only deployed, nothing is missing".into()],
        },
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Finding::bad("signing", format!("{error}{cause}"), vec![error.hint().to_owned()])
        }
    })
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
    // Asked for the app's own part of it: nobody needs to be allowed to list the rest.
    match site.clients.s3.list_objects_v2().bucket(bucket).prefix(&site.root).max_keys(1).send().await {
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
            let missing = error.as_service_error().is_some_and(|error| error.is_no_such_bucket());
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

/// Whether each is to be had; nothing of a value is told.
async fn secrets(site: &Site) -> Option<Finding> {
    let sources = &site.pipeline.secrets;
    if sources.is_empty() {
        return None;
    }
    Some(match secrets::find(site, sources).await {
        Ok(found) => Finding::good("secrets", found.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        Err(error) => Finding::bad("secrets", error.message, error.hints),
    })
}

/// The key pair that `launch.key` names.
async fn key(site: &Site) -> Option<Finding> {
    let name = site.pipeline.launch.key.as_ref()?;
    Some(match site.clients.ec2.describe_key_pairs().key_names(name).send().await {
        Ok(_) => Finding::good("key pair", name),
        Err(error) => {
            let error = CloudError::of(format!("look for the key pair {name}"), error);
            let fix = match error.is("InvalidKeyPair.NotFound") {
                true => format!(
                    "import it (`aws ec2 import-key-pair --key-name {name} …`), or name another under launch.key"
                ),
                false => cloud_error::hint(&error).unwrap_or("try again").to_owned(),
            };
            Finding::bad("key pair", error.to_string(), vec![fix])
        }
    })
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
