//! What the balancer has measured of two fleets and of itself, from CloudWatch.

use aws_sdk_cloudwatch::{
    primitives::DateTime,
    types::{Dimension, Metric, MetricDataQuery, MetricDataResult, MetricStat},
};
use jiff::Timestamp;

use crate::{clients::Clients, cloud_error::CloudError, compare::Sample};

const NAMESPACE: &str = "AWS/ApplicationELB";
/// Elastic Load Balancing reports by the minute (*CloudWatch metrics for your Application Load Balancer*).
const PERIOD_S: i32 = 60;

/// Requests that a target answered with 5xx.
const FAILED: &str = "HTTPCode_Target_5XX_Count";
/// Requests whose target could not be connected to.
const UNCONNECTED: &str = "TargetConnectionErrorCount";
const REQUESTS: &str = "RequestCount";
const RESPONSE_TIME: &str = "TargetResponseTime";

/// What one target group has done in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    pub sample: Sample,
    /// The 99th percentile of the response time in seconds: the median of those of the single minutes.
    pub p99: Option<f64>,
}

/// What the groups have done between two moments; AWS rounds the first down to a whole minute, and what it has not
/// published yet is missing.
///
/// # Errors
/// CloudWatch cannot be asked.
pub async fn of_groups(
    clients: &Clients,
    balancer: &str,
    groups: &[&str],
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Measured>, CloudError> {
    let asked = [(REQUESTS, "Sum"), (FAILED, "Sum"), (UNCONNECTED, "Sum"), (RESPONSE_TIME, "p99")];
    let queries = groups.iter().enumerate().flat_map(|(at, group)| {
        asked.iter().enumerate().map(move |(which, (metric, stat))| query(id(at, which), balancer, group, metric, stat))
    });
    let call = clients
        .cloudwatch
        .get_metric_data()
        .set_metric_data_queries(Some(queries.collect()))
        .start_time(DateTime::from_secs(from.as_second()))
        .end_time(DateTime::from_secs(to.as_second().max(from.as_second() + 1)));
    let mut pages = call.into_paginator().send();
    let mut results: Vec<MetricDataResult> = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("read the balancer's metrics", error))?;
        results.extend_from_slice(page.metric_data_results());
    }
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
    Ok((0..groups.len()).map(measured).collect())
}

/// Ids of queries begin with a lower-case letter.
fn id(group: usize, which: usize) -> String {
    format!("g{group}m{which}")
}

fn query(id: String, balancer: &str, group: &str, metric: &str, stat: &str) -> MetricDataQuery {
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let metric = Metric::builder()
        .namespace(NAMESPACE)
        .metric_name(metric)
        .dimensions(dimension("LoadBalancer", dimension_of(balancer)))
        .dimensions(dimension("TargetGroup", dimension_of(group)));
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
