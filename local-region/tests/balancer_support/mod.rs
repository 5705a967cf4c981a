//! A region with a data plane in this process, and servers on loopback addresses as its targets.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use alcedo_local_region::{
    balancer::{self, Balancer, HttpProber, Options},
    clock::{Clock, ManualClock, SystemClock},
    config::{Backing, Capacity, Config, Lags},
    instances::{Machines, records::Records},
    region::Region,
    state::{World, ec2::Ec2, elbv2::Elbv2},
    wire::{ApiError, Params, elbv2},
};
use jiff::SignedDuration;
use tempfile::TempDir;

mod backend;
pub use backend::Backend;

/// How long anything is waited for before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running region.
pub struct Lab {
    pub region: Arc<Region>,
    pub clock: Option<Arc<ManualClock>>,
    balancer: Mutex<Option<Balancer>>,
    _folder: TempDir,
}

/// The lags of the quick profile without any waiting, for tests that are about something else.
pub fn no_lags() -> Lags {
    Lags {
        new_record: Duration::ZERO,
        propagation: Duration::ZERO,
        target_health: Duration::ZERO,
        registration: Duration::ZERO,
        initial_check: Some(Duration::from_millis(50)),
        throttle: false,
        ..Lags::quick()
    }
}

impl Lab {
    pub async fn start(lags: Lags) -> Self {
        Self::with_clock(lags, Arc::new(SystemClock), None).await
    }

    /// With time standing still.
    pub async fn frozen(lags: Lags) -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-20T19:05:12Z".parse().unwrap()));
        Self::with_clock(lags, clock.clone(), Some(clock)).await
    }

    async fn with_clock(lags: Lags, clock: Arc<dyn Clock>, manual: Option<Arc<ManualClock>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machines = Records::new();
        let network = machines.prepare().await.unwrap();
        let config = config(folder.path().to_owned(), lags);
        let ec2 = Ec2::fresh(network.block, &config.region, "seed", clock.now());
        let world = World { format: World::FORMAT, ec2, elbv2: Elbv2::default(), ..World::default() };
        let region = Arc::new(Region::new(config, clock, Arc::new(machines), network, world));
        let lab = Self { region, clock: manual, balancer: Mutex::new(None), _folder: folder };
        lab.start_balancer().await;
        lab
    }

    pub async fn start_balancer(&self) {
        let options = Options { listens: true, prober: Arc::new(HttpProber) };
        let balancer = balancer::start_with(Arc::clone(&self.region), options).await.unwrap();
        *self.balancer.lock().unwrap() = Some(balancer);
    }

    pub async fn stop_balancer(&self) {
        let balancer = self.balancer.lock().unwrap().take().expect("it runs");
        balancer.stop().await;
    }

    /// Requests to a target, and those of them that failed.
    pub fn counted(&self, target: &Backend) -> (u64, u64) {
        let balancer = self.balancer.lock().unwrap();
        let counters = balancer.as_ref().expect("it runs").counters();
        let known = counters.iter().find(|known| known.target.port == target.address.port());
        known.map_or((0, 0), |known| (known.requests, known.errors))
    }

    pub fn advance(&self, by: Duration) {
        let clock = self.clock.as_ref().expect("a lab whose time stands still");
        clock.advance(SignedDuration::try_from(by).unwrap());
    }

    /// One API call; `form` is its parameters, one `Name=value` each.
    pub async fn call(&self, action: &str, form: &[String]) -> Result<Answer, ApiError> {
        let mut encoded = form_urlencoded::Serializer::new(String::new());
        for pair in form {
            let (name, value) = pair.split_once('=').expect("Name=value");
            encoded.append_pair(name, value);
        }
        let params = Params::decode(encoded.finish().as_bytes());
        elbv2::handle(action, &params, &self.region).await.map(|xml| Answer(xml.document()))
    }

    pub async fn must(&self, action: &str, form: &[String]) -> Answer {
        self.call(action, form).await.unwrap_or_else(|error| panic!("{action}: {error}"))
    }

    /// A load balancer in every zone.
    pub async fn load_balancer(&self, name: &str) -> String {
        let subnets: Vec<String> =
            self.region.read(|world| world.ec2.subnets().map(|subnet| subnet.subnet_id.clone()).collect());
        let mut form = vec![format!("Name={name}")];
        form.extend(subnets.iter().enumerate().map(|(at, id)| format!("Subnets.member.{}={id}", at + 1)));
        self.must("CreateLoadBalancer", &form).await.text("LoadBalancerArn")
    }

    /// A group of addresses, checked at `/health` every 5 seconds.
    pub async fn group(&self, name: &str, targets: &[&Backend]) -> String {
        let vpc = self.region.read(|world| world.ec2.default_vpc().unwrap().vpc_id.clone());
        let form = [
            format!("Name={name}"),
            "Protocol=HTTP".into(),
            "Port=80".into(),
            format!("VpcId={vpc}"),
            "TargetType=ip".into(),
            "HealthCheckPath=/health".into(),
            "HealthCheckIntervalSeconds=5".into(),
            "HealthCheckTimeoutSeconds=2".into(),
            "HealthyThresholdCount=2".into(),
            "UnhealthyThresholdCount=2".into(),
        ];
        let arn = self.must("CreateTargetGroup", &form).await.text("TargetGroupArn");
        for target in targets {
            self.must("RegisterTargets", &target_form(&arn, target.address)).await;
        }
        arn
    }

    /// A listener on a free port.
    pub async fn listener(&self, load_balancer: &str, action: &[String]) -> (String, u16) {
        for _ in 0..20 {
            let port = free_port();
            let mut form = vec![format!("LoadBalancerArn={load_balancer}"), "Protocol=HTTP".into()];
            form.push(format!("Port={port}"));
            form.extend(action.iter().map(|pair| format!("DefaultActions.member.1.{pair}")));
            match self.call("CreateListener", &form).await {
                Ok(answer) => return (answer.text("ListenerArn"), port),
                // Another test took the port in between.
                Err(error) if error.code == "InvalidConfigurationRequest" => {}
                Err(error) => panic!("CreateListener: {error}"),
            }
        }
        panic!("no free port in 20 attempts");
    }

    /// A load balancer whose listener forwards to one group.
    pub async fn serve(&self, group: &str) -> (String, u16) {
        let load_balancer = self.load_balancer("web").await;
        self.listener(&load_balancer, &forward(&[(group, 1)])).await
    }

    pub async fn modify_listener(&self, listener: &str, action: &[String]) {
        let mut form = vec![format!("ListenerArn={listener}")];
        form.extend(action.iter().map(|pair| format!("DefaultActions.member.1.{pair}")));
        self.must("ModifyListener", &form).await;
    }

    pub async fn set_delay(&self, group: &str, seconds: u32) {
        let form = [
            format!("TargetGroupArn={group}"),
            "Attributes.member.1.Key=deregistration_delay.timeout_seconds".into(),
            format!("Attributes.member.1.Value={seconds}"),
        ];
        self.must("ModifyTargetGroupAttributes", &form).await;
    }

    /// State and reason of a target.
    pub async fn health(&self, group: &str, target: &Backend) -> (String, String) {
        let answer = self.must("DescribeTargetHealth", &target_form(group, target.address)).await;
        (answer.text("State"), answer.maybe("Reason").unwrap_or_default())
    }

    pub async fn until_state(&self, group: &str, target: &Backend, state: &str) {
        eventually(&format!("{} to be {state}", target.name), async || {
            let (now, reason) = self.health(group, target).await;
            if now == state { Ok(()) } else { Err(format!("{now} {reason}")) }
        })
        .await;
    }

    /// The node's URL; node 0 is 127.0.0.1.
    pub fn url(&self, node: u8, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", Ipv4Addr::new(127, 0, 0, node + 1))
    }
}

