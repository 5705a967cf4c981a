//! Problems by path, before it is known which line they stand on; and finding that line.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::{
    diagnostic::{Diagnostic, Lines, Severity},
    positions::{Path, Segment, Tree},
};

use super::{list, shape::Shape};

/// Which part of an entry a problem marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Key,
    Value,
    /// The entry is not there: what would hold it is marked.
    Absent,
}

/// A problem of one document: the base, an environment's overrides, or the two laid together. Equal problems of several
/// environments are one problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    path: Path,
    part: Part,
    id: &'static str,
    severity: Severity,
    message: String,
    help: Vec<String>,
    notes: Vec<String>,
}

impl Problem {
    pub fn error(id: &'static str, path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            part: Part::Value,
            id,
            severity: Severity::Error,
            message: message.into(),
            help: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn warning(id: &'static str, path: &Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(id, path, message) }
    }

    pub fn at(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// Where a problem was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The top of the file itself: paths start there.
    File,
    /// The file without its environments.
    Base,
    /// An environment, by its place in [`Shape::environments`].
    Environment(usize),
}

/// Every problem seen, and where.
#[derive(Debug, Default)]
pub(super) struct Found {
    seen: BTreeMap<Problem, BTreeSet<Origin>>,
}

impl Found {
    pub fn add(&mut self, problem: Problem, origin: Origin) {
        self.seen.entry(problem).or_default().insert(origin);
    }

    /// Gives each problem its lines. One that comes from an environment's own line is told there; one that comes from
    /// the base is told once, and where only some environments have it, with their names.
    pub fn locate(self, tree: &Tree, shape: &Shape, source: &str, file: &str) -> Vec<Diagnostic> {
        let (finder, lines) = (Finder { tree, shape }, Lines::of(source));
        let mut all = Vec::new();
        for (problem, origins) in self.seen {
            for (span, note) in finder.spans(&problem, &origins) {
                let Problem { id, severity, message, help, mut notes, .. } = problem.clone();
                notes.extend(note);
                let place = Some(lines.place(span));
                all.push(Diagnostic { id, severity, message, file: file.to_owned(), place, help, notes });
            }
        }
        all.dedup();
        all
    }
}

struct Finder<'a> {
    tree: &'a Tree,
    shape: &'a Shape,
}

type Spot = (Range<usize>, Option<String>);

impl Finder<'_> {
    fn spans(&self, problem: &Problem, origins: &BTreeSet<Origin>) -> Vec<Spot> {
        if origins.contains(&Origin::File) {
            return vec![(self.mark(problem, &problem.path).unwrap_or(0..0), None)];
        }
        let mut spots = Vec::new();
        let mut elsewhere = Vec::new();
        for origin in origins {
            if let Origin::Environment(at) = *origin {
                let in_file = self.shape.environments[at].named_in_file;
                match in_file.then(|| self.mark(problem, &self.below_environment(at, &problem.path))).flatten() {
                    Some(span) => spots.push((span, None)),
                    None => elsewhere.push(at),
                }
            }
        }
        let by_base = origins.contains(&Origin::Base);
        if by_base || !elsewhere.is_empty() {
            spots.extend(self.in_base(problem, by_base, &elsewhere));
        }
        spots
    }

    /// A problem that no environment's own lines show: at the base's line, or, where a key is missing in some
    /// environments only, at what stands for it there.
    fn in_base(&self, problem: &Problem, by_base: bool, environments: &[usize]) -> Vec<Spot> {
        let everywhere = by_base || environments.len() == self.shape.environments.len();
        let names: Vec<&str> = environments.iter().map(|&at| self.shape.environments[at].name.as_str()).collect();
        let note = (!everywhere).then(|| match names.as_slice() {
            [one] => format!("this is about the environment `{one}`"),
            _ => format!("this is about the environments {}", list(&names)),
        });
        if let Some(span) = self.mark(problem, &problem.path) {
            return vec![(span, note)];
        }
        if everywhere {
            return vec![(self.holder(&problem.path), None)];
        }
        environments.iter().map(|&at| (self.holder(&self.below_environment(at, &problem.path)), None)).collect()
    }

    fn mark(&self, problem: &Problem, path: &Path) -> Option<Range<usize>> {
        match problem.part {
            Part::Key | Part::Absent => self.tree.key(path),
            Part::Value => self.tree.value(path),
        }
    }

    /// The key of the nearest thing above `path` that is in the text.
    fn holder(&self, path: &Path) -> Range<usize> {
        let mut path = path.clone();
        while path.0.pop().is_some() {
            if !path.0.is_empty()
                && let Some(span) = self.tree.key(&path)
            {
                return span;
            }
        }
        self.tree.first_key().unwrap_or(0..0)
    }

    fn below_environment(&self, at: usize, path: &Path) -> Path {
        let mut segments =
            vec![Segment::Key("environments".into()), Segment::Key(self.shape.environments[at].name.clone())];
        segments.extend(path.0.iter().cloned());
        Path(segments)
    }
}
