//! An artifact is installed only on the root it was built for.
//!
//! Where both sides are a recipe's root, the recipe's digest decides ([`same_recipe`]). Where the server's base is a
//! vendor's image, the builder is asked what it is, and the artifact's programs are read here for what they need
//! ([`fits`]). Ask after provisioning: a library that a step installs counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use alcedo_smoke_tests::shell::{Shell, ShellCommand, ShellError};

use crate::{
    base::BuildBase,
    elf::{self, Needs},
    platform::{Platform, PlatformError, ServerFacts, server_question},
};

/// Bytes of one program that are read. Larger ones are refused rather than taken on trust.
const PROGRAM_LIMIT: u64 = 1 << 30;

/// One reason why an artifact does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What is compared: `architecture`, `shared library`.
    pub what: String,
    /// What the artifact was built on, or needs.
    pub built_on: String,
    /// What the server has.
    pub server: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: built on {}, the server has {}", self.what, self.built_on, self.server)
    }
}

/// Why an artifact is refused.
#[derive(Debug, thiserror::Error)]
pub enum BaseMismatch {
    #[error("the artifact was built on {built_on}, and the server's base is {server}")]
    Recipe { built_on: String, server: String },
    #[error("the artifact does not fit the server: {}", join(.0))]
    Platform(Vec<Difference>),
    #[error("the server could not be asked what it is")]
    NoAnswer(#[source] ShellError),
    #[error("the server does not say what it is")]
    Unknown(#[source] PlatformError),
    #[error("the artifact {} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl BaseMismatch {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Recipe { .. } => {
                Some("name the same recipe in `build.recipe` and `bake.base.recipe`, and build again")
            }
            Self::Platform(_) => Some(
                "build on the distribution and release that the server runs (`build.recipe` or `build.image`), and install \
                 missing libraries in a `bake.provision` step",
            ),
            Self::NoAnswer(_) | Self::Unknown(_) | Self::Unreadable { .. } => None,
        }
    }
}

fn join(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

/// The artifact was built on exactly this recipe's root.
pub fn same_recipe(built_on: &BuildBase, recipe: &str, digest: &str) -> Result<(), BaseMismatch> {
    if matches!(built_on, BuildBase::Recipe { digest: built_on, .. } if built_on == digest) {
        return Ok(());
    }
    let named = |name: &str, digest: &str| format!("{name} ({digest})");
    Err(BaseMismatch::Recipe { built_on: named(built_on.name(), built_on.digest()), server: named(recipe, digest) })
}

/// Asks the server what it is.
pub async fn ask(server: &dyn Shell) -> Result<ServerFacts, BaseMismatch> {
    let answer = server.run(&ShellCommand::new(server_question())).await.map_err(BaseMismatch::NoAnswer)?;
    ServerFacts::read(&answer.stdout).map_err(BaseMismatch::Unknown)
}

/// What the programs in an artifact need, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArtifactNeeds {
    pub programs: BTreeMap<String, Needs>,
    /// Every path in the artifact.
    pub paths: BTreeSet<String>,
}

/// Reads what the programs in an artifact need.
pub fn needs(artifact: &Path) -> Result<ArtifactNeeds, BaseMismatch> {
    let unreadable = |source| BaseMismatch::Unreadable { path: artifact.to_owned(), source };
    read_needs(artifact).map_err(unreadable)
}

fn read_needs(artifact: &Path) -> io::Result<ArtifactNeeds> {
    let mut found = ArtifactNeeds::default();
    let mut archive = tar::Archive::new(zstd::Decoder::new(fs::File::open(artifact)?)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        found.paths.insert(path.clone());
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let mut start = [0; 4];
        if entry.size() < 4 || entry.read_exact(&mut start).is_err() || start != elf::MAGIC {
            continue;
        }
        if entry.size() > PROGRAM_LIMIT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("`{path}` is larger than 1 GiB")));
        }
        let mut bytes = start.to_vec();
        entry.read_to_end(&mut bytes)?;
        if let Some(needs) = elf::needs(&bytes) {
            found.programs.insert(path, needs);
        }
    }
    Ok(found)
}

