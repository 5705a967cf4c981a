//! What load balancers have measured, as CloudWatch tells it: counts and response times by target group and by balancer.
//!
//! AWS measures by the minute ("Elastic Load Balancing reports metrics to CloudWatch only when requests are flowing … in
//! 60-second intervals", *CloudWatch metrics for your Application Load Balancer*). So does this; and it shows what it has
//! measured only after [`crate::config::Lags::metrics`]. Kept in memory for three hours, which is as long as CloudWatch
//! keeps its finest metrics.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use jiff::{SignedDuration, Timestamp};

/// The resolution of everything here, in seconds.
pub const MINUTE_S: i64 = 60;
const KEPT: SignedDuration = SignedDuration::from_hours(3);
/// Response times are told to two digits.
const DIGITS: u8 = 2;

/// Whose measurements they are: the values of the dimensions `LoadBalancer` and, for a group's share of it, `TargetGroup`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// `app/<name>/<id>`.
    pub balancer: String,
    /// `targetgroup/<name>/<id>`.
    pub group: Option<String>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A target answered so.
    Target { status: u16, took: Duration },
    /// The target could not be connected to, or broke off.
    NoAnswer,
    /// The balancer answered in the place of a target.
    Balancer { status: u16 },
}

/// What CloudWatch calls a metric, as far as Application Load Balancers have it and this region measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    RequestCount,
    Target5xx,
    TargetConnectionErrors,
    Balancer5xx,
    TargetResponseTime,
}

impl Metric {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RequestCount" => Self::RequestCount,
            "HTTPCode_Target_5XX_Count" => Self::Target5xx,
            "TargetConnectionErrorCount" => Self::TargetConnectionErrors,
            "HTTPCode_ELB_5XX_Count" => Self::Balancer5xx,
            "TargetResponseTime" => Self::TargetResponseTime,
            _ => return None,
        })
    }
}

/// How the values of a period become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    Sum,
    Average,
    SampleCount,
    /// `p99`, `p99.9`.
    Percentile(f64),
}

impl Statistic {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Sum" => Self::Sum,
            "Average" => Self::Average,
            "SampleCount" => Self::SampleCount,
            _ => Self::Percentile(name.strip_prefix('p')?.parse().ok().filter(|of| (0.0..=100.0).contains(of))?),
        })
    }
}

/// One minute of one subject.
#[derive(Debug, Default)]
struct Minute {
    requests: u64,
    target_5xx: u64,
    connection_errors: u64,
    balancer_5xx: u64,
    /// In microseconds.
    times: Option<Histogram<u64>>,
}

/// The measurements of a region.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<BTreeMap<Subject, BTreeMap<i64, Minute>>>);

