//! moto's server as a process of this test's own.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use alcedo_stages::clients::LocalEndpoint;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// Serves until its standard input ends, so that it is gone with the test however the test ends. moto takes a free port.
const SERVE: &str = include_str!("serve_moto.py");

/// The variable that names the Python with moto; `cargo xtask test` sets it.
const PYTHON: &str = "ALCEDO_TEST_PYTHON";

const USER: &str = "alcedo";

/// A server that is ended, by its id, when this is dropped.
pub struct Moto {
    pub endpoint: LocalEndpoint,
    http: reqwest::Client,
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
        Self { endpoint, http: reqwest::Client::new(), process, _recordings: recordings }
    }

    /// Notes every request from now on.
    pub async fn record(&self) {
        let url = format!("{}/moto-api/recorder/start-recording", self.endpoint.url);
        self.http.post(url).send().await.unwrap().error_for_status().unwrap();
    }

    /// Every request since [`Moto::record`].
    pub async fn requests(&self) -> Vec<Recorded> {
        let url = format!("{}/moto-api/recorder/download-recording", self.endpoint.url);
        let lines = self.http.get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every query-protocol call since [`Moto::record`], as its decoded form: `Action=…&…`.
    pub async fn calls(&self) -> Vec<String> {
        let form = |request: &Recorded| {
            let body = String::from_utf8(request.body()).ok()?;
            body.starts_with("Action=").then_some(body)
        };
        self.requests().await.iter().filter_map(form).collect()
    }

    /// Makes a user, with keys by which nothing is allowed yet. Until somebody is restricted, moto checks nothing.
    pub async fn user(&self) -> LocalEndpoint {
        self.iam(&[("Action", "CreateUser"), ("UserName", USER)]).await;
        let made = self.iam(&[("Action", "CreateAccessKey"), ("UserName", USER)]).await;
        let text = |name: &str| {
            let (_, rest) = made.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name}: {made}"));
            rest.split_once('<').expect("it is closed").0.to_owned()
        };
        LocalEndpoint { access_key: text("AccessKeyId"), secret_key: text("SecretAccessKey"), ..self.endpoint.clone() }
    }

    /// Every call of the user's has to be allowed by this policy from now on. The account's own calls, by keys
    /// that nobody made, are refused.
    pub async fn restrict(&self, policy: &Value) {
        self.free().await;
        let document = policy.to_string();
        let put =
            [("Action", "PutUserPolicy"), ("UserName", USER), ("PolicyName", USER), ("PolicyDocument", &*document)];
        self.iam(&put).await;
        self.check_after("0").await;
    }

    /// Nothing is checked any more.
    pub async fn free(&self) {
        self.check_after("inf").await;
    }

    /// Sends a request as it was recorded. Answers whether it is forbidden.
    pub async fn refuses(&self, request: &Recorded) -> bool {
        let mut call = self.http.request(request.method.parse().unwrap(), &request.url);
        // How the body comes is the client's matter.
        let headers = request.headers.iter().filter(|(name, _)| !["Host", "Content-Length"].contains(&name.as_str()));
        for (name, value) in headers {
            call = call.header(name, value);
        }
        call.body(request.body()).send().await.unwrap().status() == 403
    }

    async fn check_after(&self, calls: &'static str) {
        let url = format!("{}/moto-api/reset-auth", self.endpoint.url);
        self.http.post(url).body(calls).send().await.unwrap().error_for_status().unwrap();
    }

    /// A call of IAM's, for which there is no SDK here. moto knows the service by the signature's scope.
    async fn iam(&self, form: &[(&str, &str)]) -> String {
        let scope = "AWS4-HMAC-SHA256 Credential=AKIAMOTO/20260101/us-east-1/iam/aws4_request";
        let body = url::form_urlencoded::Serializer::new("Version=2010-05-08".to_owned()).extend_pairs(form).finish();
        let call = self.http.post(&self.endpoint.url).header("authorization", scope);
        let call = call.header("content-type", "application/x-www-form-urlencoded").body(body);
        call.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
    }
}

/// A request as moto has recorded it.
#[derive(Debug, Clone, Deserialize)]
pub struct Recorded {
    pub method: String,
    pub url: String,
    pub headers: BTreeMap<String, String>,
    body: Option<String>,
    body_encoded: bool,
}

impl Recorded {
    /// By the scope of its signature.
    pub fn service(&self) -> String {
        let scope = self.headers.get("Authorization").and_then(|it| it.split('/').nth(3));
        scope.unwrap_or_default().to_owned()
    }

    pub fn body(&self) -> Vec<u8> {
        let body = self.body.as_deref().unwrap_or_default();
        match self.body_encoded {
            true => STANDARD.decode(body).unwrap(),
            false => body.into(),
        }
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
