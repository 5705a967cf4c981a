//! Starts, stops and resets a region.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
};
use fs4::fs_std::FileExt;
use futures::future::BoxFuture;
use http::{
    HeaderValue, Method, Uri,
    header::{DATE, HOST},
    uri::PathAndQuery,
};
use jiff::fmt::rfc2822::DateTimePrinter;
use nix::sys::socket::{setsockopt, sockopt::IpFreebind};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    balancer,
    clock::Clock,
    config::{Backing, Config, ConfigError},
    front::{self, Front},
    instances::{MachineError, Machines, Network, containers::Containers, records::Records},
    metadata::{self, MetadataServer},
    metadata_source,
    region::Region,
    s3::{self, Syncs},
    servers,
    state::{World, ec2::Ec2},
    wire::sigv4::Keys,
};

/// How long [`Running::stop`] lets requests and changes of machines finish.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why a region did not start. [`StartError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the region's folder {} cannot be used", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("another process runs the region in {}", folder.display())]
    AlreadyRunning { folder: PathBuf },
    #[error("the region's settings cannot be used")]
    Config(#[from] ConfigError),
    #[error("the region's records in {} cannot be read", folder.display())]
    Records { folder: PathBuf, source: io::Error },
    #[error("the region's objects in {} cannot be read", folder.display())]
    Objects { folder: PathBuf, source: io::Error },
    #[error("the region cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the container engine has none of the region's {count} running servers")]
    ServersLost { count: usize },
    #[error("the load balancer cannot start")]
    Balancer(#[source] balancer::StartError),
    #[error("the container engine cannot be used")]
    Machines(#[from] MachineError),
}

impl StartError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Folder { .. } => Some("choose a folder that can be written, and look for free space".to_owned()),
            Self::AlreadyRunning { .. } => Some("stop it first, or use the one that runs".to_owned()),
            Self::Config(_) => None,
            Self::Records { .. } | Self::Objects { .. } => {
                Some("`alcedo region reset` begins anew, without what was in it".to_owned())
            }
            Self::Listen { address, .. } => {
                Some(format!("is port {} taken? Choose another one, or 0 for any", address.port()))
            }
            Self::ServersLost { .. } => Some(
                "are they on another engine? DOCKER_HOST names it. If they are gone for good, `alcedo region start \
                 --forget-servers` goes on without them, and `alcedo region reset` begins anew"
                    .to_owned(),
            ),
            Self::Machines(error) => error.hint.clone(),
            Self::Balancer(error) => error.hint(),
        }
    }
}

/// A region that answers. Dropped, it stops answering without letting anything finish.
pub struct Running {
    /// `http://127.0.0.1:<port>`: what `--endpoint-url` takes.
    pub endpoint: String,
    pub region: Arc<Region>,
    metadata: Option<MetadataServer>,
    balancer: balancer::Balancer,
    serving: JoinSet<()>,
    /// Held while the region runs.
    _lock: std::fs::File,
}

/// Starts the region that `config` describes, on the backing it names. A folder that was used before goes on from its
/// records: servers that ran are started again where the engine still has them.
///
/// # Errors
/// See [`StartError`]; nothing is left running.
pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, StartError> {
    match config.backing {
        Backing::RecordsOnly => start_on(config, clock, Arc::new(Records::new())).await,
        Backing::Containers => {
            let containers = Arc::new(Containers::connect(&config.name).await?);
            start_parts(config, clock, containers.clone(), Some(containers)).await
        }
    }
}

/// Starts a region on machines of the caller's: no metadata service, and the API on loopback only.
///
/// # Errors
/// See [`StartError`].
pub async fn start_on(
    config: Config,
    clock: Arc<dyn Clock>,
    machines: Arc<dyn Machines>,
) -> Result<Running, StartError> {
    start_parts(config, clock, machines, None).await
}

