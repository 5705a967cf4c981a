//! An SSH session to a server whose host key is known beforehand.
//!
//! OpenSSH's own client makes the connection, so every cipher, every key and every network it knows works. Nothing of
//! the user's setup takes part: a configuration file made for this session replaces both the user's and the system's,
//! no agent is asked, and no known host is looked up but the pinned one. Commands go through the connection's control
//! socket from this process (`openssh`'s native multiplexing): no `ssh` is started for them, so none reads the user's
//! configuration either, and a Ctrl-C in the terminal does not reach them.

use std::{io, num::NonZeroUsize, os::unix::process::ExitStatusExt, process::Stdio, time::Duration};

use alcedo_pipeline::secret::program;
use alcedo_smoke_tests::shell::{OUTPUT_LIMIT, Shell, ShellCommand, ShellError, ShellOutput};
use async_trait::async_trait;
use openssh::{ControlPersist, KnownHosts, SessionBuilder, Stdio as RemoteStdio};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    client_files::ClientFiles,
    console::{PinnedHostKeys, Shown, known_hosts},
    event::{Sink, Stream},
    key::EphemeralKey,
    lines::Lines,
};

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(250);

/// Longest wait for one TCP connection, or for one answer of the server to a question about its keys.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection ends by itself after this long without a command: what is left where this program was killed.
/// Longer than a playbook is likely to leave it alone.
const IDLE: NonZeroUsize = NonZeroUsize::new(1800).unwrap();

/// Where a server is reached, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// An address or a name.
    pub host: String,
    pub port: u16,
    pub user: String,
}

/// Why there is no session, or why it broke.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{host}:{port} does not answer as an SSH server")]
    NoServer {
        host: String,
        port: u16,
        #[source]
        source: Option<io::Error>,
    },
    /// Somebody else answers at that address. Nothing was sent.
    #[error("{host}:{port} shows a host key that the server's console does not")]
    HostKey { host: String, port: u16, pinned: Vec<String>, shown: Vec<String> },
    #[error("{user}@{host} did not let us in")]
    Connect {
        host: String,
        user: String,
        #[source]
        source: openssh::Error,
    },
    #[error("the SSH session broke")]
    Broken(#[source] openssh::Error),
    #[error("`{program}` could not be run on this machine")]
    Program {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the session's files cannot be kept on this machine")]
    Files(#[source] io::Error),
    #[error("the command's input or output broke off")]
    Output(#[source] io::Error),
}

impl SessionError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoServer { port, .. } => Some(format!(
                "check that the security group, the subnet's route and this network let TCP port {port} through"
            )),
            Self::HostKey { pinned, shown, .. } => Some(format!(
                "something between here and the server answers in its place; nothing was sent to it (expected {}, shown {})",
                pinned.join(" or "),
                shown.join(", ")
            )),
            Self::Connect { .. } => Some("check `bake.ssh_user`: it must be the login user of the base image".into()),
            Self::Program { .. } => Some("install OpenSSH's client (Debian: `apt-get install openssh-client`)".into()),
            _ => None,
        }
    }
}

/// A session that is open.
#[derive(Debug)]
pub struct Session {
    connection: openssh::Session,
    files: ClientFiles,
    target: SshTarget,
}

/// How a command on the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEnd {
    /// 255 where a signal ended it.
    pub exit_code: i32,
    pub last_lines: Vec<String>,
}

/// Connects, waiting up to `deadline` for the server to come up and to know the key.
///
/// # Flow
/// The server is asked for its host keys; only where a pinned one is among them does a connection begin, and it checks
/// the key again by itself. A server that shows other keys ends the wait at once.
///
/// # Errors
/// The last thing that went wrong before the deadline.
pub async fn connect(
    target: &SshTarget,
    key: &EphemeralKey,
    pins: &PinnedHostKeys,
    deadline: Duration,
) -> Result<Session, SessionError> {
    let end = Instant::now() + deadline;
    loop {
        let error = match try_connect(target, key, pins).await {
            Ok(session) => return Ok(session),
            Err(error @ (SessionError::HostKey { .. } | SessionError::Program { .. } | SessionError::Files(_))) => {
                return Err(error);
            }
            Err(error) => error,
        };
        if Instant::now() + RETRY >= end {
            return Err(error);
        }
        sleep(RETRY).await;
    }
}

async fn try_connect(target: &SshTarget, key: &EphemeralKey, pins: &PinnedHostKeys) -> Result<Session, SessionError> {
    reach(target).await?;
    let (host, port) = (target.host.clone(), target.port);
    let keys = match pins.accept(&shown_keys(target).await?) {
        Shown::Pinned(keys) => keys,
        Shown::Nothing => return Err(SessionError::NoServer { host, port, source: None }),
        Shown::Others(shown) => {
            return Err(SessionError::HostKey { host, port, pinned: pins.fingerprints().to_vec(), shown });
        }
    };
    let files =
        ClientFiles::write(key, &known_hosts(&keys, &host, port), CONNECT_TIMEOUT).map_err(SessionError::Files)?;
    let mut builder = SessionBuilder::default();
    builder
        .user(target.user.clone())
        .port(port)
        .keyfile(key.private())
        .known_hosts_check(KnownHosts::Strict)
        .user_known_hosts_file(files.known_hosts())
        .config_file(files.config())
        .connect_timeout(CONNECT_TIMEOUT)
        .control_directory(files.folder())
        .control_persist(ControlPersist::IdleFor(IDLE));
    match builder.connect_mux(&host).await {
        Ok(connection) => Ok(Session { connection, files, target: target.clone() }),
        Err(openssh::Error::Connect(source)) if source.kind() == io::ErrorKind::NotFound => {
            Err(SessionError::Program { program: "ssh", source })
        }
        Err(source) => Err(SessionError::Connect { host, user: target.user.clone(), source }),
    }
}

