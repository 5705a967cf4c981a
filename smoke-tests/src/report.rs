//! What happened, for readers that render it: nothing here prints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a check did not pass, as two things to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What had to come, as a noun: `status 200`.
    pub expected: String,
    /// What came: `status 503`.
    pub actual: String,
    /// More to go by: the beginning of a body, the last lines of an output. Empty where there is nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Failure {
    pub fn new(expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self { expected: expected.into(), actual: actual.into(), detail: String::new() }
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

impl std::fmt::Display for Failure {
    /// `expected status 200, got status 503`; the detail is left to the renderer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.actual)
    }
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    pub title: String,
    pub passed: bool,
    /// How often it was tried, at least 1.
    pub tries: u32,
    /// From the first try to the outcome, waits between tries included.
    #[serde(with = "milliseconds", rename = "took_ms")]
    pub took: Duration,
    /// The last try's failure. `None` exactly where it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// All outcomes, in the order of the suite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SuiteReport {
    pub results: Vec<CheckResult>,
}

impl SuiteReport {
    /// Whether every check passed; an empty suite passes.
    pub fn passed(&self) -> bool {
        self.results.iter().all(|result| result.passed)
    }

    pub fn failures(&self) -> impl Iterator<Item = &CheckResult> {
        self.results.iter().filter(|result| !result.passed)
    }
}

/// What a running suite tells. Checks that run side by side interleave; `index` says whose event it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CheckEvent {
    Started {
        index: usize,
        title: String,
    },
    /// A try failed and another will follow.
    Retrying {
        index: usize,
        title: String,
        /// The try that failed, from 1.
        attempt: u32,
        failure: Failure,
    },
    Finished {
        index: usize,
        result: CheckResult,
    },
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_json() {
        let report = SuiteReport {
            results: vec![CheckResult {
                title: "GET /health".into(),
                passed: false,
                tries: 3,
                took: Duration::from_millis(1234),
                failure: Some(Failure::new("status 200", "status 503").with_detail("body: down")),
            }],
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            text,
            r#"{"results":[{"title":"GET /health","passed":false,"tries":3,"took_ms":1234,"failure":{"expected":"status 200","actual":"status 503","detail":"body: down"}}]}"#
        );
        assert_eq!(serde_json::from_str::<SuiteReport>(&text).unwrap(), report);
        assert!(!report.passed());
    }
}
