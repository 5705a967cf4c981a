//! What people and programs see of recorded runs.

mod story;
mod terminal;

use alcedo_pipeline::{
    error::{ErrorKind, ErrorRecord},
    event::{Event, Outcome, What},
    ids::StepId,
    journal::Record,
    plan::{Sign, Stage},
    report::Report,
    resource::Resource,
};
use jiff::SignedDuration;
use serde_json::{Value, json};

use self::{
    story::{DEPLOY, Story, failed_build, half_a_deploy, output, whole_deploy},
    terminal::Terminal,
};
use super::{
    files::Files,
    json::Json,
    lines::Lines,
    progress::{Progress, Size},
    timeline::Timeline,
};
use crate::output::Paint;

const TERMINAL: Size = Size { columns: 80, rows: 24 };

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
    3.8s launch  i-0123456789abcdef0 is pending
    3.8s launch  i-0fedcba9876543210 is pending
    3.8s launch  i-0123456789abcdef0 is running
    4.8s launch  launch 2 × t3.small: done (1.0 s)
    4.9s launch  wait until all 2 are healthy, 5m at most ...
    4.9s launch  i-0123456789abcdef0 is healthy
    4.9s launch  i-0fedcba9876543210 is initial: Initial health checks in progress
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
     ⠏ launch       2.5 s  2/2 wait until all 2 are healthy, 5m at most
         1 of 2 healthy: i-0123456789abcdef0 initial
         i-0fedcba9876543210  initial    1.5 s  Initial health checks in progress
         i-0123456789abcdef0  healthy    after 1.1 s
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
fn picture_of_a_deploy_whose_like_was_seen_before() {
    insta::assert_snapshot!(half_a_deploy().after(&whole_deploy()).screen(TERMINAL, Paint::PLAIN).join("\n"));
    insta::assert_snapshot!(whole_deploy().after(&whole_deploy()).screen(TERMINAL, Paint::PLAIN).join("\n"));
}

#[test]
fn where_a_step_was_never_seen_nothing_is_said_of_its_stage_nor_of_the_whole() {
    let mut earlier = whole_deploy();
    earlier
        .events
        .retain(|event| !matches!(&event.what, What::StepSucceeded { step, .. } if step.as_str() == "smoke/suite"));
    let rows = half_a_deploy().after(&earlier).screen(TERMINAL, Paint::PLAIN);
    assert!(!rows.iter().any(|row| row.contains(" of about ")), "{rows:#?}");
    let of = |stage: &str| rows.iter().find(|row| row.contains(stage)).unwrap();
    assert!(of("launch ").contains(" of ~3.0 s") && !of("smoke").contains('~'), "{rows:#?}");
}

#[test]
fn picture_of_many_servers() {
    let mut story = Story::new(&DEPLOY);
    story.start("launch/instances");
    for number in 0..40 {
        let state = if number < 4 { "pending" } else { "running" };
        story.server("launch/instances", 0.1, &format!("i-{number:017x}"), "pending", None);
        story.server("launch/instances", 0.1, &format!("i-{number:017x}"), state, None);
    }
    insta::assert_snapshot!(story.screen(TERMINAL, Paint::PLAIN).join("\n"));
}

/// Sizes from a phone's to a wall's.
const SIZES: [(usize, usize); 8] = [(80, 24), (40, 24), (80, 10), (20, 4), (200, 50), (80, 3), (5, 2), (1, 1)];

#[test]
fn a_picture_fits_its_terminal() {
    for mut story in [half_a_deploy(), whole_deploy()] {
        // What stays above the picture scrolls away.
        story.plan.notes.clear();
        for (columns, rows) in SIZES {
            for paint in [Paint::PLAIN, Paint::COLOURED] {
                let seen = story.screen(Size { columns, rows }, paint);
                // Had a row been broken, or the picture been higher than the terminal, more than the last one would be there.
                assert!(seen.len() < rows.max(2), "{columns} × {rows}: {seen:#?}");
            }
        }
    }
}

