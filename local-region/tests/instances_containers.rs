//! Servers as containers, with a real engine: boot, logins, firewall, metadata, console, capture, removal.
//!
//! Needs a container engine with the base image, as `cargo xtask test` sets them up; without them every test fails and
//! says what is missing.

mod instances_support;

use std::time::{Duration, Instant};

use alcedo_local_region::instances::Machines;
use bollard::query_parameters::ListContainersOptionsBuilder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use instances_support::{BOOT, connect, in_region, until};

/// Tells one boot of a guest from another: when its systemd started, by the machine's clock. Through sudo, as only root
/// reaches systemd before D-Bus is up.
const BOOT_ID: &str = "sudo systemctl show -P UserspaceTimestampMonotonic";

/// Loose enough for a machine that compiles meanwhile; an idle one takes about a second.
const BOOT_TO_SSH_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_logins_soon_after_launch() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        let began = Instant::now();
        region.machines.launch(&spec, &[region.ssh_from_here()]).await.expect("launched");
        let launched = began.elapsed();
        let booted = until(BOOT, async || connect(&spec).await.is_some()).await.expect("sshd answers");
        println!("launch {launched:?}, then to SSH {booted:?}");
        assert!(launched + booted < BOOT_TO_SSH_LIMIT, "{launched:?} + {booted:?}");

        region.wait_for_ssh(&spec).await;
        assert_eq!(region.ask(&spec, "hostname").await, spec.hostname);
        assert_eq!(region.ask(&spec, "sudo -n id -un").await, "root");
        assert_eq!(region.booted(&spec).await, "running", "{}", region.ask(&spec, "sudo systemctl --failed").await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_firewall_lets_in_what_its_rules_say_from_then_on() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        region.machines.launch(&spec, &[]).await.expect("launched");
        region.wait_for_console(&spec, "END SSH HOST KEY KEYS").await;
        assert!(connect(&spec).await.is_none(), "no rule, no connection");

        region.machines.set_firewall(&spec.instance_id, &[region.ssh_from_here()]).await.expect("opened");
        let mut established = None;
        let open = async || {
            established = connect(&spec).await;
            established.is_some()
        };
        until(BOOT, open).await.expect("a connection once there is a rule");
        let mut established = established.expect("a connection");

        // Opened and closed twice in a row: the last word counts, and saying it twice changes nothing.
        for _ in 0..2 {
            region.machines.set_firewall(&spec.instance_id, &[]).await.expect("closed");
        }
        assert!(connect(&spec).await.is_none(), "new connections fail after the rule is gone");
        established.write_all(b"SSH-2.0-test\r\n").await.expect("an established connection stays");
        let mut answer = [0; 64];
        let read = tokio::time::timeout(BOOT, established.read_exact(&mut answer)).await;
        read.expect("an answer in time").expect("an established connection is answered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_cannot_change_its_firewall() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        region.launch_and_reach(&spec).await;
        let flush = region.ssh(&spec, "sudo nft flush ruleset").await;
        assert!(!flush.status.success(), "a guest's root must not be able to open its own ports");
        let add = region.ssh(&spec, "sudo ip addr add 10.213.9.9/16 dev eth0").await;
        assert!(!add.status.success(), "nor to take another's address");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_finds_the_metadata_service_and_names() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        region.launch_and_reach(&spec).await;
        let status = "curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/instance-id";
        assert_eq!(region.ask(&spec, status).await, "401", "IMDSv2 only");
        let with_token = "token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
                          http://169.254.169.254/latest/api/token) && curl -sf -H \"X-aws-ec2-metadata-token: $token\" \
                          http://169.254.169.254/latest/meta-data/instance-id";
        assert_eq!(region.ask(&spec, with_token).await, spec.instance_id);
        // The engine's DNS is reached through rules of its own in the same network, which ours must leave alone.
        let neighbour = format!("getent hosts alcedo-{}-{}-eni | cut -d' ' -f1", region.name, spec.instance_id);
        assert_eq!(region.ask(&spec, &neighbour).await, spec.private_ip.to_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_data_runs_once_over_reboots_stops_and_starts() {
    in_region(async |region| {
        let script = "#!/bin/sh\necho ran >>/root/runs\necho user data says hello\n";
        let spec = region.server(10, &region.base.reference, Some(script));
        region.launch_and_reach(&spec).await;
        let console = region.wait_for_console(&spec, "user data ended with exit code 0").await;
        assert!(console.contains("\nuser data says hello\n"), "{console}");
        let host_key = region.ask(&spec, "cat /etc/ssh/ssh_host_ed25519_key.pub").await;

        let before = region.ask(&spec, BOOT_ID).await;
        region.machines.reboot(&spec.instance_id).await.expect("rebooted");
        region.wait_for_ssh(&spec).await;
        assert_ne!(region.ask(&spec, BOOT_ID).await, before, "systemd started anew");

        region.machines.stop(&spec.instance_id).await.expect("stopped");
        region.machines.stop(&spec.instance_id).await.expect("stopped twice");
        assert!(!region.machines.is_running(&spec.instance_id).await.expect("known"));
        assert!(connect(&spec).await.is_none());
        region.machines.start(&spec.instance_id).await.expect("started");
        region.machines.start(&spec.instance_id).await.expect("started twice");
        assert!(region.machines.is_running(&spec.instance_id).await.expect("known"));
        region.wait_for_ssh(&spec).await;

        region.booted(&spec).await;
        assert_eq!(region.ask(&spec, "sudo cat /root/runs").await, "ran");
        assert_eq!(region.ask(&spec, "cat /etc/ssh/ssh_host_ed25519_key.pub").await, host_key);
        let console = region.console(&spec).await;
        assert!(console.contains("\nuser data says hello\n"), "the console outlives a stop:\n{console}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_reboots_itself_comes_back_and_one_that_powers_off_stays_off() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        region.launch_and_reach(&spec).await;
        let before = region.ask(&spec, BOOT_ID).await;
        // The connection ends with the guest, so the command's own outcome says nothing.
        region.ssh(&spec, "sudo systemctl reboot").await;
        let again = async || {
            let output = region.ssh(&spec, BOOT_ID).await;
            output.status.success() && String::from_utf8_lossy(&output.stdout).trim() != before
        };
        until(BOOT, again).await.expect("back after its reboot");

        region.ssh(&spec, "sudo systemctl poweroff").await;
        let off = async || !region.machines.is_running(&spec.instance_id).await.expect("known");
        until(BOOT, off).await.expect("off after its poweroff");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_data_that_is_no_script_is_refused_on_the_console() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, Some("#cloud-config\npackages: [nginx]\n"));
        region.machines.launch(&spec, &[]).await.expect("launched");
        region.wait_for_console(&spec, "alcedo: user data of the kind #cloud-config is not run").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_shows_the_host_keys_that_sshd_offers() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        region.launch_and_reach(&spec).await;
        let console = region.console(&spec).await;
        let block = |name: &str| {
            let (begin, end) =
                (format!("-----BEGIN SSH HOST KEY {name}-----\n"), format!("-----END SSH HOST KEY {name}"));
            let (_, rest) = console.split_once(&begin).unwrap_or_else(|| panic!("no {name} in:\n{console}"));
            rest.split_once(&end).unwrap_or_else(|| panic!("no end of {name} in:\n{console}")).0.to_owned()
        };
        let (fingerprints, keys) = (block("FINGERPRINTS"), block("KEYS"));

        let scan =
            Command::new("ssh-keyscan").args(["-t", "ed25519,ecdsa", &spec.private_ip.to_string()]).output().await;
        let scanned = String::from_utf8(scan.expect("openssh-client is installed").stdout).expect("text");
        let offered: Vec<_> = scanned.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(offered.len(), 2, "{scanned}");
        let folder = tempfile::tempdir().expect("a folder");
        for (number, line) in offered.iter().enumerate() {
            let key = line.split_once(' ').expect("a host and a key").1;
            assert!(keys.contains(key), "{key} is not in:\n{keys}");
            let file = folder.path().join(number.to_string());
            std::fs::write(&file, key).expect("written");
            let listed = Command::new("ssh-keygen").arg("-lf").arg(&file).output().await.expect("listed");
            let listed = String::from_utf8(listed.stdout).expect("text");
            let fingerprint = listed.split(' ').nth(1).expect("SHA256:…");
            assert!(fingerprint.starts_with("SHA256:") && fingerprints.contains(fingerprint), "{fingerprints}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_image_boots_as_a_server_of_its_own() {
    in_region(async |region| {
        let builder = region.server(10, &region.base.reference, None);
        region.launch_and_reach(&builder).await;
        // As a bake does before it makes an image; the host keys are left, so that the guest has to replace them.
        region.ask(&builder, "echo baked | sudo tee /etc/baked && : | sudo tee /etc/machine-id && sync").await;
        let image = region.machines.capture(&builder.instance_id, "Hello (1)").await.expect("captured");
        assert!(image.size_bytes >= region.base.size_bytes);
        let again = region.machines.capture(&builder.instance_id, "Hello (1)").await.expect("captured again");
        assert_eq!(again.reference, image.reference);

        let server = region.server(11, &image.reference, None);
        region.launch_and_reach(&server).await;
        assert_eq!(region.ask(&server, "cat /etc/baked").await, "baked");
        assert_eq!(region.ask(&server, "hostname").await, server.hostname);
        assert_eq!(region.booted(&server).await, "running");
        for file in ["/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_ecdsa_key.pub"] {
            let read = format!("cat {file}");
            assert_ne!(region.ask(&builder, &read).await, region.ask(&server, &read).await, "{file}");
        }
        let machine_id = region.ask(&server, "cat /etc/machine-id").await;
        assert_eq!(machine_id.len(), 32, "{machine_id}");

        let bases = region.machines.base_images().await.expect("listed");
        assert!(bases.iter().all(|base| base.reference != image.reference), "a captured image is no recipe's root");

        // Removed while a server runs from it: the server stays, the image goes with it.
        region.machines.terminate(&builder.instance_id).await.expect("terminated");
        region.machines.remove_image(&image.reference).await.expect("removed");
        region.ask(&server, "true").await;
        region.machines.terminate(&server.instance_id).await.expect("terminated");
        let engine = alcedo_local_region::instances::containers::engine::Engine::find().await.expect("an engine");
        let left = engine.docker.inspect_image(&image.reference).await;
        assert!(left.is_err(), "{left:?}");
        region.machines.remove_image(&image.reference).await.expect("removed twice");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_server_leaves_nothing() {
    in_region(async |region| {
        let spec = region.server(10, &region.base.reference, None);
        region.machines.launch(&spec, &[region.ssh_from_here()]).await.expect("launched");
        region.machines.launch(&spec, &[region.ssh_from_here()]).await.expect("launched twice is launched once");
        let engine = alcedo_local_region::instances::containers::engine::Engine::find().await.expect("an engine");
        let filters = [("label".to_owned(), vec![format!("io.alcedo.region={}", region.name)])].into();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let count = async || engine.docker.list_containers(Some(options.clone())).await.expect("listed").len();
        assert_eq!(count().await, 2, "a server and its interface");

        let (one, other) =
            tokio::join!(region.machines.terminate(&spec.instance_id), region.machines.terminate(&spec.instance_id));
        one.and(other).expect("terminated, by two at once");
        assert_eq!(count().await, 0);
        assert!(!region.machines.is_running(&spec.instance_id).await.expect("known"));
        region.machines.terminate(&spec.instance_id).await.expect("terminated once more");
        assert!(region.machines.console(&spec.instance_id).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_that_fails_says_why_and_leaves_nothing() {
    in_region(async |region| {
        let spec = region.server(10, "alcedo/no-such-image:0", None);
        let error = region.machines.launch(&spec, &[]).await.expect_err("there is no such image");
        assert!(error.to_string().contains(&spec.instance_id), "{error}");
        assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("alcedo/no-such-image:0")), "{:?}", error.hint);
        // The address is free again.
        let spec = region.server(10, &region.base.reference, None);
        region.machines.launch(&spec, &[]).await.expect("launched");
    })
    .await;
}
