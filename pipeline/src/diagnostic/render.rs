//! Diagnostics as people read them: the message, the line it is about with what is wrong marked, and what to do.

use std::{fmt::Write as _, io};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Diagnostics, Place, Severity, clean, clean_char};

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without escape sequences: for files, pipes and CI.
    Plain,
    /// With ANSI colours.
    Coloured,
}

/// More than this many are counted, not shown: a wall of text helps nobody, and a hostile file could ask for one.
const MOST_SHOWN: usize = 100;

/// Lines longer than this are cut around what is marked.
const WIDTH: usize = 120;

impl Diagnostics {
    /// Writes all of them, a blank line between two, and their number at the end.
    pub fn render(&self, out: &mut impl io::Write, style: Style) -> io::Result<()> {
        out.write_all(self.to_text(style).as_bytes())
    }

    /// What [`Diagnostics::render`] writes.
    pub fn to_text(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        }
        .term_width(WIDTH);
        let mut text = String::new();
        for one in self.iter().take(MOST_SHOWN) {
            text.push_str(&one.to_text(&self.source, &renderer));
            text.push_str("\n\n");
        }
        if self.len() > MOST_SHOWN {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "… and {} more\n", self.len() - MOST_SHOWN);
        }
        if let Some(summary) = self.summary() {
            text.push_str(&summary);
            text.push('\n');
        }
        text
    }
}

impl Diagnostic {
    fn to_text(&self, source: &str, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(clean(&self.message)).id(self.id));
        let file = clean(&self.file);
        group = match &self.place {
            Some(place) => group.element(Self::snippet(source, place).path(file)),
            None => group.element(Origin::path(file)),
        };
        for note in &self.notes {
            group = group.element(Level::NOTE.message(clean(note)));
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(clean(help)));
        }
        renderer.render(&[group])
    }

    /// The one line that the place begins on, with the place marked as far as it is on that line.
    fn snippet(source: &str, place: &Place) -> Snippet<'static, annotate_snippets::Annotation<'static>> {
        let start = source[..place.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let end = source[place.span.start..].find('\n').map_or(source.len(), |newline| place.span.start + newline);
        let line = source[start..end].trim_end_matches('\r');
        let mut shown = String::new();
        let (mut from, mut to) = (None, None);
        for (at, c) in line.char_indices() {
            if start + at >= place.span.start {
                from.get_or_insert(shown.len());
            }
            if start + at >= place.span.end {
                to.get_or_insert(shown.len());
            }
            shown.push(clean_char(c));
        }
        let from = from.unwrap_or(shown.len());
        let to = to.unwrap_or(shown.len()).max(from);
        let mark = AnnotationKind::Primary.span(from..to);
        Snippet::source(shown).line_start(place.line).annotation(mark)
    }
}
