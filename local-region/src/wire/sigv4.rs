//! Signature version 4 of query-protocol requests. S3's own forms (chunks, trailers) are checked by `s3s`.
//!
//! Source: *Create a signed AWS API request* in the IAM user guide. The signing key and the signature are computed by
//! the crate that signs the SDK's requests.

use std::time::{Duration, SystemTime};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest, Sha256};

use super::ApiError;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How far a client's clock may be off, either way.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Who signed a request, for what, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub access_key: String,
    pub date: String,
    pub region: String,
    /// `ec2`, `elasticloadbalancing`, `sts`, `s3`…: which service the request is for.
    pub service: String,
    signed_headers: Vec<String>,
    signature: String,
    /// `X-Amz-Date`, from the header or the query.
    time: String,
    /// Seconds, where the signature is in the query.
    expires: Option<u64>,
}

/// The keys that the region knows: one pair.
#[derive(Debug, Clone)]
pub struct Keys {
    pub access_key: String,
    pub secret_key: String,
}

impl Signed {
    /// Reads what a request says of its signature, or `None` where it carries none.
    ///
    /// # Errors
    /// `IncompleteSignature` where it carries one that cannot be read.
    pub fn read(parts: &Parts) -> Result<Option<Self>, ApiError> {
        if let Some(header) = parts.headers.get(AUTHORIZATION) {
            let text = header.to_str().map_err(|_| incomplete("Authorization is not ASCII"))?;
            return Self::read_header(text, &parts.headers).map(Some);
        }
        let query: Vec<(String, String)> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let Some(credential) = get("X-Amz-Credential") else { return Ok(None) };
        let expires = get("X-Amz-Expires").and_then(|seconds| seconds.parse().ok());
        Self::assemble(
            credential,
            get("X-Amz-SignedHeaders").unwrap_or_default(),
            get("X-Amz-Signature").ok_or_else(|| incomplete("X-Amz-Signature is missing"))?,
            get("X-Amz-Date").ok_or_else(|| incomplete("X-Amz-Date is missing"))?,
            expires,
        )
        .map(Some)
    }

