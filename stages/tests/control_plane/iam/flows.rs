//! Everything that Alcedo does in an environment, to be done under a policy.

use std::time::Duration;

use alcedo_pipeline::event::Outcome;
use alcedo_stages::{
    doctor, facts::Request, gate, hold, logs, overview, publish, releases, secrets, servers, site::Site, sweep, who,
};

use crate::{
    broken::Bench,
    ingress,
    life::fleet,
    support::{
        account::{BUCKET, nothing_yet},
        journey,
        staged::Staged,
    },
    sweep::{a_run, import_key, launch, tags_of},
};

/// Everything that Alcedo does in an environment, under whatever policy is in force.
pub async fn flows(bench: &Bench) -> Result<(), String> {
    let site = &bench.site;
    let done = |what: &str, outcome: Outcome, wanted: Outcome, why: String| match outcome == wanted {
        true => Ok(()),
        false => Err(format!("{what}: {outcome:?}, {why}")),
    };
    for finding in doctor::of_account(site).await {
        if finding.verdict == doctor::Verdict::Bad {
            return Err(format!("doctor: {finding:?}"));
        }
    }
    let found = secrets::find(site, &site.pipeline.secrets).await.map_err(|error| format!("secrets: {error:?}"))?;
    assert_eq!(found.len(), 2);
    let plan = journey::prepare(site, Request::Deploy { version: None }).await.map_err(|error| format!("{error:?}"))?;
    let gate_run = plan.plan.run.clone();
    plan.abandon().await.map_err(|error| error.to_string())?;

    // The first version of all fails: nothing points to any before and after.
    let manifests = as_admin(bench, hide(site)).await;
    let plan = bench.plan().await;
    let failed = bench.walk(&plan, &bench.steps().failing_at("launch/register")).await;
    let failed = failed.map_err(|error| error.to_string())?;
    done("a first deploy", failed.outcome, Outcome::Unwound, format!("{:?} {:?}", failed.failure, failed.left))?;
    as_admin(bench, async {
        for (key, bytes) in manifests {
            site.store.create(&key, bytes).await.unwrap();
        }
    })
    .await;

    // A deploy from source that fails at its end, and one that does not and retires what was held.
    let plan = bench.plan().await;
    let failed = bench.walk(&plan, &bench.steps().failing_at("flip/prove")).await.map_err(|error| error.to_string())?;
    done("a failing deploy", failed.outcome, Outcome::Unwound, format!("{:?} {:?}", failed.failure, failed.left))?;
    let plan = bench.plan().await;
    let ending = bench.walk(&plan, &bench.steps()).await.map_err(|error| error.to_string())?;
    done("a deploy", ending.outcome, Outcome::Done, format!("{:?}\n{plan}", ending.failure))?;
    let service = fleet(site, plan.version).await.ok_or("no fleet")?;
    // As whoever opens SSH reads the host keys.
    servers::console(&site.clients, &service.instances[0]).await.map_err(|error| error.to_string())?;

    let prepared =
        journey::prepare(site, Request::Rollback { to: None }).await.map_err(|error| format!("{error:?}"))?;
    // The lock is renewed meanwhile.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (ending, _) = journey::finish(prepared).await;
    let ending = ending.map_err(|error| error.to_string())?;
    done("a rollback", ending.outcome, Outcome::Done, format!("{:?}", ending.failure))?;
    hold::extend(site, "1h".parse().unwrap()).await.map_err(|error| error.to_string())?;
    let prepared = journey::prepare(site, Request::EndHold).await.map_err(|error| format!("{error:?}"))?;
    let (ending, _) = journey::finish(prepared).await;
    let ending = ending.map_err(|error| error.to_string())?;
    done("the end of a hold", ending.outcome, Outcome::Done, format!("{:?}", ending.failure))?;

    // What was built from this source is gone from the bucket, so it is built again.
    as_admin(bench, async {
        for key in site.store.list(&format!("{}{}/", site.root, plan.version)).await.unwrap() {
            site.clients.s3.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
        }
    })
    .await;
    let again = bench.plan().await;
    let ending = bench.walk(&again, &bench.steps()).await.map_err(|error| error.to_string())?;
    done("the same anew", ending.outcome, Outcome::Done, format!("{:?}\n{again}", ending.failure))?;

    overview::status(site).await.map_err(|error| error.to_string())?;
    overview::releases(site, 10).await.map_err(|error| error.to_string())?;
    overview::runs(site, 10).await.map_err(|error| error.to_string())?;
    logs::keep(site, &plan.run, site.now(), "a log".into()).await.map_err(|error| error.to_string())?;
    logs::read(site, &plan.run).await.map_err(|error| error.to_string())?;
    site.pin(plan.version, None).await.map_err(|error| error.to_string())?;
    site.unpin(plan.version).await.map_err(|error| error.to_string())?;
    let decided = gate::decide(site, &gate_run, None, true, "ada@desk".into(), None).await;
    decided.map(drop).or_else(|error| match error {
        gate::GateError::Store(error) => Err(error.to_string()),
        _ => Ok(()),
    })?;
    let place = bench.account.place();
    if let who::Who::Refused(way) = who::made(&site.clients, &place, &nothing_yet(), site.now()).await {
        return Err(way);
    }
    shared_rule(bench).await?;
    leftovers(bench).await
}

