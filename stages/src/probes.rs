//! Asking the balancer which version answers, at each of its addresses.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use alcedo_pipeline::{
    error::{ErrorKind, StepError},
    file::VersionProbe,
};
use serde::{Deserialize, Serialize};
use url::Url;

/// One probe's longest time: an answer that takes longer is a bad one.
const PROBE: Duration = Duration::from_secs(5);

/// The version that a node has answered, or why it gave no usable answer.
pub type Asked = (SocketAddr, Result<String, String>);
pub type Answers = Vec<Asked>;

/// Where a balancer's visitors come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontDoor {
    /// The URL that people use: its host is resolved to each node in turn.
    pub url: String,
    /// The nodes' addresses, where the balancer tells them; empty: the DNS is asked at each round.
    pub addresses: Vec<String>,
    pub version: Option<VersionProbe>,
}

impl FrontDoor {
    pub fn parsed(&self) -> Result<Url, StepError> {
        Url::parse(&self.url).map_err(|error| StepError::failed(format!("{} is not a URL", self.url)).because(error))
    }

    /// The same address on another port, where one is named.
    #[must_use]
    pub fn on_port(mut self, port: Option<u16>) -> Self {
        if let (Some(port), Ok(mut url)) = (port, self.parsed()) {
            // Only a URL without a host refuses a port, and this one has one.
            let _ = url.set_port(Some(port));
            self.url = url.into();
        }
        self
    }

    /// The socket addresses of all nodes.
    pub async fn nodes(&self) -> Result<Vec<SocketAddr>, StepError> {
        let url = self.parsed()?;
        let port = url.port_or_known_default().unwrap_or(80);
        let told: Vec<SocketAddr> = self
            .addresses
            .iter()
            .filter_map(|address| address.parse::<IpAddr>().ok())
            .map(|address| SocketAddr::new(address, port))
            .collect();
        if !told.is_empty() {
            return Ok(told);
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|error| {
            StepError::new(ErrorKind::Service, format!("the balancer's name {host} cannot be resolved")).because(error)
        })?;
        let mut found: Vec<SocketAddr> = found.collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// A client that reaches one node under the front door's own name, each request on a new connection: what stands on
    /// an old connection may be an old view.
    fn client(&self, node: SocketAddr) -> Result<reqwest::Client, StepError> {
        let url = self.parsed()?;
        reqwest::Client::builder()
            .resolve(url.host_str().unwrap_or_default(), node)
            .timeout(PROBE)
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| StepError::failed("a probe could not be set up").because(error))
    }

    /// What is needed to ask; `None` where nothing tells which version answers.
    pub fn asking<'a>(
        &'a self,
        headers: &'a BTreeMap<String, String>,
        known: &'a Known,
    ) -> Result<Option<Asking<'a>>, StepError> {
        let Some(probe) = &self.version else { return Ok(None) };
        Ok(Some(Asking { door: self, url: self.parsed()?, headers, known, probe }))
    }

    /// Which version answers at each node.
    pub async fn ask(&self, headers: &BTreeMap<String, String>, known: &Known) -> Result<Answers, StepError> {
        let Some(asking) = self.asking(headers, known)? else { return Ok(Vec::new()) };
        // A node that hangs must not keep the others from being asked.
        futures::future::try_join_all(self.nodes().await?.into_iter().map(|node| asking.ask(node))).await
    }
}

/// The clients of one door's nodes that have been asked: to set one up reads all certificates that this machine trusts, which
/// takes longer than to ask.
#[derive(Default)]
pub struct Known(Mutex<HashMap<SocketAddr, reqwest::Client>>);

impl Known {
    fn client(&self, door: &FrontDoor, node: SocketAddr) -> Result<reqwest::Client, StepError> {
        let mut known = self.0.lock().expect("no panic while it is held");
        if let Some(client) = known.get(&node) {
            return Ok(client.clone());
        }
        let client = door.client(node)?;
        known.insert(node, client.clone());
        Ok(client)
    }
}

/// Whoever asks which version answers.
pub struct Asking<'a> {
    door: &'a FrontDoor,
    url: Url,
    headers: &'a BTreeMap<String, String>,
    known: &'a Known,
    probe: &'a VersionProbe,
}

impl Asking<'_> {
    /// # Errors
    /// The probe could not be set up; a bad answer is an answer.
    pub async fn ask(&self, node: SocketAddr) -> Result<Asked, StepError> {
        let client = self.known.client(self.door, node)?;
        let answer = alcedo_smoke_tests::version::answering_version(&client, &self.url, self.headers, self.probe).await;
        Ok((node, answer.map_err(|error| error.to_string())))
    }
}
