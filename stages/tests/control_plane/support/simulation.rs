//! A local region on records alone inside this process, in paused time: requests of the real SDK are handed to it without
//! a socket, and a wait ends as soon as nobody has anything else to do. One seed is one course of events.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use alcedo_local_region::{
    clock::TokioClock as RegionClock,
    config::{Backing, Capacity, Config, Lags},
    server::{self, Simulated},
};
use alcedo_pipeline::clock::{Clock, TokioClock};
use alcedo_stages::clients::Clients;
use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig, stalled_stream_protection::StalledStreamProtectionConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, rngs::StdRng};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{here_alone, journey::OWN_ADDRESS};

/// When every simulation begins.
const START: &str = "2026-11-20T09:00:00Z";
const ACCESS_KEY: &str = "AKIASIMULATION";
const SECRET_KEY: &str = "a secret of these tests";

pub struct Simulation {
    pub region: Simulated,
    pub clients: Clients,
    _folder: TempDir,
}

/// In memory where the system has such a place: ext4 looks long for an inode where many files were removed just before,
/// and a simulation's objects come and go.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Simulation {
    pub async fn start(seed: u64, lags: Lags) -> Self {
        Self::with_capacity(seed, lags, Capacity::default()).await
    }

    /// The same account with other limits.
    pub async fn with_capacity(seed: u64, lags: Lags, capacity: Capacity) -> Self {
        // The SDK draws the jitter of its retries from this.
        fastrand::seed(seed);
        let start: Timestamp = START.parse().unwrap();
        let folder = folder();
        let config = Config {
            name: "simulation".into(),
            folder: folder.path().join("region"),
            listen: "127.0.0.1:0".parse().unwrap(),
            region: "us-east-1".into(),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            backing: Backing::RecordsOnly,
            lags,
            capacity,
            forget_servers: false,
        };
        let region = server::simulate(config, Arc::new(RegionClock::starting_at(start)), seed).await.unwrap();
        let clients = clients(&region, start, SignedDuration::ZERO, Machine::default());
        Self { region, clients, _folder: folder }
    }

    /// Clients whose calls are answered at once with an empty list of servers: what the SDK itself takes.
    pub fn clients_of_nothing() -> Clients {
        let start: Timestamp = START.parse().unwrap();
        Clients::of(sdk(SharedHttpConnector::new(Nothing), start), Arc::new(TokioClock::starting_at(start)), None)
    }

    /// Clients of another machine, whose clock is wrong by `off`. Its requests are signed by the right time all the same:
    /// AWS refuses those that are minutes off, which `alcedo doctor` finds.
    pub fn clients_of(&self, machine: Machine, off: SignedDuration) -> Clients {
        clients(&self.region, self.clients.clock.0.now(), off, machine)
    }
}

/// Answers every request at once with nothing.
#[derive(Debug)]
struct Nothing;

impl HttpConnector for Nothing {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        const EMPTY: &str =
            "<DescribeInstancesResponse><requestId>none</requestId><reservationSet/></DescribeInstancesResponse>";
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from(EMPTY))))
    }
}

fn clients(region: &Simulated, now: Timestamp, off: SignedDuration, machine: Machine) -> Clients {
    let network = Network { machine: Mutex::new(machine), stands_still_until: Mutex::new(Instant::now()) };
    let connector = SharedHttpConnector::new(Direct(Arc::new(region.answers()), Arc::new(network)));
    let mut clients = Clients::of(sdk(connector, now), Arc::new(TokioClock::starting_at(now + off)), None);
    clients.http = here_alone::client();
    clients.own_address = Some(OWN_ADDRESS);
    clients
}

/// How calls fare that one machine makes. By default each is answered in no time.
#[derive(Default)]
pub struct Machine {
    /// Where latencies and pauses come from.
    pub dice: Option<StdRng>,
    /// How likely it is that the machine stands still after an answer has come to it, for up to three minutes.
    pub pauses: f64,
    /// What becomes of an answer on its way: told with the path and the parameters of its request, for accounts of a kind
    /// that the local region cannot be.
    pub tampering: Option<Tampering>,
}

