//! A good account, ways to break it, and what must be found then.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use Verdict::Good;
use alcedo_local_region::{
    faults::{Calls, Effect, Fault, When},
    iam::Policy,
};
use alcedo_pipeline::{
    error::{ErrorKind, ErrorRecord},
    event::{Event, What},
    ids::RunId,
    journal::Journal,
    lock::Lease,
    plan::{Plan, Stage},
    process::Process,
};
use alcedo_stages::{
    doctor::{self, Finding, Verdict},
    iam_policy,
    site::Site,
    tags::Tags,
};
use aws_sdk_ec2::types::{IpPermission, IpRange, SecurityGroup};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::{
    ingress,
    support::{
        account::Account,
        journey,
        region::LocalRegion,
        simulation::{Machine, Simulation, Tampering},
    },
    sweep::import_key,
};

/// An account in which nothing is wrong, with all that a file can name.
pub struct World {
    pub simulation: Simulation,
    pub account: Account,
}

impl World {
    pub async fn new() -> Self {
        let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
        let account = Account::within(simulation.clients.clone(), 0).await;
        import_key(&account, "ops", &Tags::default().with("Name", "ops")).await;
        Self { simulation, account }
    }

    pub async fn site(&self) -> Site {
        self.with(json!({})).await
    }

    /// The good file with these changes.
    pub async fn with(&self, changes: Value) -> Site {
        let mut all = json!({
            "launch": { "key": "ops", "instance_profile": "hello" },
            "flip": { "version": { "path": "/version" } },
            "smoke_tests": [{ "http": { "path": "/health" } }],
        });
        add(&mut all, changes);
        self.account.site_with("production", all).await
    }

    /// The good file, where answers are not what the region gave.
    pub async fn tampered(&self, changes: Value, tampering: Tampering) -> Site {
        let machine = Machine { tampering: Some(tampering), ..Machine::default() };
        let mut site = self.with(changes).await;
        site = Site::of(
            (*site.pipeline).clone(),
            site.environment.clone(),
            site.folder.clone(),
            self.simulation.clients_of(machine, SignedDuration::ZERO),
            rand::SeedableRng::seed_from_u64(0),
        );
        site
    }

    /// The same, where one text in the answers to one operation is another.
    pub async fn saying(&self, operation: &'static str, from: &'static str, to: &'static str) -> Site {
        let struck = Box::new(move |asked: &str, answer: http::Response<String>| {
            match asked.contains(&format!("Action={operation}&")) {
                true => answer.map(|text| {
                    assert!(text.contains(from), "{operation} says nothing of {from}: {text}");
                    text.replace(from, to)
                }),
                false => answer,
            }
        });
        self.tampered(json!({}), struck).await
    }

    /// The same, where what is said of one thing right after its id is another.
    pub async fn saying_of(&self, operation: &'static str, id: &str, element: &'static str, to: &'static str) -> Site {
        let id = format!(">{id}<");
        let struck = Box::new(move |asked: &str, answer: http::Response<String>| {
            match asked.contains(&format!("Action={operation}&")) {
                true => answer.map(|text| said_of(&text, &id, element, to)),
                false => answer,
            }
        });
        self.tampered(json!({}), struck).await
    }

    /// The good file under the policy that is printed for it, without one of its actions.
    pub async fn forbidden(&self, action: &str) -> Site {
        let site = self.site().await;
        let mut policy = iam_policy::policy(&site).await.unwrap();
        let mut taken = 0;
        for statement in policy["Statement"].as_array_mut().unwrap() {
            match &mut statement["Action"] {
                Value::Array(actions) => {
                    let before = actions.len();
                    actions.retain(|one| one != action);
                    taken += before - actions.len();
                }
                one if one == action => {
                    *one = "ec2:RebootInstances".into();
                    taken += 1;
                }
                _ => {}
            }
        }
        assert!(taken > 0, "no statement allows {action}");
        self.restrict(&policy);
        site
    }

    pub fn restrict(&self, policy: &Value) {
        self.simulation.region.region.restrict(Some(Arc::new(Policy::read(&policy.to_string()).unwrap())));
    }

    pub fn strike(&self, service: &str, operation: &str, effect: Effect) {
        let on = Calls { service: Some(service.into()), operation: Some(operation.into()), ..Calls::default() };
        self.simulation.region.region.faults.add(Fault { on, when: When::Before, effect });
    }

    /// Takes all rules of a group away.
    pub async fn close(&self, group: &str, egress: bool) {
        let found = self.group(group).await;
        let ec2 = &self.account.clients.ec2;
        match egress {
            false => {
                let call = ec2.revoke_security_group_ingress().group_id(group);
                call.set_ip_permissions(Some(found.ip_permissions().to_vec())).send().await.map(drop).unwrap();
            }
            true => {
                let call = ec2.revoke_security_group_egress().group_id(group);
                call.set_ip_permissions(Some(found.ip_permissions_egress().to_vec())).send().await.map(drop).unwrap();
            }
        }
    }

