//! The texts: `alcedo.yaml`, the service and the provisioning script.

use std::fmt::Write as _;

use super::app::{Guess, Kind};

/// The port of the listener in the local region: free on most machines, and not one that the region itself uses.
const LOCAL_LISTENER_PORT: u16 = 8600;

/// Debian's account at AWS, the owner of its images (wiki.debian.org/Cloud/AmazonEC2Image).
const DEBIAN_ACCOUNT: &str = "136693071363";

/// `text` as a YAML scalar that is read back as this very text, without quotes where it needs none.
fn yaml(text: &str) -> String {
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "./".contains(c));
    let visible = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let itself = || matches!(serde_yaml::from_str(text), Ok(serde_yaml::Value::String(read, _)) if read == text);
    // JSON's strings are YAML's double-quoted ones.
    if begins && visible && itself() { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The same within brackets, where a comma or a bracket would end it.
fn yaml_in_list(text: &str) -> String {
    if text.contains([',', '[', ']', '{', '}']) { serde_json::Value::from(text).to_string() } else { yaml(text) }
}

fn list<S: AsRef<str>>(items: &[S]) -> String {
    format!("[{}]", items.iter().map(|item| yaml_in_list(item.as_ref())).collect::<Vec<_>>().join(", "))
}

/// The text of `alcedo.yaml`.
pub(super) fn pipeline(guess: &Guess) -> String {
    let app = &guess.app;
    let mut text = format!(
        "# How {app} gets from a commit to calm traffic on new servers. It was written for {kind};\n\
         # look at what it guesses. Every key there is: docs/alcedo.yaml. Is it right? alcedo validate\n\
         app: {app}\n\
         default_environment: local\n\n\
         # In a container with the same root as the servers, so that what is built there runs there.\n\
         build:\n\
         \x20 recipe: debian-bookworm\n",
        kind = guess.kind,
    );
    build(&mut text, guess);
    let _ = write!(
        text,
        "
# Artifacts, manifests, journals and the lock are kept in this bucket.
publish:
  bucket: alcedo-local
  keep: 20 # versions

# A server image: the recipe's root, the artifact in {path}, and what deploy/provision.sh does to it.
bake:
  base: {{ recipe: debian-bookworm }}
  security_group: {app}-builder # SSH is opened in it for this machine alone, and only while needed
  provision:
    - script: deploy/provision.sh
  checks: # what must hold, or there is no image
    - service: {{ name: {app}, enabled: true }}
    - command: {{ line: systemd-analyze verify /etc/systemd/system/{app}.service }}

# The new fleet. It gets traffic when all of it is healthy and the smoke tests pass.
launch:
  count: 2
  instance_type: t3.small
  subnets: [a, b] # ids or Name tags, in different zones
  security_groups: [{app}]
  port: {port} # where the app listens
  health_check: {{ path: {health}, interval: 5s, timeout: 2s }}
  deregistration_delay: 30s # longer than the longest request

smoke_tests:
  - http: {{ path: {health}, status: 200, within: 2s }}

flip:
  listener: {{ load_balancer: {app}, port: {LOCAL_LISTENER_PORT} }}
  preview: # how the new fleet is reached before it has traffic
    header: {{ name: X-Alcedo-Preview, value: green }}
  # With an address that answers the version, the flip is proven by the servers' own answers. They find the version in
  # /etc/{app}.env, which deploy/provision.sh writes.
  # version: {{ path: /version }}
{keep_alive}
# The old fleet stays ready that long; until then, a rollback is one change of the listener.
hold: {{ for: 5m }}

# What differs from the above: maps merge, lists and single values replace, null removes.
environments:
  # Real servers in containers, on this machine. Try it: alcedo deploy
  local:
    aws: {{ endpoint: local }}
    hold: {{ for: 10s }}

  # On AWS. Put in your names and take the marks away; then `alcedo doctor --env production` looks at each of them.
  # production:
  #   aws: {{ region: eu-west-1 }}
  #   publish: {{ bucket: {app}-releases }}
  #   bake:
  #     # Debian's own images. Whether the artifact fits them is checked on the builder.
  #     base: {{ recipe: null, owner: \"{DEBIAN_ACCOUNT}\", name: debian-12-amd64-* }}
  #   launch:
  #     count: 3
  #     subnets: [{app}-a, {app}-b, {app}-c]
  #   flip:
  #     listener: {{ load_balancer: {app}, port: 443 }}
  #   hold: {{ for: 30m }}
",
        path = guess.install_path(),
        port = guess.port,
        health = guess.health,
        keep_alive = keep_alive(guess.kind),
    );
    text
}

/// Node.js announces that it closes idle connections after 5 s (`server.keepAliveTimeout`, Node.js HTTP documentation), which a
/// deploy would refuse. Python's servers do the same without a word, which a deploy sees only where its smoke tests take longer
/// (uvicorn's and gunicorn's settings, `--timeout-keep-alive` and `--keep-alive`).
fn keep_alive(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => {
            "  # Node.js closes idle connections after 5 s, a balancer after 60 s: now and then a visitor gets 502. With\n  \
             # `server.keepAliveTimeout = 65_000` in the app, this line can go.\n  keep_alive: warn\n"
        }
        Kind::Python => {
            "  # Idle connections: a balancer closes them after 60 s, uvicorn after 5 s (--timeout-keep-alive), gunicorn's threads\n  \
             # after 2 s (--keep-alive). Start either with 65, or now and then a visitor gets 502, and a deploy whose smoke\n  \
             # tests take longer is refused.\n"
        }
        _ => "",
    }
}

