//! A file is accepted and means the same when it is written down again, or it is refused with problems that stand in it.

use std::fs;

use alcedo_pipeline::{
    diagnostic::{Diagnostic, Diagnostics, Severity, Style},
    file::Pipeline,
    validate::PipelineFile,
};

const NAME: &str = "alcedo.yaml";
/// The most that is said of a file; a terminal has to show it.
const MAX_SHOWN: usize = 200_000;
/// So many problems are shown, the others counted.
const MOST_SHOWN: usize = 100;

/// Takes the bytes for an `alcedo.yaml`.
///
/// # Panics
/// An environment of an accepted file does not read back as it was; a problem's place is not in the text; what is shown could
/// move a terminal's cursor.
pub fn check(bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => check_text(text),
        Err(_) => check_noise(bytes),
    }
}

fn check_text(text: &str) {
    let parsed = PipelineFile::parse(text, NAME);
    let text = unmarked(text);
    match parsed {
        Ok(file) => {
            for name in file.environments() {
                let pipeline = file.environment(Some(name)).expect("an environment that is listed is there");
                check_round_trip(&pipeline);
            }
            assert_eq!(file.warnings().errors(), 0, "accepted with errors: {}", file.warnings());
            check_problems(file.warnings(), text);
        }
        Err(problems) => {
            assert!(problems.errors() > 0, "refused without an error: {problems}");
            check_problems(&problems, text);
        }
    }
}

/// What is no text is refused where the file is read.
fn check_noise(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let path = folder.path().join(NAME);
    fs::write(&path, bytes).expect("the file can be written");
    let problems = PipelineFile::read(&path).expect_err("what is no text was accepted");
    check_problems(&problems, unmarked(&String::from_utf8_lossy(bytes)));
}

/// Places count without a byte order mark.
fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The settings, written as JSON, are the same settings; and as a file of their own they pass and say the same.
fn check_round_trip(pipeline: &Pipeline) {
    let json = serde_json::to_string(pipeline).expect("settings can be written");
    let back: Pipeline = serde_json::from_str(&json).expect("what was written can be read");
    assert_eq!(&back, pipeline, "read back from {json}");
    let file = PipelineFile::parse(&json, NAME).unwrap_or_else(|problems| panic!("refused: {problems}\n{json}"));
    assert_eq!(&file.environment(None).expect("it has one environment"), pipeline, "read again from {json}");
}

fn check_problems(problems: &Diagnostics, text: &str) {
    for one in problems {
        check_place(one, text);
    }
    let shown = problems.to_string();
    assert!(shown.len() <= MAX_SHOWN, "{} bytes of words", shown.len());
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "shown with control characters: {shown:?}");
    for one in problems.iter().take(MOST_SHOWN) {
        assert!(shown.contains(&one.location()), "{} is not in {shown}", one.location());
    }
    assert!(problems.is_empty() || !problems.to_text(Style::Coloured).is_empty());
    assert_eq!(problems.iter().filter(|one| one.severity == Severity::Error).count(), problems.errors());
}

/// Counts lines and columns anew, the slow way.
fn check_place(one: &Diagnostic, text: &str) {
    let Some(place) = &one.place else { return };
    let (start, end) = (place.span.start, place.span.end);
    assert!(start <= end, "{one:?} ends before it begins");
    let (Some(before), Some(until)) = (text.get(..start), text.get(..end)) else {
        panic!("{one:?} is not in the text, or in the middle of a character");
    };
    let count = |text: &str| {
        let line = text.rsplit('\n').next().unwrap_or_default();
        (text.matches('\n').count() + 1, line.chars().count() + 1)
    };
    assert_eq!((place.line, place.column), count(before), "{one:?}");
    assert_eq!(place.end, count(until), "{one:?}");
}
