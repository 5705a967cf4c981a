//! Runs as the tests tell them, and the ways to look at one.

use alcedo_pipeline::{
    error::{ErrorKind, ErrorRecord},
    event::{Event, Outcome, Unit, What},
    ids::{RunId, StepId},
    journal::Record,
    plan::{Plan, PlannedStep, Purpose, Sign, Stage},
    report::Report,
    resource::Resource,
};
use alcedo_stages::times::{Expected, Times};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::terminal::Terminal;
use crate::{
    output::Paint,
    render::{
        files::Opened,
        lines::Lines,
        progress::{Progress, Size},
        summary::{Aftermath, summary},
        timeline::Timeline,
    },
};

/// A run that is told event by event.
pub struct Story {
    pub plan: Plan,
    pub events: Vec<Event>,
    pub now: Timestamp,
    /// What earlier runs let one expect.
    pub expected: Expected,
}

impl Story {
    pub fn new(steps: &[(&str, Stage, Sign, &str)]) -> Self {
        let now: Timestamp = "2026-11-20T19:05:12Z".parse().unwrap();
        let plan = Plan {
            format: Plan::FORMAT,
            run: RunId::new(now, 0x7f3a),
            app: "hello".to_owned(),
            environment: "local".to_owned(),
            purpose: Purpose::Deploy,
            version: "2026.1120.190512".parse().unwrap(),
            commit: None,
            freeze: false,
            replaces: Some("2026.1119.80000".parse().unwrap()),
            made_at: now,
            notes: vec!["bake: alcedo-hello has the same fingerprint".to_owned()],
            reasons: Vec::new(),
            steps: steps
                .iter()
                .map(|(id, stage, sign, does)| PlannedStep {
                    id: StepId::from(*id),
                    stage: *stage,
                    sign: *sign,
                    does: (*does).to_owned(),
                    undo: (*sign == Sign::Add).then(|| "remove it".to_owned()),
                    point_of_no_return: false,
                    barrier: false,
                    action: json!({ "instance_type": "t3.small", "security_group": "sg-0123" }),
                })
                .collect(),
        };
        let mut story = Self { plan, events: Vec::new(), now, expected: Expected::default() };
        story.tell(
            0.0,
            What::RunStarted {
                app: "hello".to_owned(),
                environment: "local".to_owned(),
                purpose: Purpose::Deploy,
                version: story.plan.version,
                host: "ana@build-7".to_owned(),
                tool: "alcedo 0.1.0".to_owned(),
            },
        );
        story
    }

    /// Something happens, this many seconds after what came before.
    pub fn tell(&mut self, after: f64, what: What) {
        self.now = self.now.checked_add(SignedDuration::from_secs_f64(after)).unwrap();
        self.events.push(Event::new(&self.plan.run, self.now, what));
    }

    pub fn start(&mut self, step: &str) {
        let planned = self.plan.step(&StepId::from(step)).unwrap();
        let what = What::StepStarted {
            step: planned.id.clone(),
            stage: planned.stage,
            does: planned.does.clone(),
            token: "t".to_owned(),
        };
        self.tell(0.1, what);
    }

    pub fn succeed(&mut self, step: &str, seconds: f64, output: Value) {
        self.tell(seconds, What::StepSucceeded { step: StepId::from(step), output, seconds });
    }

    pub fn fail(&mut self, step: &str, seconds: f64, message: &str, causes: &[&str]) {
        let error = ErrorRecord {
            kind: ErrorKind::Failed,
            message: message.to_owned(),
            causes: causes.iter().map(ToString::to_string).collect(),
            hints: vec!["look at the tests".to_owned()],
        };
        self.tell(seconds, What::StepFailed { step: StepId::from(step), error, seconds });
    }

    pub fn finish(&mut self, outcome: Outcome) {
        self.tell(0.1, What::RunFinished { outcome, seconds: 20.0, journal_seconds: 0.1 });
    }

    pub fn server(&mut self, step: &str, after: f64, server: &str, state: &str, detail: Option<&str>) {
        let (server, state, detail) = (server.to_owned(), state.to_owned(), detail.map(str::to_owned));
        self.tell(after, What::Server { step: StepId::from(step), server, state, detail });
    }

    /// The same run on a day on which runs like another one were seen before.
    pub fn after(mut self, earlier: &Self) -> Self {
        let record = Record { plan: earlier.plan.clone(), events: earlier.durable() };
        self.expected = Expected::from(&[Times::of(&record).expect("it was done")]);
        self
    }

    pub fn lines(&self) -> String {
        let mut out = Vec::new();
        let mut timeline = Timeline::new(&self.plan);
        timeline.expected = self.expected.clone();
        let mut lines = Lines::new(&mut out, self.plan.made_at);
        for event in &self.events {
            timeline.apply(event);
            lines.event(event, &timeline);
        }
        String::from_utf8(out).unwrap()
    }

    /// What stands on a terminal after all events, each followed by a redraw.
    pub fn screen(&self, size: Size, paint: Paint) -> Vec<String> {
        self.on(Terminal::new(size), paint, |_, _| {}).rows()
    }

    /// The same on a terminal to which something is done before each event, by the event's number.
    pub fn on(
        &self,
        mut terminal: Terminal,
        paint: Paint,
        mut meanwhile: impl FnMut(usize, &mut Terminal),
    ) -> Terminal {
        let mut out = Vec::new();
        let mut timeline = Timeline::new(&self.plan);
        timeline.expected = self.expected.clone();
        let mut progress = Progress::new(&mut out, paint);
        for (number, event) in self.events.iter().enumerate() {
            meanwhile(number, &mut terminal);
            timeline.apply(event);
            progress.event(event, &timeline, terminal.size());
            progress.draw(&timeline, event.at, terminal.size());
            terminal.take(progress.written());
        }
        progress.end();
        terminal.take(progress.written());
        terminal
    }

