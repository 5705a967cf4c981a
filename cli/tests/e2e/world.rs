//! A local region, an app and an `alcedo` of one test's own; gone when the test ends, however it ends.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use alcedo_images::engine::Engine;
use alcedo_pipeline::file::Aws;
use alcedo_stages::clients::{Clients, LocalEndpoint};
use serde_json::Value;
use tokio::{process::Command, runtime::Runtime};

use crate::{
    app::App,
    engine,
    inventory::Inventory,
    run::{Ended, Running, text},
    seats::{self, Seat},
    traffic::{Tally, Traffic, client, version_at},
};

/// The bucket that the example's pipeline file names.
pub const BUCKET: &str = "alcedo-local";

/// Where a world that signs keeps its private key.
const SIGNING_KEY: &str = "signing.pem";

/// How many nodes the balancer has in the profile `quick`.
const NODES: u8 = 2;

/// Requests to each node that must agree before one version is said to answer.
const SAMPLES: usize = 5;

/// One test's world.
pub struct World {
    pub app: App,
    /// Where the balancer listens.
    pub port: u16,
    /// How many nodes the balancer has: each is an address of this machine.
    nodes: u8,
    pub runtime: Runtime,
    region: Region,
    clients: OnceLock<Clients>,
    began: Instant,
    // Fields are dropped in this order: the folder when nothing uses it any more, the seat last.
    folder: tempfile::TempDir,
    _seat: Seat,
}

/// The region's process and everything it made; removed when dropped.
struct Region {
    name: String,
    engine: Engine,
    home: PathBuf,
    endpoint_port: u16,
}

impl World {
    /// A region that runs and holds nothing, and the example as the first commit of a repository.
    pub fn new(what: &str) -> Self {
        Self::with_lags(what, NODES, &[])
    }

    /// The same with a balancer of so many nodes, and other delays than the profile's.
    pub fn with_lags(what: &str, nodes: u8, lags: &[&str]) -> Self {
        let seat = seats::take();
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("this machine gives a thread");
        let engine = runtime.block_on(engine::connect());
        let folder = tempfile::Builder::new().prefix("e2e-").tempdir().expect("a folder can be made");
        for name in ["home", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a folder can be made");
        }
        let (endpoint_port, port) = (free_port(), free_port());
        let app = App::copy_to(folder.path().join("app"), port);
        let name = format!("e2e-{}", hex(rand::random()));
        let region = Region { name, engine, home: folder.path().to_owned(), endpoint_port };
        eprintln!("{what}: region {}, balancer on port {port}", region.name);
        let world = Self { app, port, nodes, runtime, region, clients: OnceLock::new(), began, folder, _seat: seat };
        world.prepare(lags);
        world
    }

    fn prepare(&self, lags: &[&str]) {
        // The base root is made once for all tests and all that come after; where it is there, this takes no time.
        static BASE: OnceLock<()> = OnceLock::new();
        BASE.get_or_init(|| drop(self.run(&["image", "build"]).expect(0)));
        let port = self.region.endpoint_port.to_string();
        let nodes = format!("balancer-nodes={}", self.nodes);
        let mut start = vec!["region", "start", "--name", &self.region.name, "--port", &port, "--lag", &nodes];
        start.extend(lags.iter().flat_map(|lag| ["--lag", lag]));
        self.run(&start).expect(0);
    }

    /// From now on the region lets callers do what this policy says; `None`: everything.
    pub fn restrict(&self, policy: Option<&str>) {
        let variables = self.variables();
        let get = |name: &str| variables.iter().find(|(key, _)| key == name).expect("it is given").1.clone();
        let client = reqwest::Client::new();
        let url = format!("{}/policy", get("AWS_ENDPOINT_URL"));
        let call = match policy {
            Some(policy) => client.put(url).body(policy.to_owned()),
            None => client.delete(url),
        };
        let answer = self.runtime.block_on(call.bearer_auth(get("AWS_SECRET_ACCESS_KEY")).send()).expect("it answers");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// `alcedo` in the app's folder. No variable of the machine that runs the tests has a say.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.region.command();
        command.current_dir(&self.app.folder).args(arguments);
        command
    }

