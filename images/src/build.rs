//! One build: the source into a container, the commands, and what they made out of it as an artifact.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use alcedo_pipeline::file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    archive::{Archive, MTIME_SECONDS},
    base::BuildBase,
    build_image::BuildRoot,
    collect::{self, CollectError},
    commit::{self, Commit},
    container::{Container, ContainerError, ContainerSpec, UploadError},
    engine::Engine,
    event::{ImageEvent, Sink, silent},
    leftover,
    pack::{PatternError, Patterns},
    platform::{PLATFORM_QUESTION, Platform, PlatformError},
};

/// Where the source is in the container.
pub const SOURCE: &str = "src";

/// How long the container lives beyond the build's deadline: copying the result takes this long at most.
const LIFETIME_MARGIN: Duration = Duration::from_secs(600);

/// Hexadecimal digits of a cache volume's name: enough to tell the paths of one app apart.
const VOLUME_DIGITS: usize = 12;

/// What is built, and how.
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// The app's name.
    pub app: String,
    /// The folder of `alcedo.yaml`; all of it that is not ignored goes into the container.
    pub source: PathBuf,
    /// What it runs in.
    pub root: BuildRoot,
    /// Where the commands run and patterns start, relative to the source.
    pub working_directory: PathBuf,
    pub commands: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Absolute paths in the container that are kept for the next build with the same base.
    pub cache: Vec<PathBuf>,
    pub pack: Vec<String>,
    pub exclude: Vec<String>,
    /// Deadline of all commands together.
    pub timeout: Duration,
}

impl BuildSpec {
    /// As `build` in `alcedo.yaml` says it.
    pub fn new(app: &str, source: &Path, build: &file::Build, root: BuildRoot) -> Self {
        Self {
            app: app.to_owned(),
            source: source.to_owned(),
            root,
            working_directory: build.working_directory.clone(),
            commands: build.commands.clone(),
            environment: build.environment.clone(),
            cache: build.cache.clone(),
            pack: build.pack.clone(),
            exclude: build.exclude.clone(),
            timeout: build.timeout.duration(),
        }
    }
}

/// What a build left, with everything its manifest has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutcome {
    pub artifact: Archive,
    /// What the source was checked out from, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    pub base: BuildBase,
    /// What the base turned out to be; decides whether the artifact fits a vendor's image.
    pub platform: Platform,
    pub commands: Vec<String>,
    /// Of the commands alone.
    pub commands_took: Duration,
    /// Of everything.
    pub took: Duration,
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("`{command}` ended with exit code {exit_code}")]
    Command {
        command: String,
        /// Of the command; 128 + signal where a signal ended it.
        exit_code: i64,
        /// The end of its output.
        last_lines: Vec<String>,
    },
    #[error("the build was not done within {} s", after.as_secs())]
    TimedOut { after: Duration },
    #[error("the build was cancelled")]
    Cancelled,
    #[error("the working directory `{}` leads out of the source", path.display())]
    WorkingDirectory { path: PathBuf },
    #[error("the working directory `{}` is not in the source", path.display())]
    NoWorkingDirectory { path: PathBuf },
    #[error("the cache path `{}` is not absolute, or is the root or the source itself", path.display())]
    CachePath { path: PathBuf },
    #[error("the build's root does not say what it is")]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl BuildError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TimedOut { .. } => Some("raise `build.timeout`, or keep more between builds with `build.cache`"),
            Self::NoWorkingDirectory { .. } => Some(
                "check `build.working_directory`; what Git or .alcedoignore ignores does not go into the container",
            ),
            Self::CachePath { .. } => Some("`build.cache` takes absolute paths in the container, such as /root/.cache"),
            Self::Collect(error) => error.hint(),
            _ => None,
        }
    }

    /// The last lines of output, where a command failed.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Command { last_lines, .. } => last_lines,
            _ => &[],
        }
    }
}

