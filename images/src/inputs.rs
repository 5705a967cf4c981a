//! Has anything changed that a build goes by? If not, its artifact is still the right one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    base::BuildBase,
    build::BuildSpec,
    canon,
    source::{self, SourceError},
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

/// SHA-256 (64 hexadecimal digits) over everything a build goes by: the source's files as [`source`] counts them, the
/// base, the build packages, commands, environment, cache paths and patterns.
///
/// What it cannot see: what the commands fetch from the network, and the versions of build packages (the root that they
/// were once installed in is kept by the engine and reused as it is).
pub fn fingerprint(spec: &BuildSpec) -> Result<String, SourceError> {
    Ok(of(spec, &source::digest(&spec.source)?))
}

fn of(spec: &BuildSpec, source: &str) -> String {
    // A set: the order in which the file names them does not count, nor that one is named twice.
    let packages: BTreeSet<&str> = spec.root.packages.iter().map(String::as_str).collect();
    canon::digest(&Inputs {
        format: BUILD_FORMAT,
        source,
        base: &spec.root.base,
        packages,
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
}
