//! What the data plane knows about each target while it runs: its health, its requests in flight, its connections.

use std::{
    collections::HashMap,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use jiff::Timestamp;

use crate::state::elbv2::TargetKey;

/// How fit a target is for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// Passes its health checks.
    Healthy,
    /// Does not, or is not checked yet: gets requests only where a group has no better target.
    Doubtful,
    /// Its server is stopped or terminated: gets none.
    Dead,
}

/// One target of one group.
#[derive(Debug)]
pub struct Upstream {
    pub key: TargetKey,
    pub address: SocketAddr,
    fitness: AtomicU8,
    nodes: Vec<NodeSide>,
    requests: AtomicU64,
    errors: AtomicU64,
    last_request_millis: AtomicI64,
}

/// A target as one node sees it.
#[derive(Debug, Default)]
struct NodeSide {
    in_flight: AtomicUsize,
    /// Takes no new requests; its connections are closed as soon as no request is in flight.
    closing: AtomicBool,
    /// It drains by the records that this node has taken up, so the end of its draining cuts what is left.
    draining: AtomicBool,
    /// Names the pool of connections that requests may reuse. It changes when the target comes back after it left, so
    /// that none of the connections that were closed then is taken for an open one.
    pool: AtomicU64,
    /// Second handles of its open connections. Held while connections are closed and while the target comes back, so
    /// that the one does not hit what the other has let in.
    links: Mutex<HashMap<u64, TcpStream>>,
}

/// Every pool has a number of its own.
static NEXT_POOL: AtomicU64 = AtomicU64::new(1);

impl NodeSide {
    fn new() -> Self {
        Self { pool: AtomicU64::new(NEXT_POOL.fetch_add(1, SeqCst)), ..Self::default() }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.links.lock().expect("no panic while links are held")
    }
}

/// What a target has done so far, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    pub target: TargetKey,
    pub requests: u64,
    /// Answers with 5xx, the target's own and the balancer's for it.
    pub errors: u64,
    pub in_flight: usize,
    pub last_request: Option<Timestamp>,
}

impl Upstream {
    fn new(key: TargetKey, address: SocketAddr, nodes: usize) -> Self {
        Self {
            key,
            address,
            fitness: AtomicU8::new(Fitness::Doubtful as u8),
            nodes: (0..nodes).map(|_| NodeSide::new()).collect(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_request_millis: AtomicI64::new(i64::MIN),
        }
    }

    pub fn fitness(&self) -> Fitness {
        match self.fitness.load(SeqCst) {
            value if value == Fitness::Healthy as u8 => Fitness::Healthy,
            value if value == Fitness::Dead as u8 => Fitness::Dead,
            _ => Fitness::Doubtful,
        }
    }

    /// Records how fit it is. The connections of one whose server is gone are cut at once.
    pub fn set_fitness(&self, fitness: Fitness) {
        let before = self.fitness.swap(fitness as u8, SeqCst);
        if fitness == Fitness::Dead && before != Fitness::Dead as u8 {
            (0..self.nodes.len()).for_each(|node| self.cut(node));
        }
    }

    /// Begins a request, unless the target has left this node in the meantime.
    ///
    /// The request is counted before the look, and [`Upstream::leave`] looks after it marked: one of the two sees the
    /// other, so no connection is closed under a request.
    pub fn begin(self: &Arc<Self>, node: usize, now: Timestamp) -> Option<InFlight> {
        self.nodes[node].in_flight.fetch_add(1, SeqCst);
        let begun = InFlight { upstream: Arc::clone(self), node };
        if self.nodes[node].closing.load(SeqCst) {
            return None;
        }
        self.requests.fetch_add(1, SeqCst);
        self.last_request_millis.store(now.as_millisecond(), SeqCst);
        Some(begun)
    }

    pub fn in_flight(&self, node: usize) -> usize {
        self.nodes[node].in_flight.load(SeqCst)
    }

    pub fn is_leaving(&self, node: usize) -> bool {
        self.nodes[node].closing.load(SeqCst)
    }

    pub fn count_error(&self) {
        self.errors.fetch_add(1, SeqCst);
    }

    /// The pool of connections that a request to this target may reuse.
    pub fn pool(&self, node: usize) -> u64 {
        self.nodes[node].pool.load(SeqCst)
    }

    /// Takes requests on this node, again or for the first time.
    pub fn stay(&self, node: usize) {
        let side = &self.nodes[node];
        let _links = side.links();
        side.draining.store(false, SeqCst);
        if side.closing.load(SeqCst) {
            side.pool.store(NEXT_POOL.fetch_add(1, SeqCst), SeqCst);
            side.closing.store(false, SeqCst);
        }
    }

    /// Takes no new requests on this node.
    pub fn leave(&self, node: usize, draining: bool) {
        let side = &self.nodes[node];
        if draining {
            side.draining.store(true, SeqCst);
        }
        side.closing.store(true, SeqCst);
        self.close_if_idle(node);
        if !draining && side.draining.swap(false, SeqCst) {
            // It drained until now: the deregistration delay is over.
            self.cut(node);
        }
    }

    fn close_if_idle(&self, node: usize) {
        let side = &self.nodes[node];
        if side.closing.load(SeqCst) {
            let links = side.links();
            if side.closing.load(SeqCst) && side.in_flight.load(SeqCst) == 0 {
                end(&links);
            }
        }
    }

    /// Ends every connection of this node, whatever is on it.
    fn cut(&self, node: usize) {
        end(&self.nodes[node].links());
    }

    /// Remembers a connection, so that it can be cut; `link` is a second handle of its socket.
    pub fn add_link(&self, node: usize, id: u64, link: TcpStream) {
        self.nodes[node].links().insert(id, link);
    }

    /// Forgets a connection that is about to be closed.
    pub fn remove_link(&self, node: usize, id: u64) {
        self.nodes[node].links().remove(&id);
    }

    pub fn connections(&self, node: usize) -> usize {
        self.nodes[node].links().len()
    }

    pub fn counters(&self) -> Counters {
        let millis = self.last_request_millis.load(SeqCst);
        Counters {
            target: self.key.clone(),
            requests: self.requests.load(SeqCst),
            errors: self.errors.load(SeqCst),
            in_flight: (0..self.nodes.len()).map(|node| self.in_flight(node)).sum(),
            last_request: Timestamp::from_millisecond(millis).ok().filter(|_| millis != i64::MIN),
        }
    }
}

fn end(links: &HashMap<u64, TcpStream>) {
    for link in links.values() {
        // One that the other side has ended already is as closed as can be.
        let _ = link.shutdown(Shutdown::Both);
    }
}

/// A request on its way through a node to a target and back. Ends when dropped.
#[derive(Debug)]
pub struct InFlight {
    pub upstream: Arc<Upstream>,
    node: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.upstream.nodes[self.node].in_flight.fetch_sub(1, SeqCst);
        self.upstream.close_if_idle(self.node);
    }
}