/// Whatever the window's size was before and is meanwhile, what stands there at the end is what would have stood there
/// without a change.
#[test]
fn a_window_that_changes_its_size_leaves_no_trace() {
    for story in [half_a_deploy(), whole_deploy(), failed_build(), chatty()] {
        let size = Size { columns: 100, rows: 30 };
        let calm = story.on(Terminal::new(size), Paint::PLAIN, |_, _| {}).lines();
        for (columns, rows) in SIZES.into_iter().filter(|(columns, rows)| *columns >= 20 && *rows >= 4) {
            let count = story.events.len();
            for at in (1..count).step_by(1 + count / 16) {
                for back in [at + 1, at + 5] {
                    let terminal = story.on(Terminal::new(size), Paint::COLOURED, |number, terminal| {
                        if number == at {
                            terminal.resize(columns, rows);
                        }
                        if number == back {
                            terminal.resize(size.columns, size.rows);
                        }
                    });
                    if back < count {
                        assert_eq!(terminal.lines(), calm, "{columns} × {rows} from event {at} to {back}");
                    }
                    let titles = terminal.lines().iter().filter(|line| line.starts_with("deploy hello 2026")).count();
                    assert_eq!(titles, 1, "{columns} × {rows} from event {at}: {:#?}", terminal.lines());
                }
            }
        }
    }
}

/// tmux shows a window of another size a quarter of a second before it tells the program of it.
#[test]
fn a_window_whose_new_size_is_told_late_shows_no_picture_twice() {
    for story in [half_a_deploy(), whole_deploy(), chatty()] {
        for (columns, rows) in [(40, 24), (80, 8), (30, 6), (79, 10)] {
            // Until it is told, only the last of the picture's rows is there.
            for at in (2..story.events.len() - 4).step_by(3) {
                let mut terminal = Terminal::new(Size { columns: 80, rows: 24 });
                // Something has been there before, as on any screen that is in use.
                terminal.take(&mut "$ make\n".repeat(23).into_bytes());
                let terminal = story.on(terminal, Paint::COLOURED, |number, terminal| {
                    if number == at {
                        terminal.resize_untold(columns, rows);
                    }
                    if number == at + 3 {
                        terminal.resize(columns, rows);
                    }
                });
                let titles = terminal.lines().iter().filter(|line| line.starts_with("deploy hello 2026")).count();
                assert_eq!(titles, 1, "{columns} × {rows} from event {at}: {:#?}", terminal.lines());
                let before = terminal.lines().iter().filter(|line| line.as_str() == "$ make").count();
                assert_eq!(before, 23, "{columns} × {rows} from event {at}: {:#?}", terminal.lines());
            }
        }
    }
}

/// A build that says much before it fails, some of it in lines that are longer than any terminal is wide.
fn chatty() -> Story {
    let mut story = Story::new(&DEPLOY);
    story.start("build/run");
    for number in 0..60 {
        story.tell(0.1, output("build/run", &format!("{number} {}", "x".repeat(number * 9))));
    }
    story.fail("build/run", 0.1, "`make` ended with exit code 2", &[]);
    story.finish(Outcome::Unwound);
    story
}

#[test]
fn output_is_folded_until_its_step_fails() {
    let mut story = chatty();
    let whole = story.screen(Size { columns: 80, rows: 24 }, Paint::PLAIN);
    for number in 0..60 {
        let begins = format!("│ {number} ");
        assert!(whole.iter().any(|row| format!("{row} ").starts_with(&begins)), "line {number} is not there");
    }
    story.events.truncate(40);
    let at_work = story.screen(Size { columns: 80, rows: 24 }, Paint::PLAIN);
    let shown: Vec<&String> = at_work.iter().filter(|row| row.contains('│')).collect();
    assert_eq!(shown.len(), 1, "the newest line alone: {at_work:#?}");
    assert!(shown[0].ends_with('…') && shown[0].chars().count() < 80, "{shown:?}");
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
    deploy of hello 2026.1120.190512 to local failed after 2.0 s
      undone     everything it made
      in service 2026.1119.80000, as before
      stages     build 0.3 s
      details    alcedo runs show 20261120-190512-7f3a --env local
    ");
}

