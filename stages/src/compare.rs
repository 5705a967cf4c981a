//! Whether green fails more often than blue: Fisher's exact test.
//!
//! **Method.** Of the requests that each version has had, some have failed. If green were no worse than blue, how probable
//! is it that at least so many of the failures fall on green? That is the one-sided Fisher's exact test of the 2×2 table
//! (R. A. Fisher, *Statistical Methods for Research Workers*, 1934, §21.02), computed by the crate `statrs`. It needs no
//! assumption about sample sizes; where failures are few it errs towards not alarming.
//!
//! **Several looks.** A run looks more than once, and each look could alarm by chance. The level of one look is the level of
//! the whole run divided by the number of looks that were planned (Bonferroni's inequality), so that the chance of a false
//! alarm in the whole run stays below its level however the looks depend on each other.

use serde::{Deserialize, Serialize};
use statrs::stats_tests::{Alternative, fishers_exact};

/// Requests of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sample {
    pub requests: u64,
    pub failed: u64,
}

impl Sample {
    fn passed(self) -> u64 {
        self.requests.saturating_sub(self.failed)
    }

    /// In percent.
    #[expect(clippy::cast_precision_loss, reason = "a rate that people read")]
    pub fn failure_rate(self) -> f64 {
        if self.requests == 0 { 0.0 } else { 100.0 * self.failed as f64 / self.requests as f64 }
    }
}

/// The chance of a finding at least as bad for green, if green were no worse than blue. 1 where there is nothing to compare.
pub fn chance(blue: Sample, green: Sample) -> f64 {
    if blue.requests == 0 || green.requests == 0 || green.failed == 0 {
        return 1.0;
    }
    let table = [green.failed, blue.failed, green.passed(), blue.passed()];
    fishers_exact(&table, Alternative::Greater).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn of(requests: u64, failed: u64) -> Sample {
        Sample { requests, failed }
    }

    /// The lady who tastes tea (R. A. Fisher, *The Design of Experiments*, 1935, chapter II): 3 of 4 right by chance is 17/70.
    #[test]
    fn the_test_is_fishers() {
        let chance = chance(of(4, 1), of(4, 3));
        assert!((chance - 17.0 / 70.0).abs() < 1e-9, "{chance}");
    }

    #[test]
    fn a_difference_shows_and_its_absence_does_not() {
        assert!(chance(of(5_700, 0), of(300, 6)) < 1e-6, "2 % against none");
        assert!(chance(of(5_700, 57), of(300, 3)) > 0.3, "1 % each");
        assert!(chance(of(300, 30), of(300, 0)) > 0.99, "better is no alarm");
        assert!((chance(of(0, 0), of(300, 300)) - 1.0).abs() < 1e-9, "nothing to compare with");
        let large = chance(of(9_000_000, 9_000), of(1_000_000, 1_000));
        assert!(large > 0.3 && large < 0.7, "{large}");
    }

    /// Simulated canaries whose versions fail alike: three looks, at a level of 5 % for the whole run.
    #[test]
    fn false_alarms_stay_under_the_level() {
        const CANARIES: u32 = 10_000;
        const LEVEL: f64 = 0.05;
        let mut dice = StdRng::seed_from_u64(7);
        let mut alarms = 0_u32;
        for _ in 0..CANARIES {
            let rate = [0.0005, 0.002, 0.01, 0.05, 0.3][dice.random_range(0..5)];
            let (mut blue, mut green) = (Sample::default(), Sample::default());
            let alarmed = [5, 25, 50].into_iter().any(|share| {
                for _ in 0..600 {
                    let sample = if dice.random_range(0..100) < share { &mut green } else { &mut blue };
                    sample.requests += 1;
                    sample.failed += u64::from(dice.random_bool(rate));
                }
                chance(blue, green) < LEVEL / 3.0
            });
            alarms += u32::from(alarmed);
        }
        eprintln!("{alarms} false alarms in {CANARIES} simulated canaries at a level of {LEVEL}");
        assert!(f64::from(alarms) <= LEVEL * f64::from(CANARIES), "{alarms}");
        assert!(alarms > 0, "a test that never alarms would pass as well");
    }
}
