//! Clients that are not ours: boto3, AWS CLI and Packer's amazon-ebs builder.
//!
//! They need `ALCEDO_TEST_PYTHON`, a Python with boto3 and AWS CLI beside it, and Packer on the PATH; `cargo xtask test`
//! sets these up. Without them the tests fail and say so. Packer's also needs an engine with a base image.

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
    time::Duration,
};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config, Lags},
    server::{self, Running},
};
use serde_json::Value;
use tokio::process::Command;

/// Packer boots a server, stops it and captures it; a machine that also compiles takes minutes.
const LONGEST: Duration = Duration::from_secs(300);

fn config(name: &str, backing: Backing, folder: &Path) -> Config {
    Config {
        name: name.to_owned(),
        folder: folder.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        region: "us-east-1".to_owned(),
        access_key: "AKIATHIRDPARTY".to_owned(),
        secret_key: "third-party-secret".to_owned(),
        backing,
        lags: Lags::quick(),
        capacity: Capacity::default(),
        forget_servers: false,
    }
}

/// Runs a test on a region of its own and removes it, whether or not the test passes.
async fn in_region<Test>(name: &str, backing: Backing, test: impl FnOnce(Client) -> Test)
where
    Test: Future<Output = ()> + Send + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    let config = config(name, backing, &folder.path().join("region"));
    let running = match server::start(config.clone(), Arc::new(SystemClock)).await {
        Ok(running) => running,
        Err(error) => panic!("the region does not start: {error} ({})", error.hint().unwrap_or_default()),
    };
    let outcome = tokio::spawn(test(Client::of(&running, folder.path()))).await;
    running.stop().await;
    server::reset(&config).await.unwrap();
    if let Err(failed) = outcome {
        std::panic::resume_unwind(failed.into_panic());
    }
}

/// The environment of a client's process: nothing of the caller's own AWS settings gets through.
struct Client {
    variables: Vec<(&'static str, String)>,
}

impl Client {
    fn of(running: &Running, home: &Path) -> Self {
        let config = &running.region.config;
        let variables = vec![
            ("AWS_ENDPOINT_URL", running.endpoint.clone()),
            ("AWS_REGION", config.region.clone()),
            ("AWS_DEFAULT_REGION", config.region.clone()),
            ("AWS_ACCESS_KEY_ID", config.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", config.secret_key.clone()),
            ("AWS_PAGER", String::new()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            // Packer looks at instances and images every 15 s otherwise.
            ("AWS_POLL_DELAY_SECONDS", "1".to_owned()),
            ("CHECKPOINT_DISABLE", "1".to_owned()),
            ("HOME", home.display().to_string()),
        ];
        Self { variables }
    }

    fn endpoint(&self) -> &str {
        &self.variables[0].1
    }

    async fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let run = command.args(arguments).kill_on_drop(true).output();
        match tokio::time::timeout(LONGEST, run).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => panic!("{} cannot be run: {error}; `cargo xtask test` installs it", program.display()),
            Err(_) => panic!("{} did not end within {LONGEST:?}", program.display()),
        }
    }

    /// Runs a program that must succeed, and answers its output.
    async fn succeed(&self, program: &Path, arguments: &[&str]) -> String {
        let output = self.run(program, arguments).await;
        let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} {arguments:?} failed:\n{told}\n{wrong}", program.display());
        told.into_owned()
    }

    async fn aws(&self, arguments: &str) -> Value {
        let arguments: Vec<&str> = arguments.split(' ').chain(["--output", "json"]).collect();
        let text = self.succeed(&python().with_file_name("aws"), &arguments).await;
        if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }
}

fn python() -> PathBuf {
    match std::env::var_os("ALCEDO_TEST_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => panic!("ALCEDO_TEST_PYTHON names no Python with boto3 and AWS CLI; `cargo xtask test` sets it"),
    }
}

fn beside(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/third_party").join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_finds_what_it_expects() {
    in_region("boto3-test", Backing::RecordsOnly, async |client| {
        let told = client.succeed(&python(), &[&beside("with_boto3.py")]).await;
        assert!(told.contains("every check held"), "{told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_cli_launches_waits_tags_and_copies_in_parts() {
    in_region("cli-test", Backing::RecordsOnly, async |client| {
        let images = client.aws("ec2 describe-images --owners self").await;
        let image = images["Images"][0]["ImageId"].as_str().unwrap();
        let launch = format!("ec2 run-instances --image-id {image} --instance-type t3.micro --count 1");
        let launched = client.aws(&launch).await;
        let id = launched["Instances"][0]["InstanceId"].as_str().unwrap();
        client.aws(&format!("ec2 wait instance-running --instance-ids {id}")).await;
        client.aws(&format!("ec2 create-tags --resources {id} --tags Key=by,Value=cli")).await;
        client.aws(&format!("ec2 terminate-instances --instance-ids {id}")).await;
        client.aws(&format!("ec2 wait instance-terminated --instance-ids {id}")).await;

        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        // Beyond AWS CLI's 8 MiB threshold, so that it goes up in parts with checksums as trailers.
        let bytes: Vec<u8> = (0u32..5_000_000).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&from, &bytes).unwrap();
        let aws = python().with_file_name("aws");
        let copy = async |a: &str, b: &str| client.succeed(&aws, &["s3", "cp", "--no-progress", a, b]).await;
        client.succeed(&aws, &["s3", "mb", "s3://cli"]).await;
        copy(&from.display().to_string(), "s3://cli/some/where").await;
        copy("s3://cli/some/where", &to.display().to_string()).await;
        assert!(std::fs::read(&to).unwrap() == bytes, "the copy is another");
        client.succeed(&aws, &["s3", "rb", "--force", "s3://cli"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packer_builds_an_image_and_leaves_nothing_else() {
    in_region("packer-test", Backing::Containers, async |client| {
        let images = client.aws("ec2 describe-images --owners self").await;
        let source = images["Images"][0]["ImageId"].as_str().expect("a base image; `cargo xtask test` makes it");
        let (endpoint, source) = (format!("endpoint={}", client.endpoint()), format!("source_ami={source}"));
        let build = ["build", "-color=false", "-var", &endpoint, "-var", &source, &beside("packer.json")];
        client.succeed(Path::new("packer"), &build).await;

        let made = client.aws("ec2 describe-images --filters Name=name,Values=made-by-packer").await;
        assert_eq!(made["Images"][0]["State"], "available");
        assert_eq!(made["Images"][0]["Tags"][0]["Value"], "packer");
        let snapshots = client.aws("ec2 describe-snapshots --owner-ids self").await;
        assert_eq!(snapshots["Snapshots"][0]["Tags"][0]["Value"], "packer");
        let groups = client.aws("ec2 describe-security-groups").await;
        assert_eq!(groups["SecurityGroups"].as_array().unwrap().len(), 1, "the default group alone");
        assert_eq!(client.aws("ec2 describe-key-pairs").await["KeyPairs"], Value::Array(Vec::new()));
        let alive = "ec2 describe-instances --filters Name=instance-state-name,Values=pending,running,stopping,stopped";
        assert_eq!(client.aws(alive).await["Reservations"], Value::Array(Vec::new()));
    })
    .await;
}
