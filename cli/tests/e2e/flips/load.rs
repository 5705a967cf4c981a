//! Visitors of every kind, at every node of the balancer: short requests over connections that stay open, uploads, requests
//! that take twenty seconds, and WebSockets. Bounded in number, on loopback alone, and none is ever tried again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::traffic::client;

/// Pause of a client of short requests, where this load has the machine for itself.
const PAUSE: Duration = Duration::from_millis(10);
const UPLOAD_BYTES: usize = 1 << 20;
/// An upload is sent in so many pieces, with a pause before each.
const PIECES: usize = 8;
const PIECE_PAUSE: Duration = Duration::from_millis(100);
/// How long the slow requests think. A new one begins at each node every [`SLOW_EVERY`].
const SLOW: Duration = Duration::from_secs(20);
const SLOW_EVERY: Duration = Duration::from_secs(2);
/// Words over one WebSocket, and the pause before each: ten seconds in all.
const WORDS: usize = 20;
const WORD_PAUSE: Duration = Duration::from_millis(500);
/// What takes longer counts as lost.
const DEADLINE: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Short,
    Upload,
    Slow,
    Socket,
}

/// One request, or one WebSocket from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub kind: Kind,
    pub began: Instant,
    pub ended: Instant,
    /// The version that answered; why nobody did.
    pub version: Result<String, String>,
}

/// Visitors that come until [`Load::stop`].
pub struct Load {
    runtime: Handle,
    stop: CancellationToken,
    visitors: Vec<JoinHandle<()>>,
    answers: mpsc::UnboundedReceiver<Answer>,
    seen: Vec<Answer>,
}

impl Load {
    pub fn start(runtime: &Handle, nodes: &[SocketAddr]) -> Self {
        Self::start_one_of(1, runtime, nodes)
    }

    /// One of so many loads, which have the machine in common: each is as much the thinner.
    pub fn start_one_of(loads: u32, runtime: &Handle, nodes: &[SocketAddr]) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut visitors = Vec::new();
        for node in nodes {
            let visitor = Visitor { node: *node, stop: stop.clone(), answers: sender.clone(), pause: PAUSE * loads };
            visitors.push(runtime.spawn(visitor.clone().short()));
            visitors.push(runtime.spawn(visitor.clone().uploads()));
            visitors.push(runtime.spawn(visitor.clone().slow()));
            visitors.push(runtime.spawn(visitor.sockets()));
        }
        Self { runtime: runtime.clone(), stop, visitors, answers, seen: Vec::new() }
    }

    /// What has been answered so far.
    pub fn seen(&mut self) -> &[Answer] {
        while let Ok(answer) = self.answers.try_recv() {
            self.seen.push(answer);
        }
        &self.seen
    }

    /// No new ones; those under way are waited for.
    pub fn stop(mut self) -> Vec<Answer> {
        self.stop.cancel();
        for visitor in std::mem::take(&mut self.visitors) {
            self.runtime.block_on(visitor).expect("a visitor does not panic");
        }
        self.seen();
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Visitor {
    node: SocketAddr,
    stop: CancellationToken,
    answers: mpsc::UnboundedSender<Answer>,
    pause: Duration,
}

impl Visitor {
    async fn short(self) {
        let client = client(true);
        while !self.stop.is_cancelled() {
            self.tell(Kind::Short, version(client.get(self.url("version")))).await;
            self.wait(self.pause).await;
        }
    }

    async fn uploads(self) {
        let client = client(true);
        while !self.stop.is_cancelled() {
            let pieces = futures::stream::iter(0..PIECES).then(|_| async {
                tokio::time::sleep(PIECE_PAUSE).await;
                Ok::<_, std::io::Error>(vec![7_u8; UPLOAD_BYTES / PIECES])
            });
            let request = client.post(self.url("upload")).header("content-length", UPLOAD_BYTES);
            self.tell(Kind::Upload, version(request.body(reqwest::Body::wrap_stream(pieces)))).await;
        }
    }

    async fn slow(self) {
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).retry(reqwest::retry::never()).build();
        let client = client.expect("a plain client can be built");
        let mut under_way = Vec::new();
        while !self.stop.is_cancelled() {
            let request = client.get(self.url(&format!("slow?seconds={}", SLOW.as_secs())));
            let visitor = self.clone();
            under_way.push(tokio::spawn(async move { visitor.tell(Kind::Slow, version(request)).await }));
            self.wait(SLOW_EVERY).await;
        }
        for request in under_way {
            request.await.expect("a request does not panic");
        }
    }

    async fn sockets(self) {
        while !self.stop.is_cancelled() {
            self.tell(Kind::Socket, talk(format!("ws://{}/socket", self.node))).await;
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.node)
    }

    async fn tell(&self, kind: Kind, asked: impl Future<Output = Result<String, String>>) {
        let began = Instant::now();
        let version = match tokio::time::timeout(DEADLINE, asked).await {
            Ok(version) => version.map_err(|why| format!("{kind:?} at {}: {why}", self.node)),
            Err(_) => Err(format!("{kind:?} at {}: no answer in {DEADLINE:?}", self.node)),
        };
        // Nobody listens any more where a test has failed.
        let _ = self.answers.send(Answer { kind, began, ended: Instant::now(), version });
    }

    async fn wait(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

async fn version(request: reqwest::RequestBuilder) -> Result<String, String> {
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| format!("{error:?}"))?;
    let json: Value = serde_json::from_str(&body).map_err(|_| format!("{status}: {body:?}"))?;
    json["version"].as_str().map(str::to_owned).ok_or_else(|| format!("{status}: {body:?}"))
}

/// A WebSocket that lives for some seconds: every word is answered, and it is closed in order.
async fn talk(url: String) -> Result<String, String> {
    let in_words = |error: tokio_tungstenite::tungstenite::Error| error.to_string();
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.map_err(in_words)?;
    let mut version = None;
    for _ in 0..WORDS {
        socket.send(Message::text("which version?")).await.map_err(in_words)?;
        match socket.next().await {
            Some(Ok(Message::Text(text))) if version.as_ref().is_none_or(|version| *version == text.as_str()) => {
                version = Some(text.as_str().to_owned());
            }
            other => return Err(format!("instead of an answer: {other:?}")),
        }
        tokio::time::sleep(WORD_PAUSE).await;
    }
    socket.close(None).await.map_err(in_words)?;
    version.ok_or_else(|| "it said nothing".to_owned())
}