pub type Tampering = Box<dyn Fn(&str, http::Response<String>) -> http::Response<String> + Send>;

/// Longest way of a request, and of an answer.
const LATENCY: Duration = Duration::from_millis(20);
/// Longer than a lease lasts that is not renewed.
const PAUSE: Duration = Duration::from_secs(180);

/// A machine at work.
struct Network {
    machine: Mutex<Machine>,
    stands_still_until: Mutex<Instant>,
}

impl Network {
    /// The time that a request or an answer is under way.
    fn latency(&self) -> Duration {
        let mut machine = self.machine.lock().unwrap();
        machine.dice.as_mut().map_or(Duration::ZERO, |dice| LATENCY.mul_f64(dice.random()))
    }

    fn maybe_pause(&self) {
        let mut machine = self.machine.lock().unwrap();
        let pauses = machine.pauses;
        if let Some(dice) = machine.dice.as_mut()
            && pauses > 0.0
            && dice.random_bool(pauses)
        {
            *self.stands_still_until.lock().unwrap() = Instant::now() + PAUSE.mul_f64(dice.random());
        }
    }

    fn tamper(&self, asked: &str, answer: server::Answer) -> server::Answer {
        let machine = self.machine.lock().unwrap();
        let Some(tampering) = &machine.tampering else { return answer };
        match String::from_utf8(answer.body().to_vec()) {
            Ok(text) => {
                let mut changed = tampering(asked, answer.map(|_| text));
                let length = changed.body().len().into();
                changed.headers_mut().insert(http::header::CONTENT_LENGTH, length);
                changed.map(Into::into)
            }
            Err(_) => answer,
        }
    }

    fn stands_still_until(&self) -> Option<Instant> {
        let until = *self.stands_still_until.lock().unwrap();
        (Instant::now() < until).then_some(until)
    }
}

/// As [`Clients::connect`] has it, but for what carries the requests.
fn sdk(connector: SharedHttpConnector, now: Timestamp) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .endpoint_url("http://simulation.invalid")
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            ACCESS_KEY,
            SECRET_KEY,
            None,
            None,
            "simulation",
        )))
        .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(aws_smithy_async::rt::sleep::TokioSleep::new()))
        .time_source(SdkClock(TokioClock::starting_at(now)))
        .retry_config(RetryConfig::standard().with_max_attempts(5))
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(Duration::from_secs(30))
                .operation_timeout(Duration::from_secs(120))
                .build(),
        )
        // It measures bytes by the machine's time, which does not go as the simulation's does.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// The time that requests are signed by.
#[derive(Debug)]
struct SdkClock(TokioClock);

impl aws_smithy_async::time::TimeSource for SdkClock {
    fn now(&self) -> SystemTime {
        SystemTime::from(Clock::now(&self.0))
    }
}

type Answers = dyn Fn(http::Request<SdkBody>) -> BoxFuture<'static, std::io::Result<server::Answer>> + Send + Sync;

/// Hands each request to the region.
struct Direct(Arc<Answers>, Arc<Network>);

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct")
    }
}

impl HttpConnector for Direct {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answers, network) = (self.0.clone(), self.1.clone());
        HttpConnectorFuture::new(async move {
            if let Some(until) = network.stands_still_until() {
                // When the machine goes on, its connections are gone.
                tokio::time::sleep_until(until).await;
                return Err(ConnectorError::io("the machine stood still".into()));
            }
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let parameters = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
            let asked = format!("{} {parameters}", request.uri());
            sleep(network.latency()).await;
            let answer = answers(request).await.map_err(|error| ConnectorError::io(error.into()));
            sleep(network.latency()).await;
            network.maybe_pause();
            if let Some(until) = network.stands_still_until() {
                tokio::time::sleep_until(until).await;
            }
            let answer = network.tamper(&asked, answer?).map(SdkBody::from);
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

async fn sleep(lasting: Duration) {
    if !lasting.is_zero() {
        tokio::time::sleep(lasting).await;
    }
}
