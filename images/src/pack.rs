//! Which files of the build's folder become the artifact, and under which paths.
//!
//! A pattern is relative to the build's working directory. `*` stands for anything within one name, `**` for any
//! folders; a pattern that matches a folder takes everything inside it. Files keep their paths: `dist/app` stays
//! `dist/app`. A pattern without `*` that ends in `/` takes what is inside that folder, without the folder's own name:
//! with `dist/`, `dist/app` becomes `app`.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns, checked and compiled.
#[derive(Debug, Clone)]
pub struct Patterns {
    take: Vec<Pattern>,
    leave: GlobSet,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// As the file says it.
    text: String,
    matches: GlobSet,
    /// The folders above the first `*`: where to look, `""` for the working directory itself.
    root: String,
    /// What is cut from the front of a path, with its `/`.
    cut: String,
}

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    #[error("the pattern `{pattern}` leads out of the working directory")]
    Outside { pattern: String },
    #[error("the pattern `{pattern}` cannot be read")]
    Syntax {
        pattern: String,
        #[source]
        source: globset::Error,
    },
}

impl Patterns {
    pub fn new(take: &[String], leave: &[String]) -> Result<Self, PatternError> {
        let mut left = GlobSetBuilder::new();
        for text in leave {
            for glob in globs(text)? {
                left.add(glob);
            }
        }
        let syntax = |source| PatternError::Syntax { pattern: leave.join(", "), source };
        Ok(Self {
            take: take.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>()?,
            leave: left.build().map_err(syntax)?,
        })
    }

    /// The folders and files to look in, none inside another; `""` is the working directory itself.
    pub fn roots(&self) -> Vec<String> {
        let mut roots: Vec<String> = self.take.iter().map(|pattern| pattern.root.clone()).collect();
        roots.sort_unstable();
        let mut kept: Vec<String> = Vec::new();
        for root in roots {
            if !kept.iter().any(|above| above.is_empty() || root == *above || root.starts_with(&format!("{above}/"))) {
                kept.push(root);
            }
        }
        kept
    }

    /// The path in the artifact of a file at `path`, and the patterns (by index) that take it. `None` for a file that
    /// stays behind. Where patterns disagree, the first one decides.
    pub fn place(&self, path: &str) -> Option<(String, Vec<usize>)> {
        if self.leave.is_match(path) {
            return None;
        }
        let takers: Vec<usize> = self
            .take
            .iter()
            .enumerate()
            .filter(|(_, pattern)| pattern.matches.is_match(path))
            .map(|(at, _)| at)
            .collect();
        let first = &self.take[*takers.first()?];
        Some((path.strip_prefix(&first.cut).unwrap_or(path).to_owned(), takers))
    }

    /// How the file says the pattern of this index.
    pub fn text(&self, index: usize) -> &str {
        &self.take[index].text
    }

    pub fn len(&self) -> usize {
        self.take.len()
    }

    pub fn is_empty(&self) -> bool {
        self.take.is_empty()
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, PatternError> {
        let tidy = tidy(text)?;
        let is_special = |name: &&str| name.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let literal: Vec<&str> =
            tidy.split('/').take_while(|name| !is_special(name)).filter(|name| !name.is_empty()).collect();
        let root = literal.join("/");
        let inside_only = text.ends_with('/') && root == tidy && !root.is_empty();
        // Where only the inside is meant, the folder itself is not.
        let globs = if inside_only { vec![glob(&format!("{root}/**"))?] } else { globs(text)? };
        let mut matches = GlobSetBuilder::new();
        for glob in globs {
            matches.add(glob);
        }
        Ok(Self {
            text: text.to_owned(),
            matches: matches.build().map_err(|source| PatternError::Syntax { pattern: text.to_owned(), source })?,
            cut: if inside_only { format!("{root}/") } else { String::new() },
            root,
        })
    }
}

/// The pattern itself, and everything inside what it matches.
fn globs(text: &str) -> Result<Vec<Glob>, PatternError> {
    let tidy = tidy(text)?;
    if tidy.is_empty() { Ok(vec![glob("**")?]) } else { Ok(vec![glob(&tidy)?, glob(&format!("{tidy}/**"))?]) }
}

fn glob(text: &str) -> Result<Glob, PatternError> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map_err(|source| PatternError::Syntax { pattern: text.to_owned(), source })
}

/// Without `./` in front, `/` at the end and doubled `/`; `.` is nothing.
fn tidy(text: &str) -> Result<String, PatternError> {
    if text.starts_with('/') || text.split('/').any(|name| name == "..") {
        return Err(PatternError::Outside { pattern: text.to_owned() });
    }
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    Ok(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(take: &[&str], leave: &[&str]) -> Patterns {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Patterns::new(&owned(take), &owned(leave)).unwrap()
    }

    #[test]
    fn paths_are_kept_unless_the_folder_is_only_opened() {
        let patterns =
            patterns(&["target/release/hello", "dist/", "assets", "etc/*.conf"], &["**/*.map", "assets/raw"]);
        for (path, place) in [
            ("target/release/hello", Some("target/release/hello")),
            ("target/release/other", None),
            ("dist/js/app.js", Some("js/app.js")),
            ("dist/js/app.js.map", None),
            ("assets/logo.svg", Some("assets/logo.svg")),
            ("assets/raw/logo.psd", None),
            ("etc/a.conf", Some("etc/a.conf")),
            ("etc/d/a.conf", None),
            ("main.rs", None),
        ] {
            assert_eq!(patterns.place(path).map(|(place, _)| place).as_deref(), place, "{path}");
        }
        assert_eq!(patterns.roots(), ["assets", "dist", "etc", "target/release/hello"]);
    }

    #[test]
    fn roots_are_not_looked_in_twice() {
        assert_eq!(patterns(&["dist", "dist/js/*.js", "distant"], &[]).roots(), ["dist", "distant"]);
        assert_eq!(patterns(&["*.py", "dist"], &[]).roots(), [""]);
        assert_eq!(patterns(&["."], &[]).place("a/b").unwrap().0, "a/b");
    }

    #[test]
    fn a_file_knows_every_pattern_that_takes_it() {
        assert_eq!(patterns(&["dist", "**/*.js"], &[]).place("dist/app.js").unwrap().1, [0, 1]);
    }

    #[test]
    fn patterns_stay_in_the_working_directory() {
        for text in ["/etc", "../x", "a/../../x"] {
            assert!(matches!(Patterns::new(&[text.into()], &[]), Err(PatternError::Outside { .. })), "{text}");
        }
        assert!(matches!(Patterns::new(&["a[".into()], &[]), Err(PatternError::Syntax { .. })));
    }
}