/// Whether anything accepts connections there. Cheaper to repeat than a program, and its error says more.
async fn reach(target: &SshTarget) -> Result<(), SessionError> {
    let no_server =
        |source| SessionError::NoServer { host: target.host.clone(), port: target.port, source: Some(source) };
    let connecting = tokio::net::TcpStream::connect((target.host.as_str(), target.port));
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(no_server(error)),
        Err(_) => Err(no_server(io::ErrorKind::TimedOut.into())),
    }
}

/// What `ssh-keyscan` prints for the server: one line a key; nothing where no SSH server answers.
async fn shown_keys(target: &SshTarget) -> Result<String, SessionError> {
    let output = Command::from(program("ssh-keyscan"))
        .args([
            "-T",
            &CONNECT_TIMEOUT.as_secs().to_string(),
            "-t",
            "ed25519,ecdsa,rsa",
            "-p",
            &target.port.to_string(),
            "--",
        ])
        .arg(&target.host)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| SessionError::Program { program: "ssh-keyscan", source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Session {
    /// Where it leads.
    pub fn target(&self) -> &SshTarget {
        &self.target
    }

    /// For programs that make their own connections to the same server.
    pub fn client_files(&self) -> &ClientFiles {
        &self.files
    }

    /// Runs a program given to `sh` by its standard input, so that nothing of it is in any list of processes. Output
    /// goes to `sink` as it comes, both of its streams as one, so that lines keep their order.
    ///
    /// Dropping the future leaves the program running on the server: the protocol has no message to end it.
    pub async fn run_program(&self, program: &str, as_root: bool, sink: &Sink) -> Result<RemoteEnd, SessionError> {
        let reader = ShellCommand { line: "exec sh -s 2>&1".into(), as_root };
        self.feed(&reader, program.as_bytes(), sink).await
    }

    /// Runs a command that reads this input. Nothing of the input is in any list of processes.
    pub async fn feed(&self, command: &ShellCommand, input: &[u8], sink: &Sink) -> Result<RemoteEnd, SessionError> {
        let mut lines = Lines::to(sink);
        let exit_code = self.stream(command, input, |stream, bytes| lines.feed(stream, bytes)).await?;
        Ok(RemoteEnd { exit_code, last_lines: lines.finish().await })
    }

    /// Runs the command with this input, handing on its output as it comes.
    async fn stream(
        &self,
        command: &ShellCommand,
        input: &[u8],
        mut take: impl FnMut(Stream, &[u8]),
    ) -> Result<i32, SessionError> {
        let mut child = self
            .connection
            .raw_command(command.for_login_shell())
            .stdin(RemoteStdio::piped())
            .stdout(RemoteStdio::piped())
            .stderr(RemoteStdio::piped())
            .spawn()
            .await
            .map_err(SessionError::Broken)?;
        let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let feeding = async {
            if let Some(mut stdin) = stdin
                && let Err(error) = stdin.write_all(input).await
                // A program that ends early reads no further: its exit code says what happened.
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                return Err(error);
            }
            Ok(())
        };
        let taking = async {
            let (mut stdout, mut stderr) = (stdout, stderr);
            let (mut one, mut two) = ([0; 8192], [0; 8192]);
            while stdout.is_some() || stderr.is_some() {
                tokio::select! {
                    count = read(&mut stdout, &mut one) => match count? {
                        0 => stdout = None,
                        count => take(Stream::Stdout, &one[..count]),
                    },
                    count = read(&mut stderr, &mut two) => match count? {
                        0 => stderr = None,
                        count => take(Stream::Stderr, &two[..count]),
                    },
                }
            }
            Ok(())
        };
        let ((), ()) = tokio::try_join!(feeding, taking).map_err(SessionError::Output)?;
        match child.wait().await {
            Ok(status) => Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))),
            // The crate reports the shell's "not found" as an error of its own.
            Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => Ok(127),
            Err(openssh::Error::RemoteProcessTerminated) if self.connection.check().await.is_ok() => Ok(255),
            Err(error) => Err(SessionError::Broken(error)),
        }
    }

    /// Ends the connection. Without it, the connection ends when this value is dropped.
    pub async fn close(self) -> Result<(), SessionError> {
        self.connection.close().await.map_err(SessionError::Broken)
    }
}

/// Reads from a pipe; one that is closed never answers.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(buffer).await,
        None => std::future::pending().await,
    }
}

#[async_trait]
impl Shell for Session {
    async fn run(&self, command: &ShellCommand) -> Result<ShellOutput, ShellError> {
        let mut kept = [Vec::new(), Vec::new()];
        let exit_code = self
            .stream(command, &[], |stream, bytes| {
                let kept = &mut kept[stream as usize];
                let room = OUTPUT_LIMIT - kept.len();
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            })
            .await
            .map_err(|error| ShellError(Box::new(error)))?;
        let [stdout, stderr] = kept.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(ShellOutput { exit_code, stdout, stderr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_is_said_with_the_port() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let target = SshTarget { host: "127.0.0.1".into(), port: free, user: "admin".into() };
        let key = EphemeralKey::generate("test").await.unwrap();
        let pins = PinnedHostKeys::new(vec![format!("SHA256:{}", "A".repeat(43))], Vec::new()).unwrap();
        let error = connect(&target, &key, &pins, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, SessionError::NoServer { source: Some(_), .. }), "{error:?}");
        assert!(error.hint().unwrap().contains(&free.to_string()));
    }
}
