//! What people are told about files that are wrong: each file of `bad_files` has several problems, and a snapshot shows
//! all that is said of them.

use std::path::Path;

use alcedo_pipeline::{
    diagnostic::{Diagnostics, Style},
    validate::PipelineFile,
};

fn refused(name: &str) -> (String, Diagnostics) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_files").join(name);
    let source = std::fs::read_to_string(path).unwrap();
    let problems = PipelineFile::parse(&source, name).expect_err(name);
    (source, problems)
}

macro_rules! snapshots {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let name = concat!(stringify!($name), ".yaml");
            let (source, problems) = refused(name);
            let text = problems.to_string();
            for one in &problems {
                // What an editor or a terminal makes a link of.
                assert!(text.contains(&one.location()), "{} is not in\n{text}", one.location());
                let place = one.place.as_ref().expect("these files can be read");
                let line = source.lines().nth(place.line - 1).expect("the line exists");
                assert!(place.column <= line.chars().count() + 1, "{one:?}");
            }
            insta::assert_snapshot!(text);
        }
    )*};
}

snapshots! {
    misspelt wrong_types missing ranges exclusive does_not_compile names environments duplicates tab unquoted
    hostile_characters control_characters deep anchors
}

#[test]
fn colours_change_no_word() {
    let (_, problems) = refused("misspelt.yaml");
    let coloured = problems.to_text(Style::Coloured);
    assert!(coloured.contains("\u{1b}["));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, problems.to_text(Style::Plain));
    let mut written = Vec::new();
    problems.render(&mut written, Style::Plain).unwrap();
    assert_eq!(written, problems.to_string().into_bytes());
}

#[test]
fn nothing_of_the_file_reaches_the_terminal_as_a_control_character() {
    for name in ["hostile_characters.yaml", "control_characters.yaml"] {
        let (_, problems) = refused(name);
        let text = problems.to_string();
        let odd: Vec<char> = text.chars().filter(|&c| c.is_control() && c != '\n').collect();
        assert!(odd.is_empty(), "{odd:?} in {text}");
        assert!(!text.contains(['\u{202e}', '\u{2028}']), "{text}");
    }
}

#[test]
fn problems_are_also_data() {
    let (_, problems) = refused("misspelt.yaml");
    let first = &serde_json::to_value(&problems).unwrap()[0];
    assert_eq!(first["id"], "unknown-key");
    assert_eq!(first["severity"], "error");
    assert_eq!((&first["place"]["line"], &first["place"]["column"]), (&2.into(), &1.into()));
    assert_eq!(problems.errors() + problems.warnings(), problems.len());
}
