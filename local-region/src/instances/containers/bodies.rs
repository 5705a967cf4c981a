//! What an instance's two containers are made of.
//!
//! The *interface* stands for the instance's elastic network interface: it owns the network namespace with the address and
//! the firewall, and stays while the server stops and starts. The *server* runs the image's own init in that namespace,
//! without the right to change it. Neither is privileged, and neither sees a cgroup that is not its own.

use std::{collections::HashMap, net::Ipv4Addr};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, NetworkingConfig, ResourcesUlimits,
};
use nix::sys::resource::{Resource, getrlimit};

use super::{
    engine::Engine,
    names::{INSTANCE_LABEL, Names, REGION_LABEL},
};
use crate::instances::MachineSpec;

/// Where the interface keeps its rulesets: in its own file system, so that they outlive a restart of the engine.
pub const RULESETS: &str = "/var/lib/alcedo-interface";

/// The exit code of an init process that asked the kernel to reboot: killed by SIGHUP, see reboot(2) on PID namespaces.
pub const REBOOT_EXIT_CODE: i64 = 128 + 1;

/// systemd's "halt" (systemd(1), *Signals*); its answer to SIGTERM in a container is to re-execute itself.
const HALT_SIGNAL: &str = "SIGRTMIN+3";

/// What systemd, sshd, sudo and package installation need; each was found by leaving it out.
const GUEST_CAPABILITIES: [&str; 14] = [
    // Ordinary file and process administration by the guest's root.
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "SETFCAP",
    // Ports below 1024; sshd's unprivileged child; PAM's records of logins.
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    // systemd makes cgroups and mounts for its units. It acts on the container's own namespaces only.
    "SYS_ADMIN",
    // Lets the kernel tell a reboot from a halt. It acts on the container's own PID namespace; the engine's default
    // seccomp profile, which stays on, refuses kexec.
    "SYS_BOOT",
];

/// What PID 1 does before it becomes the guest's init: engines hand over the container's own cgroup tree read-only, and
/// systemd has to write it. On cgroup v1, systemd needs only the hierarchy that is named after it.
const BOOT: &str = "\
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then tree=/sys/fs/cgroup; else tree=/sys/fs/cgroup/systemd; fi
mount -o remount,bind,rw \"$tree\" && container=docker exec /sbin/init";

/// The memory that a shell and the `nft` of a moment need, with room for thousands of rules.
const INTERFACE_MEMORY_BYTES: i64 = 64 << 20;

/// How much of a console is kept: two files of this size.
const CONSOLE_FILE: &str = "1m";

/// What the interface answers to an order, before the order's own word: nft has taken all rulesets, or has not.
pub const LOADED: &str = "loaded";
pub const REFUSED: &str = "refused";

/// The interface's container, from an image that has `nft`.
pub fn interface(engine: &Engine, names: &Names, spec: &MachineSpec, image: &str) -> ContainerCreateBody {
    // The rules come first: whoever restarts this container by other means than the region gets no open port.
    let script = format!(
        "for rules in {RULESETS}/*.nft; do nft -f \"$rules\" || exit 1; done
while read -r order; do if cat {RULESETS}/*.nft | nft -f -; then echo \"{LOADED} $order\"; else echo \"{REFUSED} $order\"; fi; done
exec sleep infinity"
    );
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(spec.private_ip.to_string()),
            ..EndpointIpamConfig::default()
        }),
        mac_address: Some(mac_address(spec.private_ip)),
        ..EndpointSettings::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        // The server shares it, and /etc/hosts, with the network.
        hostname: Some(spec.hostname.clone()),
        entrypoint: Some(shell(&script)),
        cmd: Some(Vec::new()),
        // Orders to load the rules anew come here; to have the engine start a process for each takes a tenth of a second.
        open_stdin: Some(true),
        labels: Some(labels(names, &spec.instance_id)),
        host_config: Some(HostConfig {
            network_mode: Some(names.network()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(vec!["NET_ADMIN".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            memory: engine.limits_memory.then_some(INTERFACE_MEMORY_BYTES),
            ulimits: ulimits(engine),
            // As on a machine: engines let anybody listen on any port.
            sysctls: Some(HashMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned())])),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(names.network(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

/// The server's container, in the network of its interface.
pub fn server(engine: &Engine, names: &Names, spec: &MachineSpec) -> ContainerCreateBody {
    let capabilities = GUEST_CAPABILITIES.iter().map(ToString::to_string).collect();
    // docker-default denies every mount, also those in the container's own namespace.
    let security_opt = engine.has_apparmor.then(|| vec!["apparmor=unconfined".to_owned()]);
    // An engine refuses more CPUs than it has; then all of them are what the server gets.
    let nano_cpus = (engine.limits_cpu && spec.vcpus < engine.cpus).then(|| i64::from(spec.vcpus) * 1_000_000_000);
    let memory = engine.limits_memory.then(|| i64::from(spec.memory_mib) << 20);
    let run = |size: &str| format!("rw,nosuid,nodev,mode=755,size={size}");
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(shell(BOOT)),
        cmd: Some(Vec::new()),
        tty: Some(true),
        stop_signal: Some(HALT_SIGNAL.to_owned()),
        labels: Some(labels(names, &spec.instance_id)),
        host_config: Some(HostConfig {
            network_mode: Some(format!("container:{}", names.interface(&spec.instance_id))),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(capabilities),
            security_opt,
            tmpfs: Some(HashMap::from([("/run".to_owned(), run("256m")), ("/run/lock".to_owned(), run("5m"))])),
            memory,
            nano_cpus,
            log_config: Some(HostConfigLogConfig {
                // The one driver whose log both engines can give back and bound.
                typ: Some("json-file".to_owned()),
                config: Some(console_bounds(engine)),
            }),
            ulimits: ulimits(engine),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The MAC address of the interface with `address`: a locally administered one, as Docker before 28 chose by default.
pub fn mac_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

fn labels(names: &Names, instance_id: &str) -> HashMap<String, String> {
    HashMap::from([
        (REGION_LABEL.to_owned(), names.region().to_owned()),
        (INSTANCE_LABEL.to_owned(), instance_id.to_owned()),
    ])
}

fn console_bounds(engine: &Engine) -> HashMap<String, String> {
    let mut bounds = HashMap::from([("max-size".to_owned(), CONSOLE_FILE.to_owned())]);
    // Podman keeps one file and refuses to be told how many.
    if !engine.is_podman {
        bounds.insert("max-file".to_owned(), "2".to_owned());
    }
    bounds
}

/// Podman raises the limits of what it starts to defaults of its own, which fails where it may not raise its own limits
/// (inside another container, or without CAP_SYS_RESOURCE). The limits of this process are limits that this machine
/// grants; and Podman lowers its own number of processes to the kernel's.
fn ulimits(engine: &Engine) -> Option<Vec<ResourcesUlimits>> {
    if !engine.is_podman {
        return None;
    }
    let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let limit = |name: &str, resource, most: u64| {
        let (soft, hard) = getrlimit(resource).ok()?;
        let count = |limit: u64| i64::try_from(limit.min(most)).unwrap_or(-1);
        Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(count(soft)), hard: Some(count(hard)) })
    };
    let files = limit("nofile", Resource::RLIMIT_NOFILE, u64::MAX);
    let processes = limit("nproc", Resource::RLIMIT_NPROC, pid_max.unwrap_or(u64::MAX));
    Some(files.into_iter().chain(processes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_follows_from_the_address() {
        assert_eq!(mac_address(Ipv4Addr::new(10, 213, 0, 4)), "02:42:0a:d5:00:04");
    }
}
