//! From a recipe to its root in the engine, by mmdebstrap: nothing is pulled from a registry.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use alcedo_pipeline::secret::program;
use bollard::{
    Docker,
    query_parameters::{ImportImageOptionsBuilder, ListImagesOptionsBuilder, TagImageOptionsBuilder},
};
use futures::TryStreamExt;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::{
    archive::header,
    event::{ImageEvent, LINE_LIMIT, Sink, Stream},
    recipe::{DIGEST_LABEL, Manifest, PACKAGES_LABEL, RECIPE_LABEL, Recipe},
    root_archive::{self, Description},
};

/// The file in the root that lists its packages: name, version and architecture, one a line.
pub const PACKAGE_LIST: &str = "/usr/lib/alcedo/packages";

/// The program that makes the root, and the Debian package of the same name.
const TOOL: &str = "mmdebstrap";

/// mmdebstrap's own hook for a root without the pre-2023 directory layout; its package brings it.
const MERGE_USR: &str = "/usr/share/mmdebstrap/hooks/maybe-merged-usr";

/// For all of mmdebstrap's work. It takes half a minute where the mirror is near, minutes over a slow line.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// For the engine to take in a root of a few hundred megabytes.
const IMPORT_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// For the engine's answers from what it knows.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// For mmdebstrap to remove what it has half made, once it is told to end.
const LAST_WORK: Duration = Duration::from_secs(15);

/// The pause before asking again whether another process's bootstrap has ended.
const TURN_PAUSE: Duration = Duration::from_millis(200);

/// How many of mmdebstrap's last lines an error carries.
const LAST_LINES: usize = 15;

/// A recipe's root in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    pub recipe: String,
    /// [`Recipe::digest`].
    pub digest: String,
    /// What the engine calls it.
    pub reference: String,
    pub size_bytes: u64,
    /// Whether it was there already.
    pub reused: bool,
    /// What making it took; nothing where it was there.
    pub took: Duration,
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("{TOOL}, which makes base images, is not installed")]
    NoTool,
    #[error("{TOOL} cannot be started")]
    Start { source: io::Error },
    #[error("{TOOL} failed ({status}); its last lines:\n{}", last_lines.join("\n"))]
    Failed { status: std::process::ExitStatus, last_lines: Vec<String> },
    #[error("making the root was cancelled")]
    Cancelled,
    #[error("{what} took longer than {} s", deadline.as_secs())]
    Late { what: &'static str, deadline: Duration },
    #[error("the work folder of the bootstrap cannot be used")]
    Work { source: io::Error },
    #[error("the engine does not have the image {reference} that it has just taken")]
    Lost { reference: String },
    #[error("the engine did not {what}")]
    Engine { what: &'static str, source: bollard::errors::Error },
}

impl BootstrapError {
    /// What to do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTool => Some("on Debian and Ubuntu: `sudo apt-get install mmdebstrap`"),
            Self::Failed { .. } => Some(
                "it needs root, or user namespaces with `uidmap` installed and ranges in /etc/subuid and /etc/subgid; a \
                 mirror that answers; and on other distributions the package `debian-archive-keyring`",
            ),
            Self::Late { .. } => Some("is the mirror slow? A recipe of your own can name another one, `mirror:`"),
            Self::Work { .. } => {
                Some("about 1 GB is needed in the folder for temporary files; TMPDIR names another one")
            }
            Self::Lost { .. } => Some("was it removed by someone else? Run it again"),
            Self::Start { .. } | Self::Engine { .. } | Self::Cancelled => None,
        }
    }
}

/// Looks for a recipe's root in the engine.
///
/// # Errors
/// The engine refuses or does not answer.
pub async fn find(docker: &Docker, recipe: &Recipe) -> Result<Option<BaseImage>, BootstrapError> {
    let (digest, reference) = (recipe.digest(), recipe.reference());
    let filters = [("label".to_owned(), vec![format!("{DIGEST_LABEL}={digest}")])].into();
    let call = docker.list_images(Some(ListImagesOptionsBuilder::new().filters(&filters).build()));
    let images = answer("list its images", ANSWER_DEADLINE, call).await?;
    // By name as well: images made from the root inherit its labels.
    let root = images.into_iter().find(|image| image.repo_tags.iter().any(|tag| is_called(tag, &reference)));
    Ok(root.map(|image| BaseImage {
        recipe: recipe.name().to_owned(),
        digest,
        reference,
        size_bytes: image.size.try_into().unwrap_or(0),
        reused: true,
        took: Duration::ZERO,
    }))
}

