//! Has anything changed that a build goes by? If not, its artifact is still the right one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    base::BuildBase,
    build::BuildSpec,
    canon,
    source::{self, FileDigest, SourceError},
};

/// The version of the build itself: raised whenever the same inputs would give another artifact, so that none of an
/// older build is reused.
const BUILD_FORMAT: u32 = 1;

#[derive(Debug, Serialize)]
struct Inputs<'a> {
    format: u32,
    source: &'a str,
    base: &'a BuildBase,
    packages: BTreeSet<&'a str>,
    working_directory: &'a Path,
    commands: &'a [String],
    environment: &'a BTreeMap<String, String>,
    cache: &'a [PathBuf],
    pack: &'a [String],
    exclude: &'a [String],
}

/// What a build goes by, part by part, to be compared with another build's: the fingerprint says that something has
/// changed, these say what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Version of this format; see [`Parts::FORMAT`].
    pub format: u32,
    /// The base and the settings of `build`, by their keys in `alcedo.yaml`; the first digits of their digests.
    pub settings: BTreeMap<String, String>,
    /// The source's files with the first digits of their digests.
    pub files: BTreeMap<String, String>,
}

impl Parts {
    pub const FORMAT: u32 = 1;

    /// The part that is neither a setting nor a file: how Alcedo builds.
    pub const TOOL: &str = "alcedo";
    pub const BASE: &str = "base";

    fn of(spec: &BuildSpec, files: &[FileDigest]) -> Self {
        let settings = [
            (Self::TOOL, short(&BUILD_FORMAT)),
            (Self::BASE, short(&spec.root.base)),
            ("packages", short(&packages(spec))),
            ("working_directory", short(&spec.working_directory)),
            ("commands", short(&spec.commands)),
            ("cache", short(&spec.cache)),
            ("pack", short(&spec.pack)),
            ("exclude", short(&spec.exclude)),
        ];
        let settings = settings.into_iter().map(|(name, digest)| (name.to_owned(), digest));
        let variables = spec.environment.iter().map(|(name, value)| (format!("environment.{name}"), short(value)));
        let files = files.iter().map(|file| (file.path.to_string_lossy().into_owned(), first_digits(file.digest())));
        Self { format: Self::FORMAT, settings: settings.chain(variables).collect(), files: files.collect() }
    }
}

/// Enough digits that nobody meets two inputs by chance that look the same; they decide nothing.
const DIGITS: usize = 16;

fn short(value: &impl Serialize) -> String {
    first_digits(canon::digest(value))
}

fn first_digits(mut digest: String) -> String {
    digest.truncate(DIGITS);
    digest
}

/// SHA-256 (64 hexadecimal digits) over everything a build goes by, and its parts: the source's files as [`source`] counts
/// them, the base, the build packages, commands, environment, cache paths and patterns.
///
/// What it cannot see: what the commands fetch from the network, and the versions of build packages (the root that they
/// were once installed in is kept by the engine and reused as it is).
pub fn fingerprint(spec: &BuildSpec) -> Result<(String, Parts), SourceError> {
    let files = source::digests(&spec.source)?;
    Ok((of(spec, &source::digest_of(&files)), Parts::of(spec, &files)))
}

/// A set: the order in which the file names them does not count, nor that one is named twice.
fn packages(spec: &BuildSpec) -> BTreeSet<&str> {
    spec.root.packages.iter().map(String::as_str).collect()
}

