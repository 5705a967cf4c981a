//! Names of runs and steps.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One execution of a plan: `20261120-190512-7f3a`, the UTC second it was planned and four random hex digits. Run ids
/// sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// A text that is not a run's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a run; a run looks like 20261120-190512-7f3a (see `alcedo runs`)")]
pub struct RunIdError(String);

impl RunId {
    /// A new name. `salt` distinguishes two runs planned in one second.
    pub fn new(now: Timestamp, salt: u16) -> Self {
        Self(format!("{}-{salt:04x}", now.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The client token of a step's creating call: the same for every attempt of the same step of the same run, and for
    /// no other. 32 hex digits; EC2 takes at most 64 characters.
    pub fn token(&self, step: &StepId) -> String {
        let digest = Sha256::digest(format!("{self}/{step}"));
        hex::encode(&digest[..16])
    }
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let shape = text.len() == 20
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 15 => byte == b'-',
                16.. => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                _ => byte.is_ascii_digit(),
            });
        if shape { Ok(Self(text.to_owned())) } else { Err(RunIdError(text.to_owned())) }
    }
}

impl TryFrom<String> for RunId {
    type Error = RunIdError;

    fn try_from(text: String) -> Result<Self, RunIdError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One step of a plan: `<stage>/<what>`, unique in its plan, such as `launch/target-group`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(String);

impl StepId {
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StepId {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_by_their_second_and_read_back() {
        let run = RunId::new("2026-11-20T19:05:12Z".parse().unwrap(), 0x7f3a);
        assert_eq!(run.as_str(), "20261120-190512-7f3a");
        assert_eq!(run.as_str().parse::<RunId>().unwrap(), run);
        for text in ["", "20261120-190512", "20261120-190512-7F3A", "20261120-190512-7f3a/../x", "x0261120-190512-7f3a"]
        {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_belongs_to_one_step_of_one_run() {
        let run = RunId::new("2026-11-20T19:05:12Z".parse().unwrap(), 1);
        let other = RunId::new("2026-11-20T19:05:12Z".parse().unwrap(), 2);
        let step = StepId::from("launch/instances");
        assert_eq!(run.token(&step), run.token(&step));
        assert_ne!(run.token(&step), other.token(&step));
        assert_ne!(run.token(&step), run.token(&StepId::from("bake/builder")));
    }
}