/// Builds, and writes the artifact to `out`.
///
/// # Flow
/// Leftovers of the app's killed builds are removed; a container of the root is started with the cache volumes; the
/// source is copied to `/src`; the commands run one after another by `sh -e -c`; what `pack` names is copied out and
/// packed.
///
/// # Guarantees
/// The container is removed on every way out, cancellation included; after a kill of this program it ends by itself,
/// and the next build removes it. The engine may be on another machine: nothing is mounted.
///
/// # Assumptions
/// The engine is trusted with the source and the environment; what runs in the container is not trusted with this
/// machine: its files arrive as an archive whose entries are checked one by one.
pub async fn run(
    engine: &Engine,
    spec: &BuildSpec,
    out: &Path,
    sink: &Sink,
    cancel: &CancellationToken,
) -> Result<BuildOutcome, BuildError> {
    let started = Instant::now();
    let patterns = Patterns::new(&spec.pack, &spec.exclude)?;
    let directory = working_directory(&spec.working_directory)?;
    let container_spec = container_spec(spec)?;
    leftover::sweep(engine, &spec.app).await?;
    let container = tokio::select! {
        container = Container::start(engine, &container_spec) => container?,
        () = cancel.cancelled() => return Err(BuildError::Cancelled),
    };
    let work = async {
        container.upload(&spec.source, SOURCE).await?;
        if !container.has(&directory).await? {
            return Err(BuildError::NoWorkingDirectory { path: spec.working_directory.clone() });
        }
        let begun = Instant::now();
        let commands = async {
            let ran = timeout(spec.timeout, run_commands(&container, spec, &directory, sink)).await;
            ran.map_err(|_| BuildError::TimedOut { after: spec.timeout })??;
            Ok(begun.elapsed())
        };
        // To ask takes a process in the container, which nobody has to wait for.
        let (platform, commands_took) = tokio::try_join!(platform(&container), commands)?;
        sink(ImageEvent::Started { what: "packing".into() });
        let artifact = collect::collect(&container, &directory, &patterns, out).await?;
        Ok((artifact, platform, commands_took))
    };
    let worked = tokio::select! {
        worked = work => worked,
        () = cancel.cancelled() => Err(BuildError::Cancelled),
    };
    container.remove().await;
    let (artifact, platform, commands_took) = worked?;
    Ok(BuildOutcome {
        artifact,
        commit: commit::of(&spec.source).await,
        base: spec.root.base.clone(),
        platform,
        commands: spec.commands.clone(),
        commands_took,
        took: started.elapsed(),
    })
}

/// What the container's root is.
async fn platform(container: &Container) -> Result<Platform, BuildError> {
    let ended = container.run(&["sh", "-e", "-c", PLATFORM_QUESTION], &[], "/", &silent()).await?;
    Ok(Platform::read(&ended.last_lines.join("\n"))?)
}

async fn run_commands(container: &Container, spec: &BuildSpec, directory: &str, sink: &Sink) -> Result<(), BuildError> {
    let environment = environment(spec);
    for command in &spec.commands {
        sink(ImageEvent::Started { what: command.clone() });
        let ended = container.run(&["sh", "-e", "-c", command], &environment, directory, sink).await?;
        if ended.exit_code != 0 {
            let (command, exit_code, last_lines) = (command.clone(), ended.exit_code, ended.last_lines);
            return Err(BuildError::Command { command, exit_code, last_lines });
        }
    }
    Ok(())
}

