//! What must be on the machine: how to see whether it is, and which Debian packages bring it.

use std::{path::Path, process::Command};

use crate::process::{exists, succeeds};

/// One thing the project cannot do without.
pub struct Need {
    pub what: &'static str,
    pub why: &'static str,
    /// Debian's packages.
    pub packages: &'static [&'static str],
    pub present: fn() -> bool,
}

/// What building and running `alcedo` takes, beside a Rust toolchain and a container engine.
pub const ALWAYS: &[Need] = &[
    Need {
        what: "a C compiler",
        why: "builds zstd and ring",
        packages: &["gcc", "libc6-dev"],
        present: || exists("cc") && Path::new("/usr/include/stdio.h").exists(),
    },
    Need {
        what: "cmake and make",
        why: "build zlib-ng for the local region's balancer",
        packages: &["cmake", "make"],
        present: || exists("cmake") && exists("make"),
    },
    Need { what: "git", why: "names the commit of a build", packages: &["git"], present: || exists("git") },
    Need {
        what: "ssh",
        why: "provisions servers and runs checks on them",
        packages: &["openssh-client"],
        present: || exists("ssh") && exists("ssh-keygen"),
    },
    Need {
        what: "curl",
        why: "is used by the example's smoke test",
        packages: &["curl", "ca-certificates"],
        present: || exists("curl"),
    },
    Need {
        what: "mmdebstrap",
        why: "makes the base image from Debian's packages",
        packages: &["mmdebstrap"],
        present: || exists("mmdebstrap"),
    },
];

/// A container engine, needed where none answers.
pub const ENGINE: Need = Need {
    what: "Docker's engine",
    why: "runs the local region's servers and the builds",
    packages: &["docker.io", "iptables"],
    present: || exists("dockerd") && exists("iptables"),
};

const ZSTD: Need = Need {
    what: "zstd",
    why: "unpacks an artifact as a server does, in a test",
    packages: &["zstd"],
    present: || exists("zstd"),
};

/// What fuzzing takes, beside [`ALWAYS`].
pub const FOR_FUZZING: &[Need] =
    &[Need { what: "a C++ compiler", why: "builds libFuzzer", packages: &["g++"], present: || exists("c++") }, ZSTD];

/// What only the tests take.
pub const FOR_TESTS: &[Need] = &[
    Need {
        what: "Python with venv",
        why: "runs boto3, AWS CLI and moto in tests",
        packages: &["python3", "python3-venv"],
        present: || succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])),
    },
    Need {
        what: "Ansible",
        why: "is a way to provision, tested as such",
        packages: &["ansible-core"],
        present: || exists("ansible-playbook"),
    },
    ZSTD,
    Need {
        what: "openssl",
        why: "makes keys and checks signatures in tests, as users do",
        packages: &["openssl"],
        present: || exists("openssl"),
    },
    Need {
        what: "Packer",
        why: "is a third party's client in tests of the local region",
        packages: &["packer"],
        present: || exists("packer"),
    },
];

/// Those of `needs` that are not there.
pub fn missing<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Vec<&'a Need> {
    needs.into_iter().filter(|need| !(need.present)()).collect()
}

/// The packages of all of them, as one command for a person to type.
pub fn install_command(missing: &[&Need]) -> String {
    format!("apt-get install --no-install-recommends {}", packages(missing).join(" "))
}

/// The packages of all of them.
pub fn packages(missing: &[&Need]) -> Vec<&'static str> {
    missing.iter().flat_map(|need| need.packages.iter().copied()).collect()
}
