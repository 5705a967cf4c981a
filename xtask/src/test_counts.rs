//! What a `cargo test` of many crates comes to, read from its output as it streams by.

use std::fmt;

/// The sum over every test program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TestCounts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    pub filtered_out: u64,
    /// How many test programs said how they ended.
    pub programs: u64,
    /// The names of tests that failed.
    pub failures: Vec<String>,
}

impl TestCounts {
    /// Takes one line of output into account.
    pub fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            let count = |word: &str| -> u64 {
                let parts = result.split([';', '.']).map(str::trim);
                parts.filter_map(|part| part.strip_suffix(word)?.trim().parse::<u64>().ok()).next().unwrap_or(0)
            };
            self.programs += 1;
            self.passed += count("passed");
            self.failed += count("failed");
            self.ignored += count("ignored");
            self.filtered_out += count("filtered out");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
    }
}

/// In libtest's own words.
impl fmt::Display for TestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        let Self { passed, failed, ignored, filtered_out, .. } = self;
        write!(
            f,
            "test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered_out} filtered out"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_summed_and_failures_named() {
        let mut counts = TestCounts::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test deploys::a_failing_build ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.31s",
            "test result: ok. 40 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 12.00s",
            "a line of a test that says: test result: ok. 9 passed",
        ] {
            counts.line(line);
        }
        assert_eq!(counts.programs, 2);
        assert_eq!(counts.failures, ["deploys::a_failing_build"]);
        assert_eq!(
            counts.to_string(),
            "test result: FAILED. 42 passed; 1 failed; 2 ignored; 0 measured; 4 filtered out"
        );
    }
}
