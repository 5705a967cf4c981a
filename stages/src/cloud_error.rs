//! What the cloud answered when it refused, as one type for all SDKs.

use std::fmt;

use alcedo_pipeline::{
    error::{ErrorKind, StepError},
    lock::LeaseLost,
};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// An AWS call that failed.
#[derive(Debug)]
pub struct CloudError {
    /// AWS's error code, where an answer came: `InvalidGroup.NotFound`.
    pub code: Option<String>,
    /// What was being done: `describe the load balancer hello`.
    pub doing: String,
    detail: String,
    /// Whether the call may have had its effect although it failed.
    pub effect_unknown: bool,
    /// Whether it was never sent, because nobody gave credentials.
    pub no_credentials: bool,
    /// Whether it was never sent, because this process no longer holds the environment.
    pub lease_lost: bool,
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "AWS answered {code}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for CloudError {}

impl CloudError {
    pub fn of<E, R>(doing: impl Into<String>, error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        let code = error.code().map(str::to_owned);
        let message = error.message().map(str::to_owned);
        let unanswered =
            matches!(error, SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_));
        let no_credentials = is_because_of::<CredentialsError>(&error);
        let lease_lost = is_because_of::<LeaseLost>(&error);
        let effect_unknown =
            (unanswered || code.as_deref().is_some_and(says_nothing)) && !no_credentials && !lease_lost;
        let detail = message.unwrap_or_else(|| match code {
            Some(_) => "without a word of explanation".to_owned(),
            None => chain(&error),
        });
        Self { code, doing: doing.into(), detail, effect_unknown, no_credentials, lease_lost }
    }

    /// Whether the credentials lack a permission.
    pub fn is_refused(&self) -> bool {
        ["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"].iter().any(|code| self.is(code))
    }

    /// The same error, of which it has turned out what it means.
    #[must_use]
    pub fn meaning(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }

    /// Whether AWS answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

fn is_because_of<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}

/// Codes after which nobody knows whether the call had its effect (EC2 and ELB API references, *Common errors*).
fn says_nothing(code: &str) -> bool {
    matches!(code, "InternalError" | "InternalFailure" | "ServiceUnavailable" | "Unavailable")
}

/// The deepest causes say most: "connection refused" stands at the end of the chain.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

impl From<CloudError> for StepError {
    fn from(error: CloudError) -> Self {
        let kind = if error.lease_lost { ErrorKind::LeaseLost } else { ErrorKind::Service };
        let mut step = StepError::new(kind, format!("could not {}", error.doing));
        if let Some(hint) = hint(&error) {
            step = step.hint(hint);
        }
        step.because(error)
    }
}

/// What a `DryRun` call has told: EC2 answers it with an error even where the call would have gone through (EC2 API reference,
/// *Common query parameters*).
pub fn would_have_been_done<T>(answer: Result<T, CloudError>) -> Result<(), CloudError> {
    match answer {
        Err(error) if error.is("DryRunOperation") => Ok(()),
        answer => answer.map(drop),
    }
}

/// What to do about the codes that users meet most.
pub fn hint(error: &CloudError) -> Option<&'static str> {
    if error.no_credentials {
        return Some(
            "give AWS credentials: AWS_PROFILE or aws.profile, `aws sso login`, or AWS_ACCESS_KEY_ID and its secret",
        );
    }
    Some(match error.code.as_deref() {
        None if error.effect_unknown => {
            "check the network, and `aws.endpoint` in alcedo.yaml; `alcedo doctor` tests each"
        }
        None => return None,
        Some("UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException") => {
            "the credentials lack a permission that this step needs"
        }
        Some("ExpiredToken" | "ExpiredTokenException" | "RequestExpired") => {
            "the credentials have expired, or this machine's clock is wrong; renew them and run again"
        }
        Some("AuthFailure" | "InvalidClientTokenId" | "SignatureDoesNotMatch" | "InvalidAccessKeyId") => {
            "the credentials are not valid for this endpoint; `alcedo doctor` says which are used"
        }
        Some("InsufficientInstanceCapacity") => {
            "AWS has none of this instance type in the zone now; try again, or choose another `instance_type` or subnet"
        }
        Some("VcpuLimitExceeded" | "InstanceLimitExceeded") => {
            "the account's vCPU limit is reached; ask for more under Service Quotas, or retire unused servers"
        }
        Some("RequestLimitExceeded" | "Throttling" | "ThrottlingException") => {
            "AWS throttles this account's calls; try again in a minute"
        }
        Some("RulesPerSecurityGroupLimitExceeded") => {
            "the security group has no room for another rule; remove one that is no longer needed"
        }
        Some("NoSuchBucket") => "create the bucket, or name another under `publish.bucket`",
        _ => return None,
    })
}
