//! The HTTP front: finds the service that a request is for, checks its signature, counts it, and answers.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, Method, StatusCode,
    header::{CONTENT_TYPE, USER_AGENT},
    request::Parts,
};
use s3s::service::S3Service;
use serde_json::Value;

use crate::{
    config::Config,
    faults::{self, Asked, Strike, When},
    faults_api, firewall, iam,
    region::Region,
    servers,
    trail::Call,
    wire::{
        ApiError, Params, Xml, cloudtrail, cloudwatch, ec2, elbv2, json,
        sigv4::{Keys, Signed},
        ssm, sts,
    },
};

/// Largest query-protocol request: far more than 16 KiB of user data and every other parameter take.
const BODY_BYTES: usize = 1 << 20;

/// What a fault says of itself.
const FAULT: &str = "A fault asked for this.";

/// S3's name in a credential scope.
const S3: &str = "s3";
/// CloudWatch's name in a credential scope.
const METRICS: &str = "monitoring";
/// Systems Manager's name in a credential scope.
const PARAMETERS: &str = "ssm";
/// CloudTrail's name in a credential scope.
const TRAIL: &str = "cloudtrail";

/// What every request is answered from.
pub struct Front {
    pub region: Arc<Region>,
    pub keys: Keys,
    pub s3: S3Service,
}

/// A service of the query protocol; they differ in how they write errors and request ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Ec2,
    Elbv2,
    Sts,
}

impl Service {
    /// The name in a credential scope.
    const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Elbv2 => "elasticloadbalancing",
            Self::Sts => "sts",
        }
    }

    /// The service of a credential scope's name; `None` for S3 and anything else.
    fn named(name: &str) -> Option<Self> {
        match name {
            "ec2" => Some(Self::Ec2),
            "elasticloadbalancing" => Some(Self::Elbv2),
            "sts" => Some(Self::Sts),
            _ => None,
        }
    }
}

/// Answers any request. A request that is signed for no other service is S3's.
pub async fn answer(State(front): State<Arc<Front>>, request: Request) -> Response {
    let id = front.region.request_id();
    let (parts, body) = request.into_parts();
    // S3 reads its own forms, and answers in its own words where they are wrong.
    let signed = Signed::read(&parts).unwrap_or_default();
    let mut response = match &signed {
        None if parts.method == Method::GET && parts.uri.path() == "/health" => health(&front.region),
        None if parts.method == Method::GET && parts.uri.path() == "/checkip" => {
            format!("{}\n", front.region.network.gateway).into_response()
        }
        _ if faults_api::is_meant(&parts) => faults_api::answer(&front.region, &front.keys, &parts, body).await,
        Some(signed) if signed.service == METRICS => metrics(&front, signed, &parts, body).await,
        Some(signed) if signed.service == PARAMETERS => parameters(&front, signed, &parts, body).await,
        Some(signed) if signed.service == TRAIL => trail(&front, signed, &parts, body).await,
        Some(signed) if let Some(service) = Service::named(&signed.service) => {
            query(&front, service, signed, &parts, body, &id).await
        }
        Some(signed) if signed.service != S3 => unsupported(&signed.service, &parts),
        _ => {
            let operation = faults::s3_operation(&parts.method, &parts.uri);
            let about = parts.uri.to_string();
            let asked = Asked { service: "s3", operation, about: &about };
            let effect = allowed_s3(&front, parts, body, &id);
            struck(&front.region, &asked, effect, |code, status| s3_error(code, status, FAULT, &id)).await
        }
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-amzn-requestid", value.clone());
        response.headers_mut().insert("x-amz-request-id", value);
    }
    response
}

