//! The file's own shape: the settings, and beside them `default_environment` and `environments`.

use serde_json::{Map, Value};

use crate::positions::Path;

use super::{
    MAX_ENVIRONMENTS, ONLY_ENVIRONMENT, list, nearest,
    problem::{Found, Origin, Part, Problem},
    schema::{found, is_name},
};

/// The file taken apart.
#[derive(Debug)]
pub(super) struct Shape {
    /// The settings that stand at the top.
    pub base: Value,
    pub default_environment: Option<String>,
    /// In the order of the file.
    pub environments: Vec<Environment>,
}

#[derive(Debug)]
pub(super) struct Environment {
    pub name: String,
    /// False where the file names no environment and this is the one it stands for.
    pub named_in_file: bool,
    pub overrides: Value,
}

impl Shape {
    /// Takes a file's value apart, and reports what is wrong with the parts that are not settings.
    pub fn of(value: Value, order: &[&str], problems: &mut Found) -> Self {
        let mut add = |problem| problems.add(problem, Origin::File);
        let top = Path::default();
        let mut base = match value {
            Value::Object(map) => map,
            other => {
                add(Problem::error(
                    "wrong-type",
                    &top,
                    format!("the file must be a map of keys, not {}", found(&other)),
                ));
                Map::new()
            }
        };
        let mut environments = named(base.remove("environments"), order, &mut add);
        if environments.is_empty() {
            environments.push(Environment {
                name: ONLY_ENVIRONMENT.into(),
                named_in_file: false,
                overrides: Value::Object(Map::new()),
            });
        }
        let default_environment = default(base.remove("default_environment"), &environments, &mut add);
        Self { base: Value::Object(base), default_environment, environments }
    }
}

fn named(value: Option<Value>, order: &[&str], add: &mut impl FnMut(Problem)) -> Vec<Environment> {
    let path = Path::default().key("environments");
    let mut map = match value {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Object(map)) => map,
        Some(other) => {
            add(Problem::error(
                "wrong-type",
                &path,
                format!("`environments` must be a map of names to what each overrides, not {}", found(&other)),
            )
            .help("environments: { production: { launch: { count: 4 } } }"));
            return Vec::new();
        }
    };
    if map.len() > MAX_ENVIRONMENTS {
        let message = format!("the file has {} environments, more than {MAX_ENVIRONMENTS}", map.len());
        add(Problem::error("too-many-environments", &path, message)
            .at(Part::Key)
            .help("give some of them a file of their own"));
        return Vec::new();
    }
    // serde_json's map forgets the file's order; `order` has it. Merge keys bring names that are not in it.
    let mut names: Vec<String> = order.iter().map(|&name| name.to_owned()).collect();
    names.extend(map.keys().filter(|name| !order.contains(&name.as_str())).cloned());
    let mut environments = Vec::new();
    for name in names {
        let Some(value) = map.remove(&name) else { continue };
        let path = path.key(&name);
        if !is_name(&name) {
            add(Problem::error("bad-name", &path, format!("`{name}` cannot be the name of an environment"))
                .at(Part::Key)
                .help("use lower-case letters, digits and hyphens, at most 20, beginning with a letter"));
        }
        let overrides = match value {
            Value::Null => Value::Object(Map::new()),
            Value::Object(mut map) => {
                check_overrides(&path, &mut map, add);
                Value::Object(map)
            }
            other => {
                add(Problem::error(
                    "wrong-type",
                    &path,
                    format!("an environment is a map of what it overrides, not {}", found(&other)),
                ));
                continue;
            }
        };
        environments.push(Environment { name, named_in_file: true, overrides });
    }
    environments
}

/// What an environment cannot set: the app's name, which all of them share, and environments of its own.
fn check_overrides(path: &Path, overrides: &mut Map<String, Value>, add: &mut impl FnMut(Problem)) {
    for key in ["app", "default_environment", "environments"] {
        if overrides.remove(key).is_some() {
            add(Problem::error(
                "not-in-environment",
                &path.key(key),
                format!("`{key}` is the same in every environment"),
            )
            .at(Part::Key)
            .help("set it at the top of the file only"));
        }
    }
}

fn default(value: Option<Value>, environments: &[Environment], add: &mut impl FnMut(Problem)) -> Option<String> {
    let path = Path::default().key("default_environment");
    let name = match value? {
        Value::String(name) => name,
        other => {
            let message = format!("`default_environment` must be the name of an environment, not {}", found(&other));
            add(Problem::error("wrong-type", &path, message));
            return None;
        }
    };
    let known: Vec<&str> = environments.iter().map(|one| one.name.as_str()).collect();
    if !known.contains(&name.as_str()) {
        let mut problem = Problem::error("unknown-environment", &path, format!("there is no environment `{name}`"));
        if let Some(nearest) = nearest(&name, known.iter().copied()) {
            problem = problem.help(format!("did you mean `{nearest}`?"));
        }
        add(problem.note(format!("the file has {}", list(&known))));
    }
    Some(name)
}
