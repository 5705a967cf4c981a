//! The life of an app on the control plane: what has to come out the same on every endpoint.

use alcedo_pipeline::{
    event::{Outcome, What},
    journal,
    plan::{Plan, Stage},
    report::Report,
    resource::Resource,
    runner::Ending,
    version::Version,
};
use alcedo_stages::{
    facts::{self, Fleet, Request},
    listener::Routing,
    overview::{self, Role},
    site::Site,
    tags::{self, Tags},
};

use crate::support::{
    account::{APP, Account, state},
    journey,
};

pub fn deploy(version: Version) -> Request {
    Request::Deploy { version: Some(version) }
}

pub fn assert_done(plan: &Plan, ending: &Ending) {
    assert_eq!(ending.outcome, Outcome::Done, "{plan}\n{:?} {:?}", ending.failure, ending.left);
}

pub async fn fleet(site: &Site, version: Version) -> Option<Fleet> {
    let balancer = facts::balancer(site).await.unwrap();
    facts::fleets(site, Some(&balancer)).await.unwrap().into_iter().find(|fleet| fleet.version == version)
}

/// Three releases: the second replaces the first, which is brought back, and the third retires the second.
/// `spared` are tags that fleets lose on the way, for an endpoint whose quota of them is less than AWS's 50.
pub async fn of_three_releases(account: &Account, spared: &[&str]) {
    let site = account.site().await;
    let mut versions = Vec::new();
    for version in ["2026.1101.100000", "2026.1102.100000", "2026.1103.100000"] {
        versions.push(account.release(&site, version).await);
    }
    let [first, second, third] = versions[..] else { unreachable!("three were made") };

    let (plan, ending) = journey::run(&site, deploy(first)).await;
    assert_done(&plan, &ending);
    let fleet_one = fleet(&site, first).await.unwrap();
    assert_eq!(account.routing().await, Routing::to(&fleet_one.target_group));
    assert_eq!(fleet_one.instances.len(), 2);
    assert!(!fleet_one.is_held() && fleet_one.is_in_service());
    assert_everything_is_tagged(account, &site, &plan).await;
    assert_journal_is_whole(&site, &plan, first).await;

    let (plan, ending) = journey::run(&site, deploy(second)).await;
    assert_done(&plan, &ending);
    let fleet_two = fleet(&site, second).await.unwrap();
    assert_eq!(account.routing().await, Routing::to(&fleet_two.target_group));
    assert_eq!(fleet_two.replaces, Some(first));
    assert!(fleet(&site, first).await.unwrap().is_held(), "the one before waits");
    assert_everything_is_tagged(account, &site, &plan).await;
    assert_eq!(roles(&site).await, [(first, Role::Held), (second, Role::InService)]);

    // Both fleets keep a rule of their own; the candidate's header value is free for the next one.
    let values = preview_values(account).await;
    assert_eq!(values, [vec![first.to_string()], vec![second.to_string()]]);

    for fleet in [&fleet_one, &fleet_two].into_iter().filter(|_| !spared.is_empty()) {
        let keys = Some(spared.iter().map(|key| (*key).to_owned()).collect());
        let call = account.clients.elb.remove_tags().resource_arns(&fleet.target_group).set_tag_keys(keys);
        call.send().await.unwrap();
    }
    let (plan, ending) = journey::run(&site, Request::Rollback { to: None }).await;
    assert_done(&plan, &ending);
    assert_eq!(plan.version, first);
    assert_eq!(plan.stages(), [Stage::Flip, Stage::Hold], "a held fleet takes no launch");
    assert_eq!(account.routing().await, Routing::to(&fleet_one.target_group));
    let back = fleet(&site, first).await.unwrap();
    assert_eq!((back.instances, back.held_until, back.replaces), (fleet_one.instances.clone(), None, Some(second)));
    assert!(fleet(&site, second).await.unwrap().is_held(), "the bad version is kept to be looked at");

    let (plan, ending) = journey::run(&site, deploy(third)).await;
    assert_done(&plan, &ending);
    let fleet_three = fleet(&site, third).await.unwrap();
    assert_eq!(account.routing().await, Routing::to(&fleet_three.target_group));
    assert_eq!(fleet(&site, second).await, None, "retired");
    for id in &fleet_two.instances {
        assert_eq!(state(&account.clients, id).await.as_deref(), Some("terminated"));
    }
    for id in fleet_one.instances.iter().chain(&fleet_three.instances) {
        assert_eq!(state(&account.clients, id).await.as_deref(), Some("running"));
    }
    assert_eq!(preview_values(account).await, [vec![first.to_string()], vec![third.to_string()]]);
    assert_eq!(roles(&site).await, [(first, Role::Held), (third, Role::InService)]);
    assert_everything_is_tagged(account, &site, &plan).await;

    assert!(site.store.read(&site.lock_key()).await.unwrap().is_none(), "the lock is given back");
    assert_eq!(overview::runs(&site, 10).await.unwrap().len(), 4);
}

