//! About what things cost a month, so that people know what to look at first.
//!
//! Figures: AWS's public on-demand prices for us-east-1 (Linux), as of November 2026, in US dollars; a month has 730 hours.
//! Sources: *Amazon EC2 On-Demand Pricing*, *Amazon EBS Pricing*, *Amazon S3 Pricing*. Other regions and contracts differ.

/// Dollars an hour, by instance type.
const HOURLY: [(&str, f64); 18] = [
    ("t3.nano", 0.0052),
    ("t3.micro", 0.0104),
    ("t3.small", 0.0208),
    ("t3.medium", 0.0416),
    ("t3.large", 0.0832),
    ("t3.xlarge", 0.1664),
    ("t4g.nano", 0.0042),
    ("t4g.micro", 0.0084),
    ("t4g.small", 0.0168),
    ("t4g.medium", 0.0336),
    ("t4g.large", 0.0672),
    ("m5.large", 0.096),
    ("m5.xlarge", 0.192),
    ("m6i.large", 0.096),
    ("c5.large", 0.085),
    ("c6i.large", 0.085),
    ("r5.large", 0.126),
    ("r6i.large", 0.126),
];
const HOURS: f64 = 730.0;
/// EBS snapshots in the standard tier, a GiB and month. What is really billed are changed blocks alone, so this is the most.
const SNAPSHOT_GIB: f64 = 0.05;
/// S3 Standard, the first 50 TB, a GiB and month.
const OBJECT_GIB: f64 = 0.023;

/// A running server without its volumes; `None` where the type is not in the table.
pub fn of_instance(instance_type: &str) -> Option<f64> {
    an_hour_of_instance(instance_type).map(|hourly| hourly * HOURS)
}

/// The same for an hour.
pub fn an_hour_of_instance(instance_type: &str) -> Option<f64> {
    HOURLY.iter().find(|(name, _)| *name == instance_type).map(|(_, hourly)| *hourly)
}

pub fn of_snapshot(gib: f64) -> f64 {
    gib * SNAPSHOT_GIB
}

pub fn of_objects(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64 * OBJECT_GIB
}

/// `$30.37`, `< $0.01`; `-` where it costs nothing, `not known` where the table does not say.
pub fn in_words(monthly: Option<f64>) -> String {
    match monthly {
        None => "not known".to_owned(),
        Some(0.0) => "-".to_owned(),
        Some(dollars) if dollars < 0.01 => "< $0.01".to_owned(),
        Some(dollars) => format!("${dollars:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_730_hours() {
        assert_eq!(in_words(of_instance("t3.medium")), "$30.37");
        assert_eq!(in_words(of_instance("x9.huge")), "not known");
        assert_eq!(in_words(Some(of_snapshot(8.0))), "$0.40");
        assert_eq!(in_words(Some(of_objects(1 << 20))), "< $0.01");
        assert_eq!(in_words(Some(0.0)), "-");
    }
}
