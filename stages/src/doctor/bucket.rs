//! The bucket, and what earlier runs have left in it.

use alcedo_pipeline::{
    event::Outcome,
    ids::RunId,
    journal::{self, JournalError},
    lock::{self, Ended, Held, LockError},
    recovery::{self, Next, Wish},
    status::Progress,
};

use super::{Complaints, Finding};
use crate::{cloud_error::CloudError, site::Site};

/// S3's codes for a bucket that is not in the region that was asked (S3 API reference, *Error responses*).
const ELSEWHERE: [&str; 3] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];

pub(super) async fn bucket(site: &Site) -> Finding {
    let bucket = site.bucket();
    // Asked for the app's own part of it: nobody needs to be allowed to list the rest.
    match site.clients.s3.list_objects_v2().bucket(bucket).prefix(&site.root).max_keys(1).send().await {
        Ok(_) if site.clients.store_clock.is_known() => Finding::good("bucket", bucket),
        Ok(_) => Finding::warning(
            "bucket",
            format!("{bucket}; its answers have no `Date`, so the age of a lock is judged by this machine's clock"),
            "keep it in S3, or behind a store or proxy that sends `Date` with every answer",
        ),
        Err(error) => {
            let is_missing = error.as_service_error().is_some_and(|error| error.is_no_such_bucket());
            let home = error.raw_response().and_then(|answer| answer.headers().get("x-amz-bucket-region"));
            let home = home.map(str::to_owned);
            let error = CloudError::of(format!("look at the bucket {bucket}"), error);
            if is_missing {
                let fix =
                    format!("create it (`aws s3 mb s3://{bucket}`), or name one that exists under publish.bucket");
                return Finding::bad("bucket", format!("there is no bucket {bucket}"), vec![fix]);
            }
            if ELSEWHERE.iter().any(|code| error.is(code)) {
                let here = site.clients.region.as_deref().unwrap_or("this one");
                let there = home.unwrap_or_else(|| "another region".to_owned());
                let fix = format!("set aws.region to the bucket's, or name a bucket of {here} under publish.bucket");
                return Finding::bad("bucket", format!("{bucket} is in {there}, not in {here}"), vec![fix]);
            }
            Finding::of_cloud("bucket", site, &error)
        }
    }
}

/// Who holds the environment, and which runs have not come to their end.
pub(super) async fn lock_and_runs(site: &Site) -> [Finding; 2] {
    let held = match lock::look(site.store.as_ref(), &site.lock_key()).await {
        Ok(held) => held,
        Err(error) => return [lock_unread(site, &error), runs(site, None).await],
    };
    let at_work = held.as_ref().filter(|held| held.ended.is_none()).map(|held| held.lease.run.clone());
    [lock_finding(site, held.as_ref()), runs(site, at_work.as_ref()).await]
}

fn lock_finding(site: &Site, held: Option<&Held>) -> Finding {
    let environment = &site.environment;
    let Some(Held { lease, ended }) = held else { return Finding::good("lock", format!("nobody holds {environment}")) };
    let whose = format!("{} of {}, run {}", lease.reason, lease.holder, lease.run);
    let takes_over = "the next run takes it over at once, and settles what that one has left";
    match ended {
        Some(Ended::ProcessDied) => Finding::warning(
            "lock",
            format!("the process that held {environment} has ended: {whose}"),
            format!("nothing has to be done: {takes_over}"),
        ),
        Some(Ended::NotRenewed) => Finding::warning(
            "lock",
            format!("whoever held {environment} has not renewed its lease: {whose}"),
            format!("make sure that it is gone; {takes_over}"),
        ),
        None => Finding::warning(
            "lock",
            format!("{environment} is held: {whose}, since {}", lease.since),
            format!(
                "wait for it (`alcedo deploy` does); if it hangs, `alcedo lock break --env {environment} --yes` takes it away"
            ),
        ),
    }
}

fn lock_unread(site: &Site, error: &LockError) -> Finding {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let fix = match error {
        LockError::Unreadable(_) => {
            format!("use the alcedo that wrote it, or `alcedo lock break --env {} --yes`", site.environment)
        }
        _ => "allow s3:GetObject below the app's prefix: `alcedo iam-policy` prints it".to_owned(),
    };
    Finding::bad("lock", format!("{error}{cause}"), vec![fix])
}

async fn runs(site: &Site, at_work: Option<&RunId>) -> Finding {
    let open = match journal::open_runs(site.store.as_ref(), &site.root, &site.environment).await {
        Ok(open) => open,
        Err(error) => {
            let fix = "allow s3:ListBucket below the app's prefix: `alcedo iam-policy` prints it";
            return Finding::bad("runs", format!("the open runs cannot be listed: {error}"), vec![fix.to_owned()]);
        }
    };
    let mut complaints = Complaints::default();
    for run in open.iter().filter(|run| Some(*run) != at_work) {
        open_run(site, run, &mut complaints).await;
    }
    let good = match at_work {
        Some(run) => format!("{run} is at work"),
        None => "every run has come to its end".to_owned(),
    };
    complaints.finding("runs", good)
}

/// What the next run would make of it.
async fn open_run(site: &Site, run: &RunId, complaints: &mut Complaints) {
    let environment = &site.environment;
    let record = match journal::read(site.store.as_ref(), &site.root, run).await {
        // It died before it had a plan: the next run forgets it.
        Err(JournalError::NoRun { .. }) => return,
        Err(error) => {
            let fix = format!("`alcedo runs show {run}` says more");
            return complaints.bad(format!("the journal of {run} cannot be read: {error}"), fix);
        }
        Ok(record) => record,
    };
    let by_hand =
        format!("`alcedo resume {run} --env {environment}`, or `alcedo rollback --run {run} --env {environment}`");
    let progress = match Progress::replay(&record.events) {
        Ok(progress) => progress,
        Err(error) => return complaints.bad(format!("the journal of {run} contradicts itself: {error}"), by_hand),
    };
    match recovery::next(&record.plan, &progress, Wish::Settle) {
        Ok(Next::Nothing(_)) => {}
        Ok(next) if progress.outcome == Some(Outcome::Stuck) => {
            let tries = if next == Next::WriteOff { "writes it off" } else { "tries once more" };
            complaints.warning(
                format!("{run} is stuck: the next run {tries}, and refuses to begin if that fails"),
                format!("`alcedo runs show {run}` tells what it has left; mend that, then {by_hand}"),
            );
        }
        Ok(_) => complaints.warning(format!("{run} has not come to its end: the next run settles it first"), by_hand),
        Err(refusal) => complaints.bad(format!("{run} keeps others from beginning: {refusal}"), by_hand),
    }
}
