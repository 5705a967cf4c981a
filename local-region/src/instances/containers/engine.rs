//! The connection to a container engine that speaks Docker's API: Docker itself, or Podman's socket.

use std::{collections::HashMap, env, fmt, future::Future, path::PathBuf, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{SystemInfo, SystemInfoCgroupVersionEnum},
};

use crate::instances::MachineError;

/// For calls that the engine answers from what it knows or that start or end one process.
pub const QUICK: Duration = Duration::from_secs(30);
/// For calls that move a root file system. A root of some gigabytes on a slow disk takes minutes.
pub const SLOW: Duration = Duration::from_secs(600);
/// How long an engine may take to say that it is there.
const HELLO: Duration = Duration::from_secs(10);

/// Where Docker listens when nothing else is said.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Where Podman listens for the whole machine (`podman.socket`).
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";

/// An engine that answered, and what it can do.
#[derive(Debug, Clone)]
pub struct Engine {
    pub docker: Docker,
    /// Podman's answers and defaults differ in places.
    pub is_podman: bool,
    /// Mount calls need AppArmor's consent.
    pub has_apparmor: bool,
    pub limits_memory: bool,
    pub limits_cpu: bool,
    pub cpus: u32,
}

/// Why an engine did not do what it was asked, with the one distinction that callers act on.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub reason: Reason,
}

#[derive(Debug)]
pub enum Reason {
    /// The thing asked for does not exist (404).
    Absent(bollard::errors::Error),
    /// It exists already, or its state forbids the call (409).
    Conflict(bollard::errors::Error),
    /// Any other answer, or none.
    Refused(bollard::errors::Error),
    /// No answer in time.
    Late(Duration),
}

impl Failure {
    pub fn is_absent(&self) -> bool {
        matches!(self.reason, Reason::Absent(_))
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self.reason, Reason::Conflict(_))
    }

    pub fn with_hint(self, hint: impl Into<String>) -> MachineError {
        MachineError { hint: Some(hint.into()), ..self.into() }
    }
}

impl From<Failure> for MachineError {
    fn from(failure: Failure) -> Self {
        match failure.reason {
            Reason::Absent(source) | Reason::Conflict(source) | Reason::Refused(source) => {
                Self { what: failure.what, hint: None, source: Some(Box::new(source)) }
            }
            Reason::Late(deadline) => Self {
                what: format!("{}: no answer from the container engine in {} s", failure.what, deadline.as_secs()),
                hint: Some("see whether the engine hangs: `docker info`".to_owned()),
                source: None,
            },
        }
    }
}

/// Waits for a call of the engine, not longer than `deadline`. `what` names the attempt, for the error.
pub async fn within<T>(
    deadline: Duration,
    what: impl fmt::Display,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Failure> {
    use bollard::errors::Error::DockerResponseServerError;
    let reason = match tokio::time::timeout(deadline, call).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error @ DockerResponseServerError { status_code: 404, .. })) => Reason::Absent(error),
        Ok(Err(error @ DockerResponseServerError { status_code: 409, .. })) => Reason::Conflict(error),
        Ok(Err(error)) => Reason::Refused(error),
        Err(_) => Reason::Late(deadline),
    };
    Err(Failure { what: what.to_string(), reason })
}

/// The engine's filters as a map of one entry.
pub fn filter(key: &str, value: impl Into<String>) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), vec![value.into()])])
}

