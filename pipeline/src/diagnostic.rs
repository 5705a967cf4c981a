//! What is wrong with a file, where, and what to do about it.

mod render;

use std::{fmt, ops::Range, sync::Arc};

use serde::Serialize;

pub use self::render::Style;

/// Whether the file can be used in spite of the problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used as it is.
    Warning,
}

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    /// Line and column just after the last character.
    pub end: (usize, usize),
    /// The same, in bytes of the file.
    pub span: Range<usize>,
}

impl Place {
    /// The place of a range of bytes of `source`; a range that `source` lacks is cut to it. For many places of one text,
    /// [`Lines`] is quicker.
    pub fn of(source: &str, span: Range<usize>) -> Self {
        Lines::of(source).place(span)
    }
}

/// Where the lines of a text begin.
#[derive(Debug)]
pub struct Lines<'s> {
    source: &'s str,
    starts: Vec<usize>,
}

impl<'s> Lines<'s> {
    pub fn of(source: &'s str) -> Self {
        let starts = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { source, starts }
    }

    /// See [`Place::of`].
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = crate::positions::boundary(self.source, span.start);
        let end = crate::positions::boundary(self.source, span.end).max(start);
        let (line, column) = self.line_and_column(start);
        Place { line, column, end: self.line_and_column(end), span: start..end }
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|&start| start <= at);
        let start = self.starts[line - 1];
        (line, self.source[start..at].chars().count() + 1)
    }
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of problem it is, in a word that stays the same between releases: `unknown-key`.
    pub id: &'static str,
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The file, as it was named.
    pub file: String,
    /// Where; `None` where the file as a whole is meant, or could not be read at all.
    pub place: Option<Place>,
    /// What to do.
    pub help: Vec<String>,
    /// What else to know.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// `file:line:column`, or the file alone.
    pub fn location(&self) -> String {
        let file = clean(&self.file);
        match &self.place {
            Some(place) => format!("{file}:{}:{}", place.line, place.column),
            None => file,
        }
    }
}

/// Everything that is wrong with one file, in the order of the file.
///
/// Shown with [`fmt::Display`] it is plain text; [`Diagnostics::render`] also writes colours. It serialises as the list
/// of its diagnostics.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    all: Vec<Diagnostic>,
    source: Arc<str>,
}

impl Diagnostics {
    /// Problems of a file whose text is `source`; they are put in the order of the text, errors before warnings at the
    /// same place.
    pub fn new(mut all: Vec<Diagnostic>, source: impl Into<Arc<str>>) -> Self {
        all.sort_by_cached_key(|one| {
            let span = one.place.as_ref().map_or(0..0, |place| place.span.clone());
            (span.start, one.severity, span.end, one.id, one.message.clone())
        });
        Self { all, source: source.into() }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.len() - self.errors()
    }

    /// `2 errors and 1 warning in alcedo.yaml`, or nothing where there are none.
    pub fn summary(&self) -> Option<String> {
        let file = &self.all.first()?.file;
        let count = |number: usize, noun: &str| match number {
            0 => None,
            1 => Some(format!("1 {noun}")),
            _ => Some(format!("{number} {noun}s")),
        };
        let counts: Vec<_> =
            [count(self.errors(), "error"), count(self.warnings(), "warning")].into_iter().flatten().collect();
        Some(format!("{} in {}", counts.join(" and "), clean(file)))
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(Style::Plain))
    }
}

impl std::error::Error for Diagnostics {}

/// `text` with every character that could move a cursor, colour a terminal or turn text around made visible.
pub fn clean(text: &str) -> String {
    text.chars().map(clean_char).collect()
}

/// One character for one, so that columns stay what they were.
fn clean_char(c: char) -> char {
    match c {
        '\t' => ' ',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => '\u{fffd}',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = "a: 1\nbü: ünder\n";
        let at = source.find("ünder").unwrap();
        let place = Place::of(source, at..at + "ünder".len());
        assert_eq!((place.line, place.column, place.end), (2, 5, (2, 10)));
        assert_eq!(Place::of(source, 900..901).span, source.len()..source.len());
        // In the middle of a character: its beginning.
        assert_eq!(Place::of(source, at + 1..at + 1).span, at..at);
    }

    #[test]
    fn nothing_that_moves_a_terminal_survives_cleaning() {
        let hostile = "a\u{1b}[31mred\r\u{8}\u{9b}31m\u{202e}evil\u{7}";
        let cleaned = clean(hostile);
        assert_eq!(cleaned.chars().count(), hostile.chars().count());
        assert!(!cleaned.chars().any(char::is_control), "{cleaned:?}");
        assert!(!cleaned.contains('\u{202e}'));
    }
}
