//! What is done to a builder, decided beforehand: the artifact is fetched, checked and unpacked, then the project's steps
//! run in order.
//!
//! [`load`] reads the project's scripts and playbooks, [`plan`] turns everything into steps with nothing left to decide,
//! and [`execute`] runs them. What a step says to the server travels by standard input: neither the presigned URL nor a
//! variable's value is in any list of processes, here or there.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use alcedo_pipeline::file;
use alcedo_smoke_tests::shell::quote;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    ansible::{self, AnsibleRun},
    event::{ImageEvent, Sink},
    key::EphemeralKey,
    session::{Session, SessionError},
    source::{self, SourceError},
};

/// The builder could not fetch the artifact. The number is EX_IOERR of sysexits(3).
const EXIT_FETCH: i32 = 74;
/// The artifact is not the one that was published: EX_DATAERR.
const EXIT_DIGEST: i32 = 65;
/// A program is missing on the builder: EX_UNAVAILABLE.
const EXIT_TOOL: i32 = 69;

/// Longest time one fetch may take, in seconds. Below the lifetime of a presigned URL.
const FETCH_SECONDS: u32 = 600;

/// One step of the file with what it refers to, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedStep {
    Script {
        /// As the file says it.
        path: PathBuf,
        content: Vec<u8>,
        environment: BTreeMap<String, String>,
    },
    Run {
        commands: String,
        environment: BTreeMap<String, String>,
    },
    Ansible {
        /// As the file says it.
        playbook: PathBuf,
        /// The folder that relative paths start at.
        folder: PathBuf,
        /// Of the playbook's folder, roles and files included.
        digest: String,
        extra_vars: BTreeMap<String, String>,
        arguments: Vec<String>,
    },
}

/// Everything that decides what happens to the builder.
#[derive(Clone)]
pub struct ProvisionInput {
    pub app: String,
    pub version: String,
    /// Absolute, on the server.
    pub install_path: String,
    /// A short-lived URL of the artifact. Whoever has it can read the artifact.
    pub artifact_url: String,
    /// 64 hexadecimal digits.
    pub artifact_sha256: String,
    pub steps: Vec<LoadedStep>,
}

/// One step, ready to run.
#[derive(Clone, PartialEq, Eq)]
pub enum ProvisionStep {
    /// A program for `sh` on the server, as root.
    Remote { what: String, program: String, kind: RemoteKind },
    /// A playbook run from this machine.
    Ansible(AnsibleRun),
}

/// What an exit code of a remote step means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteKind {
    Fetch,
    Project,
}

impl fmt::Debug for ProvisionStep {
    /// Without the program: it contains the URL and the values of variables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote { what, program, .. } => write!(f, "Remote({what:?}, {} bytes)", program.len()),
            Self::Ansible(run) => run.fmt(f),
        }
    }
}

/// Why the builder is not provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("{} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("provisioning step {number} does not say exactly one of `script`, `run` and `ansible`")]
    Shape { number: usize },
    #[error("`{name}` cannot be the name of a variable")]
    VariableName { name: String },
    #[error("the install path `{path}` is not an absolute path below `/`")]
    InstallPath { path: String },
    #[error("the artifact's URL or digest is not one")]
    Artifact,
    #[error("a program that is needed to unpack the artifact is missing on the server")]
    Tool { last_lines: Vec<String> },
    #[error("the server could not fetch the artifact")]
    Fetch { last_lines: Vec<String> },
    #[error("what the server fetched is not the artifact that was published")]
    Digest { last_lines: Vec<String> },
    #[error("provisioning step `{what}` ended with exit code {exit_code}")]
    Step { what: String, exit_code: i32, last_lines: Vec<String> },
    #[error("`ansible-playbook` is not installed on this machine")]
    NoAnsible,
    #[error("`ansible-playbook` could not be run")]
    Ansible(#[source] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("provisioning was cancelled")]
    Cancelled,
}

impl ProvisionError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Tool { .. } => {
                "the base image needs curl, tar, zstd and sha256sum; take another, or install them in it"
            }
            Self::Fetch { .. } => {
                "the server must reach S3 over HTTPS: a public address, a NAT gateway, or a gateway endpoint for S3 in its VPC"
            }
            Self::NoAnsible => "install it (`pipx install ansible-core`), or use `script` or `run`",
            Self::VariableName { .. } => "names have letters, digits and `_`, and do not start with a digit",
            Self::Session(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The last lines of output, where a program failed.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Tool { last_lines }
            | Self::Fetch { last_lines }
            | Self::Digest { last_lines }
            | Self::Step { last_lines, .. } => last_lines,
            _ => &[],
        }
    }
}