fn config(folder: PathBuf, lags: Lags) -> Config {
    Config {
        name: "balancer-test".into(),
        folder,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        region: "us-east-1".into(),
        access_key: "key".into(),
        secret_key: "secret".into(),
        backing: Backing::RecordsOnly,
        capacity: Capacity::default(),
        forget_servers: false,
        lags,
    }
}

/// A forward action's parameters.
pub fn forward(groups: &[(&str, u32)]) -> Vec<String> {
    let mut form = vec!["Type=forward".to_owned()];
    for (at, (arn, weight)) in groups.iter().enumerate() {
        let prefix = format!("ForwardConfig.TargetGroups.member.{}", at + 1);
        form.push(format!("{prefix}.TargetGroupArn={arn}"));
        form.push(format!("{prefix}.Weight={weight}"));
    }
    form
}

pub fn target_form(group: &str, address: SocketAddr) -> [String; 3] {
    [
        format!("TargetGroupArn={group}"),
        format!("Targets.member.1.Id={}", address.ip()),
        format!("Targets.member.1.Port={}", address.port()),
    ]
}

/// An answer's XML, looked at by element names: enough for answers about one thing.
#[derive(Debug)]
pub struct Answer(pub String);

impl Answer {
    pub fn all(&self, element: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        self.0.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(text, _)| text.into()).collect()
    }

    pub fn maybe(&self, element: &str) -> Option<String> {
        self.all(element).into_iter().next()
    }

    pub fn text(&self, element: &str) -> String {
        self.maybe(element).unwrap_or_else(|| panic!("no {element} in {}", self.0))
    }
}

/// A client that keeps connections open.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(DEADLINE).redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A client that opens a connection for every request.
pub fn fresh_client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

pub async fn get(client: &reqwest::Client, url: &str) -> String {
    let answer = client.get(url).send().await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    let status = answer.status();
    let body = answer.text().await.unwrap();
    if status.is_success() { body } else { status.as_u16().to_string() }
}

/// Asks again and again until it is so; the last reason it is not so is in the failure.
pub async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let begun = Instant::now();
    loop {
        let Err(reason) = ask().await else { return };
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}: {reason}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What must have happened by the deadline.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}"))
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