/// All targets that a node may still have connections to.
#[derive(Debug)]
pub struct Upstreams {
    nodes: usize,
    known: Mutex<HashMap<TargetKey, Arc<Upstream>>>,
}

impl Upstreams {
    pub fn new(nodes: usize) -> Self {
        Self { nodes, known: Mutex::default() }
    }

    #[cfg(test)]
    pub fn get(&self, key: &TargetKey) -> Option<Arc<Upstream>> {
        self.locked().get(key).cloned()
    }

    /// The target's entry, made if there is none at this address.
    pub fn get_or_add(&self, key: &TargetKey, address: SocketAddr) -> Arc<Upstream> {
        let mut known = self.locked();
        match known.get(key) {
            Some(upstream) if upstream.address == address => Arc::clone(upstream),
            _ => {
                let upstream = Arc::new(Upstream::new(key.clone(), address, self.nodes));
                known.insert(key.clone(), Arc::clone(&upstream));
                upstream
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<Upstream>> {
        self.locked().values().cloned().collect()
    }

    /// Forgets those that `keep` does not want and that nothing uses any more.
    pub fn prune(&self, keep: impl Fn(&TargetKey) -> bool) {
        self.locked().retain(|key, upstream| {
            keep(key)
                || (0..self.nodes).any(|node| {
                    !upstream.is_leaving(node) || upstream.in_flight(node) > 0 || upstream.connections(node) > 0
                })
        });
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<TargetKey, Arc<Upstream>>> {
        self.known.lock().expect("no panic while the targets are held")
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpListener};

    use super::*;

    fn upstream() -> Arc<Upstream> {
        let key = TargetKey { group_arn: "g".into(), id: "127.0.0.1".into(), port: 80 };
        Arc::new(Upstream::new(key, "127.0.0.1:80".parse().unwrap(), 2))
    }

    /// A connection known to node 0, and its other end.
    fn link(upstream: &Upstream) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        upstream.add_link(0, 7, near);
        far.set_nonblocking(true).unwrap();
        far
    }

    fn is_open(mut far: &TcpStream) -> bool {
        far.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[test]
    fn a_leaving_target_keeps_its_connections_until_the_last_request_is_done() {
        let upstream = upstream();
        let far = link(&upstream);
        let request = upstream.begin(0, Timestamp::UNIX_EPOCH).unwrap();
        upstream.leave(0, true);
        assert!(upstream.begin(0, Timestamp::UNIX_EPOCH).is_none(), "no new request");
        assert!(upstream.begin(1, Timestamp::UNIX_EPOCH).is_some(), "the other node has not heard of it");
        assert!(is_open(&far));
        drop(request);
        assert!(!is_open(&far));
    }

    #[test]
    fn the_end_of_draining_cuts_what_is_left() {
        let upstream = upstream();
        let far = link(&upstream);
        let _request = upstream.begin(0, Timestamp::UNIX_EPOCH).unwrap();
        upstream.leave(0, true);
        upstream.leave(0, false);
        assert!(!is_open(&far));
    }

    #[test]
    fn leaving_without_draining_lets_requests_finish() {
        let upstream = upstream();
        let far = link(&upstream);
        let _request = upstream.begin(0, Timestamp::UNIX_EPOCH).unwrap();
        upstream.leave(0, false);
        assert!(is_open(&far));
    }

    #[test]
    fn the_connections_of_a_dead_server_are_cut_at_once() {
        let upstream = upstream();
        let far = link(&upstream);
        let _request = upstream.begin(0, Timestamp::UNIX_EPOCH).unwrap();
        upstream.set_fitness(Fitness::Dead);
        assert!(!is_open(&far));
    }

    #[test]
    fn a_target_that_comes_back_takes_requests_again() {
        let upstream = upstream();
        let before = upstream.pool(0);
        upstream.stay(0);
        assert_eq!(upstream.pool(0), before, "it never left");
        upstream.leave(0, true);
        upstream.stay(0);
        assert_ne!(upstream.pool(0), before, "no connection from before is reused");
        assert!(upstream.begin(0, Timestamp::UNIX_EPOCH).is_some());
        assert_eq!(upstream.counters().requests, 1);
    }
}
