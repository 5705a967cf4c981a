//! Who asks, from where, and by which clock.

use std::{net::Ipv4Addr, time::Duration};

use jiff::SignedDuration;

use super::{Finding, Verdict};
use crate::{
    cloud_error::{self, CloudError},
    guard::StoreClock,
    secrets,
    signature::VARIABLE,
    site::Site,
};

/// A clock this far from AWS's makes signatures invalid (AWS allows 5 minutes); a warning comes well before.
const CLOCK_WARNING: Duration = Duration::from_secs(60);
const CLOCK_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn region(site: &Site) -> Finding {
    match (&site.clients.region, &site.clients.endpoint) {
        (Some(region), None) => Finding::good("region", region),
        (Some(region), Some(endpoint)) => Finding::good("region", format!("{region} at {endpoint}")),
        (None, _) => {
            Finding::bad("region", "no AWS region is set", vec!["set aws.region in alcedo.yaml, or AWS_REGION".into()])
        }
    }
}

/// Asks AWS who we are. Its answer, be it a refusal, tells its time as well.
pub(super) async fn credentials_and_clock(site: &Site) -> (Finding, Finding) {
    let told = StoreClock::new(site.clock());
    let call = site.clients.sts.get_caller_identity().customize().interceptor(told.clone());
    let credentials = match call.send().await {
        Ok(identity) => Finding::good("credentials", identity.arn().unwrap_or("accepted")),
        Err(error) => {
            let error = CloudError::of("ask AWS who we are", error);
            let hint = cloud_error::hint(&error)
                .unwrap_or("set AWS_PROFILE or aws.profile, or sign in again (`aws sso login`)");
            Finding::bad("credentials", error.to_string(), vec![hint.to_owned()])
        }
    };
    let off = match told.ahead() {
        Some(off) => Some(off),
        None => ask_for_the_time(site).await,
    };
    (credentials, clock(off.map(SignedDuration::unsigned_abs)))
}

/// The `Date` of an answer to nobody: for those who have no credentials to ask with.
async fn ask_for_the_time(site: &Site) -> Option<SignedDuration> {
    let url = match (&site.clients.endpoint, &site.clients.region) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(region)) => format!("https://sts.{region}.amazonaws.com/"),
        (None, None) => "https://sts.amazonaws.com/".to_owned(),
    };
    let answer = site.clients.http.get(url).send().await.ok()?;
    let date = jiff::fmt::rfc2822::parse(answer.headers().get("date")?.to_str().ok()?).ok()?;
    Some(date.timestamp().duration_since(site.now()))
}

fn clock(off: Option<Duration>) -> Finding {
    let Some(off) = off else {
        return Finding::warning(
            "clock",
            "the endpoint does not tell the time, so this machine's clock was not compared",
            "check that the clock is synchronised (`timedatectl`)",
        );
    };
    let detail = format!("{} s from the endpoint's", off.as_secs());
    let fix = "synchronise the clock (`timedatectl set-ntp true`): AWS refuses signatures more than 5 minutes off";
    match off {
        off if off > CLOCK_LIMIT => Finding::bad("clock", detail, vec![fix.to_owned()]),
        off if off > CLOCK_WARNING => Finding::warning("clock", detail, fix),
        _ => Finding::good("clock", detail),
    }
}

pub(super) fn own_address(site: &Site, address: Option<Ipv4Addr>) -> Finding {
    match address {
        Some(address) => Finding::good("own address", format!("{address}, as servers see it")),
        None => Finding::bad(
            "own address",
            format!("{} did not answer with an address", site.check_ip_url()),
            vec!["allow it, or set ALCEDO_CHECK_IP_URL to a service that answers with the address".into()],
        ),
    }
}

/// Whether each is to be had; nothing of a value is told.
pub(super) async fn secrets(site: &Site) -> Option<Finding> {
    let sources = &site.pipeline.secrets;
    if sources.is_empty() {
        return None;
    }
    Some(match secrets::find(site, sources).await {
        Ok(found) => Finding::good("secrets", found.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        Err(error) => Finding::bad("secrets", error.message, error.hints),
    })
}

/// The keys that versions are signed with.
pub(super) fn signing(site: &Site) -> Option<Finding> {
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
