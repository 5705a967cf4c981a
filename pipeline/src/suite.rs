//! Checks as data: what `smoke_tests` and `bake.checks` in `alcedo.yaml` may ask. The crate `alcedo-smoke-tests` runs
//! them; they are declared here because the file that names them is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// One check. Exactly one of `http`, `tcp`, `ssh`, `run` or a resource (`package`, `service`, `file`, `port`, `user`,
/// `command`) says what is checked; `name` is how reports call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// How reports name the check. Default: made from what it checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How often a failing check is tried again before it counts as failed. Default 0.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub retries: u32,
    /// Time between two tries. Default `1s`.
    #[serde(default = "second")]
    pub retry_delay: Span,
    /// Deadline of one try. Default `10s`.
    #[serde(default = "ten_seconds")]
    pub timeout: Span,

    /// An HTTP request to the server, and what its answer must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// A TCP connection to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// A command run on the server over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<CommandCheck>,
    /// A program run on this machine, with `ALCEDO_URL`, `ALCEDO_HOST`, `ALCEDO_PORT` and `ALCEDO_VERSION` set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunCheck>,

    /// An installed package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageCheck>,
    /// A systemd service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceCheck>,
    /// A file or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileCheck>,
    /// A listening port, as the server itself sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortCheck>,
    /// A user account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserCheck>,
    /// A command run on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandCheck>,
}

/// `http: { path: /health, status: 200 }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Path and query, starting with `/`.
    pub path: String,
    /// Default `GET`.
    #[serde(default = "get")]
    pub method: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The status that must come. Default 200.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Headers the answer must carry, with exactly these values.
    #[serde(default)]
    pub expect_headers: BTreeMap<String, String>,
    /// Text that the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// A regular expression that the body must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_matches: Option<String>,
    /// JSON paths (RFC 9535) and the value each must have: `{ "$.status": "ok" }`.
    #[serde(default)]
    pub json: BTreeMap<String, serde_json::Value>,
    /// Longest time the whole answer may take. Default: the check's `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// The server must still answer over a connection that was idle for this long, which is added to the deadline. Asked of
    /// servers alone: a balancer closes idle connections by its own rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_open: Option<Span>,
}

/// `tcp: { port: 5432 }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// Default: the port of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

/// `command: { line: "hello --version", stdout_contains: "1." }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandCheck {
    /// Given to `sh -c` on the server.
    pub line: String,
    /// The exit code that must come. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 255))]
    pub exit_code: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_contains: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_matches: Option<String>,
}

/// `run: { program: ./smoke.sh, arguments: [--fast] }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCheck {
    /// A program on this machine; a relative path starts at the folder of `alcedo.yaml`.
    pub program: String,
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// `package: { name: nginx, version: "1.22*" }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageCheck {
    pub name: String,
    /// A pattern with `*` that the installed version must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Default true; false: must not be installed.
    #[serde(default = "yes")]
    pub installed: bool,
}

/// `service: { name: hello, enabled: true }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceCheck {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// `file: { path: /opt/hello/hello, mode: "0755", owner: root }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileCheck {
    pub path: String,
    /// Default true; false: must not exist.
    #[serde(default = "yes")]
    pub exists: bool,
    /// Octal, as text: `"0644"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// `port: { number: 8080 }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortCheck {
    #[schemars(range(min = 1))]
    pub number: u16,
    /// Default true; false: nothing may listen there.
    #[serde(default = "yes")]
    pub listening: bool,
}

/// `user: { name: hello, shell: /usr/sbin/nologin }`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserCheck {
    pub name: String,
    #[serde(default = "yes")]
    pub exists: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Groups the user must be in, beside others.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// What one [`Check`] asks, once it is known that it asks exactly one thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ask<'a> {
    Http(&'a HttpCheck),
    Tcp(&'a TcpCheck),
    Ssh(&'a CommandCheck),
    Run(&'a RunCheck),
    Package(&'a PackageCheck),
    Service(&'a ServiceCheck),
    File(&'a FileCheck),
    Port(&'a PortCheck),
    User(&'a UserCheck),
    Command(&'a CommandCheck),
}

impl Check {
    /// What the check asks, or the names of what it asks where that is not exactly one.
    pub fn ask(&self) -> Result<Ask<'_>, Vec<&'static str>> {
        let mut asks: Vec<(&'static str, Ask<'_>)> = Vec::new();
        asks.extend(self.http.as_ref().map(|it| ("http", Ask::Http(it))));
        asks.extend(self.tcp.as_ref().map(|it| ("tcp", Ask::Tcp(it))));
        asks.extend(self.ssh.as_ref().map(|it| ("ssh", Ask::Ssh(it))));
        asks.extend(self.run.as_ref().map(|it| ("run", Ask::Run(it))));
        asks.extend(self.package.as_ref().map(|it| ("package", Ask::Package(it))));
        asks.extend(self.service.as_ref().map(|it| ("service", Ask::Service(it))));
        asks.extend(self.file.as_ref().map(|it| ("file", Ask::File(it))));
        asks.extend(self.port.as_ref().map(|it| ("port", Ask::Port(it))));
        asks.extend(self.user.as_ref().map(|it| ("user", Ask::User(it))));
        asks.extend(self.command.as_ref().map(|it| ("command", Ask::Command(it))));
        match asks.as_slice() {
            [(_, one)] => Ok(*one),
            _ => Err(asks.into_iter().map(|(name, _)| name).collect()),
        }
    }

    /// The check's name in reports.
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        match self.ask() {
            Ok(Ask::Http(it)) => format!("{} {}", it.method, it.path),
            Ok(Ask::Tcp(it)) => it.port.map_or("tcp".into(), |port| format!("tcp {port}")),
            Ok(Ask::Ssh(it) | Ask::Command(it)) => it.line.clone(),
            Ok(Ask::Run(it)) => it.program.clone(),
            Ok(Ask::Package(it)) => format!("package {}", it.name),
            Ok(Ask::Service(it)) => format!("service {}", it.name),
            Ok(Ask::File(it)) => format!("file {}", it.path),
            Ok(Ask::Port(it)) => format!("port {}", it.number),
            Ok(Ask::User(it)) => format!("user {}", it.name),
            Err(_) => "check".into(),
        }
    }

    /// Whether the check can run inside an image that is being baked, where there is no balancer and no URL.
    pub fn is_for_images(&self) -> bool {
        !matches!(self.ask(), Ok(Ask::Run(_)))
    }

    /// Whether the check needs a shell on the server.
    pub fn needs_ssh(&self) -> bool {
        !matches!(self.ask(), Ok(Ask::Http(_) | Ask::Tcp(_) | Ask::Run(_)) | Err(_))
    }
}

fn second() -> Span {
    Span::seconds(1)
}
fn ten_seconds() -> Span {
    Span::seconds(10)
}
fn get() -> String {
    "GET".into()
}
fn ok() -> u16 {
    200
}
fn yes() -> bool {
    true
}
