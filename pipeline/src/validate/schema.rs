//! The settings against the JSON schema of their types: every mismatch, each in words of its own.

use std::sync::LazyLock;

use jsonschema::{
    ValidationError, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use serde_json::{Value, json};

use crate::{
    file::Pipeline,
    positions::{Path, Segment},
    units::Span,
};

use super::{
    entries, list, nearest,
    problem::{Found, Origin, Part, Problem},
    quote,
};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Pipeline).to_value();
    drop_null(&mut schema);
    schema
});

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options()
        .with_format("span", |text: &str| text.parse::<Span>().is_ok())
        .should_validate_formats(true)
        .build(&SCHEMA)
        .expect("the schema is made from our own types, and a test builds it")
});

/// The JSON schema of one environment's settings, where a key without a value counts as absent.
pub fn json_schema() -> &'static Value {
    &SCHEMA
}

/// What is optional may also be `null` in serde's eyes. Here `null` never says anything (see [`normalise`]), and without
/// it each place has one type, which messages can name.
fn drop_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice != &json!({ "type": "null" }));
                if let [Value::Object(only)] = choices.as_mut_slice() {
                    let only = std::mem::take(only);
                    map.remove("anyOf");
                    only.into_iter().for_each(|(key, value)| {
                        map.entry(key).or_insert(value);
                    });
                }
            }
            if let Some(types) = map.get_mut("type")
                && let Value::Array(names) = types
            {
                names.retain(|name| name != "null");
                if let [only] = names.as_slice() {
                    *types = only.clone();
                }
            }
            map.values_mut().for_each(drop_null);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}

/// The definition that a schema refers to, or the schema itself.
fn resolve(schema: &Value) -> &Value {
    schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|target| SCHEMA.pointer(target.strip_prefix('#')?))
        .unwrap_or(schema)
}

/// The schema of one step below `schema`.
fn below<'a>(schema: &'a Value, segment: &Segment) -> Option<&'a Value> {
    let schema = resolve(schema);
    match segment {
        Segment::Key(key) => schema
            .get("properties")
            .and_then(|properties| properties.get(key))
            .or_else(|| schema.get("additionalProperties").filter(|value| **value != Value::Bool(false))),
        Segment::Index(_) => schema.get("items"),
    }
}

fn schema_at(path: &Path) -> Option<&'static Value> {
    path.0.iter().try_fold(&*SCHEMA, |schema, segment| below(schema, segment))
}

/// What the types put where the entry at `path` is absent.
pub(super) fn default_at(path: &Path) -> Option<&'static Value> {
    schema_at(path)?.get("default")
}

/// The first sentences of a key's documentation.
fn documentation(path: &Path) -> Option<String> {
    let schema = schema_at(path)?;
    let text = schema.get("description").or_else(|| resolve(schema).get("description"))?.as_str()?;
    Some(text.split("\n\n").next()?.replace('\n', " "))
}

/// Removes every entry that has no value, where the schema gives the entry a type (a JSON value that a check expects may
/// well be `null`), and writes what means the same in one way: a whole number given as `2.0`, a length of time given as 0.
pub(super) fn normalise(value: &mut Value) -> Vec<Path> {
    let mut dropped = Vec::new();
    normalise_below(value, &SCHEMA, &Path::default(), &mut dropped);
    dropped
}