async fn start_parts(
    mut config: Config,
    clock: Arc<dyn Clock>,
    machines: Arc<dyn Machines>,
    containers: Option<Arc<Containers>>,
) -> Result<Running, StartError> {
    config.check()?;
    let lock = lock_folder(&config)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    // Kept with the port that it got, so that the endpoint stays the same over a restart.
    config.listen = listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    config.save()?;

    let network = machines.prepare().await?;
    let world = load_world(&config, network, clock.now())?;
    let endpoint = format!("http://{}", config.listen);
    let mut listeners = vec![listener];
    if containers.is_some() {
        listeners.push(listen_for_instances(SocketAddr::new(IpAddr::V4(network.gateway), config.listen.port()))?);
    }
    let front =
        front(&config, &clock, Syncs::Each, Region::new(config.clone(), clock.clone(), machines, network, world))?;
    let region = front.region.clone();
    if containers.is_some() && !config.forget_servers {
        refuse_lost_servers(&region).await?;
    }
    let metadata = match &containers {
        Some(containers) => Some(start_metadata(&region, containers).await?),
        None => None,
    };
    let balancer = bring_to_life(&region).await?;

    let mut serving = JoinSet::new();
    for listener in listeners {
        let router = Router::new().fallback(front::answer).with_state(front.clone());
        let stopped = region.stopping.clone().cancelled_owned();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the region stopped listening");
            }
        });
    }
    tracing::info!(endpoint, "the local region answers");
    Ok(Running { endpoint, region, metadata, balancer, serving, _lock: lock })
}

/// A region whose servers are on another engine would end them in its records, for good.
async fn refuse_lost_servers(region: &Region) -> Result<(), StartError> {
    let running = servers::running(region);
    for instance_id in &running {
        if region.machines.exists(instance_id).await? {
            return Ok(());
        }
    }
    if running.is_empty() { Ok(()) } else { Err(StartError::ServersLost { count: running.len() }) }
}

/// What answers the requests to a region.
fn front(config: &Config, clock: &Arc<dyn Clock>, syncs: Syncs, region: Region) -> Result<Arc<Front>, StartError> {
    let objects = config.folder.join("s3");
    let store = s3::Store::open(&objects, syncs).map_err(|source| StartError::Objects { folder: objects, source })?;
    let keys = Keys { access_key: config.access_key.clone(), secret_key: config.secret_key.clone() };
    let s3 = s3::service(store, &keys, &config.region, clock.clone());
    Ok(Arc::new(Front { region: Arc::new(region), keys, s3 }))
}

/// Starts what goes on by itself: servers on their way to what the records say, health checks, the balancer's nodes.
async fn bring_to_life(region: &Arc<Region>) -> Result<balancer::Balancer, StartError> {
    if let Err(error) = servers::refresh_base_images(region).await {
        tracing::warn!(%error, "the engine's base images are not known yet");
    }
    servers::resume(region).await;
    let balancer = balancer::start(region.clone()).await.map_err(StartError::Balancer)?;
    region.tasks.spawn(servers::watch_guests(region.clone()));
    Ok(balancer)
}

/// A whole answer to a request.
pub type Answer = http::Response<Bytes>;

/// A region inside a simulation: it answers requests that are handed to it, on no port, and nothing of it is kept. With
/// tokio's time paused and a clock that follows it ([`TokioClock`](crate::clock::TokioClock)), one seed is one course of
/// events.
pub struct Simulated {
    pub region: Arc<Region>,
    front: Arc<Front>,
    answering: Arc<Mutex<Duration>>,
    _balancer: balancer::Balancer,
    _lock: std::fs::File,
}

/// Starts a region on records alone, in a folder of its own; what is random in it comes of `seed`.
///
/// # Errors
/// See [`StartError`].
pub async fn simulate(config: Config, clock: Arc<dyn Clock>, seed: u64) -> Result<Simulated, StartError> {
    config.check()?;
    let lock = lock_folder(&config)?;
    let machines = Arc::new(Records::new());
    let network = machines.prepare().await?;
    let ec2 = Ec2::fresh(network.block, &config.region, &seed.to_string(), clock.now());
    let world = World { format: World::FORMAT, ec2, ..World::default() };
    let region = Region::new(config.clone(), clock.clone(), machines, network, world);
    let front = front(&config, &clock, Syncs::Never, region.simulated(StdRng::seed_from_u64(seed)))?;
    let region = front.region.clone();
    let balancer = bring_to_life(&region).await?;
    Ok(Simulated { region, front, answering: Arc::default(), _balancer: balancer, _lock: lock })
}

