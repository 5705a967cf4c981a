//! Reading a suite on its own, and what is wrong with one before anything runs.

use alcedo_pipeline::suite::{Ask, Check, HttpCheck};
use regex::Regex;
use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde_json_path::JsonPath;

/// Why a text is not a suite.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not YAML, or not of a suite's shape: a list of checks.
    #[error("the suite cannot be read")]
    Shape(#[source] serde_yaml::Error),
    /// Of the right shape, but at least one check cannot be run as written.
    #[error("{}", .0.join("\n"))]
    Checks(Vec<String>),
}

/// Reads a list of checks, as under `smoke_tests:` in `alcedo.yaml`, and refuses one that could not be run as written.
pub fn load(yaml: &str) -> Result<Vec<Check>, LoadError> {
    let checks: Vec<Check> = serde_yaml::from_str(yaml).map_err(LoadError::Shape)?;
    let wrong: Vec<String> = checks
        .iter()
        .enumerate()
        .flat_map(|(index, check)| {
            problems(check)
                .into_iter()
                .map(move |problem| format!("check {} ({}): {problem}", index + 1, check.title()))
        })
        .collect();
    if wrong.is_empty() { Ok(checks) } else { Err(LoadError::Checks(wrong)) }
}

/// Everything that keeps a check from being run as written, in words for its author; empty for a good one.
pub fn problems(check: &Check) -> Vec<String> {
    let mut wrong = Vec::new();
    match check.ask() {
        Err(none) if none.is_empty() => wrong.push("it says nothing that can be checked".into()),
        Err(several) => wrong.push(format!("it checks several things at once: {}", several.join(", "))),
        Ok(Ask::Http(http)) => http_problems(http, &mut wrong),
        Ok(Ask::Ssh(command) | Ask::Command(command)) => {
            wrong.extend(command.stdout_matches.as_deref().and_then(regex_problem));
        }
        Ok(Ask::File(file)) => {
            if let Some(mode) = &file.mode
                && (mode.is_empty() || mode.len() > 5 || !mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit)))
            {
                wrong.push(format!("`{mode}` is not a mode in octal, such as \"0644\""));
            }
        }
        Ok(_) => {}
    }
    if check.timeout.is_zero() {
        wrong.push("its timeout is zero".into());
    }
    wrong
}

fn http_problems(http: &HttpCheck, wrong: &mut Vec<String>) {
    if !http.path.starts_with('/') {
        wrong.push(format!("its path `{}` does not start with `/`", http.path));
    }
    if Method::from_bytes(http.method.as_bytes()).is_err() {
        wrong.push(format!("`{}` is not an HTTP method", http.method));
    }
    if !(100..=599).contains(&http.status) {
        wrong.push(format!("{} is not an HTTP status", http.status));
    }
    for (name, value) in &http.headers {
        if HeaderValue::from_str(value).is_err() {
            wrong.push(format!("the value of header `{name}` has characters that no header can have"));
        }
    }
    for name in http.headers.keys().chain(http.expect_headers.keys()) {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            wrong.push(format!("`{name}` is not a header's name"));
        }
    }
    wrong.extend(http.body_matches.as_deref().and_then(regex_problem));
    for path in http.json.keys() {
        if !path.starts_with('$') {
            wrong.push(format!("`{path}` is not a JSON path (RFC 9535): one starts with `$`, as in `$.{path}`"));
        } else if let Err(error) = JsonPath::parse(path) {
            wrong.push(format!("`{path}` is not a JSON path (RFC 9535): {error}"));
        }
    }
}

fn regex_problem(pattern: &str) -> Option<String> {
    Regex::new(pattern).err().map(|error| format!("`{pattern}` is not a regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_a_list_of_checks() {
        let checks = load(
            "- name: up\n  http: { path: /health, json: { $.status: ok } }\n  retries: 3\n- tcp: {}\n- service: { name: hello }\n",
        )
        .unwrap();
        assert_eq!(checks.iter().map(Check::title).collect::<Vec<_>>(), ["up", "tcp", "service hello"]);
    }

    #[test]
    fn the_readmes_suite_is_one() {
        let readme = include_str!("../README.md");
        let yaml = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(load(yaml).unwrap().len(), 10);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let suite = "
- name: nothing
- { tcp: {}, http: { path: / } }
- http: { path: health, method: 'G T', status: 7, headers: { 'a b': x }, body_matches: '(', json: { status: ok } }
- file: { path: /x, mode: rw }
- { tcp: {}, timeout: 0s }
";
        let LoadError::Checks(wrong) = load(suite).unwrap_err() else { panic!("the shape is right") };
        let wrong: Vec<&str> = wrong.iter().map(|line| line.lines().next().unwrap()).collect();
        insta::assert_snapshot!(wrong.join("\n"), @r#"
        check 1 (nothing): it says nothing that can be checked
        check 2 (check): it checks several things at once: http, tcp
        check 3 (G T health): its path `health` does not start with `/`
        check 3 (G T health): `G T` is not an HTTP method
        check 3 (G T health): 7 is not an HTTP status
        check 3 (G T health): `a b` is not a header's name
        check 3 (G T health): `(` is not a regular expression: regex parse error:
        check 3 (G T health): `status` is not a JSON path (RFC 9535): one starts with `$`, as in `$.status`
        check 4 (file /x): `rw` is not a mode in octal, such as "0644"
        check 5 (tcp): its timeout is zero
        "#);
        assert!(matches!(load("- htpp: { path: / }"), Err(LoadError::Shape(_))));
        assert!(matches!(load("a: ["), Err(LoadError::Shape(_))));
    }
}
