//! The faults over HTTP, for tests in other languages and for whoever wants to see what a deploy does on a bad day:
//! `GET /faults` lists them with their counts, `POST /faults` adds one, `DELETE /faults` removes all, `DELETE
//! /faults/<id>` one, and `GET /faults/calls` tells the calls so far. `PUT /policy` has an IAM policy document decide from now on
//! what callers may do, `DELETE /policy` lets them do everything again. Each takes `Authorization: Bearer <secret key>`.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION, request::Parts};
use serde_json::json;

use crate::{faults::Fault, iam::Policy, region::Region, wire::sigv4::Keys};

/// Far more than a fault takes.
const BODY_BYTES: usize = 64 << 10;

/// Whether a request is for this API. No request of AWS's carries a bearer's token, so a bucket may be called `faults`.
pub fn is_meant(parts: &Parts) -> bool {
    let path = parts.uri.path();
    (path == "/policy" || path == "/faults" || path.starts_with("/faults/")) && token(&parts.headers).is_some()
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

pub async fn answer(region: &Region, keys: &Keys, parts: &Parts, body: Body) -> Response {
    if token(&parts.headers) != Some(&keys.secret_key) {
        return refuse(StatusCode::FORBIDDEN, "the token is not the region's secret key");
    }
    if parts.uri.path() == "/policy" {
        return policy(region, &parts.method, body).await;
    }
    let faults = &region.faults;
    let rest = parts.uri.path().trim_start_matches("/faults").trim_matches('/');
    match (&parts.method, rest) {
        (&Method::GET, "") => axum::Json(json!({ "v": 1, "faults": faults.standing() })).into_response(),
        (&Method::GET, "calls") => axum::Json(json!({ "v": 1, "calls": faults.calls() })).into_response(),
        (&Method::POST, "") => {
            let Ok(body) = to_bytes(body, BODY_BYTES).await else {
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a fault takes at most 64 KiB");
            };
            match serde_json::from_slice::<Fault>(&body) {
                Ok(fault) => axum::Json(json!({ "v": 1, "id": faults.add(fault) })).into_response(),
                Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("this is no fault: {error}")),
            }
        }
        (&Method::DELETE, "") => {
            faults.clear();
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::DELETE, id) => match id.parse().is_ok_and(|id| faults.remove(id)) {
            true => StatusCode::NO_CONTENT.into_response(),
            false => refuse(StatusCode::NOT_FOUND, "there is no such fault"),
        },
        _ => refuse(StatusCode::NOT_FOUND, "see local-region/README.md for what can be asked"),
    }
}

async fn policy(region: &Region, method: &Method, body: Body) -> Response {
    let policy = match *method {
        Method::DELETE => None,
        Method::PUT => {
            let Ok(body) = to_bytes(body, BODY_BYTES).await else {
                return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a policy takes at most 64 KiB");
            };
            match Policy::read(&String::from_utf8_lossy(&body)) {
                Ok(policy) => Some(Arc::new(policy)),
                Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        }
        _ => return refuse(StatusCode::METHOD_NOT_ALLOWED, "PUT a policy, or DELETE it"),
    };
    region.restrict(policy);
    StatusCode::NO_CONTENT.into_response()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, axum::Json(json!({ "v": 1, "error": why }))).into_response()
}
