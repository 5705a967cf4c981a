//! The pinned session and what runs over it, against a real sshd in a container of the recipe's root.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use alcedo_images::{
    Engine, base_match,
    console::{self, ConsoleError, PinnedHostKeys},
    event::{Sink, silent},
    key::EphemeralKey,
    provision::{self, LoadedStep, ProvisionError, ProvisionInput},
    scrub,
    session::{self, Session, SessionError, SshTarget},
};
use alcedo_smoke_tests::{Shell, ShellCommand, Target, suite};
use bollard::{
    container::LogOutput,
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, LogsOptions, RemoveContainerOptions, StartContainerOptions,
    },
};
use common::{base, engine, lines, recording};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// Prints its host keys as cloud-init does, then serves. `-e` puts sshd's log beside them: the container's log is the
/// server's console.
const BOOT: &str = r#"
set -eu
ssh-keygen -q -A
mkdir -p /run/sshd
install -d -m 0700 -o admin -g admin /home/admin/.ssh
printf '%s\n%s\n' "$KEY" 'ssh-ed25519 AAAAother somebody' >/home/admin/.ssh/authorized_keys
chown admin:admin /home/admin/.ssh/authorized_keys
echo '-----BEGIN SSH HOST KEY FINGERPRINTS-----'
for file in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -l -f "$file"; done
echo '-----END SSH HOST KEY FINGERPRINTS-----'
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
exec /usr/sbin/sshd -D -e -o LogLevel=VERBOSE
"#;

/// A server, removed when the test is done with it.
struct Server {
    engine: Engine,
    id: String,
    target: SshTarget,
}