/// What every command sees, unless the file says otherwise. `SOURCE_DATE_EPOCH` is the time that tools which honour it
/// (reproducible-builds.org) write into what they make.
fn environment(spec: &BuildSpec) -> Vec<(String, String)> {
    let mut environment = BTreeMap::from([
        ("ALCEDO_APP".to_owned(), spec.app.clone()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("SOURCE_DATE_EPOCH".to_owned(), MTIME_SECONDS.to_string()),
    ]);
    environment.extend(spec.environment.clone());
    environment.into_iter().collect()
}

fn container_spec(spec: &BuildSpec) -> Result<ContainerSpec, BuildError> {
    let mut volumes = Vec::with_capacity(spec.cache.len());
    for path in &spec.cache {
        let refuse = || BuildError::CachePath { path: path.clone() };
        let text = path.to_str().map(|text| text.trim_end_matches('/')).ok_or_else(refuse)?;
        let plain = path.components().skip(1).all(|component| matches!(component, Component::Normal(_)));
        if !path.is_absolute() || !plain || text.is_empty() || text == format!("/{SOURCE}") {
            return Err(refuse());
        }
        volumes.push((cache_volume(&spec.app, text, &spec.root.base), text.to_owned()));
    }
    Ok(ContainerSpec {
        image: spec.root.reference.clone(),
        app: spec.app.clone(),
        volumes,
        lifetime_seconds: (spec.timeout + LIFETIME_MARGIN).as_secs(),
    })
}

/// The name of the engine volume that keeps this path. What was compiled against one base is not of use, and may do
/// harm, on another: the base is part of the name.
pub fn cache_volume(app: &str, path: &str, base: &BuildBase) -> String {
    let mut hash = Sha256::new();
    hash.update(path);
    hash.update([0]);
    hash.update(base.digest());
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(VOLUME_DIGITS);
    format!("alcedo-cache-{app}-{digits}")
}

fn working_directory(path: &Path) -> Result<String, BuildError> {
    let mut directory = format!("/{SOURCE}");
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                directory.push('/');
                directory.push_str(&name.to_string_lossy());
            }
            Component::CurDir => {}
            _ => return Err(BuildError::WorkingDirectory { path: path.to_owned() }),
        }
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(cache: &[&str]) -> BuildSpec {
        let base = BuildBase::Image { reference: "x".into(), digest: "sha256:a".into() };
        BuildSpec {
            app: "hello".into(),
            source: ".".into(),
            root: BuildRoot { reference: "x".into(), base, packages: Vec::new() },
            working_directory: ".".into(),
            commands: vec!["true".into()],
            environment: BTreeMap::from([("LANG".into(), "C".into()), ("A".into(), "b".into())]),
            cache: cache.iter().map(PathBuf::from).collect(),
            pack: vec!["out".into()],
            exclude: Vec::new(),
            timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn caches_are_kept_apart_by_app_path_and_base() {
        let made = container_spec(&spec(&["/root/.cache/", "/var/cache/go"])).unwrap();
        assert_eq!(made.volumes.iter().map(|(_, path)| &**path).collect::<Vec<_>>(), ["/root/.cache", "/var/cache/go"]);
        let base = |digest: &str| BuildBase::Image { reference: "x".into(), digest: digest.into() };
        let one = cache_volume("hello", "/a", &base("sha256:a"));
        assert!(one.starts_with("alcedo-cache-hello-"));
        for other in [
            cache_volume("other", "/a", &base("sha256:a")),
            cache_volume("hello", "/b", &base("sha256:a")),
            cache_volume("hello", "/a", &base("sha256:b")),
        ] {
            assert_ne!(one, other);
        }
        for path in ["relative", "/", "/src", "/a/../b"] {
            assert!(matches!(container_spec(&spec(&[path])), Err(BuildError::CachePath { .. })), "{path}");
        }
    }

    #[test]
    fn the_working_directory_stays_in_the_source() {
        assert_eq!(working_directory(Path::new(".")).unwrap(), "/src");
        assert_eq!(working_directory(Path::new("./app/web")).unwrap(), "/src/app/web");
        for path in ["/etc", "..", "a/../.."] {
            assert!(working_directory(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn the_file_has_the_last_word_on_the_environment() {
        let environment = environment(&spec(&[]));
        let get = |name: &str| environment.iter().find(|(other, _)| other == name).map(|(_, value)| &**value);
        assert_eq!((get("LANG"), get("A"), get("ALCEDO_APP")), (Some("C"), Some("b"), Some("hello")));
    }
}
