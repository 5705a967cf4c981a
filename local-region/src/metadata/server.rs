//! The metadata service's HTTP front.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::any,
};
use nix::sys::socket::{setsockopt, sockopt::IpFreebind};
use tokio::{net::TcpSocket, sync::oneshot, task::JoinHandle};

use super::{
    InstanceMetadata, MetadataSource,
    categories::{Answer, VERSIONS, look_up},
    tokens::{Tokens, Ttl},
};
use crate::clock::{Clock, SystemClock};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// How long [`MetadataServer::stop`] lets answers finish that are under way. They are small and come from memory.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted; a fleet that boots at once asks at once.
const BACKLOG: u32 = 256;

/// A running metadata service. Dropped, it stops without letting answers finish.
#[derive(Debug)]
pub struct MetadataServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

impl MetadataServer {
    /// Where it listens, with the port it was given where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, and returns when it has.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the service has already ended, which is what is wanted.
            let _ = stop.send(());
        }
        if tokio::time::timeout(LAST_ANSWERS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for MetadataServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the service on `listen`, usually the engine network's gateway and port 0. The address need not exist yet: an
/// engine may make its bridge only with the first container on it.
///
/// # Errors
/// The port is taken, or the address family is not IPv4.
pub async fn serve(listen: SocketAddr, source: Arc<dyn MetadataSource>) -> io::Result<MetadataServer> {
    serve_by(listen, source, Arc::new(SystemClock)).await
}

/// [`serve`] with a clock by which tokens expire.
///
/// # Errors
/// As [`serve`].
pub async fn serve_by(
    listen: SocketAddr,
    source: Arc<dyn MetadataSource>,
    clock: Arc<dyn Clock>,
) -> io::Result<MetadataServer> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, IpFreebind, &true)?;
    socket.bind(listen)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;

    let service = Arc::new(Service { source, clock, tokens: Mutex::default() });
    let router = Router::new().fallback(any(answer)).with_state(service);
    let (stop, stopped) = oneshot::channel();
    let serving = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>());
    let task = tokio::spawn(async move {
        serving
            .with_graceful_shutdown(async {
                // Either way the service is no longer wanted: told to stop, or its handle is gone.
                let _ = stopped.await;
            })
            .await
    });
    Ok(MetadataServer { address, stop: Some(stop), task })
}

struct Service {
    source: Arc<dyn MetadataSource>,
    clock: Arc<dyn Clock>,
    tokens: Mutex<Tokens>,
}

/// Why a request gets no metadata. The statuses are those of the EC2 user guide.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// A proxy in between would hand the instance's identity to whoever talks to the proxy.
    Forwarded,
    /// Nobody with this address is known (yet).
    Stranger,
    NoTtl,
    NoToken,
    NoSuchPath,
    WrongMethod,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::Forwarded => (StatusCode::FORBIDDEN, "requests with X-Forwarded-For are refused"),
            Self::Stranger => (StatusCode::NOT_FOUND, "no instance has the address this request comes from"),
            Self::NoTtl => (StatusCode::BAD_REQUEST, "X-aws-ec2-metadata-token-ttl-seconds must be 1 to 21600"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "a valid X-aws-ec2-metadata-token is needed"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no such metadata"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "GET metadata, or PUT /latest/api/token"),
        };
        (status, [(CONTENT_TYPE, "text/plain")], format!("{why}\n")).into_response()
    }
}

async fn answer(
    State(service): State<Arc<Service>>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response {
    service.answer(caller.ip(), &request).unwrap_or_else(IntoResponse::into_response)
}

impl Service {
    fn answer(&self, caller: IpAddr, request: &Request<Body>) -> Result<Response, Refusal> {
        if request.headers().contains_key("x-forwarded-for") {
            return Err(Refusal::Forwarded);
        }
        let IpAddr::V4(caller) = caller else { return Err(Refusal::Stranger) };
        let instance = self.source.by_address(caller).ok_or(Refusal::Stranger)?;
        let path = request.uri().path().trim_start_matches('/');
        match *request.method() {
            Method::PUT if path == "latest/api/token" => self.issue(&instance, request.headers()),
            Method::GET | Method::HEAD => self.metadata(&instance, path, request.headers()),
            _ => Err(Refusal::WrongMethod),
        }
    }

    fn issue(&self, instance: &InstanceMetadata, headers: &HeaderMap) -> Result<Response, Refusal> {
        let ttl = headers.get(TTL).and_then(|value| value.to_str().ok()).and_then(Ttl::from_header);
        let ttl = ttl.ok_or(Refusal::NoTtl)?;
        let token = self.tokens().issue(&instance.instance_id, ttl, self.clock.now());
        Ok(([("content-type", "text/plain".to_owned()), (TTL, ttl.seconds().to_string())], token).into_response())
    }

    fn metadata(&self, instance: &InstanceMetadata, path: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
        let mut token_ttl = HeaderMap::new();
        // A wrong token is refused even where none is needed, as it is on AWS.
        if let Some(token) = headers.get(TOKEN) {
            let token = token.to_str().map_err(|_| Refusal::NoToken)?;
            let left = self.tokens().seconds_left(token, &instance.instance_id, self.clock.now());
            token_ttl.insert(TTL, left.ok_or(Refusal::NoToken)?.into());
        } else if instance.tokens_required {
            return Err(Refusal::NoToken);
        }
        let (version, rest) = path.split_once('/').unwrap_or((path, ""));
        let answer = match version {
            "" => Answer::Text(VERSIONS.join("\n")),
            known if VERSIONS.contains(&known) => look_up(instance, rest).ok_or(Refusal::NoSuchPath)?,
            _ => return Err(Refusal::NoSuchPath),
        };
        let (kind, body) = match answer {
            Answer::Text(text) => ("text/plain", text.into_bytes()),
            Answer::Json(text) => ("application/json", text.into_bytes()),
            Answer::Bytes(bytes) => ("application/octet-stream", bytes),
        };
        Ok((token_ttl, [(CONTENT_TYPE, kind)], body).into_response())
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.tokens.lock().expect("no panic while the tokens are held")
    }
}