/// The artifact's programs run on this server: same distribution and release, same architecture, a C library at least as
/// new, and every shared library found, in the artifact (by `$ORIGIN`) or on the server.
pub fn fits(needs: &ArtifactNeeds, built_on: &Platform, server: &ServerFacts) -> Result<(), BaseMismatch> {
    let mut differences = Vec::new();
    let mut differs = |what: &str, built_on: &str, server: &str| {
        let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        differences.push(Difference { what: what.to_owned(), built_on: or_none(built_on), server: or_none(server) });
    };
    let has = &server.platform;
    if (&built_on.os, &built_on.os_version) != (&has.os, &has.os_version) {
        differs(
            "distribution",
            format!("{} {}", built_on.os, built_on.os_version).trim_end(),
            format!("{} {}", has.os, has.os_version).trim_end(),
        );
    }
    if built_on.architecture != has.architecture {
        differs("architecture", &built_on.architecture, &has.architecture);
    }
    if !libc_is_enough(&built_on.libc, &has.libc) {
        differs("C library", &built_on.libc, &has.libc);
    }
    for (path, program) in &needs.programs {
        if program.architecture.is_some_and(|architecture| architecture != has.architecture) {
            differs(&format!("architecture of {path}"), program.architecture.unwrap_or_default(), &has.architecture);
        }
        for library in &program.libraries {
            if !server.libraries.contains(library) && !is_inside(needs, path, program, library) {
                differs(&format!("shared library of {path}"), library, "");
            }
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(BaseMismatch::Platform(differences)) }
}

/// `glibc 2.36` runs what was built on `glibc 2.31`, not the other way (symbol versions only ever grow). Of other C
/// libraries nothing is known but whether they are the same.
fn libc_is_enough(built_on: &str, server: &str) -> bool {
    let version = |text: &str| -> Option<Vec<u32>> {
        text.strip_prefix("glibc ")?.split('.').map(|part| part.parse().ok()).collect()
    };
    match (version(built_on), version(server)) {
        (Some(built_on), Some(server)) => built_on <= server,
        _ => built_on == server,
    }
}

/// Whether the dynamic linker finds the library in the artifact, by a search path of the program that starts at
/// `$ORIGIN` (ld.so(8)).
fn is_inside(needs: &ArtifactNeeds, program: &str, elf: &Needs, library: &str) -> bool {
    let folder = program.rsplit_once('/').map_or("", |(folder, _)| folder);
    elf.search_paths.iter().any(|path| {
        let rest = path.strip_prefix("$ORIGIN").or_else(|| path.strip_prefix("${ORIGIN}"));
        let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) else { return false };
        resolve(folder, &format!("{rest}/{library}")).is_some_and(|path| needs.paths.contains(&path))
    })
}

