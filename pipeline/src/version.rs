//! Versions: the UTC clock as valid SemVer, `YYYY.MDD.HMMSS`.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A version of the app, such as `2026.1120.190512` (20 November 2026, 19:05:12 UTC) or `2026.131.90512`. SemVer allows
/// no leading zeros, so the parts have none; SemVer's precedence is the order in time.
///
/// The commit rides as build metadata where a version is shown (see [`Version::with_commit`]); it is no part of the name,
/// because AWS image names allow no `+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(civil::DateTime);

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version; a version looks like 2026.1120.190512 (see `alcedo releases`)")]
pub struct VersionError(String);

impl Version {
    /// The version of this second.
    pub fn at(now: Timestamp) -> Self {
        let second = Timestamp::from_second(now.as_second()).expect("a whole second of a valid time");
        Self(second.to_zoned(TimeZone::UTC).datetime())
    }

    /// The version one second later: what a second build of the same second takes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(SignedDuration::from_secs(1)))
    }

    /// The moment in the name.
    pub fn time(self) -> Timestamp {
        self.0.to_zoned(TimeZone::UTC).expect("every civil time exists in UTC").timestamp()
    }

    /// `2026.1120.190512+3f2c1ab`, as SemVer writes it.
    pub fn with_commit(self, commit: &str) -> String {
        format!("{self}+{commit}")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = &self.0;
        let day = i32::from(time.month()) * 100 + i32::from(time.day());
        let second = i32::from(time.hour()) * 10_000 + i32::from(time.minute()) * 100 + i32::from(time.second());
        write!(f, "{}.{day}.{second}", time.year())
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// Reads a version, with or without build metadata.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.to_owned());
        let semver = semver::Version::parse(text).map_err(|_| wrong())?;
        if !semver.pre.is_empty() {
            return Err(wrong());
        }
        let year = i16::try_from(semver.major).map_err(|_| wrong())?;
        let two = |number: u64| i8::try_from(number).map_err(|_| wrong());
        civil::DateTime::new(
            year,
            two(semver.minor / 100)?,
            two(semver.minor % 100)?,
            two(semver.patch / 10_000)?,
            two(semver.patch / 100 % 100)?,
            two(semver.patch % 100)?,
            0,
        )
        .map(Self)
        .map_err(|_| wrong())
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_of_the_design() {
        assert_eq!(Version::at("2026-11-20T19:05:12.9Z".parse().unwrap()).to_string(), "2026.1120.190512");
        assert_eq!(Version::at("2026-01-31T09:05:12Z".parse().unwrap()).to_string(), "2026.131.90512");
        for text in ["2026.1320.0", "2026.1131.0", "2026.1120.240000", "2026.1120.0-rc.1", "2026.01120.1", "1.2.3", "x"]
        {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        let version: Version = "2026.131.90512+3f2c1ab".parse().unwrap();
        assert_eq!(version.with_commit("3f2c1ab"), "2026.131.90512+3f2c1ab");
    }

    proptest! {
        #[test]
        fn order_in_time_is_precedence_in_semver(a in 0i64..4_102_444_800, b in 0i64..4_102_444_800) {
            let (first, second) = (Timestamp::from_second(a).unwrap(), Timestamp::from_second(b).unwrap());
            let (left, right) = (Version::at(first), Version::at(second));
            let semver = |version: Version| semver::Version::parse(&version.to_string()).unwrap();
            prop_assert_eq!(semver(left).cmp_precedence(&semver(right)), a.cmp(&b));
            prop_assert_eq!(left.to_string().parse::<Version>().unwrap(), left);
            prop_assert_eq!(left.next().time().as_second(), a + 1);
        }
    }
}
