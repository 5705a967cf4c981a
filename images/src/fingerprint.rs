//! Has anything changed that a server image is made from? If not, the image that exists is still the right one.

use std::collections::BTreeMap;

use alcedo_pipeline::suite::Check;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{canon, provision::LoadedStep, scrub};

/// The version of the bake itself: raised whenever the same inputs would give another image.
const BAKE_FORMAT: u32 = 1;

/// Everything that goes into a server image.
#[derive(Debug, Clone)]
pub struct ImageInputs<'a> {
    /// The recipe's digest (`sha256:…`), or the id of the base's AMI.
    pub base: &'a str,
    /// Provisioning steps are told the app's name.
    pub app: &'a str,
    /// Provisioning steps are told the version and may write it into the image.
    pub version: &'a str,
    /// 64 hexadecimal digits.
    pub artifact_sha256: &'a str,
    pub install_path: &'a str,
    pub steps: &'a [LoadedStep],
    /// What has to hold before the image is made.
    pub checks: &'a [Check],
}

#[derive(Debug, Serialize)]
struct Canonical<'a> {
    format: u32,
    base: &'a str,
    app: &'a str,
    version: &'a str,
    artifact: &'a str,
    install_path: &'a str,
    steps: Vec<Step<'a>>,
    checks: &'a [Check],
    scrub: String,
}

/// A step by its content: where a script lies does not count, what it says does.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Step<'a> {
    Script { content: String, environment: &'a BTreeMap<String, String> },
    Run { commands: &'a str, environment: &'a BTreeMap<String, String> },
    Ansible { playbook: String, digest: &'a str, extra_vars: &'a BTreeMap<String, String>, arguments: &'a [String] },
}

impl<'a> From<&'a LoadedStep> for Step<'a> {
    fn from(step: &'a LoadedStep) -> Self {
        match step {
            LoadedStep::Script { content, environment, .. } => {
                Self::Script { content: hex::encode(Sha256::digest(content)), environment }
            }
            LoadedStep::Run { commands, environment } => Self::Run { commands, environment },
            // The digest is of a folder, in which the name says which playbook is meant.
            LoadedStep::Ansible { playbook, digest, extra_vars, arguments, .. } => Self::Ansible {
                playbook: playbook.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                digest,
                extra_vars,
                arguments,
            },
        }
    }
}

/// SHA-256 (64 hexadecimal digits) over everything that goes into the image. Same inputs, same fingerprint, on every
/// machine; another of any of them, another fingerprint.
pub fn fingerprint(inputs: &ImageInputs<'_>) -> String {
    canon::digest(&Canonical {
        format: BAKE_FORMAT,
        base: inputs.base,
        app: inputs.app,
        version: inputs.version,
        artifact: inputs.artifact_sha256,
        install_path: inputs.install_path,
        steps: inputs.steps.iter().map(Step::from).collect(),
        checks: inputs.checks,
        scrub: scrub::program(&scrub::steps("")),
    })
}

/// What goes into the image beside artifact and version, part by part, to be compared with another image's. Short, so that
/// it fits into a tag: the first digits of digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageParts {
    pub base: String,
    pub install_path: String,
    pub checks: String,
    /// How Alcedo itself provisions and scrubs.
    pub tool: String,
    /// Of each provisioning step, in order.
    pub steps: Vec<String>,
}

impl ImageParts {
    pub fn of(inputs: &ImageInputs<'_>) -> Self {
        Self {
            base: short(&inputs.base),
            install_path: short(&inputs.install_path),
            checks: short(&inputs.checks),
            tool: short(&(BAKE_FORMAT, scrub::program(&scrub::steps("")))),
            steps: inputs.steps.iter().map(|step| short(&Step::from(step))).collect(),
        }
    }
}

/// Enough that nobody meets two inputs by chance that look the same; they decide nothing.
const DIGITS: usize = 8;