    /// Runs `alcedo` to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Running::start(self.runtime.handle(), self.command(arguments)).end()
    }

    /// Runs `alcedo` with `--output json` to its end.
    pub fn json(&self, arguments: &[&str]) -> Ended {
        self.begin(arguments).end()
    }

    /// Starts `alcedo` with `--output json`.
    pub fn begin(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        command.args(["--output", "json"]);
        Running::start(self.runtime.handle(), command)
    }

    /// Deploys what is in the app's folder, and answers its version.
    pub fn deploy(&self) -> String {
        self.json(&["deploy"]).expect(0).version()
    }

    /// The variables that point AWS's own tools at the region.
    pub fn variables(&self) -> Vec<(String, String)> {
        let env = self.json(&["region", "env"]).expect(0);
        let map = env.json().as_object().expect("variables by name").clone();
        map.into_iter().map(|(name, value)| (name, text(&value))).collect()
    }

    /// The SDK's clients, to look at the region and to break something in it.
    pub fn clients(&self) -> &Clients {
        self.clients.get_or_init(|| {
            let variables = self.variables();
            let get = |name: &str| variables.iter().find(|(key, _)| key == name).expect("it is given").1.clone();
            let local = LocalEndpoint {
                url: get("AWS_ENDPOINT_URL"),
                region: get("AWS_REGION"),
                access_key: get("AWS_ACCESS_KEY_ID"),
                secret_key: get("AWS_SECRET_ACCESS_KEY"),
            };
            self.runtime.block_on(Clients::connect(&Aws::default(), Some(&local)))
        })
    }

    pub fn inventory(&self) -> Inventory {
        self.runtime.block_on(Inventory::take(self.clients(), BUCKET))
    }

    pub fn nodes(&self) -> Vec<SocketAddr> {
        (1..=self.nodes).map(|node| SocketAddr::from((Ipv4Addr::new(127, 0, 0, node), self.port))).collect()
    }

    pub fn traffic(&self) -> Traffic {
        Traffic::start(self.runtime.handle(), &self.nodes())
    }

    /// Runs `alcedo` with `--output json` to its end while requests flow, every one of which must be answered.
    #[track_caller]
    pub fn with_visitors(&self, arguments: &[&str]) -> (Ended, Tally) {
        let traffic = self.traffic();
        let run = self.json(arguments);
        let tally = traffic.stop();
        tally.assert_all_answered();
        (run, tally)
    }

    /// Asserts that one version answers at every node.
    #[track_caller]
    pub fn assert_answers(&self, version: &str) {
        let answers: BTreeSet<_> = self.runtime.block_on(async {
            let client = client(false);
            let mut answers = BTreeSet::new();
            for node in self.nodes().repeat(SAMPLES) {
                answers.insert(version_at(&client, node).await);
            }
            answers
        });
        assert_eq!(answers, BTreeSet::from([Ok(version.to_owned())]), "what answers at {:?}", self.nodes());
    }

    /// The fleets as `alcedo status` tells them: version, role, healthy and registered servers; newest last.
    pub fn fleets(&self) -> Vec<(String, String, u64, u64)> {
        let status = self.json(&["status"]).expect(0);
        let fleet = |fleet: &Value| {
            let number = |name: &str| fleet[name].as_u64().unwrap_or_else(|| panic!("no {name} in {fleet}"));
            (text(&fleet["version"]), text(&fleet["role"]), number("healthy"), number("registered"))
        };
        status.json()["fleets"].as_array().expect("a list of fleets").iter().map(fleet).collect()
    }

    /// What a program says on a server.
    pub fn ask(&self, server: &str, program: &[&str]) -> String {
        self.runtime.block_on(engine::ask(&self.region.engine, &self.region.name, server, program))
    }

    /// An object of the bucket.
    pub fn object(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let there = self.clients().s3.get_object().bucket(BUCKET).key(key).send().await;
            let there = there.unwrap_or_else(|error| panic!("{key}: {error:?}"));
            there.body.collect().await.expect("it can be read").to_vec()
        })
    }

    /// From now on versions are signed, and what is not is not used. Answers the private key's own line.
    pub fn sign(&self) -> String {
        let key = self.path().join(SIGNING_KEY);
        for (arguments, out) in [
            (["genpkey", "-algorithm", "ed25519"].as_slice(), key.clone()),
            (&["pkey", "-pubout", "-in", &key.display().to_string()], self.app.folder.join("release.pem")),
        ] {
            let status = std::process::Command::new("openssl").args(arguments).arg("-out").arg(out).status();
            assert!(status.expect("openssl is installed").success(), "{arguments:?}");
        }
        self.app.replace("alcedo.yaml", "  bucket: alcedo-local", "  bucket: alcedo-local\n  signed_by: [release.pem]");
        self.app.commit("Sign");
        let text = fs::read_to_string(key).expect("it was made");
        text.lines().nth(1).expect("a line between the markers").to_owned()
    }

    /// What a server that failed had told before it went.
    pub fn evidence(&self, run: &str, server: &str, name: &str) -> String {
        let key = format!("hello/runs/{run}/evidence/{server}/{name}");
        self.runtime.block_on(async {
            let there = self.clients().s3.get_object().bucket(BUCKET).key(&key).send().await;
            let there = there.unwrap_or_else(|error| panic!("{key}: {error:?}"));
            let bytes = there.body.collect().await.expect("it can be read").into_bytes();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    /// Nothing is left in the folder for temporary files: keys and archives lie there while a run lasts.
    pub fn assert_tmp_is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.path().join("tmp")).expect("it is there").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Removes what an `alcedo` that was killed could not.
    pub fn empty_tmp(&self) {
        let path = self.path().join("tmp");
        fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).expect("the folder can be emptied");
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A moment as [`World::tell`] shows it.
    pub fn second(&self, at: Instant) -> f64 {
        (at - self.began).as_secs_f64()
    }

    /// Says how long a part of a test took: the tests have a budget.
    pub fn tell(&self, what: &str) {
        eprintln!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

impl Region {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alcedo"));
        command.env_clear().current_dir(&self.home);
        for kept in ["PATH", "DOCKER_HOST", "XDG_RUNTIME_DIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        let key = self.home.join(SIGNING_KEY);
        if key.exists() {
            command.env("ALCEDO_SIGNING_KEY", key);
        }
        command
            .env("HOME", self.home.join("home"))
            .env("TMPDIR", self.home.join("tmp"))
            .env("USER", "e2e")
            .env("ALCEDO_REGION_DIR", self.home.join("region"));
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            let log = fs::read_to_string(self.path().join("region/region.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the region's log:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.tell("the test has ended; removing its region");
        let mut reset = self.region.command();
        reset.args(["region", "reset", "--yes"]);
        let reset =
            self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), reset.output()).await });
        let left = self.runtime.block_on(engine::of_region(&self.region.engine, &self.region.name));
        let files = names_in(&self.folder.path().join("tmp"));
        self.tell("its region is removed");
        // A second panic would end the process and hide the first.
        if failing {
            eprintln!("reset: {reset:?}\nleft in the engine: {left:?}\nleft in TMPDIR: {files:?}");
            return;
        }
        let reset = reset.expect("the reset ends").expect("alcedo can be started");
        assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
        assert!(left.is_empty(), "the region has left in the engine: {left:#?}");
        assert!(files.is_empty(), "alcedo has left in TMPDIR: {files:#?}");
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A port that is free at every node now; nobody else asks for it in the moment until it is used.
fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn hex(number: u32) -> String {
    format!("{number:08x}")
}