impl Engine {
    /// Finds the engine: the one `DOCKER_HOST` names, else the first that answers of Docker's socket, Podman's socket for
    /// the machine and Podman's socket for the user.
    ///
    /// # Errors
    /// None answers, or the one that does cannot run servers (rootless: this machine cannot reach its network).
    pub async fn find() -> Result<Self, MachineError> {
        if let Ok(host) = env::var("DOCKER_HOST")
            && !host.is_empty()
        {
            return Self::at(&host).await;
        }
        let mut failure = None;
        for socket in sockets().into_iter().filter(|socket| socket.exists()) {
            match Self::at(&format!("unix://{}", socket.display())).await {
                Ok(engine) => return Ok(engine),
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Self::at(&format!("unix://{DOCKER_SOCKET}")).await,
        }
    }

    /// Connects to the engine at `host`: `unix:///…`, `tcp://…` or `http://…`.
    ///
    /// # Errors
    /// It does not answer, or cannot run servers.
    pub async fn at(host: &str) -> Result<Self, MachineError> {
        let no_engine = |source: bollard::errors::Error, hint: &str| MachineError {
            what: format!("no container engine answers at {host}"),
            hint: Some(hint.to_owned()),
            source: Some(Box::new(source)),
        };
        let docker = match host.strip_prefix("unix://") {
            Some(path) => {
                reachable(path, host).await?;
                Docker::connect_with_unix(host, SLOW.as_secs(), API_DEFAULT_VERSION)
            }
            None => Docker::connect_with_http(host, SLOW.as_secs(), API_DEFAULT_VERSION),
        };
        let docker = docker.map_err(|error| no_engine(error, "DOCKER_HOST is unix:///path or tcp://address:port"))?;
        let hello = async {
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            let info = docker.info().await?;
            Ok((docker, version, info))
        };
        let (docker, version, info) = match within(HELLO, format!("no container engine answers at {host}"), hello).await
        {
            Ok(answers) => answers,
            Err(failure) => return Err(failure.with_hint(INSTALL)),
        };
        let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        if has_security_option(&info, "rootless") {
            return Err(MachineError {
                what: format!("the container engine at {host} is rootless, so this machine cannot reach its servers"),
                hint: Some(
                    "start the one for the machine, `sudo systemctl start podman.socket`, and set \
                     DOCKER_HOST=unix:///run/podman/podman.sock; or install docker.io"
                        .to_owned(),
                ),
                source: None,
            });
        }
        tracing::debug!(host, is_podman, cgroup = ?info.cgroup_version, "container engine");
        // Podman leaves these facts out where they hold, and has them wherever cgroup v2 is.
        let on_v2 = info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2);
        Ok(Self {
            docker,
            is_podman,
            has_apparmor: has_security_option(&info, "apparmor"),
            limits_memory: info.memory_limit.unwrap_or(on_v2),
            limits_cpu: info.cpu_cfs_quota.unwrap_or(on_v2),
            cpus: info.ncpu.and_then(|count| count.try_into().ok()).unwrap_or(1),
        })
    }
}

/// What to do where no engine is.
const INSTALL: &str =
    "install one (`sudo apt-get install docker.io`), or start Podman's: `sudo systemctl start podman.socket`";

fn sockets() -> Vec<PathBuf> {
    let user = env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("podman/podman.sock"));
    [PathBuf::from(DOCKER_SOCKET), PathBuf::from(PODMAN_SOCKET)].into_iter().chain(user).collect()
}

/// Tells a missing socket from one that this user may not use: the advice differs.
async fn reachable(path: &str, host: &str) -> Result<(), MachineError> {
    let Err(error) = tokio::net::UnixStream::connect(path).await else { return Ok(()) };
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "let this user use it: `sudo usermod -aG docker $USER`, then log in again".to_owned()
        }
        _ => INSTALL.to_owned(),
    };
    Err(MachineError {
        what: format!("no container engine answers at {host}"),
        hint: Some(hint),
        source: Some(Box::new(error)),
    })
}

fn has_security_option(info: &SystemInfo, name: &str) -> bool {
    // "name=apparmor", or "name=seccomp,profile=default"
    let wanted = format!("name={name}");
    info.security_options.iter().flatten().any(|option| option.split(',').any(|part| part == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_engine_is_named_with_what_to_install() {
        let failure = Engine::at("unix:///nowhere/engine.sock").await.expect_err("nothing listens there");
        assert_eq!(failure.to_string(), "no container engine answers at unix:///nowhere/engine.sock");
        assert!(failure.hint.is_some_and(|hint| hint.contains("docker.io") && hint.contains("podman.socket")));
    }

    #[test]
    fn security_options_are_read_by_name() {
        let info = SystemInfo {
            security_options: Some(vec!["name=seccomp,profile=default".into(), "name=apparmor".into()]),
            ..SystemInfo::default()
        };
        assert!(has_security_option(&info, "apparmor"));
        assert!(has_security_option(&info, "seccomp"));
        assert!(!has_security_option(&info, "rootless"));
    }
}