impl Metrics {
    /// Counts a request of a balancer and, where it had come that far, of a group.
    pub fn count(&self, now: Timestamp, balancer: &str, group: Option<&str>, ending: Ending) {
        let mut all = self.held();
        let of_group = group.map(|group| Subject { balancer: balancer.to_owned(), group: Some(group.to_owned()) });
        for subject in [Some(Subject { balancer: balancer.to_owned(), group: None }), of_group].into_iter().flatten() {
            let minutes = all.entry(subject).or_default();
            minutes.entry(minute_of(now)).or_default().count(ending);
            let oldest = minute_of(now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN));
            while minutes.first_key_value().is_some_and(|(minute, _)| *minute < oldest) {
                minutes.pop_first();
            }
        }
    }

    /// The values of each period that begins in `[from, to)`, oldest first; a period without a request has none. `period` is
    /// in seconds, a multiple of [`MINUTE_S`].
    pub fn values(
        &self,
        subject: &Subject,
        metric: Metric,
        statistic: Statistic,
        period: i64,
        (from, to): (Timestamp, Timestamp),
    ) -> Vec<(Timestamp, f64)> {
        let all = self.held();
        let Some(minutes) = all.get(subject) else { return Vec::new() };
        let mut periods: BTreeMap<i64, Vec<&Minute>> = BTreeMap::new();
        for (start, minute) in minutes.range(minute_of(from)..to.as_second()) {
            periods.entry(start - start.rem_euclid(period)).or_default().push(minute);
        }
        let value = |minutes: &[&Minute]| match metric {
            Metric::TargetResponseTime => response_time(minutes, statistic),
            Metric::RequestCount => Some(count(minutes, statistic, |minute| minute.requests)),
            Metric::Target5xx => nonzero(count(minutes, statistic, |minute| minute.target_5xx)),
            Metric::TargetConnectionErrors => nonzero(count(minutes, statistic, |minute| minute.connection_errors)),
            Metric::Balancer5xx => nonzero(count(minutes, statistic, |minute| minute.balancer_5xx)),
        };
        let of_period =
            |(start, minutes): (i64, Vec<&Minute>)| Some((Timestamp::from_second(start).ok()?, value(&minutes)?));
        periods.into_iter().filter_map(of_period).collect()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Subject, BTreeMap<i64, Minute>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minute {
    fn count(&mut self, ending: Ending) {
        match ending {
            Ending::Target { status, took } => {
                self.requests += 1;
                self.target_5xx += u64::from(status >= 500);
                let times = self.times.get_or_insert_with(|| Histogram::new(DIGITS).expect("two digits are allowed"));
                // A histogram that grows by itself refuses nothing.
                let _ = times.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
            Ending::NoAnswer => {
                self.requests += 1;
                self.connection_errors += 1;
            }
            Ending::Balancer { status } => self.balancer_5xx += u64::from(status >= 500),
        }
    }
}

/// ELB reports the counts of errors only where there are some.
fn nonzero(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 requests in three hours")]
fn count(minutes: &[&Minute], statistic: Statistic, of: impl Fn(&Minute) -> u64) -> f64 {
    let total: u64 = minutes.iter().map(|minute| of(minute)).sum();
    match statistic {
        Statistic::Sum | Statistic::SampleCount => total as f64,
        // Each request is a sample of 1.
        Statistic::Average | Statistic::Percentile(_) => 1.0,
    }
}

/// In seconds.
#[expect(clippy::cast_precision_loss, reason = "two digits are kept of them")]
fn response_time(minutes: &[&Minute], statistic: Statistic) -> Option<f64> {
    let mut all = Histogram::<u64>::new(DIGITS).expect("two digits are allowed");
    for times in minutes.iter().filter_map(|minute| minute.times.as_ref()) {
        all.add(times).ok()?;
    }
    let seconds = |micros: f64| micros / 1e6;
    (!all.is_empty()).then(|| match statistic {
        Statistic::SampleCount => all.len() as f64,
        Statistic::Average => seconds(all.mean()),
        Statistic::Sum => seconds(all.mean() * all.len() as f64),
        Statistic::Percentile(of) => seconds(all.value_at_percentile(of) as f64),
    })
}

fn minute_of(at: Timestamp) -> i64 {
    at.as_second() - at.as_second().rem_euclid(MINUTE_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn requests_are_told_by_the_minute_for_the_group_and_for_the_balancer() {
        let metrics = Metrics::default();
        let answered = |status, milliseconds| Ending::Target { status, took: Duration::from_millis(milliseconds) };
        for second in 0..50 {
            let now = at("2026-11-20T19:05:12Z") + SignedDuration::from_secs(second);
            metrics.count(now, "app/a/1", Some("targetgroup/g/1"), answered(200, 10));
        }
        metrics.count(at("2026-11-20T19:06:10Z"), "app/a/1", Some("targetgroup/g/1"), answered(503, 990));
        metrics.count(at("2026-11-20T19:06:11Z"), "app/a/1", Some("targetgroup/g/1"), Ending::NoAnswer);
        metrics.count(at("2026-11-20T19:06:12Z"), "app/a/1", None, Ending::Balancer { status: 502 });
        let of = |group: Option<&str>, metric, statistic| {
            let subject = Subject { balancer: "app/a/1".into(), group: group.map(str::to_owned) };
            let span = (at("2026-11-20T19:05:30Z"), at("2026-11-20T20:00:00Z"));
            let values = metrics.values(&subject, metric, statistic, MINUTE_S, span);
            values.into_iter().map(|(at, value)| (at.to_string(), value)).collect::<Vec<_>>()
        };
        let group = Some("targetgroup/g/1");
        let told = |values: &[(&str, f64)]| values.iter().map(|(at, it)| ((*at).to_owned(), *it)).collect::<Vec<_>>();
        let (first, second) = ("2026-11-20T19:05:00Z", "2026-11-20T19:06:00Z");
        assert_eq!(of(group, Metric::RequestCount, Statistic::Sum), told(&[(first, 48.0), (second, 4.0)]));
        assert_eq!(of(group, Metric::Target5xx, Statistic::Sum), told(&[(second, 1.0)]));
        assert_eq!(of(group, Metric::TargetConnectionErrors, Statistic::Sum), told(&[(second, 1.0)]));
        assert_eq!(of(group, Metric::Balancer5xx, Statistic::Sum), told(&[]));
        assert_eq!(of(None, Metric::Balancer5xx, Statistic::Sum), told(&[(second, 1.0)]));
        let times = of(group, Metric::TargetResponseTime, Statistic::Percentile(99.0));
        assert!((times[0].1 - 0.01).abs() < 0.001 && (times[1].1 - 0.99).abs() < 0.01, "{times:?}");
    }
}