fn build(text: &mut String, guess: &Guess) {
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    if !guess.build_packages.is_empty() {
        line("  # Debian bookworm's names; for building only, the servers do not get them.");
        line(&format!("  packages: {}", list(&guess.build_packages)));
    }
    if !guess.environment.is_empty() {
        line("  environment:");
        guess.environment.iter().for_each(|(name, value)| line(&format!("    {name}: {}", yaml(value))));
    }
    if !guess.cache.is_empty() {
        line(&format!("  cache: {} # kept between builds", list(&guess.cache)));
    }
    guess.build_comments.iter().for_each(|comment| line(&format!("  # {comment}")));
    line("  commands:");
    for (command, comment) in &guess.commands {
        if let Some(comment) = comment {
            line(&format!("    # {comment}"));
        }
        line(&format!("    - {}", yaml(command)));
    }
    let mut pack = guess.pack.clone();
    let service = format!("deploy/{}.service", guess.app);
    if !pack.iter().any(|pattern| pattern == "**") {
        pack.push(service);
    }
    let cut = pack.iter().any(|pattern| pattern.ends_with('/'));
    let how = if cut { " A folder's `/` at the end leaves the folder's own name behind." } else { "" };
    line(&format!("  # What goes to the servers.{how}"));
    line(&format!("  pack: {}", list(&pack)));
    if !guess.exclude.is_empty() {
        line(&format!("  exclude: {}", list(&guess.exclude)));
    }
}

/// `deploy/provision.sh`
pub(super) fn provision(guess: &Guess) -> String {
    let app = &guess.app;
    let packages = match guess.run_packages.as_slice() {
        [] => String::new(),
        packages => format!(
            "\n# What the app needs to run, by Debian bookworm's names.\n\
             apt-get update\n\
             DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {}\n",
            packages.join(" ")
        ),
    };
    format!(
        "#!/bin/sh\n\
         # Turns a server that has the artifact at $ALCEDO_INSTALL_PATH into one that runs {app} at boot. Run as root while\n\
         # the image is made. The service is enabled, not started: it starts on the servers launched from the image.\n\
         set -eu\n\
         {packages}\n\
         # The app's own user, who can log in nowhere and owns nothing.\n\
         if ! getent passwd {app} >/dev/null; then\n\
         \x20   useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin {app}\n\
         fi\n\n\
         # The app finds its version in its environment.\n\
         printf 'APP_VERSION=%s\\n' \"$ALCEDO_VERSION\" >/etc/{app}.env\n\n\
         install -m 0644 \"$ALCEDO_INSTALL_PATH/deploy/{app}.service\" /etc/systemd/system/{app}.service\n\
         systemctl enable {app}.service\n"
    )
}

/// `deploy/<app>.service`
pub(super) fn service(guess: &Guess) -> String {
    let Guess { app, start, port, .. } = guess;
    let mut environment = format!("Environment=PORT={port}\n");
    for (name, value) in &guess.service_environment {
        let _ = writeln!(environment, "Environment={name}={value}");
    }
    // Ports below 1024 are root's, unless somebody is given the right.
    let low_port = if *port < 1024 { "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" } else { "" };
    let unsure = matches!(guess.kind, Kind::Dockerfile | Kind::Generic);
    let note = if unsure { "# A guess: what does the build leave, and how is it started?\n" } else { "" };
    format!(
        "[Unit]\n\
         Description={app}\n\
         After=network-online.target\n\
         Wants=network-online.target\n\n\
         [Service]\n\
         User={app}\n\
         WorkingDirectory={path}\n\
         # Written by deploy/provision.sh: APP_VERSION.\n\
         EnvironmentFile=/etc/{app}.env\n\
         {environment}\
         {note}ExecStart={start}\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         # The app may write to /var/lib/{app} and its own /tmp, and nowhere else.\n\
         StateDirectory={app}\n\
         {low_port}\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ProtectHome=yes\n\
         PrivateTmp=yes\n\n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        path = guess.install_path(),
    )
}
