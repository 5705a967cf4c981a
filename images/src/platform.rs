//! What a root is, as far as a program built on one cares: distribution, architecture, C library, shared libraries.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The facts that decide whether programs built on one root run on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// `ID` of os-release(5): `debian`.
    pub os: String,
    /// `VERSION_ID` of os-release(5): `12`. Empty where the distribution has none.
    pub os_version: String,
    /// As `uname -m` says it: `x86_64`.
    pub architecture: String,
    /// As `getconf GNU_LIBC_VERSION` says it: `glibc 2.36`. Empty where the C library is another.
    pub libc: String,
}

/// A server's platform, and the names of the shared libraries that its dynamic linker finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    pub platform: Platform,
    pub libraries: BTreeSet<String>,
}

/// Why the facts are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer about the platform has no {missing}")]
pub struct PlatformError {
    missing: &'static str,
}

/// A command line that prints what [`Platform::read`] reads.
pub const PLATFORM_QUESTION: &str = ". /etc/os-release\n\
    printf 'os=%s\\nversion=%s\\n' \"$ID\" \"${VERSION_ID-}\"\n\
    printf 'architecture=%s\\n' \"$(uname -m)\"\n\
    printf 'libc=%s\\n' \"$(getconf GNU_LIBC_VERSION 2>/dev/null)\"";

/// A command line that prints what [`ServerFacts::read`] reads. `ldconfig` is not in every user's PATH.
pub fn server_question() -> String {
    format!(
        "{PLATFORM_QUESTION}\nPATH=$PATH:/usr/sbin:/sbin\n\
         ldconfig -p 2>/dev/null | sed -n 's/^[[:space:]]*\\([^ ]*\\) (.*/library=\\1/p'"
    )
}

impl Platform {
    /// Reads the answer to [`PLATFORM_QUESTION`].
    pub fn read(answer: &str) -> Result<Self, PlatformError> {
        let value = |key: &'static str| {
            let mut lines = answer.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
        };
        let known = |key| value(key).filter(|value| !value.is_empty()).ok_or(PlatformError { missing: key });
        Ok(Self {
            os: known("os")?,
            os_version: value("version").unwrap_or_default(),
            architecture: known("architecture")?,
            libc: value("libc").unwrap_or_default(),
        })
    }
}

impl ServerFacts {
    /// Reads the answer to [`server_question`].
    pub fn read(answer: &str) -> Result<Self, PlatformError> {
        let libraries = answer.lines().filter_map(|line| line.strip_prefix("library=")).map(str::to_owned).collect();
        Ok(Self { platform: Platform::read(answer)?, libraries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_answered_by_this_machine() {
        let out = std::process::Command::new("sh").arg("-c").arg(server_question()).output().unwrap();
        let facts = ServerFacts::read(&String::from_utf8(out.stdout).unwrap()).unwrap();
        assert_eq!(facts.platform.architecture, std::env::consts::ARCH);
        assert!(!facts.platform.os.is_empty());
        assert!(facts.libraries.contains("libc.so.6"), "{:?}", facts.libraries);
    }

    #[test]
    fn an_answer_without_the_facts_is_refused() {
        assert_eq!(
            Platform::read("os=debian\n").unwrap_err().to_string(),
            "the answer about the platform has no architecture"
        );
        assert!(Platform::read("").is_err());
    }
}