/// Whether an image's tag is `reference`. Podman puts a registry before names that have none.
fn is_called(tag: &str, reference: &str) -> bool {
    let plain = ["localhost/", "docker.io/"].iter().find_map(|registry| tag.strip_prefix(registry));
    plain.unwrap_or(tag) == reference
}

/// Makes a recipe's root and gives it to the engine, unless the engine has it. It is found as `alcedo/<recipe>:<12 hex>`
/// and, the newest, as `alcedo/<recipe>:latest`.
///
/// # Errors
/// mmdebstrap is missing or fails, the engine refuses, or `cancel` ends it. Nothing is left behind then.
pub async fn bootstrap(
    docker: &Docker,
    recipe: &Recipe,
    progress: &Sink,
    cancel: &CancellationToken,
) -> Result<BaseImage, BootstrapError> {
    let image = match find(docker, recipe).await? {
        Some(image) => image,
        None => make_once(docker, recipe, progress, cancel).await?,
    };
    // Also where it was there already: going back to an earlier recipe makes its root the latest again.
    let latest = TagImageOptionsBuilder::new().repo(&recipe.repository()).tag("latest").build();
    answer("name the image", ANSWER_DEADLINE, docker.tag_image(&image.reference, Some(latest))).await?;
    Ok(image)
}

/// Makes the root, unless another process of this user does so meanwhile: then that one's is taken.
async fn make_once(
    docker: &Docker,
    recipe: &Recipe,
    progress: &Sink,
    cancel: &CancellationToken,
) -> Result<BaseImage, BootstrapError> {
    let began = Instant::now();
    let user = fs::metadata("/proc/self").map_err(|source| BootstrapError::Work { source })?.uid();
    let path = std::env::temp_dir().join(format!("alcedo-bootstrap-{user}.lock"));
    let _turn = tokio::select! {
        turn = wait_for_turn(&path, progress) => turn?,
        () = cancel.cancelled() => return Err(BootstrapError::Cancelled),
    };
    if let Some(image) = find(docker, recipe).await? {
        return Ok(image);
    }
    make(docker, recipe, progress, cancel).await?;
    let image = find(docker, recipe).await?.ok_or_else(|| BootstrapError::Lost { reference: recipe.reference() })?;
    Ok(BaseImage { reused: false, took: began.elapsed(), ..image })
}

/// Waits until no other process of this user makes a root: two at once take longer than one after the other, and the
/// second mostly finds that there is nothing left to do. The turn ends when the file is closed, however that comes.
async fn wait_for_turn(path: &Path, progress: &Sink) -> Result<File, BootstrapError> {
    let work = |source| BootstrapError::Work { source };
    let file = File::options().create(true).append(true).open(path).map_err(work)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(work(source)),
            Err(TryLockError::WouldBlock) if began.elapsed() > BOOTSTRAP_DEADLINE => {
                return Err(BootstrapError::Late { what: "another process's bootstrap", deadline: BOOTSTRAP_DEADLINE });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if began.elapsed() < TURN_PAUSE {
            progress(ImageEvent::Started { what: "waiting for another process that makes a root".to_owned() });
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
}

async fn make(
    docker: &Docker,
    recipe: &Recipe,
    progress: &Sink,
    cancel: &CancellationToken,
) -> Result<(), BootstrapError> {
    let work = |source| BootstrapError::Work { source };
    let folder = tempfile::tempdir().map_err(work)?;
    // Without root, mmdebstrap's hooks run as another user, who must be able to read what is here. Nothing is secret.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(work)?;
    fs::write(folder.path().join("overlay.tar"), overlay(recipe).map_err(work)?).map_err(work)?;
    fs::write(folder.path().join("finish.sh"), finish(recipe)).map_err(work)?;

    progress(ImageEvent::Started { what: format!("making the root of {}", recipe.name()) });
    let root = folder.path().join("root.tar");
    let run = run_tool(recipe, folder.path(), &root, progress, cancel);
    tokio::time::timeout(BOOTSTRAP_DEADLINE, run)
        .await
        .map_err(|_| BootstrapError::Late { what: "making the root", deadline: BOOTSTRAP_DEADLINE })??;

    progress(ImageEvent::Started { what: format!("importing {}", recipe.reference()) });
    let packages = fs::read(folder.path().join("packages")).map_err(work)?;
    tokio::select! {
        imported = import(docker, recipe, &root, &packages) => imported,
        () = cancel.cancelled() => Err(BootstrapError::Cancelled),
    }
}

/// The layer of the recipe's own files and its units' links.
fn overlay(recipe: &Recipe) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in recipe.files() {
        let mut header = header(tar::EntryType::Regular, file.mode, file.content.len() as u64);
        archive.append_data(&mut header, file.path.trim_start_matches('/'), file.content.as_slice())?;
    }
    let manifest = recipe.manifest();
    let enabled = manifest
        .enable
        .iter()
        .map(|unit| (format!("multi-user.target.wants/{unit}"), format!("/usr/lib/systemd/system/{unit}")));
    let masked = manifest.mask.iter().map(|unit| (unit.clone(), "/dev/null".to_owned()));
    for (link, target) in enabled.chain(masked) {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut header, format!("etc/systemd/system/{link}"), target)?;
    }
    archive.into_inner()
}

