//! CloudWatch's GetMetricData, in the protocol that its SDKs speak: Smithy RPC v2 with CBOR (*Smithy RPC v2 CBOR protocol*,
//! smithy.io). Encoding only: what was measured is [`crate::metrics`]'s.

use axum::response::{IntoResponse, Response};
use ciborium::tag::Required;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::{
    metrics::{MINUTE_S, Metric, Statistic, Subject},
    region::Region,
};

/// Every path of the service begins so: its id in the service's model.
const SERVICE_PATH: &str = "/service/GraniteServiceVersion20100801/operation/";
const NAMESPACE: &str = "AWS/ApplicationELB";
/// GetMetricData takes at most this many queries.
const MOST_QUERIES: usize = 500;

/// CBOR's tag of a time in seconds since 1970.
type Time = Required<f64, 1>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetMetricData {
    metric_data_queries: Vec<Query>,
    start_time: Time,
    end_time: Time,
    #[serde(default)]
    scan_by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Query {
    id: String,
    #[serde(default)]
    metric_stat: Option<MetricStat>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    return_data: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricStat {
    metric: MetricName,
    period: i64,
    stat: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricName {
    namespace: String,
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    metric_data_results: Vec<Series>,
    messages: Vec<()>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Series {
    id: String,
    label: String,
    timestamps: Vec<Time>,
    values: Vec<f64>,
    status_code: &'static str,
}

#[derive(Debug, Serialize)]
struct Refused<'a> {
    #[serde(rename = "__type")]
    code: &'a str,
    message: &'a str,
}

/// The operation that a path names.
pub fn operation(path: &str) -> Option<&str> {
    path.strip_prefix(SERVICE_PATH)
}

/// Answers a call.
///
/// # Errors
/// The operation is not supported here, or its parameters are not allowed.
pub fn handle(operation: &str, body: &[u8], region: &Region) -> Result<Vec<u8>, ApiError> {
    match operation {
        "GetMetricData" => {
            let asked =
                ciborium::from_reader(body).map_err(|error| invalid(format!("the request cannot be read: {error}")))?;
            Ok(encoded(&get_metric_data(asked, region)?))
        }
        other => Err(ApiError::unsupported(&format!("CloudWatch's {other}"))),
    }
}

/// The answer, or the error, as CBOR.
pub fn encode(outcome: Result<Vec<u8>, ApiError>) -> Response {
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST),
            encoded(&Refused { code: &error.code, message: &error.message }),
        ),
    };
    let mut response = (status, [(CONTENT_TYPE, "application/cbor")], body).into_response();
    response.headers_mut().insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    response
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a vector takes all that is written");
    bytes
}

fn get_metric_data(asked: GetMetricData, region: &Region) -> Result<Answer, ApiError> {
    let time = |time: &Time| {
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a date that people use")]
        Timestamp::from_second(time.0.floor() as i64).map_err(|_| invalid("a time is out of range"))
    };
    let (from, to) = (time(&asked.start_time)?, time(&asked.end_time)?);
    if from >= to {
        return Err(invalid("The parameter StartTime must be less than the parameter EndTime."));
    }
    if asked.metric_data_queries.len() > MOST_QUERIES {
        return Err(invalid(format!("MetricDataQueries has more than {MOST_QUERIES} members.")));
    }
    let shown = region.clock.now().saturating_sub(region.metrics_lag()).unwrap_or(Timestamp::MIN);
    let newest_first = asked.scan_by.as_deref() != Some("TimestampAscending");
    let wanted = asked.metric_data_queries.iter().filter(|query| query.return_data != Some(false));
    let results =
        wanted.map(|query| series(query, (from, to.min(shown)), newest_first, region)).collect::<Result<_, _>>()?;
    Ok(Answer { metric_data_results: results, messages: Vec::new() })
}

fn series(
    query: &Query,
    span: (Timestamp, Timestamp),
    newest_first: bool,
    region: &Region,
) -> Result<Series, ApiError> {
    let Some(MetricStat { metric, period, stat }) = &query.metric_stat else {
        return Err(invalid(format!("query {}: the local region supports MetricStat, not expressions.", query.id)));
    };
    if *period <= 0 || period % MINUTE_S != 0 {
        return Err(invalid(format!("query {}: Period must be a multiple of {MINUTE_S} for this metric.", query.id)));
    }
    let statistic = Statistic::named(stat).ok_or_else(|| {
        invalid(format!("query {}: the local region does not support the statistic {stat}.", query.id))
    })?;
    // A metric that nobody has measured has no values, and that is no error.
    let known = Metric::named(&metric.metric_name).filter(|_| metric.namespace == NAMESPACE);
    let mut values = match (known, subject(&metric.dimensions)) {
        (Some(known), Some(subject)) => region.metrics.values(&subject, known, statistic, *period, span),
        _ => Vec::new(),
    };
    if newest_first {
        values.reverse();
    }
    #[expect(clippy::cast_precision_loss, reason = "a date that people use")]
    let timestamps = values.iter().map(|(at, _)| Required(at.as_second() as f64)).collect();
    Ok(Series {
        id: query.id.clone(),
        label: query.label.clone().unwrap_or_else(|| metric.metric_name.clone()),
        timestamps,
        values: values.into_iter().map(|(_, value)| value).collect(),
        status_code: "Complete",
    })
}

/// What the dimensions name; measurements by zone are not kept.
fn subject(dimensions: &[Dimension]) -> Option<Subject> {
    let of = |name: &str| dimensions.iter().find(|it| it.name == name).map(|it| it.value.clone());
    let known = dimensions.iter().all(|it| matches!(it.name.as_str(), "LoadBalancer" | "TargetGroup"));
    known.then_some(Subject { balancer: of("LoadBalancer")?, group: of("TargetGroup") })
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::bad("InvalidParameterValueException", message)
}