#[test]
fn summary_of_a_run_that_another_stopped_claims_nothing_of_the_traffic() {
    let mut story = Story::new(&[("flip/switch", Stage::Flip, Sign::Change, "move all traffic")]);
    story.start("flip/switch");
    let error = ErrorRecord {
        kind: ErrorKind::Changed,
        message: "somebody else changed the listener".to_owned(),
        causes: Vec::new(),
        hints: Vec::new(),
    };
    story.tell(0.1, What::StepFailed { step: StepId::from("flip/switch"), error, seconds: 0.1 });
    story.finish(Outcome::Unwound);
    let summary = story.summary();
    assert!(summary.contains("in service what somebody else made of it: alcedo status --env local\n"), "{summary}");
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
      not undone launch 2 × t3.small
        left: instance i-0123456789abcdef0, a month: $15.18
              aws ec2 terminate-instances --instance-ids i-0123456789abcdef0
      details    alcedo runs show 20261120-190512-7f3a --env local
      go on      mend what it says, then: alcedo resume 20261120-190512-7f3a --env local
    ");
}

#[test]
fn summary_of_a_run_stuck_after_the_point_of_no_return_leaves_green_alone() {
    let mut story = Story::new(&[
        ("launch/instances", Stage::Launch, Sign::Add, "launch 2 × t3.small"),
        ("retire/drain", Stage::Retire, Sign::Remove, "deregister 2026.1119.80000"),
        ("retire/terminate", Stage::Retire, Sign::Remove, "terminate the 2 servers of 2026.1119.80000"),
    ]);
    story.plan.steps[1].point_of_no_return = true;
    story.start("launch/instances");
    let resource = Resource::new("instance", "i-0123456789abcdef0");
    story.tell(0.1, What::StepOwned { step: StepId::from("launch/instances"), resource, more: Vec::new() });
    story.succeed("launch/instances", 1.0, json!({}));
    story.start("retire/drain");
    story.fail("retire/drain", 1.0, "AWS does not answer", &[]);
    story.finish(Outcome::Stuck);
    let summary = story.summary();
    assert!(!summary.contains("i-0123456789abcdef0"), "{summary}");
    insta::assert_snapshot!(summary, @"
    deploy of hello 2026.1120.190512 to local is stuck after 2.4 s
      in service 2026.1120.190512; its servers are not touched
      not done   2 steps
        deregister 2026.1119.80000
        terminate the 2 servers of 2026.1119.80000
      details    alcedo runs show 20261120-190512-7f3a --env local
      go on      mend what it says, then: alcedo resume 20261120-190512-7f3a --env local
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

#[test]
fn a_run_as_files_for_a_ci_system() {
    let folder = tempfile::tempdir().unwrap();
    let (junit, summary) = (folder.path().join("junit.xml"), folder.path().join("summary.md"));
    for story in [whole_deploy(), failed_build()] {
        let files = Files::at(&junit, &summary).open().unwrap();
        assert_eq!(story.write(files), [""; 0]);
    }
    // The second has taken the place of the first.
    insta::assert_snapshot!("junit_of_a_failure", std::fs::read_to_string(&junit).unwrap());
    insta::assert_snapshot!("markdown_of_a_failure", std::fs::read_to_string(&summary).unwrap());
    assert!(Files::at(&folder.path().join("made/for/it/junit.xml"), &summary).open().is_ok());
    let nowhere = Files::at(&junit.join("below a file.xml"), &summary).open();
    assert_eq!(nowhere.err().unwrap().code, crate::exit_code::ExitCode::USAGE);
}