/// The script that runs in the root at the end: the recipe's commands, then the list of what it holds.
fn finish(recipe: &Recipe) -> String {
    let mut script = String::from("set -e\n");
    for command in &recipe.manifest().commands {
        script.push_str(command);
        script.push('\n');
    }
    script.push_str("mkdir -p \"${0%/*}\"\ndpkg-query -W -f '${Package} ${Version} ${Architecture}\\n' >\"$0\"\n");
    script
}

fn run_arguments(recipe: &Recipe, folder: &Path, root: &Path) -> Vec<String> {
    let manifest = recipe.manifest();
    let folder = folder.display();
    let mut arguments = vec!["--mode=auto".to_owned(), "--variant=apt".to_owned(), "--format=tar".to_owned()];
    arguments.push(format!("--include={}", manifest.packages.join(",")));
    // Merges /usr before packages are unpacked; otherwise `usrmerge` does it, and brings all of Perl for that.
    if Path::new(MERGE_USR).exists() {
        arguments.push(format!("--hook-dir={MERGE_USR}"));
    }
    // Only the newest index is wanted, and nobody reads translated descriptions.
    arguments.push("--aptopt=Acquire::Languages \"none\"".to_owned());
    arguments.push("--aptopt=APT::Install-Recommends \"false\"".to_owned());
    arguments.extend(manifest.exclude_paths.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    arguments.extend(manifest.include_paths.iter().map(|path| format!("--dpkgopt=path-include={path}")));
    // The files come before the packages' own scripts could start what they configure; but folders of packages come first.
    arguments.push(format!("--customize-hook=tar-in '{folder}/overlay.tar' /"));
    arguments.push(format!("--customize-hook=chroot \"$1\" /bin/sh -c \"$(cat '{folder}/finish.sh')\" {PACKAGE_LIST}"));
    arguments.push(format!("--customize-hook=download {PACKAGE_LIST} '{folder}/packages'"));
    arguments.push(manifest.suite.clone());
    arguments.push(root.display().to_string());
    let components = manifest.components.join(" ");
    let Manifest { mirror, security_mirror, suite, .. } = manifest;
    arguments.push(format!("deb {mirror} {suite} {components}"));
    arguments.push(format!("deb {mirror} {suite}-updates {components}"));
    arguments.push(format!("deb {security_mirror} {suite}-security {components}"));
    arguments
}

/// mmdebstrap and everything it has started, in a process group of its own: a Ctrl-C in a terminal is for whoever runs it,
/// and decides by itself when it ends.
struct Group(Option<Pid>);

impl Group {
    /// Asks it to end, which lets it remove what it has half made; then makes it.
    async fn end(mut self, child: &mut Child) {
        let Some(group) = self.0 else { return };
        let _ = killpg(group, Signal::SIGTERM);
        let _ = tokio::time::timeout(LAST_WORK, child.wait()).await;
        // Whoever of it has not heard.
        let _ = killpg(group, Signal::SIGKILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn run_tool(
    recipe: &Recipe,
    folder: &Path,
    root: &Path,
    progress: &Sink,
    cancel: &CancellationToken,
) -> Result<(), BootstrapError> {
    let mut child = Command::from(program(TOOL))
        .args(run_arguments(recipe, folder, root))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BootstrapError::NoTool,
            _ => BootstrapError::Start { source },
        })?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let mut last_lines = Vec::with_capacity(LAST_LINES + 1);
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).split(b'\n');
        loop {
            let line = tokio::select! {
                line = lines.next_segment() => line.map_err(|source| BootstrapError::Work { source })?,
                () = cancel.cancelled() => {
                    group.end(&mut child).await;
                    return Err(BootstrapError::Cancelled);
                }
            };
            let Some(line) = line else { break };
            let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
            text.truncate(text.floor_char_boundary(LINE_LIMIT));
            last_lines.push(text.clone());
            if last_lines.len() > LAST_LINES {
                last_lines.remove(0);
            }
            progress(ImageEvent::Line { stream: Stream::Stderr, text });
        }
    }
    let status = child.wait().await.map_err(|source| BootstrapError::Work { source })?;
    group.0 = None;
    if status.success() { Ok(()) } else { Err(BootstrapError::Failed { status, last_lines }) }
}

