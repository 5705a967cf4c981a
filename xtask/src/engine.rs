//! The container engine: find one that answers, or start Docker's.

use std::{
    env, fmt, fs,
    fs::File,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{process, project, terminal::say};

/// Docker's own socket, and where Debian's docker.io package puts it.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const DOCKER_PID_FILE: &str = "/var/run/docker.pid";
/// A first start creates the engine's storage; on a slow disk that takes a while.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// One answer of an engine that is up takes milliseconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// An engine with the Docker API.
#[derive(Debug, Clone)]
pub struct Engine {
    endpoint: Endpoint,
    /// Whether `start` started it in this process.
    pub started_here: bool,
}

#[derive(Debug, Clone)]
enum Endpoint {
    Unix(PathBuf),
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The engine that answers: the one `DOCKER_HOST` names and no other, else Docker's or Podman's, the system's before the
/// user's, as `alcedo` looks for one.
///
/// # Errors
/// When `DOCKER_HOST` names an engine that does not answer: starting another one would not be what was asked for.
pub fn find() -> Result<Option<Engine>> {
    if let Some(host) = env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        let endpoint = parse_host(&host)?;
        let engine = Engine { endpoint, started_here: false };
        engine
            .ping()
            .with_context(|| format!("DOCKER_HOST is {host}, where no engine answers; start it, or unset it"))?;
        return Ok(Some(engine));
    }
    let engines = sockets().into_iter().map(|socket| Engine { endpoint: Endpoint::Unix(socket), started_here: false });
    Ok(engines.into_iter().find(|engine| engine.ping().is_ok()))
}

fn parse_host(host: &str) -> Result<Endpoint> {
    match host.split_once("://") {
        Some(("unix", path)) => Ok(Endpoint::Unix(path.into())),
        Some(("tcp" | "http", address)) => Ok(Endpoint::Tcp(address.trim_end_matches('/').to_owned())),
        _ => bail!("DOCKER_HOST is {host}; Alcedo can speak to unix:// and tcp:// addresses"),
    }
}

fn sockets() -> Vec<PathBuf> {
    let mut sockets = vec![DOCKER_SOCKET.into(), "/run/podman/podman.sock".into()];
    if let Some(runtime) = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        sockets.extend([runtime.join("docker.sock"), runtime.join("podman/podman.sock")]);
    }
    sockets
}

