//! A server that a balancer can send requests to.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use futures::{StreamExt, stream};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// What the server's answers depend on.
#[derive(Debug)]
pub struct Shared {
    name: String,
    health: AtomicU16,
    checks: AtomicUsize,
    /// Requests to `/slow` that have arrived.
    pub slow: AtomicUsize,
    /// Permits let requests to `/slow` go on.
    gate: Semaphore,
    /// All requests but health checks.
    pub requests: AtomicUsize,
    /// Connections that are open now.
    pub connections: AtomicUsize,
}

pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Backend {
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.into(),
            health: AtomicU16::new(200),
            checks: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let app = Router::new()
            .route("/health", get(health))
            .route("/slow", get(slow).post(slow))
            .route("/count", post(count))
            .route("/send/{mebibytes}", get(send))
            .route("/headers", get(headers))
            .route("/status/{status}", get(status))
            .fallback(name_of)
            .with_state(Arc::clone(&shared));
        let served = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (app, shared) = (app.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    shared.connections.fetch_add(1, SeqCst);
                    let service = hyper_util::service::TowerToHyperService::new(app);
                    let io = hyper_util::rt::TokioIo::new(stream);
                    // A connection that ends badly is the business of the test that ended it.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    shared.connections.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { name: name.into(), address, shared, serving }
    }

    /// What `/health` answers from now on.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, SeqCst);
    }

    /// Lets requests to `/slow` go on, those that wait and later ones.
    pub fn open_gate(&self) {
        self.shared.gate.add_permits(1_000_000);
    }

    /// Health checks that have arrived.
    pub fn checks(&self) -> usize {
        self.shared.checks.load(SeqCst)
    }

    pub fn slow_requests(&self) -> usize {
        self.shared.slow.load(SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.checks.fetch_add(1, SeqCst);
    StatusCode::from_u16(shared.health.load(SeqCst)).unwrap()
}

async fn name_of(State(shared): State<Arc<Shared>>) -> String {
    shared.requests.fetch_add(1, SeqCst);
    shared.name.clone()
}

async fn slow(State(shared): State<Arc<Shared>>) -> String {
    shared.slow.fetch_add(1, SeqCst);
    shared.gate.acquire().await.unwrap().forget();
    shared.name.clone()
}

/// How many bytes came.
async fn count(body: Body) -> String {
    let mut body = body.into_data_stream();
    let mut total = 0;
    while let Some(Ok(chunk)) = body.next().await {
        total += chunk.len();
    }
    total.to_string()
}

async fn send(Path(mebibytes): Path<usize>) -> Body {
    let chunk = Bytes::from(vec![7u8; 1 << 20]);
    Body::from_stream(stream::iter((0..mebibytes).map(move |_| Ok::<_, Infallible>(chunk.clone()))))
}

async fn headers(headers: HeaderMap) -> String {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    lines.collect()
}

async fn status(Path(status): Path<u16>) -> impl IntoResponse {
    StatusCode::from_u16(status).unwrap()
}
