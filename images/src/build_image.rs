//! The root that builds run in: a base, plus the packages a build needs, made once and kept on the engine.

use std::collections::HashMap;

use bollard::{
    models::ContainerConfig,
    query_parameters::{CommitContainerOptions, CreateImageOptions},
};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    base::BuildBase,
    bootstrap::BaseImage,
    container::{Container, ContainerError, ContainerSpec, is_status},
    engine::Engine,
    event::{ImageEvent, Sink},
};

/// The repository of images made here; their tags name what is in them.
pub const REPOSITORY: &str = "alcedo/build";
/// The label that holds the digest of the base.
const BASE_LABEL: &str = "io.alcedo.build-root.base";
/// The label that holds the packages, sorted, separated by blanks.
const PACKAGES_LABEL: &str = "io.alcedo.build-root.packages";

/// Hexadecimal digits of the tag: 48 bits, far more than one machine has build roots.
const TAG_DIGITS: usize = 12;

/// How long the installation of packages may take.
const LIFETIME_SECONDS: u64 = 1800;

/// Installs the packages given as arguments. Lists and downloaded packages are removed again: they are of no use to a
/// build, and large.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o Acquire::Retries=3 update
apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install --no-install-recommends -- "$@"
apt-get clean
rm -rf /var/lib/apt/lists/*
"#;

/// An engine image that a build can run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRoot {
    /// How the engine calls it.
    pub reference: String,
    /// What it was made from, for the artifact's manifest.
    pub base: BuildBase,
    /// Added for building, sorted.
    pub packages: Vec<String>,
}

/// Why there is no root to build in.
#[derive(Debug, thiserror::Error)]
pub enum BuildRootError {
    #[error("there is no image `{reference}`, and the engine cannot pull it")]
    NoImage {
        reference: String,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("`{name}` is not a package's name")]
    PackageName { name: String },
    #[error("the packages {} could not be installed: apt-get ended with exit code {exit_code}", packages.join(", "))]
    Install { packages: Vec<String>, exit_code: i64, last_lines: Vec<String> },
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("the installation of build packages was cancelled")]
    Cancelled,
}

impl BuildRootError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoImage { .. } => Some("check `build.image`, and that this engine may pull from that registry"),
            Self::PackageName { .. } => {
                Some("`build.packages` takes names as `apt-get install` does: gcc, golang-go, gcc=4:12*")
            }
            Self::Install { .. } => Some("check the names in `build.packages`, and that containers reach the mirror"),
            Self::Container(_) | Self::Cancelled => None,
        }
    }

    /// The last lines of output, where a program failed.
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Install { last_lines, .. } => last_lines,
            _ => &[],
        }
    }
}

/// A recipe's root with these packages.
///
/// The image is called after the recipe's digest and the packages, so it is made once; asking again is one request.
pub async fn of_recipe(
    engine: &Engine,
    base: &BaseImage,
    packages: &[String],
    sink: &Sink,
    cancel: &CancellationToken,
) -> Result<BuildRoot, BuildRootError> {
    let root = BuildBase::Recipe { name: base.recipe.clone(), digest: base.digest.clone() };
    with_packages(engine, root, &base.reference, packages, sink, cancel).await
}

/// Any image that the engine has or can pull, with these packages (where there are some, it needs `apt-get`).
pub async fn of_image(
    engine: &Engine,
    reference: &str,
    packages: &[String],
    sink: &Sink,
    cancel: &CancellationToken,
) -> Result<BuildRoot, BuildRootError> {
    let digest = tokio::select! {
        digest = image_id(engine, reference, sink) => digest?,
        () = cancel.cancelled() => return Err(BuildRootError::Cancelled),
    };
    let root = BuildBase::Image { reference: reference.to_owned(), digest };
    with_packages(engine, root, reference, packages, sink, cancel).await
}

async fn image_id(engine: &Engine, reference: &str, sink: &Sink) -> Result<String, BuildRootError> {
    let docker = engine.docker();
    let missing = |source| BuildRootError::NoImage { reference: reference.to_owned(), source };
    let found = match docker.inspect_image(reference).await {
        Err(error) if is_status(&error, 404) => {
            sink(ImageEvent::Started { what: format!("pulling {reference}") });
            let options = CreateImageOptions { from_image: Some(with_tag(reference)), ..Default::default() };
            let mut pulling = std::pin::pin!(docker.create_image(Some(options), None, None));
            while let Some(progress) = pulling.next().await {
                progress.map_err(missing)?;
            }
            docker.inspect_image(reference).await
        }
        other => other,
    };
    Ok(found.map_err(missing)?.id.unwrap_or_default())
}

/// Without a tag or digest an engine would pull every tag there is.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

async fn with_packages(
    engine: &Engine,
    base: BuildBase,
    reference: &str,
    packages: &[String],
    sink: &Sink,
    cancel: &CancellationToken,
) -> Result<BuildRoot, BuildRootError> {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    if let Some(name) = packages.iter().find(|name| !is_package_name(name)) {
        return Err(BuildRootError::PackageName { name: name.clone() });
    }
    if packages.is_empty() {
        return Ok(BuildRoot { reference: reference.to_owned(), base, packages });
    }
    let root = BuildRoot { reference: format!("{REPOSITORY}:{}", tag(&base, &packages)), base, packages };
    match engine.docker().inspect_image(&root.reference).await {
        Ok(_) => return Ok(root),
        Err(error) if is_status(&error, 404) => {}
        Err(source) => return Err(ContainerError::new("look for the build root", source).into()),
    }
    sink(ImageEvent::Started { what: format!("installing {}", root.packages.join(", ")) });
    tokio::select! {
        made = make(engine, reference, &root, sink) => made.map(|()| root),
        () = cancel.cancelled() => Err(BuildRootError::Cancelled),
    }
}

/// Installs the packages in a container of the base, and keeps the container's root as an image.
async fn make(engine: &Engine, base: &str, root: &BuildRoot, sink: &Sink) -> Result<(), BuildRootError> {
    let spec = ContainerSpec {
        image: base.to_owned(),
        app: "build-root".into(),
        volumes: Vec::new(),
        lifetime_seconds: LIFETIME_SECONDS,
    };
    crate::leftover::sweep(engine, &spec.app).await?;
    let container = Container::start(engine, &spec).await?;
    let mut command = vec!["sh", "-e", "-c", INSTALL, "sh"];
    command.extend(root.packages.iter().map(String::as_str));
    let installed = async {
        let ended = container.run(&command, &[], "/", sink).await?;
        if ended.exit_code != 0 {
            let (packages, exit_code, last_lines) = (root.packages.clone(), ended.exit_code, ended.last_lines);
            return Err(BuildRootError::Install { packages, exit_code, last_lines });
        }
        keep(engine, &container, root).await
    };
    let outcome = installed.await;
    container.remove().await;
    outcome
}

async fn keep(engine: &Engine, container: &Container, root: &BuildRoot) -> Result<(), BuildRootError> {
    let (repository, tag) = root.reference.split_once(':').unwrap_or((&root.reference, "latest"));
    let options = CommitContainerOptions {
        container: Some(container.id().to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        pause: true,
        ..Default::default()
    };
    let labels = HashMap::from([
        (BASE_LABEL.to_owned(), root.base.digest().to_owned()),
        (PACKAGES_LABEL.to_owned(), root.packages.join(" ")),
    ]);
    let config = ContainerConfig { labels: Some(labels), ..Default::default() };
    let kept = engine.docker().commit_container(options, config).await;
    kept.map(drop).map_err(|source| ContainerError::new("keep the build root", source).into())
}

fn tag(base: &BuildBase, packages: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(base.digest());
    for package in packages {
        hash.update([0]);
        hash.update(package);
    }
    let mut tag = hex::encode(hash.finalize());
    tag.truncate(TAG_DIGITS);
    tag
}

/// Debian's rule for names, with an optional architecture and version. Above all: nothing that apt-get could take for
/// an option.
fn is_package_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:=~*".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_named_after_what_is_in_it() {
        let base = |digest: &str| BuildBase::Recipe { name: "debian-bookworm".into(), digest: digest.into() };
        let packages = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let one = tag(&base("sha256:a"), &packages(&["gcc", "make"]));
        assert_eq!(one.len(), TAG_DIGITS);
        assert_ne!(one, tag(&base("sha256:b"), &packages(&["gcc", "make"])));
        assert_ne!(one, tag(&base("sha256:a"), &packages(&["gcc"])));
        assert_ne!(one, tag(&base("sha256:a"), &packages(&["gccmake"])));
    }

    #[test]
    fn nothing_becomes_an_option_of_apt() {
        for good in ["gcc", "libstdc++6", "golang-go", "libc6:amd64", "gcc=4:12.2.0-3", "7zip"] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in ["", "-y", "--download-only", "gcc make", "gcc;id", "../x", "$(id)"] {
            assert!(!is_package_name(bad), "{bad}");
        }
    }

    #[test]
    fn one_image_is_pulled_not_all_of_its_tags() {
        assert_eq!(with_tag("debian"), "debian:latest");
        assert_eq!(with_tag("debian:12"), "debian:12");
        assert_eq!(with_tag("host:5000/debian"), "host:5000/debian:latest");
        assert_eq!(with_tag("debian@sha256:abc"), "debian@sha256:abc");
    }
}
