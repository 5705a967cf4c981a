//! What errors mean, by their ids: `docs/errors.md`, which is part of the program.

use alcedo_pipeline::error::ErrorKind;

const ERRORS: &str = include_str!("../../docs/errors.md");

/// The id of a step's failure: its stage and what kind of failure it was.
pub fn of_step(step: &str, kind: ErrorKind) -> String {
    let stage = step.split('/').next().unwrap_or_default();
    let kind = serde_json::to_value(kind).ok();
    format!("{stage}-{}", kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("failed"))
}

/// Everything that is known of an id; a run's failure is explained by its stage and its kind.
pub fn explain(id: &str) -> Option<String> {
    if let Some(text) = section(id) {
        return Some(format!("{id}\n\n{text}\n"));
    }
    let (stage, kind) = id.split_once('-')?;
    Some(format!("{id}\n\n{}\n\n{}\n", section_of("Stages", stage)?, section_of("Kinds", kind)?))
}

/// Every id that has a section of its own, in the order of the page.
pub fn ids() -> Vec<&'static str> {
    ERRORS.lines().filter_map(|line| line.strip_prefix("### ")).collect()
}

fn section(id: &str) -> Option<&'static str> {
    text_below(ERRORS, &format!("\n### {id}\n"))
}

fn section_of(part: &str, id: &str) -> Option<&'static str> {
    let begins = ERRORS.find(&format!("\n## {part}\n"))? + 1;
    let ends = ERRORS[begins..].find("\n## ").map_or(ERRORS.len(), |at| begins + at + 1);
    text_below(&ERRORS[begins..ends], &format!("\n### {id}\n"))
}

fn text_below(text: &'static str, heading: &str) -> Option<&'static str> {
    let begins = text.find(heading)? + heading.len();
    let ends = text[begins..].find("\n#").map_or(text.len(), |at| begins + at);
    Some(text[begins..ends].trim())
}

#[cfg(test)]
mod tests {
    use alcedo_pipeline::plan::Stage;

    use super::*;

    #[test]
    fn every_stage_and_every_kind_is_explained() {
        use ErrorKind::{Changed, Failed, Interrupted, LeaseLost, Panicked, Service, TimedOut};
        let stages = Stage::ALL.iter().map(|stage| stage.name()).chain(["approve"]);
        for stage in stages {
            for kind in [Failed, TimedOut, Service, Changed, Interrupted, Panicked, LeaseLost] {
                let id = of_step(&format!("{stage}/step"), kind);
                let text = explain(&id).unwrap_or_else(|| panic!("{id}"));
                assert!(text.starts_with(&id) && text.matches("\n\n").count() >= 2, "{text}");
            }
        }
        assert_eq!(of_step("retire/2026.1101.1/drain", TimedOut), "retire-timed-out");
        assert_eq!(explain("no-such-thing"), None);
    }

    /// The ids that the file's problems have stand in the sources as texts; each has a section.
    #[test]
    fn every_problem_of_the_file_is_explained() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/src/validate");
        let mut sources = String::new();
        for place in [folder.clone(), folder.join("rules")] {
            for file in std::fs::read_dir(place).unwrap().flatten().filter(|it| it.path().is_file()) {
                sources.push_str(&std::fs::read_to_string(file.path()).unwrap());
            }
        }
        let id = regex::Regex::new(r#"(?:Problem::(?:error|warning)|diagnostic)\(\s*"([a-z0-9-]+)""#).unwrap();
        let mut found: Vec<&str> = id.captures_iter(&sources).map(|it| it.get(1).unwrap().as_str()).collect();
        found.sort_unstable();
        found.dedup();
        assert!(found.len() > 40, "{found:?}");
        let unexplained: Vec<&&str> = found.iter().filter(|id| explain(id).is_none()).collect();
        assert!(unexplained.is_empty(), "{unexplained:?}");
    }
}
