//! moto's server as a process of this test's own.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use alcedo_stages::clients::LocalEndpoint;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

/// Serves until its standard input ends, so that it is gone with the test however the test ends. moto takes a free port.
const SERVE: &str = include_str!("serve_moto.py");

/// The variable that names the Python with moto; `cargo xtask test` sets it.
const PYTHON: &str = "ALCEDO_TEST_PYTHON";

/// A server that is ended, by its id, when this is dropped.
pub struct Moto {
    pub endpoint: LocalEndpoint,
    process: Child,
    _recordings: TempDir,
}

impl Moto {
    pub fn start() -> Self {
        let python = python();
        let recordings = tempfile::tempdir().unwrap();
        let mut process = Command::new(&python)
            .args(["-c", SERVE])
            .env("MOTO_RECORDER_FILEPATH", recordings.path().join("requests"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", python.display()));
        let mut told = BufReader::new(process.stderr.take().expect("its standard error is piped")).lines();
        let mut said = Vec::new();
        let url = loop {
            let Some(line) = told.next() else { panic!("moto ended before it listened: {}", said.join("\n")) };
            let line = line.expect("moto writes text");
            match line.split_once("Running on ") {
                Some((_, url)) => break url.trim().to_owned(),
                None => said.push(line),
            }
        };
        // It logs every request; a pipe that nobody reads would stop it.
        std::thread::spawn(move || told.for_each(drop));
        let endpoint = LocalEndpoint {
            url,
            region: "us-east-1".into(),
            access_key: "AKIAMOTO".into(),
            secret_key: "moto does not check signatures".into(),
        };
        Self { endpoint, process, _recordings: recordings }
    }

    /// Notes every request from now on.
    pub async fn record(&self) {
        let url = format!("{}/moto-api/recorder/start-recording", self.endpoint.url);
        reqwest::Client::new().post(url).send().await.unwrap().error_for_status().unwrap();
    }

    /// Every query-protocol call since [`Moto::record`], as its decoded form: `Action=…&…`.
    pub async fn calls(&self) -> Vec<String> {
        let url = format!("{}/moto-api/recorder/download-recording", self.endpoint.url);
        let lines = reqwest::get(url).await.unwrap().error_for_status().unwrap().text().await.unwrap();
        let form = |line: &str| {
            let request: Value = serde_json::from_str(line).unwrap();
            let body = request["body"].as_str()?;
            let body = match request["body_encoded"].as_bool() {
                Some(true) => String::from_utf8(STANDARD.decode(body).unwrap()).ok()?,
                _ => body.to_owned(),
            };
            body.starts_with("Action=").then_some(body)
        };
        lines.lines().filter_map(form).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The Python that `cargo xtask setup --tests` gives moto, or the one that the variable names.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    let python = std::env::var_os(PYTHON).map_or_else(|| target.join("python/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "moto is not installed: there is no {}; run `cargo xtask test`, which installs it, or set {PYTHON} to a Python \
         with the packages of xtask/requirements.txt",
        python.display()
    );
    python
}
