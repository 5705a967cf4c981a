//! What stood on a terminal, moment by moment, as one animated picture: an SVG that shows one still after another. It has
//! no script, so that it plays wherever pictures are shown, and stands still at its end for whoever asks for less motion.

use std::{collections::HashMap, fmt::Write};

use avt::{Cell, Color, Pen, Terminal};

/// Of a letter, in pixels; what fits the fonts below at this size.
const FONT_SIZE: f64 = 14.0;
const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: f64 = 19.0;
const MARGIN: f64 = 14.0;
/// How long the last still stands before the first comes again.
const END_SECONDS: f64 = 5.0;

/// The terminal's own colours, and the first sixteen of programs.
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d6d9e0";
const COLOURS: [&str; 16] = [
    "#3b3f4a", "#f2777a", "#99cc99", "#ffcc66", "#6699cc", "#cc99cc", "#66cccc", "#d6d9e0", "#747369", "#f2777a",
    "#99cc99", "#ffcc66", "#6699cc", "#cc99cc", "#66cccc", "#ffffff",
];

/// Stills with the moment from which each stands, in seconds of the film.
#[derive(Default)]
pub struct Film {
    stills: Vec<(f64, Vec<usize>)>,
    /// Each different row once.
    rows: Vec<String>,
    known: HashMap<String, usize>,
}

impl Film {
    /// Takes a still of what stands on the terminal now.
    pub fn take(&mut self, at: f64, terminal: &Terminal) {
        let rows = terminal.screen().visible_lines().map(|line| self.row(&drawn(line.cells()))).collect();
        if self.stills.last().is_none_or(|(_, last)| *last != rows) {
            self.stills.push((at, rows));
        }
    }

    fn row(&mut self, drawn: &str) -> usize {
        if let Some(known) = self.known.get(drawn) {
            return *known;
        }
        let number = self.rows.len();
        self.rows.push(drawn.to_owned());
        self.known.insert(drawn.to_owned(), number);
        number
    }

    /// The picture. `caption` stands below it and is what a screen reader says.
    pub fn svg(&self, columns: usize, caption: &str) -> String {
        let is_blank = |row: &usize| self.rows[*row].is_empty();
        let used =
            |(_, rows): &(f64, Vec<usize>)| rows.iter().rposition(|row| !is_blank(row)).map_or(0, |last| last + 1);
        let height = self.stills.iter().map(used).max().unwrap_or_default();
        let wide = columns as f64 * CELL_WIDTH + 2.0 * MARGIN;
        let high = (height as f64 + 1.5) * CELL_HEIGHT + 2.0 * MARGIN;
        let last = self.stills.len().saturating_sub(1);
        let length = self.stills.last().map_or(0.0, |(at, _)| *at) + END_SECONDS;
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.0} {high:.0}\" width=\"{wide:.0}\" \
             height=\"{high:.0}\" role=\"img\">\n<title>{}</title>\n<style>\n\
             text{{font:{FONT_SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;\
             fill:{FOREGROUND};white-space:pre}}\n.b{{font-weight:bold}}.f{{opacity:.6}}\n",
            escaped(caption)
        );
        for (number, colour) in COLOURS.iter().enumerate() {
            let _ = write!(svg, ".c{number}{{fill:{colour}}}");
        }
        let _ = writeln!(svg, "\n.film{{animation:film {length:.2}s step-end infinite}}\n@keyframes film{{");
        for (number, (at, _)) in self.stills.iter().enumerate() {
            let at = 100.0 * at / length;
            let _ = write!(svg, "{at:.3}%{{transform:translateX(-{:.0}px)}}", number as f64 * wide);
        }
        let _ = writeln!(
            svg,
            "}}\n@media (prefers-reduced-motion:reduce){{.film{{animation:none;transform:translateX(-{:.0}px)}}}}\n</style>",
            last as f64 * wide
        );
        svg.push_str("<defs>\n");
        for (number, row) in self.rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
            let _ = writeln!(svg, "<text id=\"r{number}\">{row}</text>");
        }
        let _ = writeln!(svg, "</defs>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>");
        let base = MARGIN + FONT_SIZE;
        let _ = writeln!(
            svg,
            "<text class=\"f\" x=\"{MARGIN}\" y=\"{:.1}\">{}</text>\n<g class=\"film\">",
            base + (height as f64 + 0.5) * CELL_HEIGHT,
            escaped(caption)
        );
        for (number, (_, rows)) in self.stills.iter().enumerate() {
            let _ = write!(svg, "<g transform=\"translate({:.0})\">", number as f64 * wide + MARGIN);
            for (row, drawn) in rows.iter().enumerate().filter(|(_, drawn)| !is_blank(drawn)) {
                let _ = write!(svg, "<use href=\"#r{drawn}\" y=\"{:.0}\"/>", base + row as f64 * CELL_HEIGHT);
            }
            svg.push_str("</g>\n");
        }
        svg.push_str("</g>\n</svg>\n");
        svg
    }
}

/// A row's cells as spans of one look each; nothing where it is blank. Each span is told its place and its width: fonts
/// differ in how wide a letter is.
fn drawn(cells: &[Cell]) -> String {
    let end = cells.iter().rposition(|cell| cell.char() != ' ').map_or(0, |last| last + 1);
    let mut spans = String::new();
    let mut at = 0;
    while at < end {
        let pen = cells[at].pen();
        let many = cells[at..end].iter().take_while(|cell| classes(cell.pen()) == classes(pen)).count();
        let text: String = cells[at..at + many].iter().filter(|cell| cell.width() > 0).map(Cell::char).collect();
        if !text.trim().is_empty() {
            let (x, width) = (at as f64 * CELL_WIDTH, many as f64 * CELL_WIDTH);
            let class = classes(pen);
            let class = if class.is_empty() { class } else { format!(" class=\"{class}\"") };
            let _ = write!(spans, "<tspan x=\"{x:.1}\" textLength=\"{width:.1}\"{class}>{}</tspan>", escaped(&text));
        }
        at += many;
    }
    spans
}

fn classes(pen: &Pen) -> String {
    let mut classes = Vec::new();
    if pen.is_bold() {
        classes.push("b".to_owned());
    }
    if pen.is_faint() {
        classes.push("f".to_owned());
    }
    if let Some(Color::Indexed(number @ 0..16)) = pen.foreground() {
        classes.push(format!("c{number}"));
    }
    classes.join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stills_that_are_the_same_are_one_and_so_are_rows() {
        let mut terminal = Terminal::new(10, 3).unwrap();
        let mut film = Film::default();
        for (at, text) in [(0.0, "\x1b[1mone\x1b[0m <"), (1.0, ""), (2.0, "\r\ntwo"), (3.0, "\r\n\x1b[32mthree")] {
            terminal.feed(text);
            film.take(at, &terminal);
        }
        assert_eq!(film.stills.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0.0, 2.0, 3.0]);
        assert_eq!(film.rows.iter().filter(|row| !row.is_empty()).count(), 3);
        let svg = film.svg(10, "a & b");
        assert!(svg.contains(r#"class="b">one</tspan>"#) && svg.contains("&lt;</tspan>"), "{svg}");
        assert!(svg.contains(r#"class="c2">three</tspan>"#), "{svg}");
        assert!(svg.contains("<title>a &amp; b</title>"), "{svg}");
        // The second still stands from two of eight seconds on.
        assert!(svg.contains("25.000%{transform:translateX(-112px)}"), "{svg}");
    }
}
