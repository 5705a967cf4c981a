//! Reading `alcedo.yaml`: every problem of the whole file at once, each where it stands, or a [`PipelineFile`].
//!
//! The text is read three times, each for what it does best: as YAML with positions ([`crate::positions`]), through
//! serde for its values, and against the JSON schema of [`crate::file::Pipeline`] for every mismatch rather than the
//! first. Then come the rules that a type cannot hold (`rules`). What an environment overrides is laid over the rest of
//! the file first, and what is found there is told at the line it comes from, once.

mod problem;
mod references;
mod rules;
mod schema;
mod shape;
mod syntax;

use std::path::{Path as FilePath, PathBuf};

use serde_json::Value;

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Severity},
    file::Pipeline,
    overlay::overlay,
    positions::Path,
};

use self::{
    problem::{Found, Origin},
    shape::Shape,
};

pub use self::schema::json_schema;

/// Largest file that is read, in bytes. The longest pipeline file in the examples has about 10 KiB.
pub const MAX_BYTES: u64 = 256 << 10;

/// Most environments of one file. Each is checked as a whole, so a file pays for all of them.
pub const MAX_ENVIRONMENTS: usize = 50;

/// The name of the only environment of a file that names none.
pub const ONLY_ENVIRONMENT: &str = "default";

/// A pipeline file in which nothing is wrong.
#[derive(Debug, Clone)]
pub struct PipelineFile {
    /// The folder of the file: what relative paths in it start from.
    pub folder: PathBuf,
    /// The app's name, the same in every environment.
    pub app: String,
    /// The environment meant where none is named.
    pub default_environment: Option<String>,
    environments: Vec<(String, Pipeline)>,
    warnings: Diagnostics,
}

/// Why a file gives no settings for what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("there is no environment `{name}`")]
    Unknown {
        name: String,
        /// The known name that is most like it.
        nearest: Option<String>,
        known: Vec<String>,
    },
    #[error("the file has several environments and no `default_environment`")]
    NoneNamed { known: Vec<String> },
}

impl EnvironmentError {
    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { nearest: Some(nearest), known, .. } => {
                format!("did you mean `{nearest}`? The file has {}", list(known))
            }
            Self::Unknown { known, .. } => format!("the file has {}", list(known)),
            Self::NoneNamed { known } => {
                format!("name one of {} with --env, or set `default_environment`", list(known))
            }
        }
    }
}

impl PipelineFile {
    /// Reads a file, and checks that the files it refers to exist.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included.
    pub fn read(path: &FilePath) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let source = syntax::read(path)?;
        // The parent of a bare file name is the empty path, which opens nothing.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
        check(&source, &name, folder, true)
    }

    /// Checks a file's text. `file_name` is how its problems call it; nothing outside of the text is looked at.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included.
    pub fn parse(source: &str, file_name: &str) -> Result<Self, Diagnostics> {
        let folder = FilePath::new(file_name).parent().unwrap_or(FilePath::new(""));
        check(source, file_name, folder, false)
    }

    /// The names of the environments, in the order of the file; one at least.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.environments.iter().map(|(name, _)| name.as_str())
    }

    /// The name of the environment that is meant: the one asked for, else the default, else the only one.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub fn environment_name(&self, asked: Option<&str>) -> Result<&str, EnvironmentError> {
        self.find(asked).map(|(name, _)| name.as_str())
    }

    /// The settings of the environment that is meant; see [`PipelineFile::environment_name`].
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub fn environment(&self, asked: Option<&str>) -> Result<Pipeline, EnvironmentError> {
        self.find(asked).map(|(_, pipeline)| pipeline.clone())
    }

    /// What is odd about the file without being wrong.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    fn find(&self, asked: Option<&str>) -> Result<&(String, Pipeline), EnvironmentError> {
        let known = || self.environments().map(str::to_owned).collect::<Vec<_>>();
        match asked.or(self.default_environment.as_deref()) {
            Some(name) => {
                self.environments.iter().find(|(one, _)| one == name).ok_or_else(|| EnvironmentError::Unknown {
                    name: name.to_owned(),
                    nearest: nearest(name, self.environments()).map(str::to_owned),
                    known: known(),
                })
            }
            None => match self.environments.as_slice() {
                [only] => Ok(only),
                _ => Err(EnvironmentError::NoneNamed { known: known() }),
            },
        }
    }
}

