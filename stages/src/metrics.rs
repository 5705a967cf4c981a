//! What the balancer has measured of two fleets and of itself, from CloudWatch.

use std::collections::BTreeMap;

use aws_sdk_cloudwatch::{
    primitives::DateTime,
    types::{Dimension, Metric, MetricDataQuery, MetricDataResult, MetricStat},
};
use jiff::Timestamp;

use crate::{clients::Clients, cloud_error::CloudError, compare::Sample};

const NAMESPACE: &str = "AWS/ApplicationELB";
/// Elastic Load Balancing reports by the minute (*CloudWatch metrics for your Application Load Balancer*).
pub const PERIOD_S: i32 = 60;

/// Requests that a target answered with 5xx.
const FAILED: &str = "HTTPCode_Target_5XX_Count";
/// Requests whose target could not be connected to.
const UNCONNECTED: &str = "TargetConnectionErrorCount";
/// Requests that the balancer answered with 5xx itself.
const BALANCER_FAILED: &str = "HTTPCode_ELB_5XX_Count";
const REQUESTS: &str = "RequestCount";
const RESPONSE_TIME: &str = "TargetResponseTime";

/// What one target group has done in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    pub sample: Sample,
    /// The 99th percentile of the response time in seconds: the median of those of the single minutes.
    pub p99: Option<f64>,
}

/// What some groups, and the balancer as a whole, have done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Numbers {
    /// In the order in which the groups were named.
    pub groups: Vec<Measured>,
    /// Of all requests to the balancer, those that it answered with 5xx in the place of a target.
    pub balancer: Sample,
}

/// What was done between two moments; AWS rounds the first down to a whole minute, and what it has not published yet is
/// missing.
///
/// # Errors
/// CloudWatch cannot be asked.
pub async fn between(
    clients: &Clients,
    balancer: &str,
    groups: &[&str],
    (from, to): (Timestamp, Timestamp),
) -> Result<Numbers, CloudError> {
    let of_group = [(REQUESTS, "Sum"), (FAILED, "Sum"), (UNCONNECTED, "Sum"), (RESPONSE_TIME, "p99")];
    let of_balancer = [(REQUESTS, "Sum"), (BALANCER_FAILED, "Sum")];
    let queries = groups.iter().enumerate().flat_map(|(at, group)| {
        let query = move |(which, (metric, stat)): (usize, &(&str, &str))| {
            query(id(at, which), balancer, Some(group), metric, stat)
        };
        of_group.iter().enumerate().map(query).collect::<Vec<_>>()
    });
    let whole_balancer = of_balancer.iter().enumerate();
    let whole_balancer =
        whole_balancer.map(|(which, (metric, stat))| query(id(groups.len(), which), balancer, None, metric, stat));
    let results = results(clients, queries.chain(whole_balancer).collect(), (from, to)).await?;
    let values = |at: usize, which: usize| {
        let id = id(at, which);
        let of_query = results.iter().filter(move |result| result.id() == Some(id.as_str()));
        of_query.flat_map(|result| result.values().iter().copied()).collect::<Vec<f64>>()
    };
    let sum = |at: usize, which: usize| whole(values(at, which).iter().sum());
    let measured = |at: usize| Measured {
        sample: Sample { requests: sum(at, 0), failed: sum(at, 1) + sum(at, 2) },
        p99: median(values(at, 3)),
    };
    let (reached, failed) = (sum(groups.len(), 0), sum(groups.len(), 1));
    Ok(Numbers {
        groups: (0..groups.len()).map(measured).collect(),
        // RequestCount has only those for which a target was found.
        balancer: Sample { requests: reached + failed, failed },
    })
}

/// The beginning of the first whole minute from a moment on.
pub fn next_minute(at: Timestamp) -> Timestamp {
    let (seconds, period) = (at.as_second(), i64::from(PERIOD_S));
    Timestamp::from_second(seconds + (period - seconds.rem_euclid(period))).unwrap_or(Timestamp::MAX)
}

/// How many requests each group has had in each minute between two moments; a minute without any is missing.
///
/// # Errors
/// CloudWatch cannot be asked.
pub async fn requests(
    clients: &Clients,
    balancer: &str,
    groups: &[&str],
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<BTreeMap<Timestamp, f64>>, CloudError> {
    let queries = groups.iter().enumerate().map(|(at, group)| query(id(at, 0), balancer, Some(group), REQUESTS, "Sum"));
    let results = results(clients, queries.collect(), (from, to)).await?;
    let of_group = |at: usize| {
        let id = id(at, 0);
        let of_query = results.iter().filter(move |result| result.id() == Some(id.as_str()));
        let values = of_query.flat_map(|result| result.timestamps().iter().zip(result.values()));
        values.filter_map(|(at, count)| Some((Timestamp::from_second(at.secs()).ok()?, *count))).collect()
    };
    Ok((0..groups.len()).map(of_group).collect())
}

async fn results(
    clients: &Clients,
    queries: Vec<MetricDataQuery>,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<MetricDataResult>, CloudError> {
    let call = clients
        .cloudwatch
        .get_metric_data()
        .set_metric_data_queries(Some(queries))
        .start_time(DateTime::from_secs(from.as_second()))
        .end_time(DateTime::from_secs(to.as_second().max(from.as_second() + 1)));
    let mut pages = call.into_paginator().send();
    let mut results: Vec<MetricDataResult> = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("read the balancer's metrics", error))?;
        results.extend_from_slice(page.metric_data_results());
    }
    Ok(results)
}

/// Ids of queries begin with a lower-case letter.
fn id(group: usize, which: usize) -> String {
    format!("g{group}m{which}")
}

fn query(id: String, balancer: &str, group: Option<&str>, metric: &str, stat: &str) -> MetricDataQuery {
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let metric = Metric::builder()
        .namespace(NAMESPACE)
        .metric_name(metric)
        .dimensions(dimension("LoadBalancer", dimension_of(balancer)));
    let metric = match group {
        Some(group) => metric.dimensions(dimension("TargetGroup", dimension_of(group))),
        None => metric,
    };
    let stat = MetricStat::builder().metric(metric.build()).period(PERIOD_S).stat(stat).build();
    MetricDataQuery::builder().id(id).metric_stat(stat).build()
}

/// `app/<name>/<id>` of a balancer's ARN, `targetgroup/<name>/<id>` of a group's.
fn dimension_of(arn: &str) -> &str {
    let name = arn.rsplit(':').next().unwrap_or(arn);
    name.strip_prefix("loadbalancer/").unwrap_or(name)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts")]
fn whole(sum: f64) -> u64 {
    sum.round().max(0.0) as u64
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