async fn roles(site: &Site) -> Vec<(Version, Role)> {
    let status = overview::status(site).await.unwrap();
    assert!(status.lock.is_none());
    assert!(status.fleets.iter().all(|it| it.healthy == 2 && it.registered == 2), "{:?}", status.fleets);
    status.fleets.iter().map(|it| (it.fleet.version, it.role)).collect()
}

/// What the header of each of the listener's rules may say, in the order of the versions.
async fn preview_values(account: &Account) -> Vec<Vec<String>> {
    let rules = account.clients.elb.describe_rules().listener_arn(&account.listener).send().await.unwrap();
    let headers = rules.rules().iter().flat_map(|rule| rule.conditions()).filter_map(|it| it.http_header_config());
    let mut values: Vec<Vec<String>> = headers.map(|config| config.values().to_vec()).collect();
    values.sort();
    values
}

/// The journal in S3 can be read back, tells every step's success, and holds the plan as it was.
async fn assert_journal_is_whole(site: &Site, plan: &Plan, version: Version) {
    let record = journal::read(site.store.as_ref(), &site.root, &plan.run).await.unwrap();
    assert_eq!(record.plan, *plan);
    for step in &plan.steps {
        let succeeded =
            record.events.iter().any(|it| matches!(&it.what, What::StepSucceeded { step: id, .. } if *id == step.id));
        assert!(succeeded, "the journal does not tell that {} succeeded", step.id);
    }
    let report = Report::of(&record);
    assert_eq!((report.outcome, report.version, report.failure.is_none()), (Some(Outcome::Done), version, true));
}

/// Every resource that the journal says a step owns carries the tags of that step.
async fn assert_everything_is_tagged(account: &Account, site: &Site, plan: &Plan) {
    let record = journal::read(site.store.as_ref(), &site.root, &plan.run).await.unwrap();
    let mut kinds = Vec::new();
    for event in &record.events {
        let What::StepOwned { step, resource, more } = &event.what else { continue };
        let wanted = [
            (tags::APP, APP.to_owned()),
            (tags::ENVIRONMENT, site.environment.clone()),
            (tags::VERSION, plan.version.to_string()),
            (tags::RUN, plan.run.to_string()),
            (tags::STEP, step.to_string()),
        ];
        for resource in std::iter::once(resource).chain(more) {
            for (what, tags) in tags_of(account, resource).await {
                for (name, value) in &wanted {
                    assert_eq!(tags.get(name), Some(value.as_str()), "{name} of {what}");
                }
            }
            kinds.push(resource.kind.as_str());
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["instance", "instance", "listener rule", "target group"]);
}

/// A resource and what was created with it.
async fn tags_of(account: &Account, resource: &Resource) -> Vec<(String, Tags)> {
    let (ec2, elb) = (&account.clients.ec2, &account.clients.elb);
    if resource.kind != "instance" {
        let answer = elb.describe_tags().resource_arns(&resource.id).send().await.unwrap();
        return vec![(resource.to_string(), Tags::from_elb(answer.tag_descriptions()[0].tags()))];
    }
    let answer = ec2.describe_instances().instance_ids(&resource.id).send().await.unwrap();
    let instance = &answer.reservations()[0].instances()[0];
    let mut all = vec![(resource.to_string(), Tags::from_ec2(instance.tags()))];
    for mapping in instance.block_device_mappings() {
        let id = mapping.ebs().unwrap().volume_id().unwrap();
        let answer = ec2.describe_volumes().volume_ids(id).send().await.unwrap();
        all.push((format!("volume {id}"), Tags::from_ec2(answer.volumes()[0].tags())));
    }
    assert!(all.len() > 1, "{resource} has a volume");
    all
}
