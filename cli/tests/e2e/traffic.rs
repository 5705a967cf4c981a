//! A steady stream of requests to the balancer, and what came back.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Each client's pause between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(25);

/// An answer that takes longer counts as lost. Far above what a busy machine needs.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How many failures are kept with their reason.
const REASONS_KEPT: usize = 10;

/// What a stream of requests saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub failed: u64,
    pub reasons: Vec<String>,
    /// Answers by the version that gave them.
    pub versions: BTreeMap<String, Seen>,
}

/// What one version answered.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub answers: u64,
    /// When its first answer came.
    pub first: Timestamp,
    /// When the last request was sent that it answered.
    pub last: Timestamp,
}

impl Tally {
    fn count(&mut self, sent: Timestamp, answer: Result<String, String>) {
        self.sent += 1;
        match answer {
            Ok(version) => self.see(version, Seen { answers: 1, first: Timestamp::now(), last: sent }),
            Err(reason) => {
                self.failed += 1;
                if self.reasons.len() < REASONS_KEPT {
                    self.reasons.push(reason);
                }
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.reasons.extend(other.reasons);
        for (version, seen) in other.versions {
            self.see(version, seen);
        }
    }

    fn see(&mut self, version: String, more: Seen) {
        let seen = self.versions.entry(version).or_insert(Seen { answers: 0, ..more });
        seen.answers += more.answers;
        seen.first = seen.first.min(more.first);
        seen.last = seen.last.max(more.last);
    }

    /// Asserts that these versions answered, and no others.
    #[track_caller]
    pub fn assert_versions(&self, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let answered: Vec<&str> = self.versions.keys().map(String::as_str).collect();
        assert_eq!(answered, expected, "the versions that answered");
    }

    /// Asserts that every request was answered, and that there were some.
    #[track_caller]
    pub fn assert_all_answered(&self) {
        assert!(self.sent > 0, "no request was sent");
        assert!(self.failed == 0, "{} of {} requests failed: {:#?}", self.failed, self.sent, self.reasons);
    }
}

/// Requests that are being sent until [`Traffic::stop`].
pub struct Traffic {
    runtime: Handle,
    stop: CancellationToken,
    clients: Vec<JoinHandle<Tally>>,
}

impl Traffic {
    /// Asks every node for `/version`: one client over a connection that it keeps open, one over a new connection for
    /// each request. Returns when each has had its first answer, so that whatever comes next comes in the middle.
    pub fn start(runtime: &Handle, nodes: &[SocketAddr]) -> Self {
        let stop = CancellationToken::new();
        let (begun, mut first_answers) = mpsc::channel(1);
        let kinds = nodes.iter().flat_map(|node| [(*node, true), (*node, false)]);
        let clients: Vec<_> = kinds
            .map(|(node, keeps_open)| runtime.spawn(send(node, keeps_open, stop.clone(), begun.clone())))
            .collect();
        for _ in &clients {
            runtime.block_on(first_answers.recv()).expect("every client sends a first request");
        }
        Self { runtime: runtime.clone(), stop, clients }
    }

    /// Ends the stream; every request that was sent is waited for and counted.
    pub fn stop(mut self) -> Tally {
        self.stop.cancel();
        let mut tally = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            tally.add(self.runtime.block_on(client).expect("a client does not panic"));
        }
        tally
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn send(node: SocketAddr, keeps_open: bool, stop: CancellationToken, begun: mpsc::Sender<()>) -> Tally {
    let client = client(keeps_open);
    let mut tally = Tally::default();
    while !stop.is_cancelled() {
        let sent = Timestamp::now();
        let answer = version_at(&client, node).await;
        tally.count(sent, answer.map_err(|why| format!("{node}, {} connection: {why}", kind(keeps_open))));
        if tally.sent == 1 {
            // Nobody waits for it where a test has failed meanwhile.
            let _ = begun.send(()).await;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
    tally
}

const fn kind(keeps_open: bool) -> &'static str {
    if keeps_open { "kept" } else { "new" }
}

/// A client that does not try again: what a retry would hide is what is looked for. Only a request that finds its kept
/// connection closed before a byte was sent goes to a new one, as every HTTP client does it.
pub fn client(keeps_open: bool) -> reqwest::Client {
    // The balancer speaks plain HTTP; reading the machine's certificates for nothing takes longer than many requests.
    let builder = reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .no_proxy()
        .timeout(REQUEST_DEADLINE)
        .retry(reqwest::retry::never());
    let builder = if keeps_open { builder } else { builder.pool_max_idle_per_host(0) };
    builder.build().expect("a plain client can be built")
}

/// The version that answers at a node.
pub async fn version_at(client: &reqwest::Client, node: SocketAddr) -> Result<String, String> {
    let answer = client.get(format!("http://{node}/version")).send().await.map_err(|error| chain(&error))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| chain(&error))?;
    if !status.is_success() {
        return Err(format!("{status}: {body}"));
    }
    let json: Value = serde_json::from_str(&body).map_err(|_| format!("not JSON: {body:?}"))?;
    // Build metadata, the commit, does not tell versions apart.
    let version = json["version"].as_str().and_then(|version| version.split('+').next());
    version.map(str::to_owned).ok_or_else(|| format!("no version: {body:?}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