/// Answers a call, unless a fault has it that it goes another way.
async fn struck(
    region: &Region,
    asked: &Asked<'_>,
    effect: impl Future<Output = Response>,
    error: impl Fn(&str, u16) -> Response,
) -> Response {
    let clock = region.clock.as_ref();
    let strike = match region.faults.strike(asked, When::Before, clock).await {
        None => {
            let response = effect.await;
            match region.faults.strike(asked, When::After, clock).await {
                None => {
                    region.faults.log(region.clock.now(), asked, Some(response.status().as_u16()));
                    return response;
                }
                Some(strike) => strike,
            }
        }
        Some(strike) => strike,
    };
    match strike {
        Strike::Error { code, status } => {
            region.faults.log(region.clock.now(), asked, Some(status));
            error(&code, status)
        }
        Strike::LoseAnswer => {
            region.faults.log(region.clock.now(), asked, None);
            // Ends the connection's task, and with it the connection. Unlike a panic it says nothing: it is meant.
            std::panic::resume_unwind(Box::new("the answer is lost, as a fault asked"))
        }
    }
}

/// Answers a request to S3, where the policy in force allows it.
async fn allowed_s3(front: &Front, parts: Parts, body: Body, id: &str) -> Response {
    let region = &front.region;
    let iam::Asked { checks, to_be_told } = iam::of_objects(&parts, &region.config.region);
    let refuse = |check: &iam::Check| s3_error("AccessDenied", 403, &iam::refusal(check), id);
    if let Err(check) = region.authorize(|| checks) {
        return refuse(&check);
    }
    let response = s3(front, parts, body).await;
    // Whoever may not list learns nothing of what is not there.
    match region.authorize(|| to_be_told.into_iter().collect()) {
        Err(check) if response.status() == StatusCode::NOT_FOUND => refuse(&check),
        _ => response,
    }
}

fn s3_error(code: &str, status: u16, message: &str, id: &str) -> Response {
    let document =
        Xml::node("Error", [Xml::text("Code", code), Xml::text("Message", message), Xml::text("RequestId", id)]);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(CONTENT_TYPE, "application/xml")], document.document()).into_response()
}

/// For whoever wants to know whether, and which, region answers here.
fn health(region: &Region) -> Response {
    let state = if region.stopping.is_cancelled() { "stopping" } else { "running" };
    axum::Json(serde_json::json!({
        "name": region.config.name,
        "version": env!("CARGO_PKG_VERSION"),
        "state": state,
        "region": region.config.region,
        "backing": region.config.backing,
        "unsaved": region.unsaved(),
    }))
    .into_response()
}

async fn s3(front: &Front, parts: Parts, body: Body) -> Response {
    let request = http::Request::from_parts(parts, s3s::Body::http_body_unsync(body));
    match front.s3.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            tracing::warn!(error = ?error, "S3 could not answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The answer to a call of a service that the region does not have, in the form that the caller reads.
fn unsupported(service: &str, parts: &Parts) -> Response {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let error = ApiError::unsupported(&format!("the service {service}"));
    if header("smithy-protocol").contains("cbor") {
        return cloudwatch::encode(Err(error));
    }
    if header("content-type").contains("json") || !header("x-amz-target").is_empty() {
        let body = serde_json::json!({ "__type": error.code, "message": error.message });
        return (StatusCode::BAD_REQUEST, axum::Json(body)).into_response();
    }
    let body = Xml::node("Error", [Xml::text("Code", &error.code), Xml::text("Message", &error.message)]);
    let document = Xml::node("ErrorResponse", [body]).document();
    (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "text/xml;charset=UTF-8")], document).into_response()
}

/// CloudWatch has a protocol of its own.
async fn metrics(front: &Front, signed: &Signed, parts: &Parts, body: Body) -> Response {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(error) => return cloudwatch::encode(Err(error)),
    };
    let operation = cloudwatch::operation(parts.uri.path()).unwrap_or("Unknown");
    let asked = Asked { service: METRICS, operation, about: operation };
    let effect = async {
        let outcome = check_signature(front, signed, parts, &body)
            .and_then(|()| {
                let checks = || iam::of_cloudwatch(operation, &front.region.config.region);
                front.region.authorize(checks).map_err(|check| denied("AccessDenied", &check))
            })
            .and_then(|()| cloudwatch::handle(operation, &body, &front.region));
        cloudwatch::encode(outcome)
    };
    struck(&front.region, &asked, effect, |code, status| {
        cloudwatch::encode(Err(ApiError::with_status(status, code, FAULT)))
    })
    .await
}

