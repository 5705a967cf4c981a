//! What the numbers say of green: a pure function of what was measured.

use alcedo_pipeline::file;

use crate::{
    compare::{self, Sample},
    metrics::Measured,
};

/// What was measured of both versions, and of the balancer as a whole before green had traffic and since.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Compared {
    pub blue: Measured,
    pub green: Measured,
    pub balancer_before: Sample,
    pub balancer_since: Sample,
}

/// What one look at the numbers says; in words, with the numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Good(String),
    /// What green has had so far.
    TooFew(Sample),
    Worse(String),
}

/// Judges by the settings of the file; `looks` is how often the whole run judges.
pub fn of(compared: &Compared, settings: &file::Watch, looks: u32) -> Verdict {
    let Compared { blue, green, balancer_before, balancer_since } = compared;
    if green.sample.requests < u64::from(settings.requests) {
        return Verdict::TooFew(green.sample);
    }
    // Two comparisons a look: the servers', and the balancer's own.
    let level = f64::from(settings.false_alarms) / 100.0 / f64::from(2 * looks.max(1));
    let improbable = |chance: f64| format!("by chance alone that happens with p = {chance:.1e}, below {level:.1e}");
    let failures = format!("{} requests failed, where {} of blue's did", in_words(green.sample), in_words(blue.sample));
    let chance = compare::chance(blue.sample, green.sample);
    if chance < level {
        return Verdict::Worse(format!("{failures}; {}", improbable(chance)));
    }
    let chance = compare::chance(*balancer_before, *balancer_since);
    if chance < level {
        return Verdict::Worse(format!(
            "the balancer answered {} requests with 5xx itself, where before it were {}; {}",
            in_words(*balancer_since),
            in_words(*balancer_before),
            improbable(chance)
        ));
    }
    if let (Some(ours), Some(theirs), 1..) = (green.p99, blue.p99, settings.latency)
        && ours > theirs * f64::from(settings.latency) / 100.0
    {
        return Verdict::Worse(format!(
            "its 99th percentile of response time is {:.0} ms, where blue's is {:.0} ms and {} % of that are allowed",
            1000.0 * ours,
            1000.0 * theirs,
            settings.latency
        ));
    }
    Verdict::Good(failures)
}

fn in_words(sample: Sample) -> String {
    format!("{} of {} ({:.2} %)", sample.failed, sample.requests, sample.failure_rate())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(requests: u64, failed: u64, p99: f64) -> Measured {
        Measured { sample: Sample { requests, failed }, p99: Some(p99) }
    }

    fn calm() -> Compared {
        Compared {
            blue: measured(9_500, 10, 0.1),
            green: measured(500, 1, 0.1),
            balancer_before: Sample { requests: 50_000, failed: 3 },
            balancer_since: Sample { requests: 10_000, failed: 1 },
        }
    }

    fn verdict(compared: Compared) -> Verdict {
        of(&compared, &file::Watch { latency: 200, ..file::Watch::default() }, 3)
    }

    #[test]
    fn each_number_can_speak_against_green() {
        let good = "1 of 500 (0.20 %) requests failed, where 10 of 9500 (0.11 %) of blue's did";
        assert_eq!(verdict(calm()), Verdict::Good(good.into()));
        let says = |compared: Compared, what: &str| match verdict(compared) {
            Verdict::Worse(why) => assert!(why.contains(what), "{why}"),
            other => panic!("{what}: {other:?}"),
        };
        says(Compared { green: measured(500, 12, 0.1), ..calm() }, "12 of 500 (2.40 %) requests failed");
        says(Compared { green: measured(500, 1, 0.21), ..calm() }, "response time is 210 ms");
        let failing = Sample { requests: 10_000, failed: 40 };
        says(Compared { balancer_since: failing, ..calm() }, "the balancer answered 40 of 10000");
    }

    #[test]
    fn too_few_requests_are_no_verdict() {
        let few = measured(299, 299, 9.0);
        assert_eq!(verdict(Compared { green: few, ..calm() }), Verdict::TooFew(few.sample));
    }

    /// Improbable enough for a run that looks once, not for one look of several.
    #[test]
    fn one_look_of_several_has_its_part_of_the_level() {
        let settings = file::Watch::default();
        let level = f64::from(settings.false_alarms) / 100.0;
        let between =
            (0..100).map(|failed| Compared { green: measured(500, failed, 0.1), ..calm() }).find(|compared| {
                let chance = compare::chance(compared.blue.sample, compared.green.sample);
                (level / 20.0..level / 2.0).contains(&chance)
            });
        let between = between.expect("some number of failures is so improbable");
        assert!(matches!(of(&between, &settings, 1), Verdict::Worse(_)));
        assert!(matches!(of(&between, &settings, 10), Verdict::Good(_)));
    }

    #[test]
    fn without_a_blue_there_is_nothing_to_be_worse_than() {
        let alone = Compared { green: measured(500, 12, 3.0), ..Compared::default() };
        assert!(matches!(verdict(alone), Verdict::Good(_)));
    }
}
