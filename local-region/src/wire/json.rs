//! Answers of services that speak JSON (*AWS JSON 1.1 protocol*, smithy.io).

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header::CONTENT_TYPE, request::Parts};
use serde_json::{Value, json};

use super::ApiError;

/// The operation that a request names in a header, after the service's own name.
pub fn operation<'a>(parts: &'a Parts, service: &str) -> Option<&'a str> {
    let (named, operation) = parts.headers.get("x-amz-target")?.to_str().ok()?.rsplit_once('.')?;
    // Some SDKs write the package before it.
    (named.rsplit('.').next() == Some(service)).then_some(operation)
}

/// The answer, or the error.
pub fn encode(outcome: Result<Value, ApiError>) -> Response {
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST),
            json!({ "__type": error.code, "message": error.message }),
        ),
    };
    (status, [(CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
}