/// Systems Manager speaks JSON. The log of calls holds the parameters' names, and nothing else of the body.
async fn parameters(front: &Front, signed: &Signed, parts: &Parts, body: Body) -> Response {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(error) => return json::encode(Err(error)),
    };
    let operation = json::operation(parts, ssm::TARGET).unwrap_or("Unknown");
    let names = ssm::names(&body);
    let asked = Asked { service: PARAMETERS, operation, about: &names.join(" ") };
    in_json(front, &asked, || {
        permitted(front, signed, parts, &body, || iam::of_ssm(operation, &names, &front.region.config.region))?;
        ssm::handle(operation, &body, &front.region)
    })
    .await
}

/// So does CloudTrail.
async fn trail(front: &Front, signed: &Signed, parts: &Parts, body: Body) -> Response {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(error) => return json::encode(Err(error)),
    };
    let operation = json::operation(parts, cloudtrail::TARGET).unwrap_or("Unknown");
    let asked = Asked { service: TRAIL, operation, about: operation };
    in_json(front, &asked, || {
        permitted(front, signed, parts, &body, || iam::of_cloudtrail(operation, &front.region.config.region))?;
        cloudtrail::handle(operation, &body, &front.region)
    })
    .await
}

/// Who asks is known, and may.
fn permitted(
    front: &Front,
    signed: &Signed,
    parts: &Parts,
    body: &Bytes,
    checks: impl FnOnce() -> Vec<iam::Check>,
) -> Result<(), ApiError> {
    check_signature(front, signed, parts, body)?;
    front.region.authorize(checks).map_err(|check| denied("AccessDeniedException", &check))
}

async fn in_json(front: &Front, asked: &Asked<'_>, answer: impl FnOnce() -> Result<Value, ApiError>) -> Response {
    let effect = async { json::encode(answer()) };
    struck(&front.region, asked, effect, |code, status| json::encode(Err(ApiError::with_status(status, code, FAULT))))
        .await
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    let too_large = |_| ApiError::with_status(413, "RequestEntityTooLarge", "The request is larger than 1 MiB.");
    to_bytes(body, BODY_BYTES).await.map_err(too_large)
}

/// Refuses what the policy in force does not allow. Who one is may be asked by anybody.
fn authorize(region: &Region, service: Service, action: &str, params: &Params) -> Result<(), ApiError> {
    let own = &region.config.region;
    let (code, allowed) = match service {
        Service::Ec2 => {
            let checks = || region.read(|world| iam::of_ec2(action, params, own, world));
            ("UnauthorizedOperation", region.authorize(checks))
        }
        Service::Elbv2 => {
            let checks = || region.read(|world| iam::of_elbv2(action, params, own, world));
            ("AccessDenied", region.authorize(checks))
        }
        Service::Sts => return Ok(()),
    };
    allowed.map_err(|check| denied(code, &check))
}

fn denied(code: &str, check: &iam::Check) -> ApiError {
    let of_ec2 =
        if code == "UnauthorizedOperation" { "You are not authorized to perform this operation. " } else { "" };
    ApiError::with_status(403, code, format!("{of_ec2}{}", iam::refusal(check)))
}

fn check_signature(front: &Front, signed: &Signed, parts: &Parts, body: &Bytes) -> Result<(), ApiError> {
    signed.verify(parts, body, &front.keys, front.region.time_of_signatures())?;
    let own = &front.region.config.region;
    // STS is one service for all regions.
    if signed.region != *own && signed.service != Service::Sts.name() {
        return Err(ApiError::with_status(
            403,
            "SignatureDoesNotMatch",
            format!("Credential should be scoped to a valid region, not '{}'. This one is '{own}'.", signed.region),
        ));
    }
    Ok(())
}