async fn import(docker: &Docker, recipe: &Recipe, root: &Path, packages: &[u8]) -> Result<(), BootstrapError> {
    let labels = [
        (RECIPE_LABEL, recipe.name().to_owned()),
        (DIGEST_LABEL, recipe.digest()),
        (PACKAGES_LABEL, format!("sha256:{}", hex::encode(Sha256::digest(packages)))),
    ];
    let description = Description {
        references: vec![recipe.reference()],
        labels: labels.map(|(label, value)| (label.to_owned(), value)).into(),
        command: vec!["/sbin/init".to_owned()],
        created: jiff::Timestamp::now(),
    };
    let archive = root_archive::stream(root, &description).await.map_err(|source| BootstrapError::Work { source })?;
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let told = docker.import_image_stream(options, archive, None).try_for_each(|_| async { Ok(()) });
    answer("import the root", IMPORT_DEADLINE, told).await
}

async fn answer<T>(
    what: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, BootstrapError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(|source| BootstrapError::Engine { what, source }),
        Err(_) => Err(BootstrapError::Late { what: "the engine's answer", deadline }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe::load("debian-bookworm").expect("it is built in")
    }

    #[test]
    fn the_overlay_holds_files_and_links_of_root() {
        let overlay = overlay(&recipe()).expect("an archive");
        let mut archive = tar::Archive::new(overlay.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("an entry");
            let header = entry.header();
            assert_eq!((header.uid().expect("a uid"), header.gid().expect("a gid")), (0, 0));
            let target = entry.link_name().expect("a link name").map(|target| target.display().to_string());
            seen.push((entry.path().expect("a path").display().to_string(), header.mode().expect("a mode"), target));
        }
        assert!(seen.contains(&("etc/sudoers.d/90-alcedo".into(), 0o440, None)));
        assert!(seen.contains(&("etc/systemd/system/nftables.service".into(), 0o777, Some("/dev/null".into()))));
        let wanted = "etc/systemd/system/multi-user.target.wants/alcedo-identity.service";
        assert!(seen.iter().any(|(path, ..)| path == wanted));
    }

    #[test]
    fn the_arguments_name_suite_packages_and_mirrors() {
        let arguments = run_arguments(&recipe(), Path::new("/tmp/work"), Path::new("/tmp/work/root.tar"));
        let include = arguments.iter().find(|argument| argument.starts_with("--include=")).expect("packages");
        assert!(include.contains("openssh-server") && include.contains("nftables"), "{include}");
        let position = |text: &str| arguments.iter().position(|argument| argument == text);
        let suite = position("bookworm").expect("the suite");
        assert_eq!(arguments[suite + 1], "/tmp/work/root.tar");
        assert_eq!(arguments[suite + 2], "deb http://deb.debian.org/debian bookworm main");
        assert_eq!(arguments.len(), suite + 5, "three sources: the suite, its updates, its security updates");
    }

    #[tokio::test]
    async fn a_second_bootstrap_waits_for_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let first = wait_for_turn(&path, &crate::event::silent()).await.expect("nobody is before");
        let (told, mut waits) = tokio::sync::mpsc::unbounded_channel();
        let progress: Sink = std::sync::Arc::new(move |event| told.send(event).expect("someone listens"));
        let second = tokio::spawn(async move { wait_for_turn(&path, &progress).await });
        assert!(matches!(waits.recv().await, Some(ImageEvent::Started { .. })), "it says that it waits");
        assert!(!second.is_finished());
        drop(first);
        second.await.expect("no panic").expect("its turn");
    }

    #[test]
    fn the_list_of_packages_is_the_last_thing_written() {
        let script = finish(&recipe());
        assert!(script.starts_with("set -e\nmkdir --parents /usr/share/man/man1\nuseradd "), "{script}");
        assert!(script.trim_end().ends_with(r#">"$0""#), "{script}");
    }
}