/// The path reached from a folder of the artifact, or `None` for one outside it.
fn resolve(folder: &str, relative: &str) -> Option<String> {
    let mut names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
    for name in relative.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> Platform {
        Platform {
            os: "debian".into(),
            os_version: "12".into(),
            architecture: "x86_64".into(),
            libc: "glibc 2.36".into(),
        }
    }

    fn server(libraries: &[&str]) -> ServerFacts {
        ServerFacts { platform: platform(), libraries: libraries.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn artifact(libraries: &[&str], search_paths: &[&str], paths: &[&str]) -> ArtifactNeeds {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let needs =
            Needs { architecture: Some("x86_64"), libraries: owned(libraries), search_paths: owned(search_paths) };
        ArtifactNeeds {
            programs: BTreeMap::from([("bin/hello".into(), needs)]),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    fn outcome(needs: &ArtifactNeeds, built_on: &Platform, server: &ServerFacts) -> String {
        fits(needs, built_on, server).map_or_else(|error| error.to_string(), |()| "fits".into())
    }

    #[test]
    fn a_recipe_is_matched_by_its_digest() {
        let built_on = BuildBase::Recipe { name: "debian-bookworm".into(), digest: "sha256:a".into() };
        same_recipe(&built_on, "debian-bookworm", "sha256:a").unwrap();
        assert_eq!(
            same_recipe(&built_on, "debian-bookworm", "sha256:b").unwrap_err().to_string(),
            "the artifact was built on debian-bookworm (sha256:a), and the server's base is debian-bookworm (sha256:b)"
        );
        let image = BuildBase::Image { reference: "debian:12".into(), digest: "sha256:a".into() };
        assert!(same_recipe(&image, "debian-bookworm", "sha256:a").is_err(), "an image's digest is no recipe's");
    }

    #[test]
    fn every_difference_is_said() {
        let needs = artifact(&["libc.so.6", "libpq.so.5"], &[], &[]);
        assert_eq!(outcome(&needs, &platform(), &server(&["libc.so.6", "libpq.so.5"])), "fits");
        let old = Platform { os_version: "11".into(), libc: "glibc 2.31".into(), ..platform() };
        let small = ServerFacts { platform: old, ..server(&["libc.so.6"]) };
        assert_eq!(
            outcome(&needs, &platform(), &small),
            "the artifact does not fit the server: distribution: built on debian 12, the server has debian 11; \
             C library: built on glibc 2.36, the server has glibc 2.31; \
             shared library of bin/hello: built on libpq.so.5, the server has none"
        );
        let arm = Platform { architecture: "aarch64".into(), ..platform() };
        let arm = ServerFacts { platform: arm, ..server(&["libc.so.6", "libpq.so.5"]) };
        assert!(
            outcome(&needs, &platform(), &arm)
                .contains("architecture of bin/hello: built on x86_64, the server has aarch64")
        );
    }

    #[test]
    fn a_newer_c_library_is_enough() {
        assert!(libc_is_enough("glibc 2.9", "glibc 2.36"));
        assert!(!libc_is_enough("glibc 2.36", "glibc 2.9"));
        assert!(libc_is_enough("", ""));
        assert!(!libc_is_enough("glibc 2.36", ""));
    }

    #[test]
    fn libraries_in_the_artifact_count_where_the_program_looks() {
        let outcome = |search: &[&str], paths: &[&str]| {
            outcome(&artifact(&["libown.so"], search, paths), &platform(), &server(&[])) == "fits"
        };
        assert!(outcome(&["$ORIGIN/../lib"], &["lib/libown.so"]));
        assert!(outcome(&["/usr/lib", "${ORIGIN}"], &["bin/libown.so"]));
        assert!(!outcome(&[], &["lib/libown.so"]), "nobody looks there");
        assert!(!outcome(&["$ORIGIN/../../lib"], &["lib/libown.so"]), "outside the artifact");
        assert!(!outcome(&["$ORIGINAL/lib"], &["bin/lib/libown.so"]));
    }

    #[test]
    fn a_real_program_is_read_from_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = crate::archive::Content::new();
        let text = folder.path().join("text");
        fs::write(&text, "\x7fELF but not really").unwrap();
        content.file("bin/test", std::env::current_exe().unwrap(), true).unwrap();
        content.file("text", text, false).unwrap();
        let archive = content.write(&folder.path().join("out.tar.zst")).unwrap();
        let needs = needs(&archive.file).unwrap();
        assert_eq!(needs.programs.keys().collect::<Vec<_>>(), ["bin/test"]);
        assert!(needs.programs["bin/test"].libraries.contains(&"libc.so.6".to_owned()), "{needs:?}");
        assert_eq!(needs.programs["bin/test"].architecture, Some(std::env::consts::ARCH));
    }
}
