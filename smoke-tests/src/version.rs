//! Which version answers?

use std::collections::BTreeMap;

use alcedo_pipeline::file::VersionProbe;
use reqwest::Client;
use semver::Version;
use serde_json::Value;
use serde_json_path::JsonPath;
use url::Url;

use crate::http::{chain, read_body};

/// Longest version that is believed, in characters; a longer answer is some other page.
const LONGEST: usize = 128;

/// Why no version could be read.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error("no answer from {url}")]
    NoAnswer {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered with status {status}, where a version was asked for")]
    Status { url: Url, status: u16 },
    #[error("the answer of {url} has no version: {why}")]
    NoVersion { url: Url, why: String },
}

/// Asks once. `url` is the server's or the route's; its path is replaced by the probe's. `headers` are those a preview
/// rule asks for. The caller sets the deadline.
pub async fn answering_version(
    client: &Client,
    url: &Url,
    headers: &BTreeMap<String, String>,
    probe: &VersionProbe,
) -> Result<String, VersionError> {
    let mut url = url.clone();
    let (path, query) = probe.path.split_once('?').map_or((&*probe.path, None), |(path, query)| (path, Some(query)));
    url.set_path(path);
    url.set_query(query);
    let mut request = client.get(url.clone());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let no_answer = |source: reqwest::Error| VersionError::NoAnswer { url: url.clone(), source: source.without_url() };
    let response = request.send().await.map_err(no_answer)?;
    if !response.status().is_success() {
        return Err(VersionError::Status { status: response.status().as_u16(), url });
    }
    let body = read_body(response).await.map_err(no_answer)?;
    version_in(&body.text(), probe).map_err(|why| VersionError::NoVersion { url, why })
}

/// The version in a body, or what is wrong with the body.
fn version_in(body: &str, probe: &VersionProbe) -> Result<String, String> {
    let version = match &probe.json {
        None => body.trim().to_owned(),
        Some(path) => {
            let query = JsonPath::parse(path).map_err(|error| format!("`{path}` is not a JSON path: {error}"))?;
            let json: Value =
                serde_json::from_str(body).map_err(|error| format!("it is not JSON: {}", chain(&error)))?;
            match query.query(&json).all().as_slice() {
                [Value::String(version)] => version.trim().to_owned(),
                [Value::Number(version)] => version.to_string(),
                [] => return Err(format!("there is nothing at {path}")),
                [_] => return Err(format!("what is at {path} is not a text")),
                many => return Err(format!("there are {} values at {path}", many.len())),
            }
        }
    };
    match version.chars().count() {
        0 => Err("it is empty".into()),
        length if length > LONGEST => Err(format!("{length} characters are no version")),
        _ => Ok(version),
    }
}

/// Whether two texts name one version: equal, or SemVer of the same precedence where at most one of them carries build
/// metadata (a server may or may not say the commit it was built from).
pub fn same_version(left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    match (Version::parse(left), Version::parse(right)) {
        (Ok(left), Ok(right)) => {
            left.cmp_precedence(&right).is_eq()
                && (left.build.is_empty() || right.build.is_empty() || left.build == right.build)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(json: Option<&str>) -> VersionProbe {
        VersionProbe { path: "/version".into(), json: json.map(str::to_owned) }
    }

    #[test]
    fn a_version_is_the_body_or_a_place_in_it() {
        assert_eq!(version_in(" 2026.1120.1\n", &probe(None)).unwrap(), "2026.1120.1");
        assert_eq!(version_in(r#"{"app":{"version":"1.2.3"}}"#, &probe(Some("$.app.version"))).unwrap(), "1.2.3");
        for (body, json, why) in [
            ("", None, "it is empty"),
            ("{}", Some("$.version"), "there is nothing at $.version"),
            (r#"{"version":[]}"#, Some("$.version"), "what is at $.version is not a text"),
            (r#"{"a":["1","2"]}"#, Some("$.a[*]"), "there are 2 values at $.a[*]"),
            ("<html>", Some("$.version"), "it is not JSON"),
        ] {
            let actual = version_in(body, &probe(json)).unwrap_err();
            assert!(actual.starts_with(why), "{actual:?} should start with {why:?}");
        }
        assert_eq!(version_in(&"x".repeat(129), &probe(None)).unwrap_err(), "129 characters are no version");
    }

    #[test]
    fn build_metadata_counts_only_where_both_carry_it() {
        assert!(same_version("2026.1120.1", "2026.1120.1"));
        assert!(same_version("2026.1120.1+abc", "2026.1120.1"));
        assert!(!same_version("2026.1120.1+abc", "2026.1120.1+def"));
        assert!(!same_version("2026.1120.1", "2026.1120.2"));
        assert!(same_version("nightly", "nightly"));
        assert!(!same_version("nightly", "2026.1120.1"));
    }
}