/// Sockets that exist but that this user may not use: worth a hint, since an engine is there.
pub fn forbidden_socket() -> Option<PathBuf> {
    sockets().into_iter().find(|socket| {
        UnixStream::connect(socket).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

impl Engine {
    /// The address as `DOCKER_HOST` takes it.
    pub fn host(&self) -> String {
        self.endpoint.to_string()
    }

    /// Whether a person has to name it in `DOCKER_HOST` to be sure that `alcedo` takes it too: `alcedo` takes the first
    /// socket that exists, and this may be one behind it.
    pub fn needs_naming(&self) -> bool {
        let is_first = matches!(&self.endpoint, Endpoint::Unix(path) if path == Path::new(DOCKER_SOCKET));
        !is_first && env::var_os("DOCKER_HOST").is_none_or(|host| host.is_empty())
    }

    /// Such as `Docker Engine 20.10.24 at unix:///var/run/docker.sock`.
    pub fn describe(&self) -> String {
        let version = self.get("/version").unwrap_or_default();
        // Docker calls itself "Engine" among its components, Podman "Podman Engine".
        let name = match version["Components"][0]["Name"].as_str() {
            Some("Engine") | None => "Docker Engine",
            Some(other) => other,
        };
        format!("{name} {} at {}", version["Version"].as_str().unwrap_or("of unknown version"), self.endpoint)
    }

    fn ping(&self) -> Result<()> {
        let answer = self.request("GET", "/_ping")?;
        ensure!(answer.trim() == "OK", "{} answered {answer:?} to a ping", self.endpoint);
        Ok(())
    }

    /// The answer of one read-only call of the Docker API.
    ///
    /// # Errors
    /// When the engine does not answer, or not with JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let body = self.request("GET", path)?;
        serde_json::from_str(&body).with_context(|| format!("the engine's answer to {path} is not JSON"))
    }

    /// Removes what the path names.
    ///
    /// # Errors
    /// When the engine does not answer, or refuses.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.request("DELETE", path).map(drop)
    }

    fn request(&self, method: &str, path: &str) -> Result<String> {
        let answer = match &self.endpoint {
            Endpoint::Unix(socket) => {
                let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", self.endpoint))?;
                stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
                exchange(stream, method, path)?
            }
            Endpoint::Tcp(address) => {
                let place = address.to_socket_addrs()?.next().ok_or_else(|| anyhow!("{address} has no address"))?;
                let stream = TcpStream::connect_timeout(&place, ANSWER_DEADLINE)?;
                stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
                exchange(stream, method, path)?
            }
        };
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("not an HTTP answer"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{} answered {method} {path} with status {status}", self.endpoint);
        Ok(body.to_owned())
    }
}

/// HTTP/1.0, because then the answer is not chunked and ends with the connection.
fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> Result<String> {
    stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Starts Docker's engine, which must be installed, and waits until it answers. Where systemd runs, as its service;
/// elsewhere in a session of its own, so that it outlives this program and its terminal.
///
/// # Errors
/// When it ends again, or does not answer within a minute; the end of its log is then part of the message.
pub fn start() -> Result<Engine> {
    let engine = Engine { endpoint: Endpoint::Unix(DOCKER_SOCKET.into()), started_here: true };
    if Path::new("/run/systemd/system").is_dir() {
        process::run(Command::new("systemctl").args(["start", "docker.service"]))?;
        wait_for(&engine, None, Path::new("`journalctl -u docker`"))?;
        return Ok(engine);
    }
    let log = project::state().join("dockerd.log");
    // The package's own scripts may have just started it.
    let daemon = if is_starting() {
        None
    } else {
        fs::create_dir_all(project::state())?;
        let lines = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        // setsid makes the new session and then becomes dockerd, under the same process id.
        let daemon = Command::new("setsid")
            .arg("dockerd")
            .stdin(Stdio::null())
            .stdout(lines.try_clone()?)
            .stderr(lines)
            .spawn()
            .context("dockerd does not start")?;
        Some(daemon)
    };
    wait_for(&engine, daemon, &log)?;
    say(&format!("started Docker's engine; it stays running, and logs to {}", log.display()));
    say(&format!("to stop it: {}", stop_command()));
    Ok(engine)
}

/// What stops the engine that [`start`] started.
pub fn stop_command() -> String {
    if Path::new("/run/systemd/system").is_dir() {
        "systemctl stop docker.service docker.socket".into()
    } else {
        format!("kill $(cat {DOCKER_PID_FILE})")
    }
}

fn is_starting() -> bool {
    let id = fs::read_to_string(DOCKER_PID_FILE).unwrap_or_default();
    !id.trim().is_empty() && Path::new("/proc").join(id.trim()).is_dir()
}

fn wait_for(engine: &Engine, mut daemon: Option<Child>, log: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        let Err(error) = engine.ping() else { return Ok(()) };
        if let Some(status) = daemon.as_mut().map(Child::try_wait).transpose()?.flatten() {
            bail!("dockerd ended at once ({status}); its last lines, from {}:\n{}", log.display(), last_lines(log));
        }
        if started.elapsed() > START_DEADLINE {
            let waited = START_DEADLINE.as_secs();
            return Err(error.context(format!("the engine did not answer within {waited} s; see {}", log.display())));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        assert_eq!(
            parse_host("unix:///run/user/1000/docker.sock").unwrap().to_string(),
            "unix:///run/user/1000/docker.sock"
        );
        assert_eq!(parse_host("tcp://127.0.0.1:2375/").unwrap().to_string(), "tcp://127.0.0.1:2375");
        let error = parse_host("ssh://builder").unwrap_err().to_string();
        assert!(error.contains("ssh://builder") && error.contains("unix://"), "{error}");
    }

    #[test]
    fn an_engine_on_a_socket_is_pinged_and_read() {
        let folder = env::temp_dir().join(format!("alcedo-xtask-engine-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("engine.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            for body in ["OK", r#"{"Version":"1.2"}"#, "not well"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /"));
                write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}").unwrap();
            }
        });
        let engine = Engine { endpoint: Endpoint::Unix(socket), started_here: false };
        engine.ping().unwrap();
        assert_eq!(engine.get("/version").unwrap()["Version"], "1.2");
        assert!(engine.ping().is_err());
        server.join().unwrap();
        assert!(engine.ping().is_err(), "nobody listens any more");
        fs::remove_dir_all(folder).unwrap();
    }
}
