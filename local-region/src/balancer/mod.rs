//! The balancer's data plane: real listeners on loopback addresses, real requests to real targets, real health checks.
//!
//! | module | holds |
//! |---|---|
//! | `control` | the one task that follows the records and moves everything else |
//! | `routes`, `view` | what the records say about requests, as values and made ready for use |
//! | `propagation`, `nodes` | how the nodes take changes up one after another; their addresses and gates |
//! | `router`, `answers`, `stickiness` | the way of a request |
//! | `upstreams`, `link`, `upgrade` | what is known of each target, and the connections to it |
//! | `checker`, `probe` | health checks: when, and how |
//! | `ports` | the sockets, from CreateListener to the nodes |
//!
//! Requests are carried by `pingora-proxy`, through the entrance that it documents for accept loops of one's own
//! ([`pingora_proxy::HttpProxy::new`] and `process_new`), so that it runs inside the region's runtime and leaves
//! signals, threads and the process alone.
//!
//! A node is a loopback address: 127.0.0.1, 127.0.0.2, …. All load balancers of a region share these, so two of them
//! cannot listen on one port.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod answers;
mod checker;
mod control;
mod link;
mod nodes;
mod ports;
mod probe;
mod propagation;
mod router;
mod routes;
mod stickiness;
mod upgrade;
mod upstreams;
mod view;

pub use ports::{PortError, Ports, node_addresses};
pub use probe::{HttpProber, Probe, Prober, RecordsProber};
pub use upstreams::Counters;

use crate::{config::Backing, region::Region, state::elbv2::ServerState, state::elbv2::Servers};
use control::Control;
use nodes::Node;
use upstreams::Upstreams;

/// How the data plane runs.
pub struct Options {
    /// Whether listeners take ports of this machine. Without, they are records only, and targets are still checked.
    pub listens: bool,
    pub prober: Arc<dyn Prober>,
}

impl Options {
    /// What a region's backing asks for. Servers of containers are reached over the network. A region of records alone
    /// has no servers to send requests to, so it takes no ports, and its instances pass their checks while they run.
    pub fn of(region: &Arc<Region>) -> Self {
        match region.config.backing {
            Backing::Containers => Self { listens: true, prober: Arc::new(HttpProber) },
            Backing::RecordsOnly => {
                let region = Arc::downgrade(region);
                let runs = move |instance_id: &str| {
                    region.upgrade().is_some_and(|region| {
                        let server = region.read(|world| world.ec2.server(instance_id));
                        server.is_some_and(|server| server.state == ServerState::Running)
                    })
                };
                Self { listens: false, prober: Arc::new(RecordsProber { runs: Arc::new(runs) }) }
            }
        }
    }
}

/// Why the balancer cannot serve the listeners that the region remembers.
#[derive(Debug, thiserror::Error)]
#[error("the balancer cannot serve listener {listener_arn}")]
pub struct StartError {
    pub listener_arn: String,
    #[source]
    pub source: PortError,
}

impl StartError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(self.source.hint())
    }
}

/// A running data plane. It stops when this is dropped; [`Balancer::stop`] also waits for it.
pub struct Balancer {
    stop: CancellationToken,
    task: JoinHandle<()>,
    upstreams: Arc<Upstreams>,
}

impl Balancer {
    /// Stops accepting, lets requests under way finish for at most ten seconds, and frees the ports.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the balancer ended badly");
        }
    }

    /// What each target has done since the balancer started, as far as it is still remembered.
    pub fn counters(&self) -> Vec<Counters> {
        self.upstreams.all().iter().map(|upstream| upstream.counters()).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts the data plane in the present runtime, as the region's backing asks for it.
///
/// # Errors
/// Where a listener that the region remembers cannot have its port.
pub async fn start(region: Arc<Region>) -> Result<Balancer, StartError> {
    let options = Options::of(&region);
    start_with(region, options).await
}

/// Starts the data plane in the present runtime.
///
/// # Errors
/// Where a listener that the region remembers cannot have its port.
pub async fn start_with(region: Arc<Region>, options: Options) -> Result<Balancer, StartError> {
    let addresses = node_addresses(&region.config.lags);
    if options.listens {
        region.ports.open(addresses.clone());
        let known: Vec<(String, u16)> =
            region.read(|world| world.elbv2.listeners().map(|known| (known.arn.clone(), known.port)).collect());
        for (listener_arn, port) in known {
            if let Err(source) = region.ports.bind(&listener_arn, port).await {
                return Err(StartError { listener_arn, source });
            }
        }
    }
    let upstreams = Arc::new(Upstreams::new(addresses.len()));
    let nodes: Vec<Arc<Node>> =
        addresses.into_iter().enumerate().map(|(index, address)| Arc::new(Node::new(index, address))).collect();
    let stop = CancellationToken::new();
    let random = StdRng::seed_from_u64(seed(&region.config.name));
    let control = Control::new(region, nodes, Arc::clone(&upstreams), options.prober, random);
    let task = tokio::spawn(control.run(stop.clone()));
    Ok(Balancer { stop, task, upstreams })
}

/// Regions of one name draw the same numbers.
fn seed(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