    pub fn summary(&self) -> String {
        let record = Record { plan: self.plan.clone(), events: self.durable() };
        let mut timeline = Timeline::new(&self.plan);
        self.events.iter().for_each(|event| timeline.apply(event));
        let aftermath = Aftermath {
            url: Some("http://127.0.0.1:8600".to_owned()),
            bucket: Some("releases".to_owned()),
            traffic: None,
        };
        summary(&Report::of(&record), &timeline, &aftermath, Paint::PLAIN)
    }

    pub fn write(&self, files: Opened) -> Vec<String> {
        let record = Record { plan: self.plan.clone(), events: self.durable() };
        let mut timeline = Timeline::new(&self.plan);
        self.events.iter().for_each(|event| timeline.apply(event));
        let aftermath = Aftermath { url: None, bucket: Some("releases".to_owned()), traffic: None };
        files.write(&Report::of(&record), &timeline, &aftermath)
    }

    pub fn durable(&self) -> Vec<Event> {
        self.events.iter().filter(|event| event.what.is_durable()).cloned().collect()
    }
}

pub fn output(step: &str, line: &str) -> What {
    What::Output { step: StepId::from(step), line: line.to_owned() }
}

pub const DEPLOY: [(&str, Stage, Sign, &str); 6] = [
    ("build/run", Stage::Build, Sign::Add, "run 3 commands in recipe debian-bookworm and pack hello"),
    ("publish/artifact", Stage::Publish, Sign::Add, "upload artifact.tar.zst"),
    ("launch/instances", Stage::Launch, Sign::Add, "launch 2 × t3.small"),
    ("launch/healthy", Stage::Launch, Sign::Check, "wait until all 2 are healthy, 5m at most"),
    ("smoke/suite", Stage::Smoke, Sign::Check, "run 2 smoke tests"),
    ("hold/mark", Stage::Hold, Sign::Change, "hold 2026.1119.80000 for 10m"),
];

pub const SERVERS: [&str; 2] = ["i-0123456789abcdef0", "i-0fedcba9876543210"];

/// As far as the servers' health checks.
pub fn half_a_deploy() -> Story {
    let mut story = Story::new(&DEPLOY);
    story.start("build/run");
    story.tell(1.0, output("build/run", "\u{1b}[32mok\u{1b}[0m  hello 0.003s"));
    story.tell(1.0, output("build/run", "downloading 10%\rdownloading 100%\r\n"));
    story.succeed("build/run", 0.5, json!({}));
    story.start("publish/artifact");
    for done in [1_000_000, 2_000_000, 3_400_000] {
        let step = StepId::from("publish/artifact");
        story.tell(0.1, What::Progress { step, done, total: 3_400_000, unit: Unit::Bytes });
    }
    story.succeed("publish/artifact", 0.4, json!({}));
    story.start("launch/instances");
    let resource = Resource::new("instance", "i-0123456789abcdef0");
    story.tell(0.3, What::StepOwned { step: StepId::from("launch/instances"), resource, more: Vec::new() });
    for (server, state) in [(SERVERS[0], "pending"), (SERVERS[1], "pending"), (SERVERS[0], "running")] {
        story.server("launch/instances", 0.0, server, state, None);
    }
    story.succeed("launch/instances", 1.0, json!({}));
    story.start("launch/healthy");
    for (server, state) in [(SERVERS[0], "healthy"), (SERVERS[1], "initial")] {
        let why = (state == "initial").then_some("Initial health checks in progress");
        story.server("launch/healthy", 0.0, server, state, why);
    }
    for _ in 0..3 {
        let status = "1 of 2 healthy: i-0123456789abcdef0 initial".to_owned();
        story.tell(0.5, What::Waiting { step: StepId::from("launch/healthy"), status });
    }
    story
}

pub fn whole_deploy() -> Story {
    let mut story = half_a_deploy();
    story.succeed("launch/healthy", 2.0, json!({}));
    story.start("smoke/suite");
    for target in ["i-0123456789abcdef0", "preview"] {
        story.tell(
            0.1,
            What::Checked {
                step: StepId::from("smoke/suite"),
                target: target.to_owned(),
                check: "GET /health".to_owned(),
                passed: true,
                detail: String::new(),
                seconds: 0.02,
            },
        );
    }
    story.succeed("smoke/suite", 0.3, json!({}));
    story.start("hold/mark");
    story.succeed("hold/mark", 0.1, json!({ "until": "2026-11-20T19:15:30Z" }));
    story.finish(Outcome::Done);
    story
}

/// The build fails; what came before is undone.
pub fn failed_build() -> Story {
    let mut story = Story::new(&[
        ("build/version", Stage::Build, Sign::Add, "take the version 2026.1120.190512"),
        ("build/run", Stage::Build, Sign::Check, "run 3 commands"),
        ("launch/healthy", Stage::Launch, Sign::Check, "wait"),
    ]);
    story.start("build/version");
    story.succeed("build/version", 0.1, json!({}));
    story.start("build/run");
    story.tell(1.0, output("build/run", "main.go:7:2: undefined: pritn"));
    story.fail("build/run", 0.2, "`go build` ended with exit code 1", &["a cause \u{1b}[2J"]);
    for step in ["build/run", "build/version"] {
        story.tell(0.1, What::UndoStarted { step: StepId::from(step), undo: "give it back".to_owned() });
        story.tell(0.1, What::UndoSucceeded { step: StepId::from(step) });
    }
    story.finish(Outcome::Unwound);
    story
}
