//! The balancer's nodes: each has a loopback address, a view of its own, and a gate for every listener.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use pingora_core::{
    apps::{HttpServerApp, ServerApp},
    protocols::{GetSocketDigest, SocketDigest, l4::stream::Stream},
    server::configuration::ServerConf,
};
use pingora_proxy::HttpProxy;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    router::Router,
    routes::Routes,
    upstreams::Upstreams,
    view::{ListenerView, View},
};
use crate::{region::Region, state::elbv2::names};

/// How long requests may go on after their listener was deleted or the region was stopped.
const GRACE: Duration = Duration::from_secs(10);

/// What accepting waits before it tries again when the machine has no handle left for another connection.
const OUT_OF_HANDLES: Duration = Duration::from_millis(100);

/// One node, as requests see it.
#[derive(Debug)]
pub struct Node {
    pub index: usize,
    pub address: Ipv4Addr,
    view: RwLock<Arc<View>>,
}

impl Node {
    pub fn new(index: usize, address: Ipv4Addr) -> Self {
        Self { index, address, view: RwLock::default() }
    }

    pub fn listener(&self, arn: &str) -> Option<Arc<ListenerView>> {
        self.view().listeners.get(arn).cloned()
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().expect("no panic while the view is held"))
    }

    /// Takes up what the records say. Targets that no longer get requests let go of their connections as these become
    /// idle; those whose draining is over, at once.
    pub fn adopt(&self, routes: &Routes, view: Arc<View>, upstreams: &Upstreams) {
        let serving: BTreeSet<_> = view.targets().cloned().collect();
        for upstream in upstreams.all().iter().filter(|upstream| serving.contains(&upstream.key)) {
            upstream.stay(self.index);
        }
        *self.view.write().expect("no panic while the view is held") = view;
        for upstream in upstreams.all().iter().filter(|upstream| !serving.contains(&upstream.key)) {
            upstream.leave(self.index, routes.draining.contains(&upstream.key));
        }
    }
}

/// The gates of one node, by listener ARN.
#[derive(Default)]
pub struct Gates {
    open: HashMap<String, Gate>,
}

/// What accepts the connections of one listener on one node.
struct Gate {
    proxy: Arc<HttpProxy<Router>>,
    connections: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
    accepting: JoinHandle<()>,
    last_request: watch::Sender<bool>,
}

impl Gates {
    /// Opens a gate for every listener that the node has taken up and that has a socket waiting.
    pub fn open(&mut self, node: &Arc<Node>, region: &Region, seed: u64) {
        for arn in node.view().listeners.keys() {
            if let Some(socket) = region.ports.take(arn, node.index) {
                let router = Router {
                    node: Arc::clone(node),
                    listener_arn: arn.clone(),
                    balancer: names::balancer_of_listener(arn).to_owned(),
                    metrics: Arc::clone(&region.metrics),
                    clock: Arc::clone(&region.clock),
                    random: Mutex::new(StdRng::seed_from_u64(seed.wrapping_add(self.open.len() as u64))),
                };
                self.open.insert(arn.clone(), Gate::open(socket, router));
            }
        }
    }

    /// Takes out the gates of listeners that are not in `wanted`.
    pub fn leave(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<(String, ClosingGate)> {
        let gone: Vec<String> = self.open.keys().filter(|arn| !wanted(arn)).cloned().collect();
        gone.into_iter().filter_map(|arn| Some((arn.clone(), ClosingGate(self.open.remove(&arn)?)))).collect()
    }
}

impl Gate {
    fn open(socket: TcpListener, router: Router) -> Self {
        let mut proxy = HttpProxy::new(router, Arc::new(ServerConf::default()));
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);
        let connections = TaskTracker::new();
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let last_request = watch::Sender::new(false);
        let accepting = tokio::spawn(accept(
            socket,
            Arc::clone(&proxy),
            connections.clone(),
            stop.clone(),
            cut.clone(),
            last_request.clone(),
        ));
        Self { proxy, connections, stop, cut, accepting, last_request }
    }
}

async fn accept(
    socket: TcpListener,
    proxy: Arc<HttpProxy<Router>>,
    connections: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
    last_request: watch::Sender<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (proxy, cut, last_request) = (Arc::clone(&proxy), cut.clone(), last_request.subscribe());
                connections.spawn(async move {
                    tokio::select! {
                        _ = proxy.process_new(Box::new(downstream(stream)), &last_request) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_HANDLES).await;
            }
        }
    }
}

/// A client's connection as the proxy library takes it.
fn downstream(stream: TcpStream) -> Stream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the client is gone");
    }
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let mut stream = Stream::from(stream);
    stream.set_socket_digest(digest);
    stream
}

/// A gate on its way out.
pub struct ClosingGate(Gate);

impl ClosingGate {
    /// Accepts nothing more, and returns when the socket is closed. Requests go on.
    pub async fn stop_accepting(&mut self) {
        self.0.stop.cancel();
        if let Err(error) = (&mut self.0.accepting).await {
            tracing::error!(%error, "accepting connections ended badly");
        }
        self.0.last_request.send_replace(true);
        self.0.proxy.http_cleanup().await;
    }

    /// Waits for the requests under way, and cuts those that take longer than the grace.
    pub async fn finish(self) {
        self.0.connections.close();
        if tokio::time::timeout(GRACE, self.0.connections.wait()).await.is_err() {
            self.0.cut.cancel();
            self.0.connections.wait().await;
        }
    }
}
