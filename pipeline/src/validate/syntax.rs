//! From bytes to a value: what can be wrong before a single key is looked at.

use std::{fs::File, io::Read, ops::Range, path::Path as FilePath};

use serde_json::{Map, Number, Value};

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Lines, Place, Severity},
    positions::{Fault, MAX_DEPTH, MAX_NODES, Tree, Unreadable},
};

use super::{MAX_BYTES, quote};

fn diagnostic(id: &'static str, file: &str, place: Option<Place>, message: impl Into<String>) -> Diagnostic {
    Diagnostic {
        id,
        severity: Severity::Error,
        message: message.into(),
        file: file.to_owned(),
        place,
        help: Vec::new(),
        notes: Vec::new(),
    }
}

/// The text of a file, if it is one of a sensible size.
pub(super) fn read(path: &FilePath) -> Result<String, Diagnostics> {
    let file = path.display().to_string();
    let alone = |one: Diagnostic| Diagnostics::new(vec![one], "");
    let unreadable = |error: std::io::Error| {
        let mut one = diagnostic("unreadable", &file, None, format!("cannot read the pipeline file: {error}"));
        if error.kind() == std::io::ErrorKind::NotFound {
            one.help
                .push("run this in the folder of alcedo.yaml, name the file with -f, or write one: alcedo init".into());
        }
        alone(one)
    };
    let opened = File::open(path).map_err(unreadable)?;
    if opened.metadata().map_err(unreadable)?.is_dir() {
        let mut one = diagnostic("unreadable", &file, None, "the pipeline file is a folder");
        one.help.push(format!("name the file in it: {}", path.join("alcedo.yaml").display()));
        return Err(alone(one));
    }
    let mut bytes = Vec::new();
    // Bounded by what is read, not by what the file system says: a pipe has no size.
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(alone(too_large(&file)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        // A byte order mark is no character of the first line.
        let (text, mark) = text.strip_prefix('\u{feff}').map_or((&*text, 0), |rest| (rest, '\u{feff}'.len_utf8()));
        let valid = valid - mark;
        // Up to there, the two texts are the same.
        let place = Place::of(text, valid..valid + char::REPLACEMENT_CHARACTER.len_utf8());
        let mut one = diagnostic("not-utf-8", &file, Some(place), "the file is not UTF-8 text");
        one.help.push("save the file as UTF-8".into());
        Diagnostics::new(vec![one], text)
    })
}

fn too_large(file: &str) -> Diagnostic {
    diagnostic("too-large", file, None, format!("the file is larger than {} KiB", MAX_BYTES / 1024))
}

/// The text's tree, and what is wrong with it although it has one.
pub(super) fn tree(source: &str, file: &str) -> Result<(Tree, Vec<Diagnostic>), Box<Diagnostic>> {
    if source.len() as u64 > MAX_BYTES {
        return Err(Box::new(too_large(file)));
    }
    let lines = Lines::of(source);
    let place = |span: Range<usize>| Some(lines.place(span));
    let hidden = hidden_characters(source, file);
    let tree = Tree::parse(source).map_err(|unreadable| Box::new(refuse(unreadable, source, file)))?;
    if tree.is_empty() {
        let mut one = diagnostic("empty", file, None, "the file is empty");
        one.help.push("write one for the app in this folder: alcedo init".into());
        return Err(Box::new(one));
    }
    let faults = tree.faults.iter().map(|fault| match fault {
        Fault::DuplicateKey { key, span, first, .. } => {
            let line = lines.place(first.clone()).line;
            let message = format!("the key {} is given twice", quote(key));
            let mut one = diagnostic("duplicate-key", file, place(span.clone()), message);
            one.notes.push(format!("it was first given on line {line}"));
            one.help.push("put what both say below one of them".into());
            one
        }
        Fault::Tag { tag, span } => {
            let message = format!("the tag {} has no meaning here", quote(tag));
            let mut one = diagnostic("tag", file, place(span.clone()), message);
            one.help.push("remove it; a text that begins with `!` is written in quotes".into());
            one
        }
        Fault::ComplexKey { span } => {
            let mut one = diagnostic("complex-key", file, place(span.clone()), "a key must be a text");
            one.help.push("a text that begins with `{` or `[`, such as a template, is written in quotes".into());
            one
        }
    });
    let faults = hidden.into_iter().chain(faults).collect();
    Ok((tree, faults))
}

/// Characters that nobody sees and that change what is seen: YAML forbids most, and none belongs into a file that people
/// must be able to trust when they read it.
fn hidden_characters(source: &str, file: &str) -> Vec<Diagnostic> {
    /// One bad paste can bring thousands.
    const MOST: usize = 10;
    let hidden = |c: char| match c {
        '\t' | '\n' | '\r' => false,
        // Those that turn text around (Unicode Standard Annex 9), and two that break lines where editors show none.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => true,
        _ => c.is_control(),
    };
    let found = source.char_indices().filter(|&(_, c)| hidden(c)).take(MOST);
    found
        .map(|(at, c)| {
            let place = Some(Place::of(source, at..at + c.len_utf8()));
            let message = format!("the invisible character U+{:04X} has no place here", u32::from(c));
            let mut one = diagnostic("hidden-character", file, place, message);
            one.help.push("remove it; in a text between double quotes, write it as an escape".into());
            one
        })
        .collect()
}

