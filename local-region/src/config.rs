//! How one local region is set up.

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Everything a region needs to start. Kept in its folder, so that a restart is the same region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names the engine's network and containers, so that two regions can share an engine. `[a-z0-9-]`, at most 20.
    pub name: String,
    /// Where records, objects and the balancer's certificates are kept.
    pub folder: PathBuf,
    /// Where the API listens; loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What the region answers as, e.g. `us-east-1`.
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub backing: Backing,
    pub lags: Lags,
    #[serde(default)]
    pub capacity: Capacity,
    /// Goes on without servers that the engine has no more, where it has none of them: they count as terminated.
    #[serde(skip)]
    pub forget_servers: bool,
}

/// Why a region's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the region's name '{name}' is not 1 to 20 of a-z, 0-9 and '-'")]
    Name { name: String },
    #[error("{listen} is not a loopback address: anyone who reaches a region can start servers in it")]
    NotLoopback { listen: SocketAddr },
    #[error("the settings in {} cannot be read or written", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the settings in {} are not of this version", path.display())]
    Format { path: PathBuf, source: serde_json::Error },
}

impl Config {
    fn path(folder: &Path) -> PathBuf {
        folder.join("config.json")
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`ConfigError::Name`] and [`ConfigError::NotLoopback`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 20 || !self.name.chars().all(allowed) {
            return Err(ConfigError::Name { name: self.name.clone() });
        }
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError::NotLoopback { listen: self.listen });
        }
        Ok(())
    }

    /// Writes the settings into the region's folder, readable by this user alone: they hold the secret key.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn save(&self) -> Result<(), ConfigError> {
        let path = Self::path(&self.folder);
        let write = || {
            let next = path.with_extension("next");
            let mut file =
                std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            std::fs::rename(&next, &path)
        };
        write().map_err(|source| ConfigError::File { path: path.clone(), source })
    }

    /// The settings of the region in this folder, or `None` where there is none.
    ///
    /// # Errors
    /// [`ConfigError::File`] and [`ConfigError::Format`].
    pub fn load(folder: &Path) -> Result<Option<Self>, ConfigError> {
        let path = Self::path(folder);
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| ConfigError::Format { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::File { path, source }),
        }
    }
}

/// What the account may launch, and what its zones have run out of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// vCPUs of all pending and running instances together; beyond it, `VcpuLimitExceeded`.
    pub vcpus: u32,
    /// Instance types that answer `InsufficientInstanceCapacity`: `t3.micro` everywhere, or `t3.micro/us-east-1a`.
    pub exhausted: Vec<String>,
}

impl Default for Capacity {
    /// 64 vCPUs, nothing exhausted: what a small account has of standard on-demand instances.
    fn default() -> Self {
        Self { vcpus: 64, exhausted: Vec::new() }
    }
}

impl Capacity {
    pub fn lacks(&self, instance_type: &str, zone: &str) -> bool {
        self.exhausted.iter().any(|entry| match entry.split_once('/') {
            Some((kind, place)) => kind == instance_type && place == zone,
            None => entry == instance_type,
        })
    }
}

/// What runs behind an instance record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backing {
    Containers,
    RecordsOnly,
}

/// The delays and limits in which AWS differs from a database. Each can be set on its own; two profiles name useful sets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lags {
    /// How long a new id can stay unknown to Describe calls (`Invalid…NotFound`) after the call that made it.
    pub new_record: Duration,
    /// Whether each reading lags by a span of its own, up to [`Lags::new_record`]: one Describe may show what the next does
    /// not, as AWS's readers do who are answered from different copies.
    #[serde(default)]
    pub readers_differ: bool,
    /// Balancer nodes: how many, and over how long they take up a changed listener, one after another.
    pub balancer_nodes: u8,
    pub propagation: Duration,
    /// How long DescribeTargetHealth lags behind what the nodes know.
    pub target_health: Duration,
    /// Time from registering a target to its first health check.
    pub registration: Duration,
    /// How soon a target that has not passed a health check yet is checked again between its regular checks, so that a
    /// server that boots is healthy soon after it answers. `None`: at its interval only, as AWS does. Failures of these
    /// extra checks do not count towards the unhealthy threshold.
    pub initial_check: Option<Duration>,
    /// How far the metrics that CloudWatch shows are behind.
    #[serde(default)]
    pub metrics: Duration,
    /// How long after a call CloudTrail tells of it.
    #[serde(default)]
    pub trail: Duration,
    /// Console output is empty until this long after boot began.
    pub console: Duration,
    /// How long CreateImage's `pending` lasts beyond the capture itself.
    pub image: Duration,
    /// Whether calls are throttled by AWS's published token buckets.
    pub throttle: bool,
}

impl Lags {
    /// Short lags that still exist: the default.
    pub fn quick() -> Self {
        Self {
            new_record: Duration::from_millis(50),
            readers_differ: false,
            balancer_nodes: 2,
            propagation: Duration::from_millis(300),
            target_health: Duration::from_millis(50),
            registration: Duration::from_millis(100),
            initial_check: Some(Duration::from_millis(500)),
            metrics: Duration::ZERO,
            trail: Duration::ZERO,
            console: Duration::from_millis(200),
            image: Duration::from_millis(200),
            throttle: true,
        }
    }

    /// What AWS publishes or users measured; see `aws-semantics` in local-region/README.md for the sources.
    pub fn aws() -> Self {
        Self {
            new_record: Duration::from_secs(2),
            readers_differ: true,
            balancer_nodes: 4,
            propagation: Duration::from_secs(30),
            target_health: Duration::from_secs(1),
            registration: Duration::from_secs(5),
            initial_check: None,
            metrics: Duration::from_secs(60),
            trail: Duration::from_secs(300),
            console: Duration::from_secs(60),
            image: Duration::from_secs(43),
            throttle: true,
        }
    }
}