/// Takes away the pointer and what makes a version published. Answers that.
async fn hide(site: &Site) -> Vec<(String, Vec<u8>)> {
    let mut manifests = Vec::new();
    for version in site.versions().await.unwrap() {
        let key = releases::manifest_key(&site.root, version);
        if let Some(object) = site.store.read(&key).await.unwrap() {
            manifests.push((key, object.bytes));
        }
    }
    for key in manifests.iter().map(|it| it.0.clone()).chain([releases::pointer_key(&site.root)]) {
        site.clients.s3.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    manifests
}

/// Does something that nobody checks.
async fn as_admin<T>(bench: &Bench, what: impl Future<Output = T>) -> T {
    let region = &bench.simulation.region.region;
    let policy = region.policy();
    region.restrict(None);
    let done = what.await;
    region.restrict(policy);
    done
}

/// Two runs behind one address.
async fn shared_rule(bench: &Bench) -> Result<(), String> {
    let (account, site) = (&bench.account, &bench.site);
    let first = journey::plan_of(site, [("open", ingress::open(account))]);
    let second = journey::plan_of(site, [("open", ingress::open(account)), ("close", ingress::close(account))]);
    for plan in [first, second] {
        let ending = journey::try_walk(site, plan, &Staged::new(site)).await.map_err(|error| error.to_string())?;
        if ending.outcome != Outcome::Done {
            return Err(format!("ingress: {:?}", ending.failure));
        }
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    sweep::overdue(site).await.map(drop).map_err(|error| error.to_string())
}

/// What runs that died have left.
async fn leftovers(bench: &Bench) -> Result<(), String> {
    let (account, site) = (&bench.account, &bench.site);
    as_admin(bench, async {
        launch(account, &tags_of(site, &a_run(), "launch/instances")).await;
        import_key(account, "alcedo-ours", &tags_of(site, &a_run(), "bake/key")).await;
        publish::reserve(site, "2026.1105.100000".parse().unwrap(), a_run().as_str()).await.unwrap();
        let key = format!("{}2026.1106.100000/artifact.tar.zst", site.root);
        site.clients.s3.create_multipart_upload().bucket(BUCKET).key(&key).send().await.unwrap();
        tokio::time::sleep(Duration::from_secs(25 * 3600)).await;
    })
    .await;
    sweep::leases(site).await.map_err(|error| error.to_string())?;
    for found in sweep::find(site).await.map_err(|error| error.to_string())? {
        // Twice, as whoever goes on with a run that died would: what is gone has no tags to be allowed by.
        for _ in 0..2 {
            found.remove(site).await.map_err(|error| format!("{} {}: {error}", found.kind, found.id))?;
        }
    }
    Ok(())
}