/// Reads what the steps refer to, relative to `folder`, the folder of `alcedo.yaml`.
pub fn load(folder: &Path, steps: &[file::Provision]) -> Result<Vec<LoadedStep>, ProvisionError> {
    steps.iter().enumerate().map(|(index, step)| load_one(folder, index + 1, step)).collect()
}

fn load_one(folder: &Path, number: usize, step: &file::Provision) -> Result<LoadedStep, ProvisionError> {
    for name in step.environment.keys() {
        if !is_variable_name(name) {
            return Err(ProvisionError::VariableName { name: name.clone() });
        }
    }
    let environment = step.environment.clone();
    let read = |path: &Path| fs::read(path).map_err(|source| ProvisionError::Read { path: path.to_owned(), source });
    match (&step.script, &step.run, &step.ansible) {
        (Some(script), None, None) => {
            Ok(LoadedStep::Script { path: script.clone(), content: read(&folder.join(script))?, environment })
        }
        (None, Some(commands), None) => Ok(LoadedStep::Run { commands: commands.clone(), environment }),
        (None, None, Some(ansible)) => {
            let playbook = folder.join(&ansible.playbook);
            // The playbook itself counts even where Git ignores it.
            let mut hash = Sha256::new_with_prefix(read(&playbook)?);
            hash.update(source::digest(playbook.parent().unwrap_or(folder))?);
            Ok(LoadedStep::Ansible {
                playbook: ansible.playbook.clone(),
                folder: folder.to_owned(),
                digest: hex::encode(hash.finalize()),
                extra_vars: ansible.extra_vars.clone(),
                arguments: ansible.arguments.clone(),
            })
        }
        _ => Err(ProvisionError::Shape { number }),
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Everything that will be done, in order.
pub fn plan(input: &ProvisionInput) -> Result<Vec<ProvisionStep>, ProvisionError> {
    let path = &input.install_path;
    if !path.starts_with('/') || path.trim_matches('/').is_empty() || path.split('/').any(|name| name == "..") {
        return Err(ProvisionError::InstallPath { path: path.clone() });
    }
    let mut steps = vec![ProvisionStep::Remote {
        what: format!("install {} {}", input.app, input.version),
        program: fetch_program(input)?,
        kind: RemoteKind::Fetch,
    }];
    for step in &input.steps {
        steps.push(match step {
            LoadedStep::Script { path, content, environment } => {
                remote(path.display().to_string(), content, environment, input)
            }
            LoadedStep::Run { commands, environment } => {
                remote(first_line(commands), commands.as_bytes(), environment, input)
            }
            LoadedStep::Ansible { playbook, folder, extra_vars, arguments, .. } => {
                let mut variables = extra_vars.clone();
                for (name, value) in facts(input) {
                    variables.entry(name.to_ascii_lowercase()).or_insert(value);
                }
                ProvisionStep::Ansible(AnsibleRun {
                    playbook: playbook.clone(),
                    folder: folder.clone(),
                    variables,
                    arguments: arguments.clone(),
                })
            }
        });
    }
    Ok(steps)
}

fn remote(
    what: String,
    content: &[u8],
    environment: &BTreeMap<String, String>,
    input: &ProvisionInput,
) -> ProvisionStep {
    ProvisionStep::Remote { what, program: step_program(content, environment, input), kind: RemoteKind::Project }
}

/// What every step is told.
fn facts(input: &ProvisionInput) -> [(String, String); 3] {
    [
        ("ALCEDO_APP".into(), input.app.clone()),
        ("ALCEDO_INSTALL_PATH".into(), input.install_path.clone()),
        ("ALCEDO_VERSION".into(), input.version.clone()),
    ]
}

fn first_line(commands: &str) -> String {
    commands.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("run").to_owned()
}

/// Fetches the artifact, checks its digest, unpacks it. curl reads the URL from its standard input.
fn fetch_program(input: &ProvisionInput) -> Result<String, ProvisionError> {
    let sha256 = &input.artifact_sha256;
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    // One line between double quotes, for curl's configuration.
    let is_url = input.artifact_url.starts_with("http")
        && !input.artifact_url.contains(|c: char| c.is_control() || c == '"' || c == '\\' || c == ' ');
    if !is_digest || !is_url {
        return Err(ProvisionError::Artifact);
    }
    Ok(format!(
        r#"set -eu
umask 022
for tool in curl sha256sum tar zstd; do
    command -v "$tool" >/dev/null || {{ echo "$tool is missing" >&2; exit {EXIT_TOOL}; }}
done
work=$(mktemp -d /var/tmp/alcedo.XXXXXX)
trap 'rm -rf "$work"' EXIT
curl --disable --fail --silent --show-error --retry 4 --retry-connrefused --connect-timeout 10 --max-time {FETCH_SECONDS} \
    --output "$work/artifact" --config - <<'END_OF_CONFIG' || {{ echo "curl ended with exit code $?" >&2; exit {EXIT_FETCH}; }}
url = "{url}"
END_OF_CONFIG
printf '%s  %s\n' {sha256} "$work/artifact" | sha256sum --check --status || {{
    echo "expected SHA-256 {sha256}, got $(sha256sum <"$work/artifact")" >&2
    exit {EXIT_DIGEST}
}}
mkdir -p -- {path}
tar --extract --zstd --file "$work/artifact" --directory {path} --same-owner --same-permissions
"#,
        url = input.artifact_url,
        path = quote(&input.install_path),
    ))
}

/// Runs a script of the project, or commands as one, in the install path. It is kept in a file on the server while it
/// runs, so that its own standard input is empty and its `#!` line is honoured.
fn step_program(content: &[u8], environment: &BTreeMap<String, String>, input: &ProvisionInput) -> String {
    let mut variables = BTreeMap::from(facts(input));
    // Packages must not ask questions that nobody is there to answer.
    variables.insert("DEBIAN_FRONTEND".into(), "noninteractive".into());
    variables.extend(environment.clone());
    let exports: String = variables.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect();
    let start = if content.starts_with(b"#!") { "" } else { "sh -e " };
    format!(
        r#"set -eu
umask 077
work=$(mktemp -d /var/tmp/alcedo.XXXXXX)
trap 'rm -rf "$work"' EXIT
base64 --decode >"$work/step" <<'END_OF_STEP'
{encoded}
END_OF_STEP
chmod 0700 "$work/step"
umask 022
cd -- {path}
{exports}{start}"$work/step" </dev/null
"#,
        encoded = wrapped(&STANDARD.encode(content)),
        path = quote(&input.install_path),
    )
}

/// Base64 in lines of a length that every tool takes.
fn wrapped(base64: &str) -> String {
    let lines: Vec<&str> = base64.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    lines.join("\n")
}

/// Runs the steps, one after another; the first that fails ends it.
///
/// # Errors
/// On [`ProvisionError::Cancelled`] the step under way may still run on the server, which its caller will terminate.
pub async fn execute(
    session: &Session,
    steps: &[ProvisionStep],
    key: &EphemeralKey,
    sink: &Sink,
    cancel: &CancellationToken,
) -> Result<(), ProvisionError> {
    let work = async {
        for step in steps {
            match step {
                ProvisionStep::Remote { what, program, kind } => {
                    sink(ImageEvent::Started { what: what.clone() });
                    let ended = session.run_program(program, true, sink).await?;
                    judge(what, *kind, ended.exit_code, ended.last_lines)?;
                }
                ProvisionStep::Ansible(run) => {
                    sink(ImageEvent::Started { what: format!("playbook {}", run.playbook.display()) });
                    ansible::execute(run, session, key, sink).await?;
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        done = work => done,
        () = cancel.cancelled() => Err(ProvisionError::Cancelled),
    }
}

fn judge(what: &str, kind: RemoteKind, exit_code: i32, last_lines: Vec<String>) -> Result<(), ProvisionError> {
    match (exit_code, kind) {
        (0, _) => Ok(()),
        (EXIT_FETCH, RemoteKind::Fetch) => Err(ProvisionError::Fetch { last_lines }),
        (EXIT_DIGEST, RemoteKind::Fetch) => Err(ProvisionError::Digest { last_lines }),
        (EXIT_TOOL, RemoteKind::Fetch) => Err(ProvisionError::Tool { last_lines }),
        _ => Err(ProvisionError::Step { what: what.to_owned(), exit_code, last_lines }),
    }
}

#[cfg(test)]
#[path = "provision_tests.rs"]
mod tests;
