//! One working container on the engine: made, used through commands and archives, and surely removed.

use std::{io, path::Path};

use bollard::{
    container::LogOutput,
    errors::Error as ApiError,
    exec::StartExecResults,
    models::{ContainerCreateBody, ExecConfig, HostConfig, Mount, MountType},
    query_parameters::{
        CreateContainerOptions, DownloadFromContainerOptions, RemoveContainerOptions, UploadToContainerOptions,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::{
    engine::Engine,
    event::{Sink, Stream as OutputStream},
    leftover,
    lines::Lines,
    pipe,
    source::{self, SourceError},
};

/// What the engine was asked when it failed.
#[derive(Debug, thiserror::Error)]
#[error("the engine could not {what}")]
pub struct ContainerError {
    what: String,
    #[source]
    source: ApiError,
}

impl ContainerError {
    pub(crate) fn new(what: impl Into<String>, source: ApiError) -> Self {
        Self { what: what.into(), source }
    }

    /// The engine says that what was named is not there.
    pub fn is_not_found(&self) -> bool {
        is_status(&self.source, 404)
    }
}

pub(crate) fn is_status(error: &ApiError, status: u16) -> bool {
    matches!(error, ApiError::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// What a container is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerSpec {
    /// The engine image.
    pub image: String,
    /// The app it works for; its leftovers are found by it.
    pub app: String,
    /// Named volumes: volume and absolute path.
    pub volumes: Vec<(String, String)>,
    /// The container ends by itself after this many seconds, whatever becomes of this program.
    pub lifetime_seconds: u64,
}

/// A running container that does nothing by itself.
///
/// # Guarantees
/// [`Container::remove`] removes it; so does dropping it inside a runtime, in the background. It ends and vanishes by
/// itself at the end of its lifetime; one whose program was killed is removed by the next [`leftover::sweep`].
pub(crate) struct Container {
    engine: Engine,
    /// Empty once removed.
    id: String,
}

/// Runs the arguments that follow, with both outputs in one stream.
const MERGED: [&str; 4] = ["sh", "-c", "exec \"$@\" 2>&1", "sh"];

/// How a command in the container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub exit_code: i64,
    pub last_lines: Vec<String>,
}

impl Container {
    pub(crate) async fn start(engine: &Engine, spec: &ContainerSpec) -> Result<Self, ContainerError> {
        let mounts = spec.volumes.iter().map(|(volume, path)| Mount {
            source: Some(volume.clone()),
            target: Some(path.clone()),
            typ: Some(MountType::VOLUME),
            ..Default::default()
        });
        let body = ContainerCreateBody {
            image: Some(spec.image.clone()),
            // The image's own entrypoint is not meant: nothing runs here but what is asked for.
            entrypoint: Some(vec!["sleep".into()]),
            cmd: Some(vec![spec.lifetime_seconds.to_string()]),
            user: Some("0:0".into()),
            labels: Some(leftover::labels(&spec.app, spec.lifetime_seconds)),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                ulimits: engine.ulimits(),
                mounts: Some(mounts.collect()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let docker = engine.docker();
        let created = docker
            .create_container(None::<CreateContainerOptions>, body)
            .await
            .map_err(|source| ContainerError::new(format!("make a container of {}", spec.image), source))?;
        let container = Self { engine: engine.clone(), id: created.id };
        match docker.start_container(&container.id, None).await {
            Ok(()) => Ok(container),
            Err(source) => {
                container.remove().await;
                Err(ContainerError::new(format!("start a container of {}", spec.image), source))
            }
        }
    }

    /// Runs a program to its end. Output goes to `sink` as it comes, both of its streams as one: an engine hands them on
    /// side by side, and an error would be told far from the lines that led to it.
    pub(crate) async fn run(
        &self,
        command: &[&str],
        environment: &[(String, String)],
        working_directory: &str,
        sink: &Sink,
    ) -> Result<Ended, ContainerError> {
        let wrong = |source| ContainerError::new("run a command in the container", source);
        let docker = self.engine.docker();
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(MERGED.iter().chain(command).map(|&word| word.to_owned()).collect()),
            env: Some(environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            user: Some("0:0".into()),
            working_dir: Some(working_directory.to_owned()),
            ..Default::default()
        };
        let exec = docker.create_exec(&self.id, config).await.map_err(wrong)?.id;
        let mut lines = Lines::to(sink);
        if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await.map_err(wrong)? {
            while let Some(chunk) = output.next().await {
                match chunk.map_err(wrong)? {
                    LogOutput::StdErr { message } => lines.feed(OutputStream::Stderr, &message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => {
                        lines.feed(OutputStream::Stdout, &message);
                    }
                    LogOutput::StdIn { .. } => {}
                }
            }
        }
        let last_lines = lines.finish().await;
        let ended = docker.inspect_exec(&exec).await.map_err(wrong)?;
        // No exit code: the container itself ended under the command, as when its lifetime is over.
        Ok(Ended { exit_code: ended.exit_code.unwrap_or(137), last_lines })
    }

    /// Copies the source folder's files to `/<name>` in the container.
    pub(crate) async fn upload(&self, folder: &Path, name: &str) -> Result<(), UploadError> {
        let (writer, body) = pipe::outgoing();
        let (folder, prefix) = (folder.to_owned(), name.to_owned());
        let reading = tokio::task::spawn_blocking(move || {
            let mut writer = writer;
            match source::write_tar(&folder, &prefix, &mut writer) {
                Ok(()) => Ok(()),
                Err(error) => {
                    writer.abort();
                    Err(error)
                }
            }
        });
        let options = UploadToContainerOptions { path: "/".into(), ..Default::default() };
        let sent = self
            .engine
            .docker()
            .upload_to_container(&self.id, Some(options), bollard::body_try_stream(body))
            .await
            .map_err(|source| ContainerError::new("take the source", source));
        let read = reading.await;
        match (read, sent) {
            // The engine ended the transfer: its reason is the cause, the broken pipe here only the echo.
            (Ok(Err(SourceError::Read { source, .. })), Err(error)) if source.kind() == io::ErrorKind::BrokenPipe => {
                Err(error.into())
            }
            (Ok(Err(error)), _) => Err(error.into()),
            (_, Err(error)) => Err(error.into()),
            (Ok(Ok(())), Ok(())) => Ok(()),
            (Err(_), Ok(())) => Err(UploadError::Interrupted),
        }
    }

    /// What is at this absolute path, as a tar archive whose entries begin with the path's last name.
    pub(crate) fn download(&self, path: &str) -> impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static + use<> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        self.engine.docker().download_from_container(&self.id, Some(options))
    }

    /// Whether there is anything at this absolute path.
    pub(crate) async fn has(&self, path: &str) -> Result<bool, ContainerError> {
        let options = bollard::query_parameters::ContainerArchiveInfoOptions { path: path.to_owned() };
        match self.engine.docker().get_container_archive_info(&self.id, Some(options)).await {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 404) => Ok(false),
            Err(source) => Err(ContainerError::new(format!("look at {path}"), source)),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Ends and removes it, with everything that runs in it.
    pub(crate) async fn remove(mut self) {
        let id = std::mem::take(&mut self.id);
        remove(&self.engine, &id).await;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move { remove(&engine, &id).await });
        }
    }
}

/// Removes a container, now. One that is gone, or going, is what was asked for; one that an engine cannot remove is
/// left to its lifetime and the next sweep.
pub(crate) async fn remove(engine: &Engine, id: &str) {
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    match engine.docker().remove_container(id, Some(options)).await {
        Ok(()) => {}
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => {}
        Err(error) => tracing::warn!(container = id, %error, "a container could not be removed"),
    }
}

/// Why the source did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("reading the source was interrupted")]
    Interrupted,
}