impl Simulated {
    /// How much time its answers have taken, by the machine's clock.
    pub fn answering(&self) -> Duration {
        *self.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What answers one request after another. Dropping an answer that has not come is losing the connection: what the
    /// request has not done by then, it does not do.
    pub fn answers<B>(
        &self,
    ) -> impl Fn(http::Request<B>) -> BoxFuture<'static, io::Result<Answer>> + Send + Sync + use<B>
    where
        B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (front, answering) = (self.front.clone(), self.answering.clone());
        move |request| {
            let (front, answering) = (front.clone(), answering.clone());
            Box::pin(async move {
                let request = as_over_a_connection(request.map(Body::new))?;
                let clock = front.region.clock.clone();
                let has_body = request.method() != Method::HEAD;
                let answer = timed(front::answer(State(front), request), answering);
                let task = AbortOnDropHandle::new(tokio::spawn(answer));
                // A fault that loses an answer ends its task.
                let answer = task.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
                let (mut parts, body) = answer.into_parts();
                // On a connection, the HTTP server says when it is.
                let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&clock.now()).map_err(io::Error::other)?;
                parts.headers.insert(DATE, HeaderValue::from_str(&now).map_err(io::Error::other)?);
                let body = if has_body { body } else { Body::empty() };
                let body = axum::body::to_bytes(body, usize::MAX).await.map_err(io::Error::other)?;
                Ok(http::Response::from_parts(parts, body))
            })
        }
    }
}

/// A future, with the time that its polls take added up.
async fn timed<F: Future>(future: F, spent: Arc<Mutex<Duration>>) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        let begun = Instant::now();
        let polled = future.as_mut().poll(context);
        *spent.lock().unwrap_or_else(PoisonError::into_inner) += begun.elapsed();
        polled
    })
    .await
}

/// A client names the host in the address; on a connection it is a header.
fn as_over_a_connection(mut request: Request) -> io::Result<Request> {
    let uri = request.uri().clone();
    if let Some(host) = uri.authority() {
        let host = HeaderValue::from_str(host.as_str()).map_err(io::Error::other)?;
        request.headers_mut().entry(HOST).or_insert(host);
    }
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    Ok(request)
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.region.stopping.cancel();
    }
}

impl Running {
    /// Stops answering, and returns when requests and changes of machines under way are done, or ten seconds later.
    /// Servers go on running; the next start finds them.
    pub async fn stop(mut self) {
        self.region.stopping.cancel();
        self.region.tasks.close();
        let finished = async {
            while self.serving.join_next().await.is_some() {}
            self.region.tasks.wait().await;
        };
        if tokio::time::timeout(LAST_ANSWERS, finished).await.is_err() {
            tracing::warn!("the region stopped with work still under way; the next start takes it up");
        }
        self.serving.abort_all();
        self.balancer.stop().await;
        if let Some(metadata) = self.metadata.take() {
            metadata.stop().await;
        }
    }
}

/// Ends everything of a region that does not run: servers, network, captured images, records and objects.
///
/// # Errors
/// See [`StartError`]; what could be removed is.
pub async fn reset(config: &Config) -> Result<(), StartError> {
    if config.backing == Backing::Containers {
        let _lock = lock_folder(config)?;
        Containers::connect(&config.name).await?.remove_all().await?;
    }
    match std::fs::remove_dir_all(&config.folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StartError::Folder { folder: config.folder.clone(), source })
        }
        _ => Ok(()),
    }
}

/// Makes the folder, which holds a secret key, for this user alone, and takes it for this process.
fn lock_folder(config: &Config) -> Result<std::fs::File, StartError> {
    use std::os::unix::fs::DirBuilderExt;

    let failed = |source| StartError::Folder { folder: config.folder.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.folder).map_err(failed)?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(config.folder.join("lock"))
        .map_err(failed)?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(StartError::AlreadyRunning { folder: config.folder.clone() }),
        Err(source) => Err(failed(source)),
    }
}

fn load_world(config: &Config, network: Network, now: jiff::Timestamp) -> Result<World, StartError> {
    let failed = |source| StartError::Records { folder: config.folder.clone(), source };
    if let Some(world) = World::load(&config.folder).map_err(failed)? {
        return Ok(world);
    }
    let seed = format!("{:032x}", rand::random::<u128>());
    let ec2 = Ec2::fresh(network.block, &config.region, &seed, now);
    let world = World { format: World::FORMAT, ec2, ..World::default() };
    world.save(&config.folder).map_err(failed)?;
    Ok(world)
}

/// Instances fetch presigned URLs, so the API answers on the engine's own bridge too, and nowhere else. The bridge may
/// come up only with the first container, hence the free bind.
fn listen_for_instances(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        setsockopt(&socket, IpFreebind, &true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Listen { address, source })
}

async fn start_metadata(region: &Arc<Region>, containers: &Containers) -> Result<MetadataServer, StartError> {
    let address = SocketAddr::new(IpAddr::V4(region.network.gateway), 0);
    let source = Arc::new(metadata_source::Records(region.clone()));
    let server = metadata::serve(address, source).await.map_err(|source| StartError::Listen { address, source })?;
    containers.set_metadata_port(server.address().port()).await?;
    Ok(server)
}
