//! Runs of small plans against a store in memory, told as transcripts: what was done, what was undone, how it ended.

use std::sync::{Arc, Mutex};

use alcedo_pipeline::{
    clock::SystemClock,
    context::StepContext,
    error::StepError,
    event::{Outcome, What},
    ids::{RunId, StepId},
    journal::{self, Journal, JournalError},
    plan::{Plan, PlannedStep, Purpose, Sign, Stage},
    report::Report,
    resource::Resource,
    runner::{Direction, Ending, Ground, Runner, UNDO_PAUSES},
    secret::Redactor,
    status::Progress,
    step::{Step, Steps},
    store::{MemoryStore, Store},
    version::Version,
};
use alcedo_pipeline::{
    event::Event,
    store::{Object, StoreError},
};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a step of these plans does, written in its action.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Succeed,
    Fail,
    Panic,
    FailUndo,
    /// Waits until the run is told to stop.
    Hang,
}

struct World {
    log: Arc<Mutex<Vec<String>>>,
}

struct OneStep {
    id: StepId,
    behaviour: Behaviour,
    log: Arc<Mutex<Vec<String>>>,
}

impl OneStep {
    fn say(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{what} {}", self.id));
    }
}

#[async_trait]
impl Step for OneStep {
    async fn run(&self, context: &StepContext) -> Result<Value, StepError> {
        self.say("run");
        context.own(Resource::new("thing", self.id.as_str())).await?;
        match self.behaviour {
            Behaviour::Fail => Err(StepError::failed("it did not work").hint("try something else")),
            Behaviour::Panic => panic!("a bug"),
            Behaviour::Hang => {
                context.cancellation().cancelled().await;
                Err(StepError::interrupted())
            }
            Behaviour::Succeed | Behaviour::FailUndo => Ok(json!({ "made": self.id })),
        }
    }

