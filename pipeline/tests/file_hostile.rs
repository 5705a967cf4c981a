//! Files made to hurt: they are refused, and at once.

use std::time::{Duration, Instant};

use alcedo_pipeline::validate::{MAX_BYTES, PipelineFile};
use proptest::prelude::*;

/// Far more than any of them takes, far less than what unbounded reading would.
const AT_ONCE: Duration = Duration::from_secs(10);

fn refused(text: &str) -> Vec<&'static str> {
    let begun = Instant::now();
    let problems = PipelineFile::parse(text, "alcedo.yaml").unwrap_err();
    let shown = problems.to_string();
    assert!(begun.elapsed() < AT_ONCE, "{:?} for {:.60}", begun.elapsed(), text);
    assert!(shown.len() < 200_000, "{} bytes are no message", shown.len());
    let mut ids: Vec<_> = problems.iter().map(|one| one.id).collect();
    ids.dedup();
    ids
}

fn filled(unit: &str) -> String {
    unit.repeat(usize::try_from(MAX_BYTES).unwrap() / unit.len())
}

#[test]
fn too_much_text() {
    assert_eq!(refused(&format!("{}#", filled("# nothing but comments\n").repeat(2))), ["too-large"]);
}

#[test]
fn too_deep_in_every_way() {
    for unit in ["[", "{", "- ", "? ", "{a: ", "[[{a: "] {
        let ids = refused(&filled(unit));
        assert!(ids == ["too-deep"] || ids == ["syntax"], "{unit}: {ids:?}");
    }
    let steps: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(refused(&steps), ["too-deep"]);
}

#[test]
fn too_many_nodes() {
    for unit in ["- a\n", "[],", "- {}\n", "- &a a\n", "- !a a\n"] {
        let text = if unit == "[]," { format!("[{}]", filled(unit)) } else { filled(unit) };
        let text = &text[..text.len().min(usize::try_from(MAX_BYTES).unwrap())];
        assert_eq!(refused(text), ["too-large"], "{unit}");
    }
}

#[test]
fn aliases_that_explode() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..20 {
        let again = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{again}]\n"));
    }
    assert_eq!(refused(&laughs), ["alias"]);
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(200_000), "*a, ".repeat(1_000));
    assert!(!refused(&long).is_empty());
    assert_eq!(refused("a: &a [*a]\n"), ["alias"]);
    assert_eq!(refused("a: &a\n  <<: *a\n"), ["alias"]);
}

#[test]
fn lines_and_keys_without_end() {
    let key = "k".repeat(200_000);
    assert!(refused(&format!("{key}: 1\n")).contains(&"unknown-key") || refused(&format!("{key}: 1\n")) == ["syntax"]);
    let unknown: String = (0..1_500).map(|number| format!("unknown{number}: 1\n")).collect();
    assert!(refused(&unknown).contains(&"unknown-key"));
    let doubled = "again: 1\n".repeat(1_500);
    assert!(refused(&doubled).contains(&"duplicate-key"));
    let flow = format!("app: {{{}}}\n", (0..1_500).map(|number| format!("é{number}: ü, ")).collect::<String>());
    assert!(refused(&flow).contains(&"wrong-type"));
    assert!(!refused(&filled("\u{1b}[31m")).is_empty());
    assert!(!refused(&filled("\"")).is_empty());
    assert!(!refused(&filled("a: 'b\n")).is_empty());
}

#[test]
fn patterns_that_would_take_for_ever() {
    let text = "smoke_tests: [{ http: { path: /, body_matches: 'x{1000}{1000}{1000}' } }]\n";
    assert!(refused(text).contains(&"bad-pattern"));
}

/// The reference, with some of it cut out, doubled or overwritten.
fn mutilated() -> impl Strategy<Value = String> {
    let reference = include_str!("../../docs/alcedo.yaml");
    let lines: Vec<&str> = reference.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let cut = (0..lines.len(), 0..4_usize, ".{0,6}", 0..40_usize);
    proptest::collection::vec(cut, 1..4).prop_map(move |cuts| {
        let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        for (at, what, text, column) in cuts {
            let at = at.min(lines.len() - 1);
            let column = lines[at].char_indices().map(|(at, _)| at).nth(column).unwrap_or(lines[at].len());
            match what {
                0 => drop(lines.remove(at)),
                1 => lines[at].insert_str(column, &text),
                2 => lines[at].truncate(column),
                _ => lines.insert(at, lines[at].clone()),
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_mutilated_file_is_read_or_told_about_and_nothing_panics(text in mutilated()) {
        if let Err(problems) = PipelineFile::parse(&text, "alcedo.yaml") {
            let shown = problems.to_string();
            prop_assert!(problems.errors() > 0);
            for one in &problems {
                prop_assert!(shown.contains(&one.location()), "{} in {}", one.location(), shown);
                prop_assert!(one.id != "wrong-value" || one.place.is_some(), "only serde found {}", one.message);
            }
        }
    }
}
