//! What people and programs see of recorded runs.

use alcedo_pipeline::{
    error::{ErrorKind, ErrorRecord},
    event::{Event, Outcome, Unit, What},
    ids::{RunId, StepId},
    journal::Record,
    plan::{Plan, PlannedStep, Purpose, Sign, Stage},
    report::Report,
    resource::Resource,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    json::Json,
    lines::Lines,
    progress::{Progress, Size},
    summary::{Aftermath, summary},
    timeline::Timeline,
};
use crate::output::Paint;

const TERMINAL: Size = Size { columns: 80, rows: 24 };

/// A run that is told event by event.
struct Story {
    plan: Plan,
    events: Vec<Event>,
    now: Timestamp,
}

impl Story {
    fn new(steps: &[(&str, Stage, Sign, &str)]) -> Self {
        let now: Timestamp = "2026-11-20T19:05:12Z".parse().unwrap();
        let plan = Plan {
            format: Plan::FORMAT,
            run: RunId::new(now, 0x7f3a),
            app: "hello".to_owned(),
            environment: "local".to_owned(),
            purpose: Purpose::Deploy,
            version: "2026.1120.190512".parse().unwrap(),
            commit: None,
            replaces: Some("2026.1119.80000".parse().unwrap()),
            made_at: now,
            notes: vec!["bake: alcedo-hello has the same fingerprint".to_owned()],
            steps: steps
                .iter()
                .map(|(id, stage, sign, does)| PlannedStep {
                    id: StepId::from(*id),
                    stage: *stage,
                    sign: *sign,
                    does: (*does).to_owned(),
                    undo: (*sign == Sign::Add).then(|| "remove it".to_owned()),
                    point_of_no_return: false,
                    action: Value::Null,
                })
                .collect(),
        };
        let mut story = Self { plan, events: Vec::new(), now };
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
    fn tell(&mut self, after: f64, what: What) {
        self.now = self.now.checked_add(SignedDuration::from_secs_f64(after)).unwrap();
        self.events.push(Event::new(&self.plan.run, self.now, what));
    }

    fn start(&mut self, step: &str) {
        let planned = self.plan.step(&StepId::from(step)).unwrap();
        let what = What::StepStarted {
            step: planned.id.clone(),
            stage: planned.stage,
            does: planned.does.clone(),
            token: "t".to_owned(),
        };
        self.tell(0.1, what);
    }

    fn succeed(&mut self, step: &str, seconds: f64, output: Value) {
        self.tell(seconds, What::StepSucceeded { step: StepId::from(step), output, seconds });
    }

    fn fail(&mut self, step: &str, seconds: f64, message: &str, causes: &[&str]) {
        let error = ErrorRecord {
            kind: ErrorKind::Failed,
            message: message.to_owned(),
            causes: causes.iter().map(ToString::to_string).collect(),
            hints: vec!["look at the tests".to_owned()],
        };
        self.tell(seconds, What::StepFailed { step: StepId::from(step), error, seconds });
    }

    fn finish(&mut self, outcome: Outcome) {
        self.tell(0.1, What::RunFinished { outcome, seconds: 20.0 });
    }

    fn lines(&self) -> String {
        let mut out = Vec::new();
        let mut timeline = Timeline::new(&self.plan);
        let mut lines = Lines::new(&mut out, self.plan.made_at);
        for event in &self.events {
            timeline.apply(event);
            lines.event(event, &timeline);
        }
        String::from_utf8(out).unwrap()
    }

    /// What stands on a terminal after all events, each followed by a redraw.
    fn screen(&self, size: Size, paint: Paint) -> Vec<String> {
        let mut out = Vec::new();
        let mut timeline = Timeline::new(&self.plan);
        let mut progress = Progress::new(&mut out, paint);
        for event in &self.events {
            timeline.apply(event);
            progress.event(event, &timeline, size);
            progress.draw(&timeline, event.at, size);
        }
        screen(&String::from_utf8(out).unwrap())
    }

    fn summary(&self) -> String {
        let record = Record { plan: self.plan.clone(), events: self.durable() };
        let mut timeline = Timeline::new(&self.plan);
        self.events.iter().for_each(|event| timeline.apply(event));
        let aftermath = Aftermath { url: Some("http://127.0.0.1:8600".to_owned()) };
        summary(&Report::of(&record), &timeline, &aftermath, Paint::PLAIN)
    }

    fn durable(&self) -> Vec<Event> {
        self.events.iter().filter(|event| event.what.is_durable()).cloned().collect()
    }
}

/// A terminal that knows the sequences the picture uses, and nothing else.
fn screen(written: &str) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut rest = written;
    while let Some(at) = rest.find(['\n', '\u{1b}']) {
        rows.last_mut().unwrap().push_str(&rest[..at]);
        if let Some(after) = rest[at..].strip_prefix('\n') {
            rows.push(String::new());
            rest = after;
            continue;
        }
        let end = at + rest[at..].find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence") + 1;
        let sequence = &rest[at + 2..end];
        match sequence.split_at(sequence.len() - 1) {
            (up, "A") => rows.truncate(rows.len() - up.parse::<usize>().unwrap()),
            ("", "J") => rows.last_mut().unwrap().clear(),
            (_, "m") => {}
            other => panic!("unknown sequence {other:?}"),
        }
        rest = rest[end..].trim_start_matches('\r');
    }
    rows.last_mut().unwrap().push_str(rest);
    rows
}

