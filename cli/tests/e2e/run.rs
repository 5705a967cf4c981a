//! One execution of `alcedo`: what it says while it runs, and how it ends.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    runtime::Handle,
    task::JoinHandle,
    time::timeout,
};

/// Longer than any run of these tests takes on a slow machine; whatever still runs then hangs.
const DEADLINE: Duration = Duration::from_secs(240);

/// An `alcedo` that runs. It is killed where a test fails in the middle.
pub struct Running {
    runtime: Handle,
    shown: String,
    child: Child,
    /// `None` once nobody reads it any more.
    lines: Option<Lines<BufReader<ChildStdout>>>,
    stderr: JoinHandle<String>,
    stdout: Vec<String>,
    events: Vec<Value>,
}

impl Running {
    pub fn start(runtime: &Handle, mut command: Command) -> Self {
        let shown = format!("{:?}", command.as_std().get_args().collect::<Vec<_>>());
        let _context = runtime.enter();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("alcedo {shown} does not start: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut words = child.stderr.take().expect("stderr is piped");
        let stderr = runtime.spawn(async move {
            let mut bytes = Vec::new();
            let _ = words.read_to_end(&mut bytes).await;
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self {
            runtime: runtime.clone(),
            shown,
            child,
            lines: Some(lines),
            stderr,
            stdout: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Reads the run's events up to the first that is looked for.
    pub fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> &Value {
        loop {
            let Some(event) = self.next() else {
                panic!("alcedo {} ended before {what}:\n{}", self.shown, self.stdout.join("\n"));
            };
            if is_it(&event) {
                return self.events.last().expect("it was just read");
            }
        }
    }

    /// Reads up to the beginning of a step, or of the first step of a stage.
    pub fn until_begins(&mut self, step_or_stage: &str) {
        self.until(step_or_stage, |event| {
            event["event"] == "step-started" && (event["step"] == step_or_stage || event["stage"] == step_or_stage)
        });
    }

    fn next(&mut self) -> Option<Value> {
        let lines = self.lines.as_mut()?;
        loop {
            let read = self.runtime.block_on(async { timeout(DEADLINE, lines.next_line()).await });
            let Ok(read) = read else {
                panic!("alcedo {} says nothing for {} s:\n{}", self.shown, DEADLINE.as_secs(), self.stdout.join("\n"));
            };
            let line = read.expect("alcedo writes UTF-8")?;
            let event = serde_json::from_str::<Value>(&line).ok();
            self.stdout.push(line);
            if let Some(event) = event {
                self.events.push(event.clone());
                return Some(event);
            }
        }
    }

    /// Whether its process has ended, without waiting for it.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    /// Closes the pipe that the run is told through.
    pub fn stop_reading(&mut self) {
        self.lines = None;
    }

    /// The run's name, as its first event tells it.
    pub fn name(&self) -> String {
        text(&self.events.first().expect("it has begun")["run"])
    }

    /// Signals the run's watchdog: its child of that name.
    pub fn signal_watchdog(&self, signal: Signal) {
        let pid = self.child.id().expect("it has not been waited for");
        let children = std::fs::read_dir(format!("/proc/{pid}/task")).expect("alcedo runs").flat_map(|task| {
            let task = task.expect("a task").path().join("children");
            let children = std::fs::read_to_string(task).unwrap_or_default();
            children.split_whitespace().map(|pid| pid.parse::<i32>().expect("a number")).collect::<Vec<_>>()
        });
        let is_watchdog = |pid: &i32| {
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split('\0').nth(1) == Some("watchdog")
        };
        let watchdogs: Vec<i32> = children.filter(is_watchdog).collect();
        assert_eq!(watchdogs.len(), 1, "a run that opens SSH has one watchdog");
        kill(Pid::from_raw(watchdogs[0]), signal).expect("it runs");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it has not been waited for");
        kill(Pid::from_raw(i32::try_from(pid).expect("a process number")), signal).expect("alcedo runs");
    }

    /// Reads on to the end.
    pub fn end(mut self) -> Ended {
        while self.next().is_some() {}
        let status = self.runtime.block_on(async { timeout(DEADLINE, self.child.wait()).await });
        let Ok(status) = status else { panic!("alcedo {} has closed its output but does not end", self.shown) };
        let stderr = self.runtime.block_on(self.stderr).expect("reading does not fail");
        Ended {
            shown: self.shown,
            code: status.expect("alcedo can be waited for").code(),
            stdout: self.stdout.join("\n"),
            stderr,
            events: self.events,
        }
    }
}

/// An `alcedo` that has ended.
#[derive(Debug)]
pub struct Ended {
    shown: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// What it said in JSON, line by line.
    pub events: Vec<Value>,
}

impl Ended {
    /// Asserts the exit code; where it is another, everything that was said is shown.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { shown, stdout, stderr, .. } = &self;
        assert_eq!(
            self.code,
            Some(code),
            "the exit code of alcedo {shown}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        );
        self
    }

    /// The only thing that it said in JSON.
    #[track_caller]
    pub fn json(&self) -> &Value {
        let [only] = &self.events[..] else { panic!("alcedo {} said: {}", self.shown, self.stdout) };
        only
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["event"] == kind)
    }

    /// The closing line of a run.
    #[track_caller]
    pub fn report(&self) -> &Value {
        self.of_kind("report").last().unwrap_or_else(|| panic!("no report of {}: {}", self.shown, self.stdout))
    }

    /// The run's name.
    #[track_caller]
    pub fn name(&self) -> String {
        text(&self.report()["run"])
    }

    /// The version that the run was about.
    #[track_caller]
    pub fn version(&self) -> String {
        text(&self.report()["version"])
    }

    /// The steps that began, in order.
    pub fn steps(&self) -> Vec<String> {
        self.of_kind("step-started").map(|event| text(&event["step"])).collect()
    }

    /// The steps that were undone, in order.
    pub fn undone(&self) -> Vec<String> {
        self.of_kind("undo-succeeded").map(|event| text(&event["step"])).collect()
    }

    /// The stages that began.
    pub fn stages(&self) -> BTreeSet<String> {
        self.of_kind("step-started").map(|event| text(&event["stage"])).collect()
    }

    /// What a step answered.
    #[track_caller]
    pub fn output(&self, step: &str) -> &Value {
        let found = self.of_kind("step-succeeded").find(|event| event["step"] == step);
        &found.unwrap_or_else(|| panic!("{step} did not succeed in {}: {}", self.shown, self.stdout))["output"]
    }

    /// When an event of this kind was told of a step.
    #[track_caller]
    pub fn moment(&self, kind: &str, step: &str) -> Timestamp {
        let event = self.of_kind(kind).find(|event| event["step"] == step);
        let event = event.unwrap_or_else(|| panic!("no {kind} of {step} in {}: {}", self.shown, self.stdout));
        text(&event["at"]).parse().expect("events carry a time")
    }

    /// Message, causes and hints of the failure, a line each: what a person reads.
    #[track_caller]
    pub fn failure(&self) -> String {
        let failed = self.of_kind("step-failed").map(|event| &event["error"]);
        let refused = self.of_kind("error");
        let Some(error) = failed.chain(refused).next() else { panic!("{} did not fail: {}", self.shown, self.stdout) };
        let parts = ["causes", "hints"].into_iter().flat_map(|part| error[part].as_array().into_iter().flatten());
        std::iter::once(&error["message"]).chain(parts).map(text).collect::<Vec<_>>().join("\n")
    }

    /// The step that failed first.
    #[track_caller]
    pub fn failed_step(&self) -> String {
        text(&self.of_kind("step-failed").next().unwrap_or_else(|| panic!("no step failed: {}", self.stdout))["step"])
    }

    /// Everything that steps printed.
    pub fn printed(&self) -> String {
        self.of_kind("output").map(|event| text(&event["line"])).collect::<Vec<_>>().join("\n")
    }
}

/// A JSON value as text: a string without its quotes.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Asserts that a text has all of these parts.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