fn normalise_below(value: &mut Value, schema: &Value, path: &Path, dropped: &mut Vec<Path>) {
    let schema = resolve(schema);
    match value {
        Value::Object(map) => {
            let required =
                |key: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
            map.retain(|key, value| {
                let segment = Segment::Key(key.clone());
                let typed = below(schema, &segment).is_some_and(|schema| schema.is_object());
                let drop = value.is_null() && typed;
                if drop && !required(key) {
                    dropped.push(path.key(key));
                }
                !drop
            });
            for (key, value) in map.iter_mut() {
                if let Some(schema) = below(schema, &Segment::Key(key.clone())) {
                    normalise_below(value, schema, &path.key(key), dropped);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                if let Some(schema) = below(schema, &Segment::Index(index)) {
                    normalise_below(item, schema, &path.index(index), dropped);
                }
            }
        }
        // A length of time that is none needs no unit.
        Value::Number(number) if schema["format"] == "span" && number.as_u64() == Some(0) => *value = Value::from("0"),
        Value::Number(number) if schema["type"] == "integer" => {
            let whole = number.as_f64().filter(|it| !number.is_i64() && it.fract() == 0.0 && it.abs() < 9e15);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        _ => {}
    }
}

/// Checks a part of the settings: the base or an environment's overrides, either of which may leave keys out.
pub(super) fn check_part(value: &Value, origin: Origin, found: &mut Found) {
    let mut value = value.clone();
    for path in normalise(&mut value) {
        // In an environment, no value removes what the base has; below a list nothing is laid over anything.
        if origin == Origin::Base || path.enters_a_list() {
            found.add(
                Problem::warning("no-value", &path, format!("`{path}` has no value, so it counts as absent"))
                    .at(Part::Key)
                    .help("give it a value or remove the key; an empty text is written \"\""),
                origin,
            );
        }
    }
    check(&value, origin, true, found);
}

/// Checks an environment's settings, which must be complete.
pub(super) fn check_whole(value: &Value, origin: Origin, found: &mut Found) {
    check(value, origin, false, found);
}

fn check(value: &Value, origin: Origin, partial: bool, found: &mut Found) {
    for error in VALIDATOR.iter_errors(value) {
        let path = path_of(error.instance_path());
        let required = matches!(error.kind(), ValidationErrorKind::Required { .. });
        if !(partial && required && !path.enters_a_list()) {
            problems(&error, &path).into_iter().for_each(|problem| found.add(problem, origin));
        }
    }
}

fn path_of(location: &Location) -> Path {
    let segment = |segment| match segment {
        LocationSegment::Property(key) => Segment::Key(key.into_owned()),
        LocationSegment::Index(index) => Segment::Index(index),
    };
    Path(location.into_iter().map(segment).collect())
}

fn problems(error: &ValidationError<'_>, path: &Path) -> Vec<Problem> {
    let value = error.instance();
    let schema = schema_at(path).map_or(&Value::Null, resolve);
    let one = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unexpected.iter().map(|key| unknown_key(path, schema, key)).collect();
        }
        ValidationErrorKind::Required { property } => missing_key(path, property.as_str().unwrap_or_default()),
        ValidationErrorKind::Type { .. } | ValidationErrorKind::Format { .. } => wrong_type(path, schema, value),
        ValidationErrorKind::Minimum { .. } | ValidationErrorKind::Maximum { .. } => {
            Problem::error("out-of-range", path, format!("`{path}` must be {}, not {value}", expected(schema)))
        }
        ValidationErrorKind::MinItems { .. } => {
            Problem::error("too-few", path, format!("`{path}` must have at least one item"))
        }
        ValidationErrorKind::MinLength { .. } | ValidationErrorKind::MaxLength { .. } => {
            let (least, most) = (&schema["minLength"], &schema["maxLength"]);
            let message = format!("`{path}` must have {least} to {most} characters, not {}", length(value));
            Problem::error("wrong-length", path, message)
        }
        ValidationErrorKind::Pattern { .. } => {
            let text = value.as_str().unwrap_or_default();
            Problem::error("bad-name", path, format!("`{path}` cannot be {}", quote(text)))
        }
        _ => Problem::error("wrong-value", path, format!("`{path}` has a value that is not allowed here")),
    };
    vec![match documentation(path) {
        Some(text) if !matches!(error.kind(), ValidationErrorKind::Required { .. }) => {
            one.note(format!("`{path}`: {text}"))
        }
        _ => one,
    }]
}

