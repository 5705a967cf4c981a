//! Connections to targets, made so that the balancer can end them: those of a target that leaves when it is idle, those
//! of a terminated server at once.
//!
//! The proxy library keeps its idle connections to itself, and pools only plain sockets. So each socket gets a second
//! handle, kept with its target; shutting that one down ends the connection, wherever the library has it. The library
//! says when it closes a socket, and the second handle is dropped before that, or it would keep the socket open.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType,
    connectors::l4::Connect,
    protocols::l4::{socket::SocketAddr, stream::Stream, virt::VirtualSocketStream},
    upstreams::peer::Tracing,
};
use tokio::net::TcpStream;

use super::{upgrade::Hesitant, upstreams::Upstream};

/// How long an application load balancer tries to connect to a target before it answers 504 (*Troubleshoot your
/// Application Load Balancers*).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One connection of one node to one target, made when the request that carries this finds none to reuse.
#[derive(Debug, Clone)]
pub struct Link {
    upstream: Arc<Upstream>,
    node: usize,
    id: u64,
    /// Whether its request asks for another protocol.
    upgrades: bool,
}

impl Link {
    pub fn new(upstream: Arc<Upstream>, node: usize, upgrades: bool) -> Self {
        Self { upstream, node, id: NEXT_ID.fetch_add(1, Ordering::Relaxed), upgrades }
    }

    async fn connected(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.upstream.address).await?.into_std()?;
        self.upstream.add_link(self.node, self.id, stream.try_clone()?);
        TcpStream::from_std(stream).inspect_err(|_| self.upstream.remove_link(self.node, self.id))
    }
}

#[async_trait]
impl Connect for Link {
    async fn connect(&self, _: &SocketAddr) -> pingora_core::Result<Stream> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connected()).await {
            Ok(Ok(stream)) if self.upgrades => Ok(VirtualSocketStream::new(Box::new(Hesitant::new(stream))).into()),
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
                    _ => ErrorType::ConnectError,
                };
                Err(Error::because(kind, "connecting to a target", error))
            }
            Err(elapsed) => Err(Error::because(ErrorType::ConnectTimedout, "connecting to a target", elapsed)),
        }
    }
}

impl Tracing for Link {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.upstream.remove_link(self.node, self.id);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}