fn refuse(unreadable: Unreadable, source: &str, file: &str) -> Diagnostic {
    let place = |span: Range<usize>| Some(Place::of(source, span));
    match unreadable {
        Unreadable::Syntax { why, at } => {
            let mut one = diagnostic("syntax", file, place(at..at), format!("this is not YAML: {why}"));
            one.help.extend(hint(source, at));
            one
        }
        Unreadable::SecondDocument { at } => {
            let mut one = diagnostic("second-document", file, place(at..at + 3), "the file has a second document");
            one.help.push("a pipeline file is one document: remove the `---`".into());
            one
        }
        Unreadable::TooDeep { at } => {
            let message = format!("the file is nested more than {MAX_DEPTH} deep");
            diagnostic("too-deep", file, place(at..at + 1), message)
        }
        Unreadable::TooManyNodes { at } => {
            let message = format!("the file has more than {MAX_NODES} keys and values");
            diagnostic("too-large", file, place(at..at + 1), message)
        }
        Unreadable::AliasOfItself { span } => {
            let mut one = diagnostic("alias", file, place(span), "this alias stands for something that contains it");
            one.help.push("name the anchor on something that ends before the alias".into());
            one
        }
        Unreadable::AliasTooLarge { span } => {
            diagnostic("alias", file, place(span), "what this alias stands for is too large to be repeated")
        }
    }
}

/// The slip that most often makes a line like this one unreadable.
fn hint(source: &str, at: usize) -> Option<String> {
    let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = source[start..].lines().next().unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start_matches(['-', ' ']);
    if indent.contains('\t') {
        return Some("indent with spaces: YAML allows no tabs there".into());
    }
    if value.starts_with(['@', '`', '%', '*', '&', '!', '|', '>']) {
        return Some(format!("a text that begins with `{}` is written in quotes", &value[..1]));
    }
    if value.contains(": ") {
        return Some("a text that contains `: ` is written in quotes".into());
    }
    if value.matches('"').count() % 2 == 1 || value.matches('\'').count() % 2 == 1 {
        return Some("a quotation mark has no partner on this line".into());
    }
    (value.matches(['[', '{']).count() != value.matches([']', '}']).count())
        .then(|| "a bracket has no partner on this line".into())
}

/// What the text says, read through serde. Doubled keys, which were reported already, count as they were first given.
pub(super) fn value(source: &str, tree: &Tree, file: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Value> {
    let text = without_duplicates(source, tree);
    match serde_yaml::from_str::<serde_yaml::Value>(&text) {
        Ok(value) => Some(json(value)),
        // What is left of a doubled entry may be no YAML; then the doubled key is what to repair first.
        Err(_) if !diagnostics.is_empty() => None,
        Err(error) => {
            let place = error.location().map(|it| Place::of(source, it.index()..it.index()));
            diagnostics.push(diagnostic("syntax", file, place, format!("this cannot be read: {error}")));
            None
        }
    }
}

/// The text with every doubled entry blanked out, so that all else stays where it is.
fn without_duplicates(source: &str, tree: &Tree) -> String {
    let mut bytes = source.as_bytes().to_vec();
    for fault in &tree.faults {
        if let Fault::DuplicateKey { entry, .. } = fault {
            bytes[entry.clone()].iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| source.to_owned())
}

/// The same value in JSON's terms. A tag is dropped (it was reported); a number that JSON lacks becomes its text.
fn json(value: serde_yaml::Value) -> Value {
    use serde_yaml::Value as Yaml;
    match value {
        Yaml::Null(_) | Yaml::Alias(_) => Value::Null,
        Yaml::Bool(it, _) => Value::Bool(it),
        Yaml::Number(it, _) => number(&it).map_or_else(|| Value::String(it.to_string()), Value::Number),
        Yaml::String(it, _) => Value::String(it),
        Yaml::Sequence(it) => Value::Array(it.elements.into_iter().map(json).collect()),
        Yaml::Mapping(it) => Value::Object(
            it.into_iter().filter_map(|(key, value)| Some((key_text(key)?, json(value)))).collect::<Map<_, _>>(),
        ),
        Yaml::Tagged(it) => json(it.value),
    }
}

fn number(number: &serde_yaml::Number) -> Option<Number> {
    number
        .as_u64()
        .map(Number::from)
        .or_else(|| number.as_i64().map(Number::from))
        .or_else(|| number.as_f64().and_then(Number::from_f64))
}

fn key_text(key: serde_yaml::Value) -> Option<String> {
    match json(key) {
        Value::String(text) => Some(text),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
        scalar => Some(scalar.to_string()),
    }
}

/// What serde says of settings that were thought to be right.
pub(super) fn unexpected(file: &str, environment: &str, error: &serde_json::Error) -> Diagnostic {
    diagnostic(
        "wrong-value",
        file,
        None,
        format!("the settings of the environment `{environment}` cannot be used: {error}"),
    )
}