fn output(step: &str, line: &str) -> What {
    What::Output { step: StepId::from(step), line: line.to_owned() }
}

const DEPLOY: [(&str, Stage, Sign, &str); 6] = [
    ("build/run", Stage::Build, Sign::Add, "run 3 commands in recipe debian-bookworm and pack hello"),
    ("publish/artifact", Stage::Publish, Sign::Add, "upload artifact.tar.zst"),
    ("launch/instances", Stage::Launch, Sign::Add, "launch 2 × t3.small"),
    ("launch/healthy", Stage::Launch, Sign::Check, "wait until all 2 are healthy, 5m at most"),
    ("smoke/suite", Stage::Smoke, Sign::Check, "run 2 smoke tests"),
    ("hold/mark", Stage::Hold, Sign::Change, "hold 2026.1119.80000 for 10m"),
];

/// As far as the servers' health checks.
fn half_a_deploy() -> Story {
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
    story.tell(0.3, What::StepOwned { step: StepId::from("launch/instances"), resource });
    story.succeed("launch/instances", 1.0, json!({}));
    story.start("launch/healthy");
    for _ in 0..3 {
        let status = "1 of 2 healthy: i-0123456789abcdef0 initial".to_owned();
        story.tell(0.5, What::Waiting { step: StepId::from("launch/healthy"), status });
    }
    story
}