fn length(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

fn unknown_key(path: &Path, schema: &Value, key: &str) -> Problem {
    let mut known: Vec<&str> = entries(&schema["properties"]).map(|(key, _)| key.as_str()).collect();
    let message = match path.0.is_empty() {
        true => {
            known.extend(["default_environment", "environments"]);
            format!("unknown key {}", quote(key))
        }
        false => format!("unknown key {} in `{path}`", quote(key)),
    };
    let problem = Problem::error("unknown-key", &path.key(key), message).at(Part::Key);
    if let Some(nearest) = nearest(key, known.iter().copied()) {
        return problem.help(format!("did you mean `{nearest}`?"));
    }
    let elsewhere: Vec<String> = entries(&SCHEMA["properties"])
        .filter(|(section, schema)| {
            path.last_key() != Some(section.as_str()) && resolve(schema)["properties"].get(key).is_some()
        })
        .map(|(section, _)| format!("{section}.{key}"))
        .collect();
    match elsewhere.is_empty() {
        true => problem.note(format!("known here: {}", list(&known))),
        false => problem.help(format!("did you mean {}?", list(&elsewhere))),
    }
}

fn missing_key(path: &Path, key: &str) -> Problem {
    let path = path.key(key);
    let problem = Problem::error("missing-key", &path, format!("`{path}` is missing")).at(Part::Absent);
    match documentation(&path) {
        Some(text) => problem.help(format!("add `{key}`: {text}")),
        None => {
            problem.help(format!("add `{key}`: {}", schema_at(&path).map_or("".into(), |it| expected(resolve(it)))))
        }
    }
}

fn wrong_type(path: &Path, schema: &Value, value: &Value) -> Problem {
    let problem =
        Problem::error("wrong-type", path, format!("`{path}` must be {}, not {}", expected(schema), found(value)));
    let is_span = schema["format"] == "span";
    match (schema["type"].as_str(), value) {
        (Some("string"), Value::Number(number)) if is_span => {
            problem.help(format!("add the unit: `{number}s` for seconds, `{number}m` for minutes"))
        }
        (Some("string"), Value::String(_)) if is_span => problem.help("write a number and a unit, without a space"),
        (Some("string"), Value::Number(_) | Value::Bool(_)) => {
            problem.help(format!("write it in quotes to make it a text: \"{value}\""))
        }
        (Some("integer" | "boolean"), Value::String(text)) if serde_json::from_str::<i64>(text).is_ok() => {
            problem.help(format!("write it without quotes: {text}"))
        }
        (Some("boolean"), Value::String(text)) if ["yes", "on", "y"].contains(&text.to_lowercase().as_str()) => {
            problem.help("write `true`")
        }
        (Some("boolean"), Value::String(text)) if ["no", "off", "n"].contains(&text.to_lowercase().as_str()) => {
            problem.help("write `false`")
        }
        (Some("array"), Value::String(text)) => problem.help(format!("write a list, even of one: [{text}]")),
        _ => problem,
    }
}

/// What a schema asks for, in words.
fn expected(schema: &Value) -> String {
    match schema["type"].as_str() {
        Some("string") if schema["format"] == "span" => "a length of time, such as 500ms, 30s, 10m or 1h30m".into(),
        Some("string") => "a text".into(),
        Some("integer") => match (&schema["minimum"], &schema["maximum"]) {
            (Value::Null, Value::Null) => "a whole number".into(),
            (least, Value::Null) => format!("a whole number, {least} or more"),
            (Value::Null, most) => format!("a whole number, {most} or less"),
            (least, most) => format!("a whole number from {least} to {most}"),
        },
        Some("boolean") => "true or false".into(),
        Some("array") => "a list".into(),
        Some("object") => "a map of keys".into(),
        _ => "another value".into(),
    }
}

/// A value as messages name it.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(_) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.is_empty() => "an empty text".into(),
        Value::String(text) => format!("the text {}", quote(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a map".into(),
    }
}

/// Whether `name` can name an app or an environment: it becomes part of names at AWS.
pub(super) fn is_name(name: &str) -> bool {
    let middle = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 20
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(middle)
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_schema_has_one_type() {
        fn walk(schema: &Value, at: &str) {
            for word in ["anyOf", "oneOf", "allOf", "not", "patternProperties"] {
                assert!(schema.get(word).is_none(), "{at} has {word}, which messages cannot explain");
            }
            assert!(!schema["type"].is_array(), "{at} has several types");
            for (key, schema) in entries(&schema["properties"]).chain(entries(&schema["$defs"])) {
                walk(schema, &format!("{at}.{key}"));
            }
        }
        walk(&SCHEMA, "");
        LazyLock::force(&VALIDATOR);
    }

    #[test]
    fn names_follow_the_pattern_of_app() {
        let pattern = regex::Regex::new(SCHEMA["properties"]["app"]["pattern"].as_str().unwrap()).unwrap();
        for name in ["a", "hello", "a-b", "a1", "-a", "a-", "1a", "A", "", "a_b", "é", &"a".repeat(20), &"a".repeat(21)]
        {
            assert_eq!(is_name(name), pattern.is_match(name), "{name}");
        }
    }

    #[test]
    fn no_value_counts_as_absent_except_where_any_json_is_meant() {
        let mut value = json!({
            "hold": null, "mystery": null, "launch": { "count": 2.0, "key": null, "timeout": 0 },
            "smoke_tests": [{ "name": null, "http": { "path": "/", "json": { "$.a": null, "$.b": 2.0 } } }],
        });
        let dropped: Vec<String> = normalise(&mut value).iter().map(Path::to_string).collect();
        assert_eq!(dropped, ["hold", "launch.key", "smoke_tests[0].name"]);
        let expected = json!({
            "mystery": null, "launch": { "count": 2, "timeout": "0" },
            "smoke_tests": [{ "http": { "path": "/", "json": { "$.a": null, "$.b": 2.0 } } }],
        });
        assert_eq!(value, expected);
    }
}
