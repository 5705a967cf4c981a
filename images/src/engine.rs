//! The container engine: the local one, or the one that `DOCKER_HOST` names.

use std::{env, fmt, path::Path, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, models::ResourcesUlimits};
use nix::sys::resource::{Resource, getrlimit};

/// Where engines listen when nothing else is said, in the order they are tried: Docker's socket, Podman's as root.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Deadline of one request's answer, in seconds. A commit of a large root is the slowest answer there is.
const REQUEST_TIMEOUT_SECONDS: u64 = 600;

/// Deadline of the first question, which shows whether an engine is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// An engine that has answered, with the API version both sides know. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
    address: String,
    ulimits: Option<Vec<ResourcesUlimits>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.address)
    }
}

/// Why no engine can be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no container engine was found")]
    NotFound {
        /// Where it was looked for.
        tried: Vec<String>,
    },
    #[error("the engine's address `{address}` cannot be used")]
    Address {
        address: String,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("there is no engine at {address}")]
    Nothing { address: String },
    #[error("this user may not use the engine at {address}")]
    Forbidden {
        address: String,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("the engine at {address} does not answer")]
    NoAnswer {
        address: String,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("the engine at {address} did not answer within {} s", HELLO_TIMEOUT.as_secs())]
    TimedOut { address: String },
}

impl EngineError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotFound { tried } => format!(
                "install one (Debian: `apt-get install docker.io`, or `podman` with its socket enabled), start it, or name \
                 one in DOCKER_HOST; looked at {}",
                tried.join(", ")
            ),
            Self::Nothing { .. } => "nothing listens there: start the engine, name another one in DOCKER_HOST, or unset it to \
                                     have the usual places looked at"
                .into(),
            Self::Address { .. } => "DOCKER_HOST takes unix:///path, tcp://host:port or http://host:port; forward any \
                                     other kind to a local socket first (`ssh -L /tmp/engine.sock:/var/run/docker.sock HOST`)"
                .into(),
            Self::Forbidden { .. } => {
                "add the user to the engine's group (`usermod -aG docker USER`, then log in again), or use root".into()
            }
            Self::NoAnswer { .. } | Self::TimedOut { .. } => {
                "start it (`systemctl start docker`), or name another one in DOCKER_HOST".into()
            }
        }
    }
}

/// Finds the engine and agrees with it on an API version. Podman's Docker-compatible socket is as good as Docker's.
pub async fn connect() -> Result<Engine, EngineError> {
    let address = match env::var("DOCKER_HOST") {
        Ok(address) if !address.trim().is_empty() => address.trim().to_owned(),
        _ => find()?,
    };
    connect_to(&address).await
}

/// The engine at this address, as written in `DOCKER_HOST`.
pub async fn connect_to(address: &str) -> Result<Engine, EngineError> {
    if let Some(path) = address.strip_prefix("unix://")
        && !path.is_empty()
        && !std::path::Path::new(path).exists()
    {
        return Err(EngineError::Nothing { address: address.to_owned() });
    }
    let address_error = |source| EngineError::Address { address: address.to_owned(), source };
    let docker = if address.starts_with("unix://") {
        Docker::connect_with_unix(address, REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
    } else if address.starts_with("tcp://") || address.starts_with("http://") {
        Docker::connect_with_http(address, REQUEST_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
    } else {
        Docker::connect_with_host(address)
    };
    let docker = docker.map_err(|source| refused(address, source).unwrap_or_else(address_error))?;
    let agreed = tokio::time::timeout(HELLO_TIMEOUT, docker.negotiate_version())
        .await
        .map_err(|_| EngineError::TimedOut { address: address.to_owned() })?;
    let docker = agreed.map_err(|source| {
        refused(address, source).unwrap_or_else(|source| EngineError::NoAnswer { address: address.to_owned(), source })
    })?;
    let version = tokio::time::timeout(HELLO_TIMEOUT, docker.version())
        .await
        .map_err(|_| EngineError::TimedOut { address: address.to_owned() })?
        .map_err(|source| EngineError::NoAnswer { address: address.to_owned(), source })?;
    let is_podman = version.components.iter().flatten().any(|component| component.name.contains("Podman"));
    // A remote engine's limits are not this machine's; it is left to its own defaults.
    let ulimits = (is_podman && address.starts_with("unix://")).then(limits_of_this_process);
    Ok(Engine { docker, address: address.to_owned(), ulimits })
}

/// Podman raises the limits of what it starts to defaults of its own, which fails where it may not raise its own (inside
/// another container, or without CAP_SYS_RESOURCE). The limits of this process are limits that the machine grants; the
/// number of processes is kept below the kernel's own, as Podman does it.
fn limits_of_this_process() -> Vec<ResourcesUlimits> {
    let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let limit = |name: &str, resource, most: u64| {
        let (soft, hard) = getrlimit(resource).ok()?;
        let count = |limit: u64| i64::try_from(limit.min(most)).unwrap_or(-1);
        Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(count(soft)), hard: Some(count(hard)) })
    };
    let files = limit("nofile", Resource::RLIMIT_NOFILE, u64::MAX);
    let processes = limit("nproc", Resource::RLIMIT_NPROC, pid_max.unwrap_or(u64::MAX));
    files.into_iter().chain(processes).collect()
}

impl Engine {
    /// The engine's API.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The limits that a container has to be given explicitly, where the engine's own cannot be relied on.
    pub(crate) fn ulimits(&self) -> Option<Vec<ResourcesUlimits>> {
        self.ulimits.clone()
    }

    /// Where it listens, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn find() -> Result<String, EngineError> {
    let mut candidates: Vec<String> = SOCKETS.iter().map(|path| (*path).to_owned()).collect();
    if let Ok(runtime) = env::var("XDG_RUNTIME_DIR") {
        candidates.push(format!("{runtime}/docker.sock"));
        candidates.push(format!("{runtime}/podman/podman.sock"));
    }
    match candidates.iter().find(|path| Path::new(path).exists()) {
        Some(path) => Ok(format!("unix://{path}")),
        None => Err(EngineError::NotFound { tried: candidates }),
    }
}

/// A refusal for want of rights, told from every other failure by its I/O error kind.
fn refused(address: &str, source: bollard::errors::Error) -> Result<EngineError, bollard::errors::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Ok(EngineError::Forbidden { address: address.to_owned(), source });
        }
        cause = error.source();
    }
    Err(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_an_unknown_kind_is_refused_with_the_kinds_there_are() {
        let error = connect_to("ssh://host").await.unwrap_err();
        assert!(matches!(error, EngineError::Address { .. }), "{error:?}");
        assert!(error.hint().contains("unix:///path"));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named_by_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        // A socket file that nobody listens on: what a stopped engine leaves.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = connect_to(&format!("unix://{}", socket.display())).await.unwrap_err();
        assert!(matches!(error, EngineError::NoAnswer { .. }), "{error:?}");
        assert!(error.to_string().contains("engine.sock"));
    }
}