fn whole_deploy() -> Story {
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
fn failed_build() -> Story {
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

#[test]
fn lines_of_a_deploy() {
    insta::assert_snapshot!(whole_deploy().lines(), @"
    0.0s run     deploy hello 2026.1120.190512 to local (in service: 2026.1119.80000), run 20261120-190512-7f3a
    0.0s         = bake: alcedo-hello has the same fingerprint
    0.1s build   run 3 commands in recipe debian-bookworm and pack hello ...
    1.1s build   | ok  hello 0.003s
    2.1s build   | downloading 100%
    2.6s build   run 3 commands in recipe debian-bookworm and pack hello: done (0.5 s)
    2.7s publish upload artifact.tar.zst ...
    2.8s publish 976.6 KiB of 3.2 MiB (29%)
    3.0s publish 3.2 MiB of 3.2 MiB (100%)
    3.4s publish upload artifact.tar.zst: done (0.4 s)
    3.5s launch  launch 2 × t3.small ...
    3.8s launch  made instance i-0123456789abcdef0
    4.8s launch  launch 2 × t3.small: done (1.0 s)
    4.9s launch  wait until all 2 are healthy, 5m at most ...
    5.4s launch  waiting: 1 of 2 healthy: i-0123456789abcdef0 initial
    8.4s launch  wait until all 2 are healthy, 5m at most: done (2.0 s)
    8.5s smoke   run 2 smoke tests ...
    8.6s smoke   check passed: GET /health on i-0123456789abcdef0 (20 ms)
    8.7s smoke   check passed: GET /health on preview (20 ms)
    9.0s smoke   run 2 smoke tests: done (0.3 s)
    9.1s hold    hold 2026.1119.80000 for 10m ...
    9.2s hold    hold 2026.1119.80000 for 10m: done (0.1 s)
    9.3s run     done (20.0 s)
    ");
}

#[test]
fn lines_of_a_failure() {
    insta::assert_snapshot!(failed_build().lines(), @"
    0.0s run     deploy hello 2026.1120.190512 to local (in service: 2026.1119.80000), run 20261120-190512-7f3a
    0.0s         = bake: alcedo-hello has the same fingerprint
    0.1s build   take the version 2026.1120.190512 ...
    0.2s build   take the version 2026.1120.190512: done (0.1 s)
    0.3s build   run 3 commands ...
    1.3s build   | main.go:7:2: undefined: pritn
    1.5s build   run 3 commands: FAILED (0.2 s): `go build` ended with exit code 1
    1.5s build     because: a cause
    1.8s build   undo: give it back (take the version 2026.1120.190512) ...
    1.9s build   undo: done
    2.0s run     failed; everything it made is undone (20.0 s)
    ");
}

#[test]
fn silence_is_broken_within_half_a_minute() {
    let story = half_a_deploy();
    let mut out = Vec::new();
    let mut timeline = Timeline::new(&story.plan);
    let mut lines = Lines::new(&mut out, story.plan.made_at);
    for event in &story.events {
        timeline.apply(event);
        lines.event(event, &timeline);
    }
    let last = story.now;
    let after = |seconds| last.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    for seconds in 1..=60 {
        lines.tick(after(seconds), &timeline);
    }
    let text = String::from_utf8(out).unwrap();
    let beats: Vec<&str> = text.lines().filter(|line| line.contains("still at it")).collect();
    assert_eq!(beats.len(), 3, "{text}");
    assert!(beats[0].contains("1 of 2 healthy"), "{beats:?}");
}

#[test]
fn a_countdown_does_not_fill_the_log() {
    let mut story = Story::new(&DEPLOY);
    story.start("hold/mark");
    for left in (0..600).rev() {
        let step = StepId::from("hold/mark");
        story.tell(1.0, What::Waiting { step, status: format!("{left}s left") });
    }
    let waits = story.lines().lines().filter(|line| line.contains("left")).count();
    assert_eq!(waits, 60);
}

#[test]
fn picture_of_a_deploy_at_work() {
    insta::assert_snapshot!(half_a_deploy().screen(TERMINAL, Paint::PLAIN).join("\n"), @"
    = bake: alcedo-hello has the same fingerprint
    deploy hello 2026.1120.190512 to local  6.4 s
     ✓ build        0.5 s  1 step
     ✓ publish      0.4 s  1 step
     ⠙ launch       2.5 s  2/2 wait until all 2 are healthy, 5m at most
         1 of 2 healthy: i-0123456789abcdef0 initial
       smoke
       hold
    ");
}

#[test]
fn picture_of_a_transfer() {
    let mut story = half_a_deploy();
    story.events.truncate(7);
    insta::assert_snapshot!(story.screen(TERMINAL, Paint::PLAIN).join("\n"), @"
    = bake: alcedo-hello has the same fingerprint
    deploy hello 2026.1120.190512 to local  2.8 s
     ✓ build        0.5 s  1 step
     ⠟ publish      0.1 s  1/1 upload artifact.tar.zst
         ━━━━━━━───────────────── 976.6 KiB of 3.2 MiB (29%)
       launch
       smoke
       hold
    ");
}

#[test]
fn picture_of_a_deploy_that_is_done() {
    insta::assert_snapshot!(whole_deploy().screen(TERMINAL, Paint::PLAIN).join("\n"), @"
    = bake: alcedo-hello has the same fingerprint
    deploy hello 2026.1120.190512 to local  9.3 s
     ✓ build        0.5 s  1 step
     ✓ publish      0.4 s  1 step
     ✓ launch       3.0 s  2 steps
     ✓ smoke        0.3 s  1 step
     ✓ hold         0.1 s  1 step
    ");
}

#[test]
fn picture_of_a_failure_shows_the_output_that_led_to_it() {
    insta::assert_snapshot!(failed_build().screen(TERMINAL, Paint::PLAIN).join("\n"), @"
    = bake: alcedo-hello has the same fingerprint
    │ main.go:7:2: undefined: pritn
    ✗ run 3 commands: `go build` ended with exit code 1
    deploy hello 2026.1120.190512 to local  2.0 s
     ✗ build   failed, undone
       launch
    ");
}

#[test]
fn a_picture_fits_its_terminal() {
    for mut story in [half_a_deploy(), whole_deploy()] {
        // What stays above the picture scrolls away.
        story.plan.notes.clear();
        for size in [Size { columns: 20, rows: 4 }, Size { columns: 80, rows: 24 }, Size { columns: 1, rows: 1 }] {
            for paint in [Paint::PLAIN, Paint::COLOURED] {
                let rows = story.screen(size, paint);
                assert!(rows.len() <= size.rows.max(2), "{rows:#?}");
                for row in rows {
                    assert!(console::measure_text_width(&row) <= size.columns, "{row:?} in {size:?}");
                }
            }
        }
    }
}

#[test]
fn nothing_that_a_build_prints_reaches_the_terminal_as_a_command() {
    let mut story = Story::new(&DEPLOY);
    story.start("build/run");
    story.tell(0.1, output("build/run", "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31mx"));
    story.fail("build/run", 0.1, "\u{1b}[2Jgone", &[]);
    // The screen of these tests panics on sequences that the picture itself does not use.
    story.screen(TERMINAL, Paint::PLAIN);
    for text in [story.lines(), story.summary()] {
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{text:?}");
    }
}

#[test]
fn json_is_the_events_and_one_closing_line() {
    let story = whole_deploy();
    let mut out = Vec::new();
    let mut json = Json::new(&mut out);
    story.events.iter().for_each(|event| json.event(event));
    json.report(&Report::of(&Record { plan: story.plan.clone(), events: story.durable() }));
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), story.events.len() + 1);
    for (line, event) in lines.iter().zip(&story.events) {
        assert_eq!(&serde_json::from_value::<Event>(line.clone()).unwrap(), event);
    }
    let report = lines.last().unwrap();
    assert_eq!(report["v"], 1);
    assert_eq!(report["event"], "report");
    assert_eq!(report["outcome"], "done");
    assert_eq!(report["stages"][0]["stage"], "build");
}

#[test]
fn summary_of_a_deploy() {
    insta::assert_snapshot!(whole_deploy().summary(), @"
    hello 2026.1120.190512 is in service in local, after 9.3 s
      url        http://127.0.0.1:8600
      stages     build 0.5 s, publish 0.4 s, launch 3.0 s, smoke 0.3 s, hold 0.1 s
      held       2026.1119.80000 until 2026-11-20 19:15:30 UTC
      go back    alcedo rollback --env local
    ");
}

#[test]
fn summary_of_a_failure() {
    insta::assert_snapshot!(failed_build().summary(), @"
    deploy of hello 2026.1120.190512 to local failed after 2.0 s; everything it made is undone
      in service 2026.1119.80000, as before
      stages     build 0.3 s
      details    alcedo runs show 20261120-190512-7f3a --env local
    ");
}

#[test]
fn summary_of_a_run_that_is_stuck_names_what_is_left() {
    let mut story = half_a_deploy();
    story.fail("launch/healthy", 1.0, "no server is healthy", &[]);
    let error = ErrorRecord {
        kind: ErrorKind::Service,
        message: "not authorised".to_owned(),
        causes: Vec::new(),
        hints: Vec::new(),
    };
    let step = StepId::from("launch/instances");
    story.tell(0.1, What::UndoStarted { step: step.clone(), undo: "terminate them".to_owned() });
    let resources = vec![Resource::new("instance", "i-0123456789abcdef0")];
    story.tell(0.1, What::UndoFailed { step, error, resources });
    story.finish(Outcome::Stuck);
    insta::assert_snapshot!(story.summary(), @"
    deploy of hello 2026.1120.190512 to local is stuck after 7.7 s
      left       1 resource
        instance i-0123456789abcdef0 (made by launch/instances)
      details    alcedo runs show 20261120-190512-7f3a --env local
      go on      alcedo doctor --env local, then the same command again
    ");
}

#[test]
fn a_reader_that_goes_away_does_not_stop_anything() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    }
    let story = whole_deploy();
    let mut timeline = Timeline::new(&story.plan);
    let (mut lines, mut progress) = (Lines::new(Closed, story.now), Progress::new(Closed, Paint::PLAIN));
    let mut json = Json::new(Closed);
    for event in &story.events {
        timeline.apply(event);
        lines.event(event, &timeline);
        progress.event(event, &timeline, TERMINAL);
        json.event(event);
    }
    assert_eq!(timeline.outcome, Some(Outcome::Done));
}