    async fn undo(&self, _: &StepContext) -> Result<(), StepError> {
        self.say("undo");
        match self.behaviour {
            Behaviour::FailUndo => Err(StepError::failed("it stays")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Steps for World {
    async fn examine(&self, failed: &PlannedStep, _: &StepContext) {
        self.log.lock().unwrap().push(format!("look at {}", failed.id));
    }

    fn step(&self, planned: &PlannedStep) -> Result<Box<dyn Step>, StepError> {
        let behaviour = match planned.action.as_str().unwrap() {
            "succeed" => Behaviour::Succeed,
            "fail" => Behaviour::Fail,
            "panic" => Behaviour::Panic,
            "fail undo" => Behaviour::FailUndo,
            "hang" => Behaviour::Hang,
            other => return Err(StepError::failed(format!("unknown action {other}"))),
        };
        Ok(Box::new(OneStep { id: planned.id.clone(), behaviour, log: self.log.clone() }))
    }
}

fn plan(steps: &[(&str, &str)]) -> Plan {
    let now = "2026-11-20T19:05:12Z".parse().unwrap();
    Plan {
        format: Plan::FORMAT,
        run: RunId::new(now, 7),
        app: "hello".into(),
        environment: "test".into(),
        purpose: Purpose::Deploy,
        version: Version::at(now),
        commit: None,
        freeze: false,
        replaces: None,
        made_at: now,
        notes: Vec::new(),
        reasons: Vec::new(),
        steps: steps
            .iter()
            .map(|(id, action)| PlannedStep {
                id: StepId::from(*id),
                stage: if id.starts_with("retire") { Stage::Retire } else { Stage::Launch },
                sign: Sign::Add,
                does: format!("make {id}"),
                undo: Some(format!("remove {id}")),
                point_of_no_return: id.starts_with("retire"),
                barrier: id.starts_with("flip"),
                action: json!(action),
            })
            .collect(),
    }
}

struct Ran {
    ending: Ending,
    log: Vec<String>,
    store: Arc<MemoryStore>,
    run: RunId,
}

async fn execute(steps: &[(&str, &str)], cancel: CancellationToken) -> Ran {
    let plan = plan(steps);
    let store = Arc::new(MemoryStore::default());
    let world = World { log: Arc::default() };
    let journal = Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    let (events, _listener) = mpsc::unbounded_channel();
    let run = plan.run.clone();
    let runner = Runner::new(plan, &world, journal, Progress::default(), ground(), events, cancel);
    let ending = runner.run(opening(), Direction::Forward).await.unwrap();
    let log = world.log.lock().unwrap().clone();
    Ran { ending, log, store, run }
}

fn ground() -> Ground {
    Ground { clock: Arc::new(SystemClock), fence: None, undo_pauses: UNDO_PAUSES, redactor: Redactor::default() }
}

fn opening() -> What {
    What::RunResumed { host: "test".into(), tool: "test".into() }
}

#[tokio::test]
async fn every_step_runs_once_and_in_order() {
    let ran = execute(&[("a", "succeed"), ("b", "succeed"), ("retire", "succeed")], CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Done);
    assert_eq!(ran.log, ["run a", "run b", "run retire"]);
    let record = journal::read(ran.store.as_ref(), "hello/", &ran.run).await.unwrap();
    let names: Vec<String> = record
        .events
        .iter()
        .map(|event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "run-resumed",
            "step-started",
            "step-owned",
            "step-succeeded",
            "step-started",
            "step-owned",
            "step-succeeded",
            "step-started",
            "step-owned",
            "step-succeeded",
            "run-finished",
        ]
    );
    assert_eq!(Report::of(&record).outcome, Some(Outcome::Done));
}

#[tokio::test]
async fn a_failure_unwinds_in_reverse_the_failed_step_included() {
    let ran =
        execute(&[("a", "succeed"), ("b", "succeed"), ("c", "fail"), ("d", "succeed")], CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Unwound);
    assert_eq!(ran.log, ["run a", "run b", "run c", "look at c", "undo c", "undo b", "undo a"]);
    let (step, error) = ran.ending.failure.unwrap();
    assert_eq!((step.as_str(), error.message.as_str()), ("c", "it did not work"));
    assert_eq!(error.hints, ["try something else"]);
}

#[tokio::test]
async fn a_panic_unwinds_like_any_failure() {
    let ran = execute(&[("a", "succeed"), ("b", "panic")], CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Unwound);
    assert_eq!(ran.log, ["run a", "run b", "look at b", "undo b", "undo a"]);
    assert!(ran.ending.failure.unwrap().1.message.contains("a bug"));
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_tried_again_then_named_and_the_others_still_run() {
    let ran = execute(&[("a", "succeed"), ("b", "fail undo"), ("c", "fail")], CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Stuck);
    assert_eq!(
        ran.log,
        ["run a", "run b", "run c", "look at c", "undo c", "undo b", "undo b", "undo b", "undo b", "undo a"]
    );
    let (step, error, resources) = &ran.ending.left[0];
    assert_eq!((step.as_str(), error.message.as_str()), ("b", "it stays"));
    assert_eq!(resources, &[Resource::new("thing", "b")]);
}

#[tokio::test(start_paused = true)]
async fn where_traffic_cannot_be_moved_back_its_servers_stay() {
    let steps = [("servers", "succeed"), ("flip", "fail undo"), ("mark", "succeed"), ("watch", "fail")];
    let ran = execute(&steps, CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Stuck);
    assert!(!ran.log.contains(&"undo servers".to_owned()), "{:?}", ran.log);
    // Green serves on: what marks blue as the way back stays true.
    assert!(!ran.log.contains(&"undo mark".to_owned()), "{:?}", ran.log);
}

/// Nobody waits for a look at what failed with the traffic still there.
#[tokio::test]
async fn traffic_goes_back_before_anything_is_looked_at() {
    let steps = [("servers", "succeed"), ("flip", "succeed"), ("mark", "succeed"), ("watch", "fail")];
    let ran = execute(&steps, CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Unwound);
    assert_eq!(ran.log[4..], ["undo flip", "look at watch", "undo watch", "undo mark", "undo servers"]);
}

#[tokio::test]
async fn after_the_point_of_no_return_nothing_is_undone() {
    let ran =
        execute(&[("a", "succeed"), ("retire/x", "succeed"), ("retire/y", "fail")], CancellationToken::new()).await;
    assert_eq!(ran.ending.outcome, Outcome::Stuck);
    assert_eq!(ran.log, ["run a", "run retire/x", "run retire/y"]);
}

#[tokio::test]
async fn told_to_stop_a_run_unwinds_and_says_so() {
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let (ran, ()) = tokio::join!(execute(&[("a", "succeed"), ("b", "hang"), ("c", "succeed")], cancel), async move {
        tokio::task::yield_now().await;
        stop.cancel();
    });
    assert_eq!(ran.ending.outcome, Outcome::Interrupted);
    assert!(!ran.log.contains(&"run c".to_owned()), "{:?}", ran.log);
    assert_eq!(ran.log.last().unwrap(), "undo a");
}

#[tokio::test]
async fn a_run_that_died_goes_on_where_its_journal_ends() {
    let plan = plan(&[("a", "succeed"), ("b", "succeed")]);
    let store = Arc::new(MemoryStore::default());
    let world = World { log: Arc::default() };
    let mut journal = Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    for what in [
        What::StepStarted { step: "a".into(), stage: Stage::Launch, does: String::new(), token: String::new() },
        What::StepSucceeded { step: "a".into(), output: json!({ "made": "a" }), seconds: 0.1 },
        What::StepStarted { step: "b".into(), stage: Stage::Launch, does: String::new(), token: String::new() },
    ] {
        journal.append(&Event::new(&plan.run, plan.made_at, what)).await.unwrap();
    }
    let (resumed, record) = Journal::resume(store.clone(), "hello/", &plan.run, "second").await.unwrap();
    let progress = Progress::replay(&record.events).unwrap();
    let (events, _listener) = mpsc::unbounded_channel();
    let runner = Runner::new(record.plan, &world, resumed, progress, ground(), events, CancellationToken::new());
    let ending = runner.run(opening(), Direction::Forward).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done);
    assert_eq!(*world.log.lock().unwrap(), ["run b"], "a had succeeded");

    // The process that had the run before wakes up: its next event loses.
    let late = What::StepOwned { step: "b".into(), resource: Resource::new("thing", "late"), more: Vec::new() };
    let late = Event::new(&plan.run, plan.made_at, late);
    assert!(matches!(journal.append(&late).await, Err(JournalError::Fenced { .. })));
}

/// A store that writes, and then says that it does not know.
#[derive(Default)]
struct Forgetful {
    inner: MemoryStore,
    /// How many of the next answers are lost.
    loses: std::sync::atomic::AtomicU32,
}

#[async_trait]
impl Store for Forgetful {
    async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
        let answer = self.inner.create(key, bytes).await;
        let left = self.loses.load(std::sync::atomic::Ordering::Relaxed);
        if left == 0 {
            return answer;
        }
        self.loses.store(left - 1, std::sync::atomic::Ordering::Relaxed);
        Err(StoreError::Unavailable { key: key.into(), source: "the connection was closed".into() })
    }

    async fn replace(&self, key: &str, bytes: Vec<u8>, tag: &str) -> Result<String, StoreError> {
        self.inner.replace(key, bytes, tag).await
    }

    async fn read(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.inner.read(key).await
    }

    async fn remove(&self, key: &str, tag: &str) -> Result<(), StoreError> {
        self.inner.remove(key, tag).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.folders(prefix).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_settled_by_looking() {
    let plan = plan(&[("a", "succeed")]);
    let store = Arc::new(Forgetful::default());
    let mut journal = Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    let event = Event::new(&plan.run, plan.made_at, opening());
    store.loses.store(2, std::sync::atomic::Ordering::Relaxed);
    journal.append(&event).await.unwrap();
    let record = journal::read(store.as_ref(), "hello/", &plan.run).await.unwrap();
    assert_eq!(record.events.len(), 1);
    // The same event of another process is another process's event.
    let (mut other, _) = Journal::resume(store.clone(), "hello/", &plan.run, "second").await.unwrap();
    journal.append(&event).await.unwrap();
    assert!(matches!(other.append(&event).await, Err(JournalError::Fenced { .. })));
}

#[tokio::test]
async fn what_a_run_has_not_written_is_recognised() {
    let plan = plan(&[("a", "succeed")]);
    let store = Arc::new(MemoryStore::default());
    let mut journal = Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    let event = Event::new(&plan.run, plan.made_at, opening());
    journal.append(&event).await.unwrap();
    let folder = format!("hello/runs/{}/", plan.run);
    let read = async || journal::read(store.as_ref(), "hello/", &plan.run).await;
    let put = async |name: &str, bytes: Vec<u8>| store.create(&format!("{folder}{name}"), bytes).await.unwrap();
    let take = async |name: &str, tag: String| store.remove(&format!("{folder}{name}"), &tag).await.unwrap();

    // Evidence lies beside the journal and is no part of it.
    put("evidence/i-1/console.txt", b"hello".to_vec()).await;
    assert_eq!(read().await.unwrap().events.len(), 1);

    let there = store.read(&format!("{folder}000001.json")).await.unwrap().unwrap();
    let tag = put("000003.json", there.bytes.clone()).await;
    assert!(matches!(read().await, Err(JournalError::Torn { missing: 2, .. })));
    take("000003.json", tag).await;

    let tag = put("000002.json", there.bytes.clone()).await;
    let error = read().await.unwrap_err();
    assert!(error.to_string().contains("000002.json was not written by run"), "{error}");
    take("000002.json", tag).await;

    let tag = put("000002.json", there.bytes[..40].to_vec()).await;
    assert!(matches!(read().await, Err(JournalError::Unreadable { .. })));
    take("000002.json", tag).await;

    let other = RunId::new(plan.made_at, 8);
    let tag = put("000002.json", serde_json::to_vec(&Event::new(&other, plan.made_at, opening())).unwrap()).await;
    let error = read().await.unwrap_err();
    assert!(error.to_string().contains(&plan.run.to_string()), "{error}");
    take("000002.json", tag).await;

    put("notes.txt", Vec::new()).await;
    assert!(matches!(read().await, Err(JournalError::Foreign { .. })));
}

#[tokio::test]
async fn events_of_the_first_format_are_still_read() {
    let plan = plan(&[("a", "succeed")]);
    let store = Arc::new(MemoryStore::default());
    Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    let event = Event::new(&plan.run, plan.made_at, opening());
    let key = format!("hello/runs/{}/000001.json", plan.run);
    store.create(&key, serde_json::to_vec(&event).unwrap()).await.unwrap();
    assert_eq!(journal::read(store.as_ref(), "hello/", &plan.run).await.unwrap().events, [event]);
}

#[tokio::test]
async fn what_is_open_is_listed_until_it_has_ended() {
    let store = Arc::new(MemoryStore::default());
    let plan = plan(&[("a", "succeed")]);
    let open = async || journal::open_runs(store.as_ref(), "hello/", "test").await.unwrap();
    let journal = Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    assert_eq!(open().await, std::slice::from_ref(&plan.run));
    let world = World { log: Arc::default() };
    let (events, _listener) = mpsc::unbounded_channel();
    let runner =
        Runner::new(plan.clone(), &world, journal, Progress::default(), ground(), events, CancellationToken::new());
    runner.run(opening(), Direction::Forward).await.unwrap();
    assert_eq!(open().await, []);
}

/// Somebody still has to look after it.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_stuck_stays_listed_as_open() {
    for steps in [&[("a", "fail undo"), ("b", "fail")][..], &[("a", "succeed"), ("retire", "fail")]] {
        let ran = execute(steps, CancellationToken::new()).await;
        assert_eq!(ran.ending.outcome, Outcome::Stuck);
        let open = journal::open_runs(ran.store.as_ref(), "hello/", "test").await.unwrap();
        assert_eq!(open, [ran.run]);
    }
}

#[tokio::test]
async fn a_step_of_no_use_to_the_next_process_is_undone_and_done_anew_under_another_token() {
    let plan = plan(&[("a", "succeed"), ("b", "succeed"), ("c", "succeed")]);
    let store = Arc::new(MemoryStore::default());
    let world = World { log: Arc::default() };
    let mut journal = Journal::begin(store.clone(), "hello/", &plan, "first").await.unwrap();
    for (step, done) in [("a", true), ("b", true), ("c", false)] {
        let started =
            What::StepStarted { step: step.into(), stage: Stage::Launch, does: String::new(), token: String::new() };
        journal.append(&Event::new(&plan.run, plan.made_at, started)).await.unwrap();
        if done {
            let succeeded = What::StepSucceeded { step: step.into(), output: json!({}), seconds: 0.1 };
            journal.append(&Event::new(&plan.run, plan.made_at, succeeded)).await.unwrap();
        }
    }
    let (resumed, record) = Journal::resume(store.clone(), "hello/", &plan.run, "second").await.unwrap();
    let progress = Progress::replay(&record.events).unwrap();
    let (events, _listener) = mpsc::unbounded_channel();
    let runner = Runner::new(plan.clone(), &world, resumed, progress, ground(), events, CancellationToken::new());
    let renewals = ["a", "b"].map(|step| (StepId::from(step), "its key was lost".to_owned()));
    let ending = runner.resume(opening(), &renewals).await.unwrap();
    assert_eq!(ending.outcome, Outcome::Done);
    assert_eq!(*world.log.lock().unwrap(), ["undo b", "undo a", "run a", "run b", "run c"]);
    let record = journal::read(store.as_ref(), "hello/", &plan.run).await.unwrap();
    let tokens: Vec<String> = record
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::StepStarted { step, token, .. } if step.as_str() == "a" && !token.is_empty() => Some(token.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(tokens.len(), 1);
    assert_ne!(tokens[0], plan.run.token(&"a".into()));
}
