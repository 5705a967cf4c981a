//! What S3's requests are checked for.
//!
//! Sources: *Service Authorization Reference*, Amazon S3; S3 user guide, *Enforce conditional writes on Amazon S3 buckets*
//! (`s3:if-none-match`, `s3:if-match`, `s3:ObjectCreationOperation`) and *Enforce conditional deletes*. That S3 takes the key
//! as `s3:prefix` where it decides whether a missing object may be said to be missing is documented nowhere; others have
//! measured it.

use http::{Method, request::Parts};
use percent_encoding::percent_decode_str;

use super::{Check, Context};
use crate::faults;

/// What a request has to be allowed; and, where the object is not there, what it takes to be told so.
#[derive(Debug, Default)]
pub struct Asked {
    pub checks: Vec<Check>,
    pub to_be_told: Option<Check>,
}

/// The checks of a request to S3, path-style.
pub fn checks(parts: &Parts, region: &str) -> Asked {
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let query: Vec<(String, String)> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let asks = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let of_bucket = format!("arn:aws:s3:::{bucket}");
    let of_object = format!("{of_bucket}/{key}");
    let check = |action: &str, resource: &str, fill: &dyn Fn(&mut Context)| {
        let mut context = Context::default();
        context.set("aws:RequestedRegion", [region]);
        fill(&mut context);
        Check { action: format!("s3:{action}"), resource: resource.to_owned(), context }
    };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let conditions = |context: &mut Context| {
        for name in ["if-match", "if-none-match"] {
            if let Some(value) = header(name) {
                context.set(&format!("s3:{name}"), [value]);
            }
        }
    };
    let writes = |whole: bool| {
        let mut checks = vec![check("PutObject", &of_object, &|context| {
            conditions(context);
            context.set("s3:ObjectCreationOperation", [whole.to_string()]);
        })];
        // To compare is to read.
        if header("if-match").is_some() {
            checks.push(check("GetObject", &of_object, &|_| {}));
        }
        checks
    };
    let reads = || Asked {
        checks: vec![check("GetObject", &of_object, &|_| {})],
        to_be_told: Some(check("ListBucket", &of_bucket, &|context| context.set("s3:prefix", [key]))),
    };
    let only = |checks: Vec<Check>| Asked { checks, to_be_told: None };
    match faults::s3_operation(&parts.method, &parts.uri) {
        "GetObject" | "HeadObject" => reads(),
        "PutObject" | "CompleteMultipartUpload" => only(writes(true)),
        "CreateMultipartUpload" | "UploadPart" => only(writes(false)),
        "AbortMultipartUpload" => only(vec![check("AbortMultipartUpload", &of_object, &|_| {})]),
        "ListParts" => only(vec![check("ListMultipartUploadParts", &of_object, &|_| {})]),
        "DeleteObject" => {
            let mut checks = vec![check("DeleteObject", &of_object, &conditions)];
            if header("if-match").is_some() {
                checks.push(check("GetObject", &of_object, &|_| {}));
            }
            only(checks)
        }
        "ListMultipartUploads" => only(vec![check("ListBucketMultipartUploads", &of_bucket, &|_| {})]),
        "ListObjectsV2" => only(vec![check("ListBucket", &of_bucket, &|context| {
            if let Some(prefix) = asks("prefix") {
                context.set("s3:prefix", [prefix]);
            }
        })]),
        "HeadBucket" => only(vec![check("ListBucket", &of_bucket, &|_| {})]),
        "ListBuckets" => only(vec![check("ListAllMyBuckets", "*", &|_| {})]),
        "Unknown" if parts.method == Method::OPTIONS => Asked::default(),
        other => only(vec![check(other, &of_bucket, &|_| {})]),
    }
}