fn of(spec: &BuildSpec, source: &str) -> String {
    canon::digest(&Inputs {
        format: BUILD_FORMAT,
        source,
        base: &spec.root.base,
        packages: packages(spec),
        working_directory: &spec.working_directory,
        commands: &spec.commands,
        environment: &spec.environment,
        cache: &spec.cache,
        pack: &spec.pack,
        exclude: &spec.exclude,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::build_image::BuildRoot;

    fn spec() -> BuildSpec {
        let base = BuildBase::Recipe { name: "debian-bookworm".into(), digest: "sha256:a".into() };
        BuildSpec {
            app: "hello".into(),
            source: "/somewhere".into(),
            root: BuildRoot { reference: "alcedo/build:abc".into(), base, packages: vec!["gcc".into()] },
            working_directory: ".".into(),
            commands: vec!["make".into()],
            environment: BTreeMap::from([("A".into(), "b".into())]),
            cache: vec!["/c".into()],
            pack: vec!["out".into()],
            exclude: vec!["*.map".into()],
            timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn every_input_changes_the_fingerprint_and_nothing_else_does() {
        let before = of(&spec(), "s");
        assert_eq!(of(&spec(), "s"), before);
        assert_eq!(of(&BuildSpec { source: "/elsewhere".into(), timeout: Duration::ZERO, ..spec() }, "s"), before);

        let mut twice = spec();
        twice.root.packages = vec!["gcc".into(), "gcc".into()];
        assert_eq!(of(&twice, "s"), before);

        let changed = |change: &dyn Fn(&mut BuildSpec)| {
            let mut spec = spec();
            change(&mut spec);
            of(&spec, "s")
        };
        let fingerprints = [
            before,
            of(&spec(), "t"),
            changed(&|spec| {
                spec.root.base = BuildBase::Recipe { name: "debian-bookworm".into(), digest: "sha256:b".into() }
            }),
            changed(&|spec| spec.root.packages.push("make".into())),
            changed(&|spec| spec.working_directory = "app".into()),
            changed(&|spec| spec.commands.push("make test".into())),
            changed(&|spec| drop(spec.environment.insert("A".into(), "c".into()))),
            changed(&|spec| spec.cache.clear()),
            changed(&|spec| spec.pack.push("more".into())),
            changed(&|spec| spec.exclude.clear()),
        ];
        assert_eq!(fingerprints.iter().collect::<BTreeSet<_>>().len(), fingerprints.len());
    }

    /// Names of the parts of which the two have another digest, or only one of them any.
    fn differing(left: &Parts, right: &Parts) -> Vec<String> {
        let all = |parts: &Parts| -> BTreeSet<(String, String)> {
            parts.settings.clone().into_iter().chain(parts.files.clone()).collect()
        };
        let names: BTreeSet<String> =
            all(left).symmetric_difference(&all(right)).map(|(name, _)| name.clone()).collect();
        names.into_iter().collect()
    }

    #[test]
    fn every_input_is_a_part_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.c"), "int main;").unwrap();
        let spec = || BuildSpec { source: folder.path().to_owned(), ..spec() };
        let (_, before) = fingerprint(&spec()).unwrap();
        let changed = |change: &dyn Fn(&mut BuildSpec)| {
            let mut spec = spec();
            change(&mut spec);
            differing(&before, &fingerprint(&spec).unwrap().1)
        };
        assert_eq!(changed(&|_| ()), [""; 0]);
        let other = BuildBase::Recipe { name: "debian-bookworm".into(), digest: "sha256:b".into() };
        assert_eq!(changed(&|spec| spec.root.base = other.clone()), ["base"]);
        assert_eq!(changed(&|spec| spec.root.packages.push("make".into())), ["packages"]);
        assert_eq!(changed(&|spec| spec.working_directory = "app".into()), ["working_directory"]);
        assert_eq!(changed(&|spec| spec.commands.push("make test".into())), ["commands"]);
        assert_eq!(changed(&|spec| drop(spec.environment.insert("A".into(), "c".into()))), ["environment.A"]);
        assert_eq!(changed(&|spec| drop(spec.environment.insert("B".into(), "c".into()))), ["environment.B"]);
        assert_eq!(changed(&|spec| spec.cache.clear()), ["cache"]);
        assert_eq!(changed(&|spec| spec.pack.push("more".into())), ["pack"]);
        assert_eq!(changed(&|spec| spec.exclude.clear()), ["exclude"]);
        std::fs::write(folder.path().join("main.c"), "int main();").unwrap();
        assert_eq!(changed(&|_| ()), ["main.c"]);
    }
}
