//! The local region as a process, on a real container engine.

mod support;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{alcedo, stderr, stdout};

/// A region of one test's own; gone when the test ends, however it ends.
struct Region {
    folder: tempfile::TempDir,
    port: u16,
    name: String,
}

impl Region {
    fn new(name: &str) -> Self {
        // Free now; nobody else asks for it in the moment until it is used.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder: tempfile::tempdir().unwrap(), port, name: format!("cli-{name}-{}", std::process::id()) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self) -> assert_cmd::Command {
        let mut command = alcedo(self.path());
        command.args(["region", "start", "--output", "json", "--name", &self.name]);
        command.args(["--port", &self.port.to_string()]);
        command
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = stdout(alcedo(self.path()).args(arguments).args(["--output", "json"]));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("region/region.log")).unwrap_or_default()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let _ = alcedo(self.path()).args(["region", "reset", "--yes"]).output();
    }
}

fn lives(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[test]
fn a_region_starts_once_tells_about_itself_and_ends() {
    let region = Region::new("life");
    let first: Value = serde_json::from_slice(&region.start().output().unwrap().stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", region.log());
    });
    assert_eq!(first["already"], false, "{first}");
    assert!(first["region"].get("secret_key").is_none(), "{first}");
    let pid = first["region"]["pid"].as_u64().unwrap();
    assert!(lives(pid));

    let second: Value = serde_json::from_slice(&region.start().output().unwrap().stdout).unwrap();
    assert_eq!((&second["already"], &second["region"]["pid"]), (&true.into(), &pid.into()), "{second}");
    let other_port = alcedo(region.path()).args(["region", "start", "--port", "1"]).output().unwrap();
    assert_eq!(other_port.status.code(), Some(1));

    let record = region.path().join("region/region.json");
    assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);

    let status = region.json(&["region", "status"]);
    assert_eq!(
        (&status["running"], &status["instances"], &status["listeners"]),
        (&true.into(), &Value::Array(Vec::new()), &Value::Array(Vec::new()),)
    );

    let env = region.json(&["region", "env"]);
    assert_eq!(env["AWS_ENDPOINT_URL"], format!("http://127.0.0.1:{}", region.port));
    let shell = stdout(alcedo(region.path()).args(["region", "env"]));
    for (name, value) in env.as_object().unwrap() {
        assert!(shell.contains(&format!("export {name}={}\n", value.as_str().unwrap())), "{name}: {shell}");
    }

    let stopped = region.json(&["region", "stop"]);
    assert_eq!(stopped["stopped"], true);
    assert!(!lives(pid) && !record.exists());
    assert_eq!(region.json(&["region", "stop"])["stopped"], false);
    assert_eq!(region.json(&["region", "status"])["running"], false);

    // Its keys and its port are those of before.
    let third: Value =
        serde_json::from_str(&stdout(alcedo(region.path()).args(["region", "start", "--output", "json"]))).unwrap();
    assert_eq!(third["region"]["endpoint"], first["region"]["endpoint"]);
    assert_eq!(region.json(&["region", "env"]), env);

    alcedo(region.path()).args(["region", "reset"]).assert().code(2);
    alcedo(region.path()).args(["region", "reset", "--yes"]).assert().success();
    assert!(!region.path().join("region").exists());
}

#[test]
fn of_two_starts_at_once_one_starts_it() {
    let region = Region::new("race");
    let spawn = || {
        Command::new(env!("CARGO_BIN_EXE_alcedo"))
            .args(["region", "start", "--output", "json", "--name", &region.name, "--port", &region.port.to_string()])
            .env("ALCEDO_REGION_DIR", region.path().join("region"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let answers: Vec<Value> = [spawn(), spawn(), spawn()]
        .into_iter()
        .map(|child| serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    assert_eq!(answers.iter().filter(|answer| answer["already"] == false).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer["region"]["pid"] == answers[0]["region"]["pid"]), "{answers:?}");
}

#[test]
fn a_server_that_died_is_not_taken_for_running() {
    let region = Region::new("crash");
    let first: Value = serde_json::from_slice(&region.start().output().unwrap().stdout).unwrap();
    let pid = first["region"]["pid"].as_u64().unwrap();
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    while lives(pid) {
        std::thread::yield_now();
    }
    assert_eq!(region.json(&["region", "status"])["running"], false);
    alcedo(region.path()).args(["region", "env"]).assert().code(1);
    let again: Value = serde_json::from_slice(&region.start().output().unwrap().stdout).unwrap();
    assert_eq!(again["already"], false);
    assert_ne!(again["region"]["pid"], pid);
}

#[test]
fn a_port_that_is_taken_is_named_with_a_way_out() {
    let region = Region::new("port");
    let _taken = TcpListener::bind(("127.0.0.1", region.port)).unwrap();
    let output = region.start().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&region.port.to_string()) && said.contains("--port"), "{said}");
    assert!(!region.path().join("region/region.json").exists());
}

#[test]
fn a_start_that_fails_shows_the_log() {
    let region = Region::new("log");
    let said = stderr(region.start().env("DOCKER_HOST", "unix:///nowhere/docker.sock"));
    assert!(said.contains("the local region ended while it started"), "{said}");
    assert!(said.contains("/nowhere/docker.sock") || said.contains("engine"), "{said}");
    assert!(said.contains("region.log"), "{said}");
}
