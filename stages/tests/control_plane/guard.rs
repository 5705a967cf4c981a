//! What stands between the SDK's clients and the wire: a process that lost its lease changes nothing, whatever it calls.

use std::time::Duration;

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_pipeline::{
    error::{ErrorKind, StepError},
    ids::RunId,
    lock::{self, Claim, LEASE, Lock},
    store::{Store, StoreError},
};
use alcedo_stages::{cloud_error::CloudError, s3_store::S3Store, site::Site};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use jiff::{SignedDuration, Timestamp};

use crate::{
    broken::Bench,
    support::{account::nothing_yet, simulation::Machine},
};

async fn hold(site: &Site) -> Lock {
    let claim = Claim {
        run: RunId::new(site.now(), 1),
        holder: "ann@build".into(),
        reason: "deploy".into(),
        nonce: "hers".into(),
        process: None,
    };
    Lock::acquire(site.store.clone(), &site.lock_key(), &claim, site.clock()).await.unwrap()
}

/// What became of a call.
fn kind<T, E, R>(answer: Result<T, SdkError<E, R>>) -> Option<ErrorKind>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    answer.err().map(|error| StepError::from(CloudError::of("change something", error)).kind)
}

/// A change through each client, and the one that moves traffic.
async fn changes(bench: &Bench, site: &Site) -> Vec<Option<ErrorKind>> {
    let clients = &site.clients;
    let run = clients.ec2.run_instances().image_id(&bench.account.base).subnet_id(&bench.account.subnets[0]);
    let run = run.min_count(1).max_count(1).instance_type("t3.micro".into());
    let group = clients.elb.create_target_group().name("another").protocol("HTTP".into()).port(80);
    let action = nothing_yet().action();
    let listener = clients.elb.modify_listener().listener_arn(&bench.account.listener).default_actions(action);
    let put = clients.s3.put_object().bucket(site.bucket()).key("another").body(b"one".to_vec().into());
    vec![
        kind(run.send().await),
        kind(group.vpc_id(&bench.account.vpc).send().await),
        kind(listener.send().await),
        kind(put.send().await),
    ]
}

#[tokio::test(start_paused = true)]
async fn whoever_holds_the_lease_may_change_anything() {
    let bench = Bench::new().await;
    let lock = hold(&bench.site).await;
    let guarded = bench.site.guarded_by(lock.fence());
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(changes(&bench, &guarded).await, [None; 4]);
    guarded.store.create("and/this", b"one".to_vec()).await.unwrap();
}

/// Its lease was taken, and its heartbeat has noticed; or it was cut off from the store for as long as a lease lasts.
#[tokio::test(start_paused = true)]
async fn whoever_lost_the_lease_reaches_the_region_with_no_change() {
    let bench = Bench::new().await;
    let lock = hold(&bench.site).await;
    let guarded = bench.site.guarded_by(lock.fence());
    lock::break_it(bench.site.store.as_ref(), &bench.site.lock_key()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(lock.fence().lost().is_cancelled());
    nothing_passes(&bench, &guarded).await;

    let lock = hold(&bench.site).await;
    let guarded = bench.site.guarded_by(lock.fence());
    let on = Calls { about: Some("lock.json".into()), ..Calls::default() };
    bench.faults().add(Fault { on, when: When::Before, effect: Effect::LoseAnswer });
    tokio::time::sleep(LEASE).await;
    assert!(!lock.fence().lost().is_cancelled(), "nobody has taken it");
    nothing_passes(&bench, &guarded).await;
}

async fn nothing_passes(bench: &Bench, guarded: &Site) {
    bench.faults().forget_calls();
    assert_eq!(changes(bench, guarded).await, [Some(ErrorKind::LeaseLost); 4]);
    let created = guarded.store.create("and/this", b"one".to_vec()).await;
    assert!(matches!(created, Err(StoreError::Unavailable { .. })), "{created:?}");
    let removed = guarded.store.remove("team/hello/VERSION", "any").await;
    assert!(matches!(removed, Err(StoreError::Unavailable { .. })), "{removed:?}");
    // It may look as long as it likes.
    guarded.clients.ec2.describe_instances().send().await.unwrap();
    guarded.clients.elb.describe_load_balancers().send().await.unwrap();
    guarded.store.list("").await.unwrap();
    let calls = bench.faults().calls().into_iter();
    // The heartbeat goes on: nothing else may write the lock.
    let others = calls.filter(|call| call.path.as_ref().is_none_or(|path| !path.ends_with("lock.json")));
    let calls: Vec<String> = others.map(|call| call.operation).collect();
    assert_eq!(calls, ["DescribeInstances", "DescribeLoadBalancers", "ListObjectsV2"]);
}

/// How old a lease is, is told by the store's clock, whatever this machine's says.
#[tokio::test(start_paused = true)]
async fn a_machine_whose_clock_is_wrong_goes_by_the_stores() {
    let bench = Bench::new().await;
    for hours in [-1, 1] {
        let off = SignedDuration::from_hours(hours);
        let clients = bench.simulation.clients_of(Machine::default(), off);
        let apart = |clock: Timestamp| clock.duration_since(bench.site.now());
        assert_eq!(apart(clients.store_clock.now()), off, "nobody has told it yet");
        let store = S3Store::new(&clients, bench.site.bucket());
        let key = format!("written {hours}");
        store.create(&key, b"one".to_vec()).await.unwrap();
        // HTTP's dates have no fractions of a second.
        let near = |wrong: SignedDuration| wrong.abs() <= SignedDuration::from_secs(1);
        assert!(near(apart(clients.store_clock.now())), "{}", apart(clients.store_clock.now()));
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(near(apart(clients.store_clock.now())), "it goes on by its own clock until it is told again");
        let there = store.read(&key).await.unwrap().unwrap();
        assert!((49..=51).contains(&there.age.as_secs()), "{:?}", there.age);
        assert_eq!(apart(clients.clock.0.now()), off, "everything else is told by the machine's own");
    }
}
