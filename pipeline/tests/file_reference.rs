//! `docs/alcedo.yaml` is the reference: it must be a valid file, show every key there is, and state the defaults that
//! the code has.

use std::collections::{BTreeMap, BTreeSet};

use alcedo_pipeline::{
    positions::{Path, Segment, Tree},
    validate::{PipelineFile, json_schema},
};
use serde_json::Value;

const REFERENCE: &str = include_str!("../../docs/alcedo.yaml");

/// What the end of a key's line says.
#[derive(Debug, PartialEq)]
enum Marker {
    Required,
    Default(String),
}

/// A property of one of the file's types.
type Property = (String, String);

fn resolve(schema: &'static Value) -> (&'static str, &'static Value) {
    match schema["$ref"].as_str() {
        Some(target) => (target, json_schema().pointer(&target[1..]).expect(target)),
        None => ("", schema),
    }
}

/// Every property that the types have.
fn properties() -> BTreeMap<Property, &'static Value> {
    fn collect(name: &str, schema: &'static Value, all: &mut BTreeMap<Property, &'static Value>) {
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            if all.insert((name.to_owned(), key.clone()), value).is_none() {
                let value = if value["items"].is_object() { &value["items"] } else { value };
                let (name, below) = resolve(value);
                collect(name, below, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    collect("", json_schema(), &mut all);
    all
}

/// The keys of the file's text that are properties, each with its line; environments count as what they override.
fn documented() -> Vec<(Property, Path, Option<Marker>)> {
    fn walk(
        tree: &Tree,
        at: &Path,
        name: &str,
        schema: &'static Value,
        out: &mut Vec<(Property, Path, Option<Marker>)>,
    ) {
        if schema["items"].is_object() {
            for index in 0.. {
                let item = at.index(index);
                if tree.value(&item).is_none() {
                    break;
                }
                let (name, below) = resolve(&schema["items"]);
                walk(tree, &item, name, below, out);
            }
        }
        for key in tree.keys(at) {
            let Some(value) = schema["properties"].get(key) else { continue };
            let path = at.key(key);
            out.push(((name.to_owned(), key.to_owned()), path.clone(), marker(tree, &path)));
            let (name, below) = resolve(value);
            walk(tree, &path, name, below, out);
        }
    }
    let tree = Tree::parse(REFERENCE).unwrap();
    let mut out = Vec::new();
    walk(&tree, &Path::default(), "", json_schema(), &mut out);
    let environments = Path(vec![Segment::Key("environments".into())]);
    for name in tree.keys(&environments) {
        walk(&tree, &environments.key(name), "", json_schema(), &mut out);
    }
    out
}

fn marker(tree: &Tree, path: &Path) -> Option<Marker> {
    let at = tree.key(path).unwrap().start;
    let line = REFERENCE[at..].lines().next().unwrap();
    let (_, comment) = line.rsplit_once(" # ")?;
    match comment.trim().split_once(": ") {
        Some(("default", text)) => Some(Marker::Default(text.to_owned())),
        None if comment.trim() == "required" => Some(Marker::Required),
        _ => panic!("{path}: the comment `{comment}` is neither `required` nor `default: …`"),
    }
}

#[test]
fn the_reference_is_a_valid_file_without_warnings() {
    let file = PipelineFile::parse(REFERENCE, "docs/alcedo.yaml").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(file.environments().collect::<Vec<_>>(), ["local", "staging", "production"]);
    assert!(file.warnings().is_empty(), "{}", file.warnings());
    assert_eq!(file.environment(None).unwrap().hold.span.as_secs(), 10);
    let production = file.environment(Some("production")).unwrap();
    assert_eq!((production.launch.count, production.flip.preview.port), (6, Some(8443)));
    assert_eq!((production.flip.preview.header, production.bake.base.recipe), (None, None));
}

#[test]
fn the_reference_shows_every_key() {
    let shown: BTreeSet<Property> = documented().into_iter().map(|(property, ..)| property).collect();
    let missing: Vec<Property> = properties().into_keys().filter(|property| !shown.contains(property)).collect();
    assert!(missing.is_empty(), "docs/alcedo.yaml does not show {missing:#?}");
}

#[test]
fn every_key_is_marked_as_required_or_with_its_default() {
    let properties = properties();
    let mut marked: BTreeSet<Property> = BTreeSet::new();
    let mut wrong = Vec::new();
    for ((owner, key), path, marker) in documented() {
        let schema = properties[&(owner.clone(), key.clone())];
        let (_, owner_schema) =
            if owner.is_empty() { ("", json_schema()) } else { ("", json_schema().pointer(&owner[1..]).unwrap()) };
        let required = owner_schema["required"].as_array().is_some_and(|all| all.iter().any(|one| *one == key));
        let Some(marker) = marker else { continue };
        let right = match (&marker, schema.get("default")) {
            (Marker::Required, _) => required,
            (Marker::Default(_), _) if required => false,
            (Marker::Default(text), Some(default)) => {
                serde_yaml::from_str::<Value>(text).is_ok_and(|stated| &stated == default)
            }
            // No default in the code is either none, or words for what the code works out.
            (Marker::Default(text), None) => !text.is_empty(),
        };
        if !right {
            wrong.push(format!(
                "{path} is marked {marker:?}; required: {required}, default: {:?}",
                schema.get("default")
            ));
        }
        marked.insert((owner, key));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A section, such as `launch`, is marked by its keys.
    let section = |schema: &'static Value| resolve(schema).1["properties"].is_object();
    let unmarked: Vec<_> =
        properties.iter().filter(|(property, schema)| !marked.contains(*property) && !section(schema)).collect();
    assert!(unmarked.is_empty(), "no line of docs/alcedo.yaml states whether it is required: {unmarked:#?}");
}