fn check(source: &str, file: &str, folder: &FilePath, look_around: bool) -> Result<PipelineFile, Diagnostics> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let refuse = |all: Vec<Diagnostic>| Diagnostics::new(all, source);
    let (tree, mut diagnostics) = syntax::tree(source, file).map_err(|one| refuse(vec![*one]))?;
    let Some(value) = syntax::value(source, &tree, file, &mut diagnostics) else { return Err(refuse(diagnostics)) };

    let mut found = Found::default();
    let shape = Shape::of(value, &tree.keys(&Path::default().key("environments")), &mut found);
    schema::check_part(&shape.base, Origin::Base, &mut found);
    let mut merged = Vec::new();
    for (at, environment) in shape.environments.iter().enumerate() {
        let origin = Origin::Environment(at);
        if environment.named_in_file {
            schema::check_part(&environment.overrides, origin, &mut found);
        }
        let mut whole = shape.base.clone();
        overlay(&mut whole, &environment.overrides);
        schema::normalise(&mut whole);
        schema::check_whole(&whole, origin, &mut found);
        rules::check(&whole, &mut |problem| found.add(problem, origin));
        if look_around {
            references::check(&whole, folder, &mut |problem| found.add(problem, origin));
        }
        merged.push(whole);
    }
    rules::check_together(&shape, &merged, &mut found);
    diagnostics.extend(found.locate(&tree, &shape, source, file));

    let broken = |diagnostics: &[Diagnostic]| diagnostics.iter().any(|one| one.severity == Severity::Error);
    let mut environments = Vec::new();
    if !broken(&diagnostics) {
        for (environment, whole) in shape.environments.iter().zip(merged) {
            match serde_json::from_value::<Pipeline>(whole) {
                Ok(pipeline) => environments.push((environment.name.clone(), pipeline)),
                // The schema and the rules are meant to leave nothing for serde to find; if they do, its word counts.
                Err(error) => diagnostics.push(syntax::unexpected(file, &environment.name, &error)),
            }
        }
    }
    if broken(&diagnostics) || environments.is_empty() {
        return Err(refuse(diagnostics));
    }
    Ok(PipelineFile {
        folder: folder.to_owned(),
        app: environments[0].1.app.clone(),
        default_environment: shape.default_environment,
        environments,
        warnings: refuse(diagnostics),
    })
}

/// The one of `known` that `name` is most likely a slip for: a third of its letters wrong at most, or the rest left out.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let slips = |one: &str| match one.to_lowercase() {
        one if length >= 3 && one.starts_with(&name) => 1,
        // So many letters more or less are that many slips at least.
        one if one.chars().count().abs_diff(length) * 3 > length.max(3) => usize::MAX / 3,
        one => strsim::osa_distance(&name, &one),
    };
    // A long text is no slip, and comparing it would take its time.
    let likely = known.into_iter().filter(|_| length <= 40).map(|one| (slips(one), one));
    likely.filter(|&(slips, _)| slips * 3 <= length.max(3)).min_by_key(|&(slips, _)| slips).map(|(_, one)| one)
}

/// `a`, `b` and `c`, in backticks.
fn list<S: AsRef<str>>(names: &[S]) -> String {
    join(names, "and")
}

fn join<S: AsRef<str>>(names: &[S], word: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match names.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {word} {last}", most.join(", ")),
    }
}

/// A text from the file as messages quote it: cut where it is long, on one line.
fn quote(text: &str) -> String {
    const MOST: usize = 60;
    if text.is_empty() {
        return "an empty text".into();
    }
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(MOST).collect();
    if short.len() < text.trim_end().len() { format!("`{short}…`") } else { format!("`{short}`") }
}

/// A map's entries, or none where the value is something else.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_what_was_meant_and_nothing_else_does() {
        let known = ["build", "bake", "smoke_tests", "hold", "health_check", "production", "port"];
        for (slip, meant) in [
            ("biuld", Some("build")),
            ("Build", Some("build")),
            ("smoketest", Some("smoke_tests")),
            ("health-check", Some("health_check")),
            ("prod", Some("production")),
            ("prot", Some("port")),
            ("bucket", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, known), meant, "{slip}");
        }
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quote("short"), "`short`");
        assert_eq!(quote("two\nlines"), "`two…`");
        assert_eq!(quote(&"x".repeat(500)).chars().count(), 63);
        assert_eq!(quote(""), "an empty text");
    }
}
