//! A region of real servers for one test: engine network, metadata service, a login key; and its removal afterwards.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    path::PathBuf,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use alcedo_local_region::{
    instances::{BaseImage, FirewallRule, MachineSpec, Machines, Network, Protocol, containers::Containers},
    metadata::{InstanceMetadata, MetadataServer, MetadataSource, serve},
};
use futures::FutureExt;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream, process::Command};

/// For anything that a server does while it boots. It takes a second; a machine that also compiles takes longer.
pub const BOOT: Duration = Duration::from_secs(60);

/// Long enough for a connection on this machine to be made, so that one that is not made by then never is.
const NO_ANSWER: Duration = Duration::from_millis(700);

/// Distinguishes the regions of tests that run at once.
static REGIONS: AtomicU8 = AtomicU8::new(0);

/// What instances are told, by address.
#[derive(Default)]
struct Known(Mutex<HashMap<Ipv4Addr, InstanceMetadata>>);

impl MetadataSource for Known {
    fn by_address(&self, address: Ipv4Addr) -> Option<InstanceMetadata> {
        self.0.lock().expect("not poisoned").get(&address).cloned()
    }
}

pub struct TestRegion {
    pub machines: Containers,
    pub name: String,
    pub network: Network,
    pub base: BaseImage,
    /// Serves until the region is dropped.
    _metadata: MetadataServer,
    known: Arc<Known>,
    keys: TempDir,
}

/// Runs a test in a region of its own, and leaves nothing in the engine whether or not it passes.
pub async fn in_region<Test>(test: impl FnOnce(Arc<TestRegion>) -> Test)
where
    Test: Future<Output = ()>,
{
    let region = Arc::new(TestRegion::new().await);
    let outcome = AssertUnwindSafe(test(region.clone())).catch_unwind().await;
    region.machines.remove_all().await.unwrap_or_else(|error| panic!("nothing must be left: {error:?}"));
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure);
    }
}

impl TestRegion {
    async fn new() -> Self {
        let number = REGIONS.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        let machines = Containers::connect(&name)
            .await
            .unwrap_or_else(|error| panic!("{error}; {}", error.hint.as_deref().unwrap_or("see its source")));
        let base = machines.base_images().await.expect("the engine lists its images").into_iter().next();
        let base = base.expect("the engine has no base image; `cargo xtask test` and `alcedo image build` make it");
        let network = machines.prepare().await.expect("a network");
        let known = Arc::new(Known::default());
        let metadata = serve(SocketAddr::new(network.gateway.into(), 0), known.clone()).await.expect("the service");
        machines.set_metadata_port(metadata.address().port()).await.expect("servers are told");

        let keys = tempfile::tempdir().expect("a folder");
        let path = keys.path().join("login");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status().await;
        assert!(made.expect("openssh-client is installed").success());
        Self { machines, name, network, base, _metadata: metadata, known, keys }
    }

    fn key(&self) -> PathBuf {
        self.keys.path().join("login")
    }

    /// A server that the metadata service knows; its address ends in `number`.
    pub fn server(&self, number: u8, image: &str, user_data: Option<&str>) -> MachineSpec {
        let [a, b, ..] = self.network.block.network().octets();
        let private_ip = Ipv4Addr::new(a, b, 0, number);
        let spec = MachineSpec {
            instance_id: format!("i-{number:017x}"),
            image: image.to_owned(),
            private_ip,
            hostname: format!("ip-{a}-{b}-0-{number}"),
            memory_mib: 512,
            vcpus: 1,
        };
        let public_key = std::fs::read_to_string(self.key().with_extension("pub")).expect("the public key");
        let metadata = InstanceMetadata {
            instance_id: spec.instance_id.clone(),
            ami_id: "ami-0123".to_owned(),
            private_ip: private_ip.to_string(),
            hostname: spec.hostname.clone(),
            public_key: Some(("login".to_owned(), public_key.trim().to_owned())),
            user_data: user_data.map(|text| text.as_bytes().to_vec()),
            tokens_required: true,
            ..InstanceMetadata::default()
        };
        self.known.0.lock().expect("not poisoned").insert(private_ip, metadata);
        spec
    }

    /// Inbound SSH from this machine, as it is seen from the network.
    pub fn ssh_from_here(&self) -> FirewallRule {
        FirewallRule { protocol: Protocol::Tcp, from_port: 22, to_port: 22, source: self.network.gateway.into() }
    }

    /// Launches a server that takes SSH from here, and waits until it does.
    pub async fn launch_and_reach(&self, spec: &MachineSpec) {
        self.machines.launch(spec, &[self.ssh_from_here()]).await.expect("launched");
        self.wait_for_ssh(spec).await;
    }

    pub async fn wait_for_ssh(&self, spec: &MachineSpec) {
        let answers = async || self.ssh(spec, "true").await.status.success();
        if until(BOOT, answers).await.is_none() {
            let console = self.console(spec).await;
            panic!("{} takes no SSH within {BOOT:?}; its console:\n{console}", spec.instance_id);
        }
    }

    /// Waits until systemd has started all it starts, and says how that ended: `running`, or `degraded`.
    pub async fn booted(&self, spec: &MachineSpec) -> String {
        let mut state = String::new();
        let settled = async || {
            // Its exit code only says whether it is `running`.
            let output = self.ssh(spec, "sudo systemctl is-system-running").await;
            state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            matches!(state.as_str(), "running" | "degraded" | "maintenance")
        };
        let settled = until(BOOT, settled).await;
        assert!(settled.is_some(), "{} is still `{state}` after {BOOT:?}", spec.instance_id);
        state
    }

    pub async fn console(&self, spec: &MachineSpec) -> String {
        let console = self.machines.console(&spec.instance_id).await.expect("a console");
        String::from_utf8_lossy(&console).replace('\r', "")
    }

    /// Waits until the console says something.
    pub async fn wait_for_console(&self, spec: &MachineSpec, text: &str) -> String {
        let says = async || self.console(spec).await.contains(text);
        let console = if until(BOOT, says).await.is_some() { Ok(()) } else { Err(()) };
        let shown = self.console(spec).await;
        console.unwrap_or_else(|()| panic!("no `{text}` on the console within {BOOT:?}:\n{shown}"));
        shown
    }

    /// Runs a command as `admin`.
    pub async fn ssh(&self, spec: &MachineSpec, command: &str) -> Output {
        Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", "-o", "LogLevel=ERROR"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i"])
            .arg(self.key())
            .args([&format!("admin@{}", spec.private_ip), command])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("openssh-client is installed")
    }

    /// What a command says on its standard output, if it succeeds.
    pub async fn ask(&self, spec: &MachineSpec, command: &str) -> String {
        let output = self.ssh(spec, command).await;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "`{command}` said {said:?} and {:?}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

/// Tries until `ready` says yes; the time it took, or `None` at the deadline.
pub async fn until(deadline: Duration, mut ready: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < deadline {
        if ready().await {
            return Some(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// A connection to a server's sshd that has said hello; `None` if the firewall lets none through.
pub async fn connect(spec: &MachineSpec) -> Option<TcpStream> {
    let mut stream = tokio::time::timeout(NO_ANSWER, TcpStream::connect((spec.private_ip, 22))).await.ok()?.ok()?;
    let mut hello = [0; 8];
    tokio::time::timeout(BOOT, stream.read_exact(&mut hello)).await.ok()?.ok()?;
    assert_eq!(&hello, b"SSH-2.0-");
    Some(stream)
}