fn short(value: &impl Serialize) -> String {
    let mut digest = canon::digest(value);
    digest.truncate(DIGITS);
    digest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alcedo_smoke_tests::suite;

    use super::*;

    fn script(content: &str, path: &str) -> LoadedStep {
        LoadedStep::Script { path: path.into(), content: content.into(), environment: BTreeMap::new() }
    }

    fn playbook(digest: &str, folder: &str) -> LoadedStep {
        LoadedStep::Ansible {
            playbook: "ansible/site.yml".into(),
            folder: folder.into(),
            digest: digest.into(),
            extra_vars: BTreeMap::from([("a".into(), "b".into())]),
            arguments: Vec::new(),
        }
    }

    #[test]
    fn every_input_changes_the_fingerprint_and_nothing_else_does() {
        let steps = [script("#!/bin/sh\n", "a.sh"), playbook("d", "/x")];
        let checks = suite::load("- service: { name: hello }").unwrap();
        let inputs = ImageInputs {
            base: "sha256:a",
            app: "hello",
            version: "1.0.0",
            artifact_sha256: "b",
            install_path: "/opt/hello",
            steps: &steps,
            checks: &checks,
        };
        let before = fingerprint(&inputs);
        assert_eq!(fingerprint(&inputs.clone()), before);
        let moved = [script("#!/bin/sh\n", "elsewhere.sh"), playbook("d", "/y")];
        assert_eq!(
            fingerprint(&ImageInputs { steps: &moved, ..inputs.clone() }),
            before,
            "where files lie does not count"
        );

        let edited = [script("#!/bin/sh\nexit\n", "a.sh"), playbook("d", "/x")];
        let other_playbook = [script("#!/bin/sh\n", "a.sh"), playbook("e", "/x")];
        let turned = [playbook("d", "/x"), script("#!/bin/sh\n", "a.sh")];
        let run = [LoadedStep::Run { commands: "true".into(), environment: BTreeMap::new() }];
        let told =
            [LoadedStep::Run { commands: "true".into(), environment: BTreeMap::from([("A".into(), "b".into())]) }];
        let stricter = suite::load("- service: { name: hello, enabled: true }").unwrap();
        let fingerprints = [
            before,
            fingerprint(&ImageInputs { base: "ami-0", ..inputs.clone() }),
            fingerprint(&ImageInputs { app: "hallo", ..inputs.clone() }),
            fingerprint(&ImageInputs { version: "1.0.1", ..inputs.clone() }),
            fingerprint(&ImageInputs { artifact_sha256: "c", ..inputs.clone() }),
            fingerprint(&ImageInputs { install_path: "/srv/hello", ..inputs.clone() }),
            fingerprint(&ImageInputs { steps: &edited, ..inputs.clone() }),
            fingerprint(&ImageInputs { steps: &other_playbook, ..inputs.clone() }),
            fingerprint(&ImageInputs { steps: &turned, ..inputs.clone() }),
            fingerprint(&ImageInputs { steps: &run, ..inputs.clone() }),
            fingerprint(&ImageInputs { steps: &told, ..inputs.clone() }),
            fingerprint(&ImageInputs { checks: &stricter, ..inputs.clone() }),
        ];
        assert_eq!(fingerprints.iter().collect::<BTreeSet<_>>().len(), fingerprints.len());

        // And each is a part of its own, but for those that follow from the version.
        let parts = ImageParts::of(&inputs);
        let with = |other: &ImageInputs<'_>| ImageParts::of(other);
        let same_app = with(&ImageInputs { version: "1.0.1", artifact_sha256: "c", ..inputs.clone() });
        assert_eq!(same_app, parts);
        let base = with(&ImageInputs { base: "ami-0", ..inputs.clone() });
        assert_eq!(ImageParts { base: parts.base.clone(), ..base.clone() }, parts);
        assert_ne!(base.base, parts.base);
        let path = with(&ImageInputs { install_path: "/srv/hello", ..inputs.clone() });
        assert_eq!(ImageParts { install_path: parts.install_path.clone(), ..path.clone() }, parts);
        assert_ne!(path.install_path, parts.install_path);
        let checks = with(&ImageInputs { checks: &stricter, ..inputs.clone() });
        assert_eq!(ImageParts { checks: parts.checks.clone(), ..checks.clone() }, parts);
        assert_ne!(checks.checks, parts.checks);
        let edited = with(&ImageInputs { steps: &edited, ..inputs.clone() });
        assert_eq!(edited.steps[1], parts.steps[1]);
        assert_ne!(edited.steps[0], parts.steps[0]);
    }
}