async fn query(front: &Front, service: Service, signed: &Signed, parts: &Parts, body: Body, id: &str) -> Response {
    let body = match whole(body).await {
        Ok(body) => body,
        Err(error) => return encode(service, Err(error), id),
    };
    let form = if body.is_empty() { parts.uri.query().unwrap_or_default().as_bytes() } else { &body };
    let params = Params::decode(form);
    let about = String::from_utf8_lossy(form).into_owned();
    let operation = params.require("Action").unwrap_or("Unknown").to_owned();
    let asked = Asked { service: service.name(), operation: &operation, about: &about };
    let effect = async {
        let outcome = match check_signature(front, signed, parts, &body) {
            Err(error) => Err(error),
            Ok(()) => {
                let outcome = outcome(&front.region, service, &operation, &params).await;
                if service == Service::Elbv2 && asked.is_changing() && outcome.is_ok() {
                    remember(&front.region, parts, &operation, &params, id);
                }
                outcome
            }
        };
        encode(service, outcome, id)
    };
    struck(&front.region, &asked, effect, |code, status| {
        encode(service, Err(ApiError::with_status(status, code, FAULT)), id)
    })
    .await
}

/// Has CloudTrail tell of a call.
fn remember(region: &Region, parts: &Parts, name: &str, params: &Params, request_id: &str) {
    let Config { access_key, region: own, .. } = &region.config;
    let user_agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let from = region.network.gateway;
    let call = Call { request_id, access_key, user_agent, from, region: own, name, params };
    region.trail.add(region.request_id(), region.clock.now(), call);
}

async fn outcome(region: &Arc<Region>, service: Service, action: &str, params: &Params) -> Result<Xml, ApiError> {
    params.require("Action")?;
    authorize(region, service, action, params)?;
    let reads = ["Describe", "Get", "List"].iter().any(|verb| action.starts_with(verb));
    let unsaved = |why: String| {
        let folder = region.config.folder.display();
        ApiError::with_status(500, "InternalError", format!("the region's records cannot be saved in {folder}: {why}"))
    };
    if let Some(why) = region.catch_up().filter(|_| !reads) {
        return Err(unsaved(why));
    }
    let answer = dispatch(service, action, params, region).await?;
    // Whether such a change outlives the region is unknown, and an error says just that.
    match region.unsaved().filter(|_| !reads) {
        Some(why) => Err(unsaved(why)),
        None => Ok(answer),
    }
}

async fn dispatch(service: Service, action: &str, params: &Params, region: &Arc<Region>) -> Result<Xml, ApiError> {
    match service {
        Service::Ec2 => {
            if region.config.lags.throttle {
                region.throttle.admit(action, params, region.clock.now())?;
            }
            ec2::handle(action, params, region).await
        }
        Service::Elbv2 => {
            let answer = elbv2::handle(action, params, region).await?;
            // A load balancer is a member of its groups, which other groups' rules may name as their source.
            if matches!(action, "CreateLoadBalancer" | "DeleteLoadBalancer" | "SetSecurityGroups") {
                firewall::apply(region).await.map_err(|error| servers::engine_error(&error))?;
            }
            Ok(answer)
        }
        Service::Sts => sts::handle(action, params),
    }
}

fn encode(service: Service, outcome: Result<Xml, ApiError>, id: &str) -> Response {
    let (status, document) = match outcome {
        Ok(mut xml) => {
            match service {
                Service::Ec2 => xml.prepend(Xml::text("requestId", id)),
                _ => xml.append(Xml::node("ResponseMetadata", [Xml::text("RequestId", id)])),
            }
            (StatusCode::OK, xml)
        }
        Err(error) => {
            tracing::debug!(code = error.code, message = error.message, "refused");
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, error_document(service, &error, id))
        }
    };
    (status, [(CONTENT_TYPE, "text/xml;charset=UTF-8")], document.document()).into_response()
}

fn error_document(service: Service, error: &ApiError, id: &str) -> Xml {
    let (code, message) = (Xml::text("Code", &error.code), Xml::text("Message", &error.message));
    if service == Service::Ec2 {
        let errors = Xml::node("Errors", [Xml::node("Error", [code, message])]);
        return Xml::node("Response", [errors, Xml::text("RequestID", id)]);
    }
    let blame = if error.status < 500 { "Sender" } else { "Receiver" };
    let body = Xml::node("Error", [Xml::text("Type", blame), code, message]);
    let namespace = match service {
        Service::Elbv2 => "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
        _ => "https://sts.amazonaws.com/doc/2011-06-15/",
    };
    Xml::node("ErrorResponse", [body, Xml::text("RequestId", id)]).in_namespace(namespace)
}
