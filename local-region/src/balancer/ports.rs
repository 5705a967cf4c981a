//! The ports of this machine that listeners take: one socket for each node of the balancer.
//!
//! A socket is bound by the call that creates its listener, so that a port which cannot be had is that call's error,
//! and taken over by the node when it takes up the listener. Connections made in between wait.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use tokio::{net::TcpListener, sync::Notify};

use crate::config::Lags;

/// How long CreateListener waits for a listener that was just deleted to let go of its port.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// The loopback addresses of the balancer's nodes: 127.0.0.1, 127.0.0.2, ….
pub fn node_addresses(lags: &Lags) -> Vec<Ipv4Addr> {
    (1..=lags.balancer_nodes.max(1)).map(|node| Ipv4Addr::new(127, 0, 0, node)).collect()
}

/// A port that a listener cannot have.
#[derive(Debug, thiserror::Error)]
#[error("The balancer cannot listen on {address}")]
pub struct PortError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

impl PortError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        let port = self.address.port();
        match self.source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "Port {port} is taken by another program or by another load balancer of the local region, which all \
                 share this machine's addresses. Stop it, or choose another port for the listener."
            ),
            io::ErrorKind::PermissionDenied => format!(
                "Port {port} is reserved for root. Choose a port from 1024 up, or allow it with \
                 `sysctl net.ipv4.ip_unprivileged_port_start={port}`."
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "This machine has no address {}. On systems other than Linux, add it to the loopback interface, or \
                 set the local region's balancer_nodes to 1.",
                self.address.ip()
            ),
            kind => format!("The system answered: {kind}."),
        }
    }
}

/// The sockets of every listener, from the call that makes it to the nodes that serve it.
///
/// Closed until the balancer's data plane runs: a region without one keeps listeners as records only.
#[derive(Debug, Default)]
pub struct Ports {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Ipv4Addr>,
    /// Bound, and not yet taken over by a node.
    waiting: HashMap<String, Vec<Option<TcpListener>>>,
    /// Who holds a port, by listener ARN.
    holders: HashMap<u16, String>,
    /// Listeners that are gone, whose sockets are about to be closed.
    leaving: Vec<String>,
}

impl Ports {
    /// Lets listeners take ports on these addresses from now on.
    pub(super) fn open(&self, nodes: Vec<Ipv4Addr>) {
        self.locked().nodes = nodes;
    }

    /// Takes a port for a listener, on every node or on none. Waits for a deleted listener that is still letting go
    /// of the port.
    ///
    /// # Errors
    /// Where a socket cannot be bound.
    pub async fn bind(&self, listener_arn: &str, port: u16) -> Result<(), PortError> {
        let wait = async {
            loop {
                let released = self.released.notified();
                if !self.is_leaving(port) {
                    return;
                }
                released.await;
            }
        };
        // Past the deadline, binding says what is wrong better than this could.
        let _ = tokio::time::timeout(RELEASE_DEADLINE, wait).await;
        let nodes = self.locked().nodes.clone();
        let mut sockets = Vec::new();
        for node in nodes {
            let address = SocketAddr::from((node, port));
            let socket = TcpListener::bind(address).await.map_err(|source| PortError { address, source })?;
            sockets.push(Some(socket));
        }
        if !sockets.is_empty() {
            let mut state = self.locked();
            state.waiting.insert(listener_arn.to_owned(), sockets);
            state.holders.insert(port, listener_arn.to_owned());
        }
        Ok(())
    }

    /// Closes what no node has taken over of a listener, and counts its port as free.
    pub fn release(&self, listener_arn: &str) {
        let mut state = self.locked();
        state.waiting.remove(listener_arn);
        state.holders.retain(|_, holder| holder != listener_arn);
        state.leaving.retain(|leaving| leaving != listener_arn);
        drop(state);
        self.released.notify_waiters();
    }

    /// Marks a deleted listener: its port will be free soon, or is at once where no node has taken it over.
    pub(crate) fn leave(&self, listener_arn: &str) {
        let mut state = self.locked();
        let taken = state.waiting.get(listener_arn).is_some_and(|sockets| sockets.iter().any(Option::is_none));
        if taken {
            state.leaving.push(listener_arn.to_owned());
        } else {
            drop(state);
            self.release(listener_arn);
        }
    }

    /// Hands a listener's socket to a node, once.
    pub(super) fn take(&self, listener_arn: &str, node: usize) -> Option<TcpListener> {
        self.locked().waiting.get_mut(listener_arn)?.get_mut(node)?.take()
    }

    fn is_leaving(&self, port: u16) -> bool {
        let state = self.locked();
        state.holders.get(&port).is_some_and(|holder| state.leaving.contains(holder))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the ports are held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Ports {
        let ports = Ports::default();
        ports.open(vec![Ipv4Addr::LOCALHOST]);
        ports
    }

    async fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = open().bind("a", port).await.unwrap_err();
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(error.hint().contains("choose another port"), "{}", error.hint());
    }

    #[tokio::test]
    async fn the_port_of_a_deleted_listener_is_waited_for() {
        let ports = open();
        let port = free_port().await;
        ports.bind("old", port).await.unwrap();
        let served = ports.take("old", 0).unwrap();
        ports.leave("old");
        let (bound, ()) = tokio::join!(ports.bind("new", port), async {
            tokio::task::yield_now().await;
            drop(served);
            ports.release("old");
        });
        bound.unwrap();
        assert!(ports.take("new", 0).is_some());
        assert!(ports.take("new", 0).is_none(), "a socket is handed over once");
    }

    #[tokio::test]
    async fn without_a_data_plane_nothing_is_bound() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Ports::default().bind("a", taken.local_addr().unwrap().port()).await.unwrap();
    }
}
