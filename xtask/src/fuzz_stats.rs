//! How far libFuzzer came, read from what it writes while it runs.

use std::fmt;

/// The last of what it has said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FuzzStats {
    pub executions: u64,
    pub per_second: u64,
    /// Places in the code that were reached, of all that have a counter.
    pub coverage: u64,
    pub counters: u64,
    /// Inputs that are kept because each reaches something that the others do not.
    pub corpus: u64,
    pub peak_mb: u64,
    /// The file of an input that was found to break something.
    pub artifact: Option<String>,
}

impl FuzzStats {
    /// Takes one line into account; answers whether it only tells of progress.
    pub fn line(&mut self, line: &str) -> bool {
        let number = |text: &str| text.trim().parse().ok();
        if let Some(stat) = line.strip_prefix("stat::") {
            let Some((name, value)) = stat.split_once(':') else { return false };
            let field = match name {
                "number_of_executed_units" => &mut self.executions,
                "average_exec_per_sec" => &mut self.per_second,
                "peak_rss_mb" => &mut self.peak_mb,
                _ => return true,
            };
            *field = number(value).unwrap_or(*field);
            return true;
        }
        // An input that was only slow is kept as well, and is no finding.
        if let Some((_, file)) = line.split_once("Test unit written to ")
            && !file.contains("slow-unit-")
        {
            self.artifact = Some(file.trim().to_owned());
            return false;
        }
        if let Some(before) = line.split_once(" inline 8-bit counters").map(|it| it.0) {
            self.counters = before.rsplit('(').next().and_then(number).unwrap_or(self.counters);
        }
        let is_progress = line.starts_with('#') && line.contains(" cov: ");
        if is_progress {
            let after = |word: &str| line.split_once(word)?.1.split([' ', '/']).next().and_then(number);
            self.coverage = after(" cov: ").unwrap_or(self.coverage);
            self.corpus = after(" corp: ").unwrap_or(self.corpus);
        }
        is_progress
    }
}

impl fmt::Display for FuzzStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, per_second, coverage, counters, corpus, peak_mb, .. } = self;
        write!(
            f,
            "{executions} executions, {per_second} a second; {coverage} of {counters} counters reached, \
             {corpus} inputs kept; at most {peak_mb} MB"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_findings_are_not_progress() {
        let mut stats = FuzzStats::default();
        let lines = [
            ("INFO: Loaded 1 modules   (38123 inline 8-bit counters): 38123 [0x55d0, 0x55d9), ", false),
            ("#14\tINITED cov: 610 ft: 811 corp: 7/20Kb exec/s: 0 rss: 60Mb", true),
            (
                "#4096\tNEW    cov: 702 ft: 1290 corp: 41/88Kb lim: 8192 exec/s: 512 rss: 71Mb L: 2048/8192 MS: 1 CopyPart-",
                true,
            ),
            ("thread '<unnamed>' panicked at src/archive.rs:110:5:", false),
            ("artifact_prefix='/p/'; Test unit written to /p/crash-0a1b", false),
            ("stat::number_of_executed_units: 4100", true),
            ("stat::average_exec_per_sec:     512", true),
            ("stat::new_units_added:          34", true),
            ("stat::peak_rss_mb:              72", true),
        ];
        for (line, is_progress) in lines {
            assert_eq!(stats.line(line), is_progress, "{line}");
        }
        assert_eq!(stats.artifact.as_deref(), Some("/p/crash-0a1b"));
        assert_eq!(
            stats.to_string(),
            "4100 executions, 512 a second; 702 of 38123 counters reached, 41 inputs kept; at most 72 MB"
        );
    }
}
