//! A local region on records alone, in this process.

use std::{sync::Arc, time::Duration};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config, Lags},
    server::{self, Running},
};
use alcedo_stages::clients::LocalEndpoint;
use tempfile::TempDir;

/// A region that stops when this is dropped.
pub struct LocalRegion {
    pub endpoint: LocalEndpoint,
    _running: Running,
    _folder: TempDir,
}

impl LocalRegion {
    /// With the short lags that users have by default.
    pub async fn start() -> Self {
        Self::with(Lags::quick()).await
    }

    /// Where every reading is of now, for comparing inventories.
    pub async fn without_lags() -> Self {
        Self::with(Self::no_lags()).await
    }

    pub fn no_lags() -> Lags {
        Lags {
            new_record: Duration::ZERO,
            propagation: Duration::ZERO,
            target_health: Duration::ZERO,
            registration: Duration::ZERO,
            initial_check: Some(Duration::from_millis(20)),
            image: Duration::ZERO,
            throttle: false,
            ..Lags::quick()
        }
    }

    pub async fn with(lags: Lags) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            name: "stages".into(),
            folder: folder.path().join("region"),
            listen: "127.0.0.1:0".parse().unwrap(),
            region: "us-east-1".into(),
            access_key: "AKIASTAGES".into(),
            secret_key: "a secret of these tests".into(),
            backing: Backing::RecordsOnly,
            lags,
            capacity: Capacity::default(),
            forget_servers: false,
        };
        let running = server::start(config.clone(), Arc::new(SystemClock)).await.unwrap();
        let endpoint = LocalEndpoint {
            url: running.endpoint.clone(),
            region: config.region,
            access_key: config.access_key,
            secret_key: config.secret_key,
        };
        Self { endpoint, _running: running, _folder: folder }
    }
}
