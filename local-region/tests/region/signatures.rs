//! Who may call: keys, signatures, clocks; and what answers without any.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};

use crate::support::{ACCESS_KEY, SECRET_KEY, TestRegion, code, s3_on};

const FORM: &str = "Action=DescribeVpcs&Version=2016-11-15";

/// Sends `sent` with the signature, made at `time`, of [`FORM`].
async fn post(region: &TestRegion, sent: &str, time: SystemTime) -> (u16, String) {
    let url = format!("{}/", region.running.endpoint);
    let identity = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(&region.config.region)
        .name("ec2")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let headers = [("host", host.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let request =
        SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(FORM.as_bytes())).unwrap();
    let (instructions, _) = sign(request, &params.into()).unwrap().into_parts();
    let mut call = reqwest::Client::new().post(&url).header("content-type", headers[1].1).body(sent.to_owned());
    for (name, value) in instructions.headers() {
        call = call.header(name, value);
    }
    let answer = call.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn what_was_signed_is_answered_and_nothing_else() {
    let region = TestRegion::start().await;
    let now = SystemTime::now();
    let (status, text) = post(&region, FORM, now).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("<DescribeVpcsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>"));
    let (status, text) = post(&region, "Action=DescribeSubnets&Version=2016-11-15", now).await;
    assert_eq!((status, text.contains("<Code>SignatureDoesNotMatch</Code>")), (403, true), "{text}");
}

#[tokio::test]
async fn a_signature_lasts_five_minutes() {
    let region = TestRegion::start().await;
    let seconds = Duration::from_secs;
    for (time, status) in [
        (SystemTime::now() - seconds(280), 200),
        (SystemTime::now() - seconds(320), 400),
        (SystemTime::now() + seconds(280), 200),
        (SystemTime::now() + seconds(320), 400),
    ] {
        let (answered, text) = post(&region, FORM, time).await;
        assert_eq!(answered, status, "{text}");
        assert_eq!(text.contains("RequestExpired"), status == 400, "{text}");
    }
}

#[tokio::test]
async fn wrong_keys_are_told_apart_by_service() {
    let region = TestRegion::start().await;
    let (stranger, forger) = (region.sdk_with_keys("AKIAOTHER", SECRET_KEY), region.sdk_with_keys(ACCESS_KEY, "other"));
    let ec2 = aws_sdk_ec2::Client::new(&stranger).describe_vpcs().send().await;
    assert_eq!(code(ec2), "AuthFailure");
    let sts = aws_sdk_sts::Client::new(&stranger).get_caller_identity().send().await;
    assert_eq!(code(sts), "InvalidClientTokenId");
    assert_eq!(code(s3_on(&stranger).list_buckets().send().await), "InvalidAccessKeyId");
    let ec2 = aws_sdk_ec2::Client::new(&forger).describe_vpcs().send().await;
    assert_eq!(code(ec2), "SignatureDoesNotMatch");
    assert_eq!(code(s3_on(&forger).list_buckets().send().await), "SignatureDoesNotMatch");
}

#[tokio::test]
async fn sts_says_who_calls() {
    let region = TestRegion::start().await;
    let client = aws_sdk_sts::Client::new(&region.sdk());
    let who = client.get_caller_identity().send().await.unwrap();
    assert_eq!(who.account(), Some("000000000000"));
    let role = client.assume_role().role_arn("arn:aws:iam::000000000000:role/x").role_session_name("x").send().await;
    assert_eq!(code(role), "Unsupported");
}

#[tokio::test]
async fn two_pages_answer_without_a_signature() {
    let region = TestRegion::start().await;
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}{path}", region.running.endpoint)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/checkip").await, (200, "10.213.0.1\n".to_owned()));
    let (status, health) = get("/health").await;
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["state"], &health["name"]), (200, &"running".into(), &"test".into()));
    assert_eq!(get("/").await.0, 403);
}