    async fn group(&self, id: &str) -> SecurityGroup {
        let answer = self.account.clients.ec2.describe_security_groups().group_ids(id).send().await.unwrap();
        answer.security_groups()[0].clone()
    }

    pub async fn let_in(&self, group: &str, ports: [i32; 2], from: &str) {
        let range = IpRange::builder().cidr_ip(from).build();
        let rule = IpPermission::builder().ip_protocol("tcp").from_port(ports[0]).to_port(ports[1]).ip_ranges(range);
        let call = self.account.clients.ec2.authorize_security_group_ingress().group_id(group);
        call.ip_permissions(rule.build()).send().await.unwrap();
    }

    /// A run of two steps whose journal ends with these events.
    pub async fn run(&self, site: &Site, change: impl FnOnce(&mut Plan), events: Vec<What>) -> RunId {
        let steps = [("open", ingress::open(&self.account)), ("close", ingress::close(&self.account))];
        let mut plan = journey::plan_of(site, steps);
        plan.app.clone_from(&site.pipeline.app);
        change(&mut plan);
        let mut journal = Journal::begin(site.store.clone(), &site.root, &plan, "a test").await.unwrap();
        for what in [journey::started(&plan)].into_iter().chain(events) {
            journal.append(&Event::new(&plan.run, site.now(), what)).await.unwrap();
        }
        plan.run
    }

    /// Somebody's lock.
    pub async fn lock(&self, site: &Site, process: Option<Process>, run: &RunId) {
        let now = site.now();
        let lease = Lease {
            format: Lease::FORMAT,
            nonce: "theirs".into(),
            process,
            run: run.clone(),
            holder: "ada@desk".into(),
            reason: "deploy".into(),
            since: now,
            expires: now + SignedDuration::from_mins(2),
        };
        site.store.create(&site.lock_key(), serde_json::to_vec(&lease).unwrap()).await.unwrap();
    }
}

/// Adds changes to changes: a `null` among them is still to remove something.
fn add(to: &mut Value, changes: Value) {
    match (to, changes) {
        (Value::Object(to), Value::Object(changes)) => {
            for (key, value) in changes {
                add(to.entry(key).or_insert_with(|| json!({})), value);
            }
        }
        (to, value) => *to = value,
    }
}

/// `text` with another value in the first `element` after `id`, at each place where the id begins something.
fn said_of(text: &str, id: &str, element: &str, to: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut parts = text.split(id);
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        changed.push_str(id);
        let Some((before, after)) = part.split_once(&open) else {
            changed.push_str(part);
            continue;
        };
        let (_, rest) = after.split_once(&close).unwrap();
        changed.push_str(&format!("{before}{open}{to}{close}{rest}"));
    }
    changed
}

pub fn step_started(step: &str) -> What {
    What::StepStarted { step: step.into(), stage: Stage::Bake, does: step.into(), token: "token".into() }
}

pub fn failure() -> ErrorRecord {
    ErrorRecord { kind: ErrorKind::Failed, message: "it failed".into(), causes: Vec::new(), hints: Vec::new() }
}

pub fn is_wrong(finding: &Finding) -> bool {
    finding.verdict != Good
}

/// Counts what was planted, over all tests of this file.
static PLANTED: AtomicU32 = AtomicU32::new(0);

/// Plants one fault in a world of its own. `found` is every finding that turns, the fault's own first; `fix` must be in that
/// one's.
pub async fn plant(
    what: &str,
    found: &[(&'static str, Verdict)],
    fix: &[&str],
    fault: impl AsyncFnOnce(&World) -> Site,
) {
    let world = World::new().await;
    let site = fault(&world).await;
    let findings = doctor::of_account(&site).await;
    let wrong: BTreeMap<&str, Verdict> =
        findings.iter().filter(|it| is_wrong(it)).map(|it| (it.subject, it.verdict)).collect();
    assert_eq!(wrong, found.iter().copied().collect(), "{what}: {findings:#?}");
    let own = findings.iter().find(|it| it.subject == found[0].0).unwrap();
    let offered = own.fix.join("\n");
    for text in fix {
        assert!(offered.contains(text), "{what}: nothing of {text} in {own:#?}");
    }
    assert!(findings.iter().filter(|it| is_wrong(it)).all(|it| !it.fix.is_empty()), "{what}: {findings:#?}");
    PLANTED.fetch_add(1, Relaxed);
}

pub fn told(what: &str) {
    eprintln!("{} faults of an account planted, with {what}", PLANTED.load(Relaxed));
}
