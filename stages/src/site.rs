//! One environment of one file, connected.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use alcedo_pipeline::{clock::Clock, file::Pipeline, lock::Fence, secret::Redactor, store::Store};
use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    clients::{Clients, LocalEndpoint},
    s3_store::S3Store,
    signature::Signer,
};

/// Settings, clients and the place where runs are kept.
#[derive(Clone)]
pub struct Site {
    pub pipeline: Arc<Pipeline>,
    pub environment: String,
    /// The folder of `alcedo.yaml`; its relative paths start here.
    pub folder: PathBuf,
    pub clients: Clients,
    pub store: Arc<dyn Store>,
    /// `<prefix><app>/`: where everything of the app is kept in the bucket.
    pub root: String,
    /// Knows the secrets once they are found; nothing leaves with one of them in it.
    pub redactor: Redactor,
    /// The key to sign with, where it is not the environment's.
    pub signer: Option<Arc<Signer>>,
    /// Where random names come from.
    dice: Arc<Mutex<StdRng>>,
}

impl Site {
    /// Makes no call yet: whatever is wrong shows when it is first used.
    pub async fn connect(
        pipeline: Pipeline,
        environment: impl Into<String>,
        folder: impl Into<PathBuf>,
        local: Option<&LocalEndpoint>,
    ) -> Self {
        let clients = Clients::connect(&pipeline.aws, local).await;
        Self::of(pipeline, environment, folder, clients, StdRng::from_os_rng())
    }

    /// The same of clients that are connected already; `dice` is where random names come from.
    pub fn of(
        pipeline: Pipeline,
        environment: impl Into<String>,
        folder: impl Into<PathBuf>,
        clients: Clients,
        dice: StdRng,
    ) -> Self {
        let store = Arc::new(S3Store::new(&clients, pipeline.publish.bucket.clone()));
        let root = format!("{}{}/", prefix(&pipeline.publish.prefix), pipeline.app);
        Self {
            pipeline: Arc::new(pipeline),
            environment: environment.into(),
            folder: folder.into(),
            clients,
            store,
            root,
            redactor: Redactor::default(),
            signer: None,
            dice: Arc::new(Mutex::new(dice)),
        }
    }

    /// The same site, where nothing is changed once the environment's lease no longer holds.
    #[must_use]
    pub fn guarded_by(&self, fence: &Fence) -> Self {
        let clients = self.clients.guarded_by(fence);
        let store = Arc::new(S3Store::new(&clients, self.bucket()));
        Self { clients, store, ..self.clone() }
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clients.clock.0.clone()
    }

    pub fn now(&self) -> Timestamp {
        self.clients.clock.0.now()
    }

    /// A random number, for names that nobody else may choose.
    pub fn random(&self) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    pub fn bucket(&self) -> &str {
        &self.pipeline.publish.bucket
    }

    pub fn lock_key(&self) -> String {
        alcedo_pipeline::lock::Lock::key(&self.root, &self.environment)
    }

    /// Whether the endpoint is on this machine: a local region.
    pub fn is_local(&self) -> bool {
        self.endpoint_host().is_some_and(|host| host == "localhost" || host.starts_with("127."))
    }

    fn endpoint_host(&self) -> Option<String> {
        url::Url::parse(self.clients.endpoint.as_deref()?).ok()?.host_str().map(str::to_owned)
    }

    /// Where this machine's own address is asked for: the local region answers it itself, for AWS it is AWS's service.
    pub fn check_ip_url(&self) -> String {
        match std::env::var("ALCEDO_CHECK_IP_URL") {
            Ok(url) if !url.is_empty() => url,
            _ if self.is_local() => {
                format!("{}/checkip", self.clients.endpoint.as_deref().unwrap_or_default().trim_end_matches('/'))
            }
            _ => "https://checkip.amazonaws.com/".to_owned(),
        }
    }

    /// The endpoint as servers reach it. A server cannot reach this machine's loopback; it can reach its address on the
    /// engine's network, which is the address the local region knows this machine by.
    pub fn endpoint_for_servers(&self, own_address: Ipv4Addr) -> Option<String> {
        let mut url = url::Url::parse(self.clients.endpoint.as_deref()?).ok()?;
        if self.is_local() {
            url.set_host(Some(&own_address.to_string())).ok()?;
        }
        Some(url.to_string().trim_end_matches('/').to_owned())
    }
}

fn prefix(prefix: &str) -> String {
    match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    }
}
