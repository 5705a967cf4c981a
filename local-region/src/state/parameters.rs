//! Parameters of AWS Systems Manager, as far as a deploy reads them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A standard parameter's value at most, in bytes (*Systems Manager User Guide*, parameter tiers).
pub const LARGEST: usize = 4096;

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    String,
    StringList,
    SecureString,
}

/// One parameter, at its newest version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    pub kind: Kind,
    pub value: String,
    pub version: u64,
    pub changed: Timestamp,
}

/// Why a parameter was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Exists,
    NoKind,
    Name,
    Empty,
    Large,
}

/// All parameters, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters(BTreeMap<String, Parameter>);

impl Parameters {
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.0.get(name)
    }

    /// Writes a parameter; answers its version. A parameter that is there keeps its kind, where none is named.
    pub fn put(
        &mut self,
        name: &str,
        kind: Option<Kind>,
        value: String,
        overwrite: bool,
        now: Timestamp,
    ) -> Result<u64, Refused> {
        let there = self.0.get(name);
        if there.is_some() && !overwrite {
            return Err(Refused::Exists);
        }
        let kind = kind.or_else(|| there.map(|it| it.kind)).ok_or(Refused::NoKind)?;
        if !is_name(name) {
            return Err(Refused::Name);
        }
        if value.is_empty() {
            return Err(Refused::Empty);
        }
        if value.len() > LARGEST {
            return Err(Refused::Large);
        }
        let version = there.map_or(1, |it| it.version + 1);
        self.0.insert(name.to_owned(), Parameter { kind, value, version, changed: now });
        Ok(version)
    }

    /// Whether it was there.
    pub fn delete(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
}

/// As PutParameter describes them: letters, digits and `_.-/`, in at most 15 parts; with parts it begins with `/`; the first may
/// not begin with `aws` or `ssm`.
fn is_name(name: &str) -> bool {
    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c));
    let bare = name.trim_start_matches('/');
    let reserved = ["aws", "ssm"].iter().any(|start| bare.to_ascii_lowercase().starts_with(start));
    let parts: Vec<&str> = bare.split('/').collect();
    let qualified = parts.len() == 1 || name.starts_with('/');
    fits && !reserved && qualified && parts.len() <= 15 && parts.iter().all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_overwritten_only_where_that_is_asked_for() {
        let mut all = Parameters::default();
        let now = Timestamp::UNIX_EPOCH;
        let put = |all: &mut Parameters, kind, value: &str, overwrite| {
            all.put("/hello/token", kind, value.to_owned(), overwrite, now)
        };
        assert_eq!(put(&mut all, None, "one", false), Err(Refused::NoKind));
        assert_eq!(put(&mut all, Some(Kind::SecureString), "one", false), Ok(1));
        assert_eq!(put(&mut all, Some(Kind::SecureString), "two", false), Err(Refused::Exists));
        assert_eq!(put(&mut all, None, "two", true), Ok(2));
        assert_eq!(all.get("/hello/token").map(|it| (it.kind, it.value.as_str())), Some((Kind::SecureString, "two")));
        assert!(all.delete("/hello/token"));
        assert!(!all.delete("/hello/token"));
    }

    #[test]
    fn names_are_as_aws_takes_them() {
        for good in ["token", "/hello/token", "a.b-c_d", "/token"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "/", "hello/token", "/hello//token", "/aws/x", "ssm-token", "/hello token", "/a/"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
