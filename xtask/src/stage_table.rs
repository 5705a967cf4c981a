//! What each stage took, runs side by side.

use std::{fmt::Write, time::Duration};

use crate::{alcedo::Report, terminal::seconds};

/// Every stage, in the order in which they come.
const STAGES: [&str; 8] = ["build", "publish", "bake", "launch", "smoke", "flip", "hold", "retire"];

/// A line for every stage that any of the runs had, and one for the whole; a column for each run under its title.
pub fn table(runs: &[(&str, &Report)]) -> String {
    let present = |name: &&str| runs.iter().any(|(_, report)| report.stages.iter().any(|stage| stage.stage == *name));
    let mut text = String::new();
    let mut row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        writeln!(text, "  {name:10}{cells}").expect("writing to a String does not fail");
    };
    row("", runs.iter().map(|(title, _)| (*title).to_owned()).collect());
    for name in STAGES.into_iter().filter(present) {
        let cell = |report: &Report| match report.stages.iter().find(|stage| stage.stage == name) {
            Some(stage) => seconds(Duration::from_secs_f64(stage.seconds)),
            None => "-".to_owned(),
        };
        row(name, runs.iter().map(|(_, report)| cell(report)).collect());
    }
    row("in all", runs.iter().map(|(_, report)| seconds(report.measured.wall)).collect());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alcedo::{Measured, Stage};

    fn report(stages: &[(&str, f64)], wall: f64) -> Report {
        Report {
            journal_seconds: 0.0,
            version: "2026.1120.1".into(),
            stages: stages.iter().map(|&(stage, seconds)| Stage { stage: stage.into(), seconds }).collect(),
            measured: Measured { wall: Duration::from_secs_f64(wall), ..Measured::default() },
        }
    }

    #[test]
    fn stages_stand_in_order_whichever_run_had_them() {
        let first = report(&[("build", 62.0), ("launch", 5.25), ("flip", 1.0)], 70.0);
        let second = report(&[("bake", 3.0), ("launch", 4.0), ("flip", 0.5), ("retire", 2.0)], 10.0);
        let expected = "\
                         v1            v2
  build     1 min 02 s             -
  bake               -         3.0 s
  launch         5.2 s         4.0 s
  flip           1.0 s         0.5 s
  retire             -         2.0 s
  in all    1 min 10 s        10.0 s
";
        let table = table(&[("v1", &first), ("v2", &second)]);
        let words = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(words(&table), words(expected));
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }
}