    fn read_header(text: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let fields = text.strip_prefix(ALGORITHM).ok_or_else(|| incomplete("Unsupported signing algorithm"))?;
        let get = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| incomplete(&format!("Authorization header requires '{name}' parameter")))
        };
        let time = headers
            .get("x-amz-date")
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| incomplete("Authorization header requires existence of the X-Amz-Date header"))?;
        Self::assemble(get("Credential")?, get("SignedHeaders")?, get("Signature")?, time, None)
    }

    fn assemble(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        time: &str,
        expires: Option<u64>,
    ) -> Result<Self, ApiError> {
        // Access keys may contain slashes, so the scope is read from its end.
        let mut parts = credential.rsplitn(5, '/');
        let (end, service, region, date, access_key) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
        let (Some("aws4_request"), Some(service), Some(region), Some(date), Some(access_key)) =
            (end, service, region, date, access_key)
        else {
            return Err(incomplete("Credential must be <access key>/<date>/<region>/<service>/aws4_request"));
        };
        Ok(Self {
            access_key: access_key.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_owned).collect(),
            signature: signature.to_owned(),
            time: time.to_owned(),
            expires,
        })
    }

    /// Checks that the holder of the secret key signed exactly this request, and did so recently.
    ///
    /// # Errors
    /// `AuthFailure` (EC2) or `InvalidClientTokenId` for an unknown access key, `SignatureDoesNotMatch`, and
    /// `RequestExpired` where the time of the signature and `now` are more than five minutes apart.
    pub fn verify(&self, parts: &Parts, body: &[u8], keys: &Keys, now: SystemTime) -> Result<(), ApiError> {
        if self.access_key != keys.access_key {
            return Err(match self.service.as_str() {
                "ec2" => ApiError::with_status(
                    401,
                    "AuthFailure",
                    "AWS was not able to validate the provided access credentials",
                ),
                _ => ApiError::with_status(
                    403,
                    "InvalidClientTokenId",
                    "The security token included in the request is invalid.",
                ),
            });
        }
        let at = self.signed_at()?;
        let canonical = self.canonical_request(parts, body)?;
        let to_sign = format!(
            "{ALGORITHM}\n{}\n{}/{}/{}/aws4_request\n{}",
            self.time,
            self.date,
            self.region,
            self.service,
            hex::encode(Sha256::digest(canonical))
        );
        let key = generate_signing_key(&keys.secret_key, at, &self.region, &self.service);
        if calculate_signature(key, to_sign.as_bytes()) != self.signature || !self.time.starts_with(&self.date) {
            return Err(ApiError::with_status(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method.",
            ));
        }
        let lasts = Duration::from_secs(self.expires.unwrap_or(0)) + SKEW;
        let (age, ahead) = (now.duration_since(at).ok(), at.duration_since(now).ok());
        if age.is_some_and(|age| age > lasts) || ahead.is_some_and(|ahead| ahead > SKEW) {
            return Err(ApiError::bad("RequestExpired", "Request has expired; is the clock of the client right?"));
        }
        Ok(())
    }

    fn signed_at(&self) -> Result<SystemTime, ApiError> {
        let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", &self.time)
            .map_err(|_| incomplete("X-Amz-Date must be in ISO8601 basic format"))?;
        let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| incomplete("X-Amz-Date is out of range"))?;
        Ok(Timestamp::from(zoned).into())
    }

    fn canonical_request(&self, parts: &Parts, body: &[u8]) -> Result<String, ApiError> {
        let mut headers = String::new();
        for name in &self.signed_headers {
            let values: Vec<&str> =
                parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            if values.is_empty() {
                return Err(incomplete(&format!("the signed header '{name}' is not in the request")));
            }
            let folded: Vec<String> =
                values.iter().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            headers.push_str(&format!("{name}:{}\n", folded.join(",")));
        }
        Ok(format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            parts.method,
            parts.uri.path(),
            canonical_query(parts.uri.query().unwrap_or_default()),
            self.signed_headers.join(";"),
            hex::encode(Sha256::digest(body))
        ))
    }
}

/// The query sorted and encoded again, without the signature itself.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn incomplete(why: &str) -> ApiError {
    ApiError::bad("IncompleteSignature", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get-vanilla-query-order-key-case` of AWS's published signature test suite.
    fn vanilla() -> (Parts, Keys) {
        let request = http::Request::get("/?Param2=value2&Param1=value1")
            .header("host", "example.amazonaws.com")
            .header("x-amz-date", "20150830T123600Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=host;x-amz-date, \
                 Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            )
            .body(())
            .unwrap();
        let keys = Keys {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        (request.into_parts().0, keys)
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn a_request_of_the_published_test_suite_is_accepted_within_five_minutes_only() {
        let (parts, keys) = vanilla();
        let signed = Signed::read(&parts).unwrap().unwrap();
        assert_eq!(signed.service, "service");
        for (time, code) in [
            ("2015-08-30T12:36:00Z", None),
            ("2015-08-30T12:41:00Z", None),
            ("2015-08-30T12:41:01Z", Some("RequestExpired")),
            ("2015-08-30T12:30:59Z", Some("RequestExpired")),
        ] {
            let outcome = signed.verify(&parts, b"", &keys, at(time));
            assert_eq!(outcome.err().map(|error| error.code), code.map(str::to_owned), "{time}");
        }
    }

    #[test]
    fn a_changed_request_or_key_is_refused() {
        let (parts, keys) = vanilla();
        let signed = Signed::read(&parts).unwrap().unwrap();
        let now = at("2015-08-30T12:36:00Z");
        let other_secret = Keys { secret_key: "other".to_owned(), ..keys.clone() };
        let other_access = Keys { access_key: "other".to_owned(), ..keys.clone() };
        let code = |body: &[u8], keys: &Keys| signed.verify(&parts, body, keys, now).unwrap_err().code;
        assert_eq!(code(b"x", &keys), "SignatureDoesNotMatch");
        assert_eq!(code(b"", &other_secret), "SignatureDoesNotMatch");
        assert_eq!(code(b"", &other_access), "InvalidClientTokenId");
    }
}