impl Server {
    async fn boot(key: &EphemeralKey) -> Self {
        let engine = engine().await;
        let base = base(&engine).await;
        let any_port = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some("0".into()) };
        let body = ContainerCreateBody {
            image: Some(base.reference),
            entrypoint: Some(vec!["sh".into(), "-c".into()]),
            cmd: Some(vec![BOOT.into()]),
            env: Some(vec![format!("KEY={}", key.public())]),
            labels: Some(HashMap::from([("io.alcedo.test".to_owned(), "ssh".to_owned())])),
            exposed_ports: Some(vec!["22/tcp".into()]),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                port_bindings: Some(HashMap::from([("22/tcp".to_owned(), Some(vec![any_port]))])),
                ..Default::default()
            }),
            ..Default::default()
        };
        let docker = engine.docker();
        let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
        docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
        let facts = docker.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap();
        let ports = facts.network_settings.unwrap().ports.unwrap();
        let port = ports["22/tcp"].as_ref().unwrap()[0].host_port.as_ref().unwrap().parse().unwrap();
        let target = SshTarget { host: "127.0.0.1".into(), port, user: "admin".into() };
        Self { engine, id, target }
    }

    async fn console(&self) -> String {
        let options = LogsOptions { stdout: true, stderr: true, ..Default::default() };
        let mut logs = self.engine.docker().logs(&self.id, Some(options));
        let mut text = String::new();
        while let Some(chunk) = logs.next().await {
            if let LogOutput::StdOut { message } | LogOutput::StdErr { message } = chunk.unwrap() {
                text += &String::from_utf8_lossy(&message);
            }
        }
        text
    }

    /// What sshd says is in the console a moment later.
    async fn until_console_tells(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.console().await.contains(text) {
            assert!(Instant::now() < deadline, "the console does not tell {text:?}: {}", self.console().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for the console as a bake does.
    async fn pins(&self) -> PinnedHostKeys {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match console::host_keys(&self.console().await) {
                Ok(pins) => return pins,
                Err(ConsoleError::NotYet) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}: {}", self.console().await),
            }
        }
    }

    async fn connect(&self, key: &EphemeralKey) -> Session {
        session::connect(&self.target, key, &self.pins().await, Duration::from_secs(30)).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let options = RemoveContainerOptions { force: true, ..Default::default() };
                let _ = engine.docker().remove_container(&id, Some(options)).await;
            });
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_over_a_pinned_session() {
    let key = EphemeralKey::generate("alcedo test").await.unwrap();
    let server = Server::boot(&key).await;
    let session = server.connect(&key).await;

    let output = session.run(&ShellCommand::new("id -un; echo oops >&2; exit 3")).await.unwrap();
    assert_eq!((output.exit_code, &*output.stdout, &*output.stderr), (3, "admin\n", "oops\n"));
    assert_eq!(session.run(&ShellCommand::as_root("id -un")).await.unwrap().stdout, "root\n");
    let nasty = "it's \"$HOME\" `id`\n\\";
    let quoted = alcedo_smoke_tests::shell::quote(nasty);
    assert_eq!(session.run(&ShellCommand::new(format!("printf %s {quoted}"))).await.unwrap().stdout, nasty);
    assert_eq!(session.run(&ShellCommand::new("no-such-command")).await.unwrap().exit_code, 127);
    assert_eq!(session.run(&ShellCommand::new("kill -9 $$")).await.unwrap().exit_code, 255);

    // More than any buffer on the way, both ways.
    let (sink, seen) = recording();
    let long = format!(": {}\nseq 200000 | tail -n 100000\nexit 4\n", "x".repeat(3 << 20));
    let ended = session.run_program(&long, true, &sink).await.unwrap();
    assert_eq!((ended.exit_code, ended.last_lines.last().map(String::as_str)), (4, Some("200000")));
    assert!(!lines(&seen).is_empty());

    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_key_ends_it_before_anything_is_sent() {
    let key = EphemeralKey::generate("alcedo test").await.unwrap();
    let server = Server::boot(&key).await;
    server.pins().await;
    // Well-formed, and of no key that this server has.
    let wrong = PinnedHostKeys::new(vec![format!("SHA256:{}", "A".repeat(43))], Vec::new()).unwrap();
    let begun = Instant::now();
    let error = session::connect(&server.target, &key, &wrong, Duration::from_secs(60)).await.unwrap_err();
    let SessionError::HostKey { shown, pinned, .. } = &error else { panic!("{error:?}") };
    assert!(!shown.is_empty() && *pinned == wrong.fingerprints());
    assert!(begun.elapsed() < Duration::from_secs(30), "it does not wait for an impostor to go away");
    let log = server.console().await;
    assert!(!log.contains("admin from") && !log.contains("publickey"), "no login was begun: {log}");

    // The same check for the check: with the right pin, the same log does tell of the login.
    server.connect(&key).await.close().await.unwrap();
    server.until_console_tells("Accepted publickey for admin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_not_let_in() {
    let key = EphemeralKey::generate("alcedo test").await.unwrap();
    let server = Server::boot(&key).await;
    let other = EphemeralKey::generate("alcedo test").await.unwrap();
    let pins = server.pins().await;
    let error = session::connect(&server.target, &other, &pins, Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(&error, SessionError::Connect { user, .. } if user == "admin"), "{error:?}");
}

fn input(steps: Vec<LoadedStep>) -> ProvisionInput {
    ProvisionInput {
        app: "hello".into(),
        version: "1.2.3".into(),
        install_path: "/opt/hello".into(),
        artifact_url: "http://127.0.0.1:9/artifact".into(),
        artifact_sha256: "0".repeat(64),
        steps,
    }
}

fn commands(commands: &str) -> LoadedStep {
    let environment = BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]);
    LoadedStep::Run { commands: commands.into(), environment }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_is_provisioned_checked_and_scrubbed() {
    let key = EphemeralKey::generate("alcedo test").await.unwrap();
    let server = Server::boot(&key).await;
    let session = server.connect(&key).await;
    let cancel = CancellationToken::new();

    // The steps of the project, without the fetch, which needs an artifact's server.
    let project = vec![
        // What any process's arguments show, taken while the step runs, must not have the secret.
        commands(
            "pwd; id -un; ps -ef >/tmp/processes 2>/dev/null || cat /proc/*/cmdline >/tmp/processes; ! grep -q s3cret /tmp/processes",
        ),
        commands(
            "useradd --system hello; printf '%s\\n' \"$ALCEDO_APP $ALCEDO_VERSION $TOKEN\" >/etc/hello.env; chmod 600 /etc/hello.env",
        ),
    ];
    let steps = provision::plan(&input(project)).unwrap().split_off(1);
    session.run_program("mkdir -p /opt/hello", true, &silent()).await.unwrap();
    let (sink, seen) = recording();
    provision::execute(&session, &steps, &key, &sink, &cancel).await.unwrap();
    assert_eq!(lines(&seen), ["/opt/hello", "root"]);

    let checks = suite::load(
        r#"
- file: { path: /etc/hello.env, mode: "0600", owner: root, contains: "hello 1.2.3 s3cret" }
- user: { name: hello }
- package: { name: openssh-server }
- package: { name: gcc, installed: false }
- port: { number: 22 }
- command: { line: "id -un", stdout_contains: admin }
- file: { path: /etc/gone, exists: true }
"#,
    )
    .unwrap();
    let report =
        alcedo_smoke_tests::run(&checks, &Target::server("127.0.0.1", 8080).unwrap(), Some(&session), &|_| {}).await;
    let failed: Vec<_> = report.failures().map(|result| result.failure.as_ref().unwrap().to_string()).collect();
    assert_eq!(failed, ["expected /etc/gone to exist, got nothing there"]);

    let facts = base_match::ask(&session).await.unwrap();
    assert_eq!((&*facts.platform.os, &*facts.platform.os_version), ("debian", "12"));
    assert!(facts.libraries.contains("libc.so.6"));

    scrub::scrub(&session, &scrub::steps(key.public_base64()), &silent()).await.unwrap();
    let left = session
        .run(&ShellCommand::as_root(
            "ls /etc/ssh/ssh_host_* 2>/dev/null; wc -c </etc/machine-id; cat /home/admin/.ssh/authorized_keys; ls /tmp /var/lib/apt/lists; cat /etc/hello.env",
        ))
        .await
        .unwrap();
    // Host keys and temporary files are gone, the identity is empty, somebody else's key and the app's files are kept.
    assert_eq!(
        left.stdout, "0\nssh-ed25519 AAAAother somebody\n/tmp:\n\n/var/lib/apt/lists:\nhello 1.2.3 s3cret\n",
        "{left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_and_a_failing_fetch_are_told_apart() {
    let key = EphemeralKey::generate("alcedo test").await.unwrap();
    let server = Server::boot(&key).await;
    let session = server.connect(&key).await;
    let cancel = CancellationToken::new();
    session.run_program("mkdir -p /opt/hello", true, &silent()).await.unwrap();

    let steps = provision::plan(&input(vec![commands("echo the reason >&2; exit 74")])).unwrap();
    let error = provision::execute(&session, &steps[1..], &key, &silent(), &cancel).await.unwrap_err();
    let ProvisionError::Step { exit_code: 74, last_lines, .. } = &error else { panic!("{error:?}") };
    assert_eq!(last_lines, &["the reason"]);

    // Nobody listens at the artifact's address. curl would go on trying for 15 s: cancelling ends the wait.
    let begun = Instant::now();
    let cancelling: Sink = {
        let cancel = cancel.clone();
        Arc::new(move |_| cancel.cancel())
    };
    let error = provision::execute(&session, &steps[..1], &key, &cancelling, &cancel).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(matches!(error, ProvisionError::Cancelled), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playbook_runs_over_the_pinned_connection() {
    let key = EphemeralKey::generate("alcedo test").await.unwrap();
    let server = Server::boot(&key).await;
    let session = server.connect(&key).await;
    let project = tempfile::tempdir().unwrap();
    let playbook = "- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        dest: /etc/motd
        content: \"{{ greeting }} from {{ alcedo_app }} {{ alcedo_version }}\"
    - ansible.builtin.command: 'false'
      when: broken | default(false) | bool
";
    common::write(project.path(), &[("ansible/site.yml", playbook)]);
    let step = |extra: serde_json::Value| {
        let ansible = serde_json::json!({ "ansible": { "playbook": "ansible/site.yml", "extra_vars": extra } });
        let step = serde_json::from_value(ansible).unwrap();
        let loaded = provision::load(project.path(), &[step]).unwrap();
        provision::plan(&input(loaded)).unwrap().split_off(1)
    };
    let cancel = CancellationToken::new();
    let steps = step(serde_json::json!({ "greeting": "s3cret hello" }));
    let (sink, seen) = recording();
    provision::execute(&session, &steps, &key, &sink, &cancel)
        .await
        .unwrap_or_else(|error| panic!("{error:?} {:?}", error.hint()));
    assert!(lines(&seen).iter().any(|line| line.contains("PLAY RECAP")));
    let motd = session.run(&ShellCommand::new("cat /etc/motd")).await.unwrap();
    assert_eq!(motd.stdout, "s3cret hello from hello 1.2.3");

    let steps = step(serde_json::json!({ "greeting": "x", "broken": "true" }));
    let error = provision::execute(&session, &steps, &key, &silent(), &cancel).await.unwrap_err();
    assert!(matches!(&error, ProvisionError::Step { exit_code: 2, .. }), "{error:?}");
    assert!(error.last_lines().iter().any(|line| line.contains("failed=1")), "{error:?}");
}
