//! `http`: one request, and everything its answer must be.

use std::{error::Error, fmt::Write as _, time::Duration};

use alcedo_pipeline::{suite::HttpCheck, units::Span};
use regex::Regex;
use reqwest::{Client, Method, Response, redirect};
use serde_json::Value;
use serde_json_path::JsonPath;
use tokio::time::Instant;

use crate::{report::Failure, target::Target};

/// Bytes of a body that are read and judged. A server that sends without end is read no further.
pub const BODY_LIMIT: usize = 1 << 20;

/// Characters of a body shown in a failure.
const EXCERPT: usize = 300;

/// The client that suites and version probes use: no proxy (the server at this address is meant, and no other), no
/// redirects (a redirect is an answer like any other), no connection kept (each try meets the server anew, and a
/// balancer routes it anew).
pub fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(concat!("alcedo-smoke-tests/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Sends the request and judges the answer. The caller sets the deadline.
pub async fn check(client: &Client, check: &HttpCheck, target: &Target) -> Result<(), Failure> {
    let started = Instant::now();
    let response = send(client, check, target).await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = read_body(response).await.map_err(|error| Failure::new("a whole answer", chain(&error)))?;
    let took = started.elapsed();

    judge_status(check, status).map_err(|failure| failure.with_detail(body.excerpt()))?;
    for (name, expected) in &check.expect_headers {
        let actual = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if actual.as_deref() != Some(expected) {
            let actual = actual.map_or("no such header".to_owned(), |value| format!("{name}: {value}"));
            return Err(Failure::new(format!("header {name}: {expected}"), actual));
        }
    }
    judge_body(check, &body)?;
    judge_latency(check.within, took)
}

async fn send(client: &Client, check: &HttpCheck, target: &Target) -> Result<Response, Failure> {
    let method = Method::from_bytes(check.method.as_bytes())
        .map_err(|_| Failure::new("an HTTP method", format!("`{}`", check.method)))?;
    let own = |name: &str| check.headers.keys().any(|other| other.eq_ignore_ascii_case(name));
    let mut request = client.request(method, target.at(&check.path));
    for (name, value) in target.preview_headers.iter().filter(|(name, _)| !own(name)).chain(&check.headers) {
        request = request.header(name, value);
    }
    if let Some(body) = &check.body {
        request = request.body(body.clone());
    }
    request.send().await.map_err(|error| {
        Failure::new(format!("an answer from {}", target.at(&check.path)), chain(&error.without_url()))
    })
}

/// The part of a body that is judged.
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// There was more than [`BODY_LIMIT`].
    cut: bool,
}

impl Body {
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// The beginning of the body on one line, for people.
    pub(crate) fn excerpt(&self) -> String {
        if self.bytes.is_empty() {
            return "the body is empty".into();
        }
        let text = self.text();
        let shown: String = text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let more = if self.cut || text.chars().nth(EXCERPT).is_some() { " …" } else { "" };
        format!("body: {shown}{more}")
    }

    fn limit_note(&self) -> &'static str {
        if self.cut { " (only the first 1 MiB of the body is read)" } else { "" }
    }
}

pub(crate) async fn read_body(mut response: Response) -> Result<Body, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = BODY_LIMIT - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Body { bytes, cut: true });
        }
    }
    Ok(Body { bytes, cut: false })
}

fn judge_status(check: &HttpCheck, status: u16) -> Result<(), Failure> {
    if status == check.status {
        return Ok(());
    }
    Err(Failure::new(format!("status {}", check.status), format!("status {status}")))
}

fn judge_body(check: &HttpCheck, body: &Body) -> Result<(), Failure> {
    let text = body.text();
    if let Some(part) = &check.body_contains
        && !text.contains(part.as_str())
    {
        return Err(Failure::new(
            format!("a body that contains {part:?}"),
            format!("one that does not{}", body.limit_note()),
        )
        .with_detail(body.excerpt()));
    }
    if let Some(pattern) = &check.body_matches {
        let regex = Regex::new(pattern).map_err(|error| {
            Failure::new("a regular expression", format!("{pattern:?}")).with_detail(error.to_string())
        })?;
        if !regex.is_match(&text) {
            return Err(Failure::new(
                format!("a body that matches {pattern:?}"),
                format!("one that does not{}", body.limit_note()),
            )
            .with_detail(body.excerpt()));
        }
    }
    if check.json.is_empty() {
        return Ok(());
    }
    let json: Value = serde_json::from_slice(&body.bytes).map_err(|error| {
        Failure::new("a JSON body", format!("one that is not: {error}{}", body.limit_note()))
            .with_detail(body.excerpt())
    })?;
    for (path, expected) in &check.json {
        judge_json(&json, path, expected).map_err(|failure| failure.with_detail(body.excerpt()))?;
    }
    Ok(())
}

fn judge_json(json: &Value, path: &str, expected: &Value) -> Result<(), Failure> {
    let query =
        JsonPath::parse(path).map_err(|error| Failure::new("a JSON path (RFC 9535)", format!("`{path}`: {error}")))?;
    let found = query.query(json).all();
    if let [one] = found.as_slice()
        && same_value(one, expected)
    {
        return Ok(());
    }
    let mut actual = String::new();
    for (index, value) in found.iter().take(5).enumerate() {
        let _ = write!(actual, "{}{}", if index > 0 { ", " } else { "" }, shorten(&value.to_string()));
    }
    match found.len() {
        0 => actual.push_str("nothing there"),
        1 => {}
        many => actual = format!("{many} values: {actual}"),
    }
    Err(Failure::new(format!("{path} = {expected}"), actual))
}

/// Equal as JSON, where `1` and `1.0` are one number: YAML and servers write either.
fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_value(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| same_value(left, right)))
        }
        _ => left == right,
    }
}

fn judge_latency(within: Option<Span>, took: Duration) -> Result<(), Failure> {
    match within {
        Some(bound) if took > bound.duration() => {
            Err(Failure::new(format!("the whole answer within {bound}"), format!("{} ms", took.as_millis())))
        }
        _ => Ok(()),
    }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_values_are_compared_as_json() {
        let body = json!({ "status": "ok", "load": 1, "parts": [{ "up": true }, { "up": false }] });
        judge_json(&body, "$.status", &json!("ok")).unwrap();
        judge_json(&body, "$.load", &json!(1.0)).unwrap();
        judge_json(&body, "$.parts[?@.up == true]", &json!({ "up": true })).unwrap();
        for (path, expected, words) in [
            ("$.status", json!("down"), r#"expected $.status = "down", got "ok""#),
            ("$.nothing", json!(1), "expected $.nothing = 1, got nothing there"),
            ("$.parts[*].up", json!(true), "expected $.parts[*].up = true, got 2 values: true, false"),
        ] {
            assert_eq!(judge_json(&body, path, &expected).unwrap_err().to_string(), words);
        }
        assert!(judge_json(&body, "not a path", &json!(1)).unwrap_err().expected.contains("RFC 9535"));
    }

    #[test]
    fn latency_is_bounded_only_where_asked() {
        judge_latency(None, Duration::from_secs(3600)).unwrap();
        judge_latency(Some(Span::seconds(1)), Duration::from_secs(1)).unwrap();
        let failure = judge_latency(Some(Span::seconds(1)), Duration::from_millis(1001)).unwrap_err();
        assert_eq!(failure.to_string(), "expected the whole answer within 1s, got 1001 ms");
    }
}
