//! An AWS error as a value: HTTP status, code and message, exactly as a client will see them.

use std::fmt;

/// An error that an AWS API answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl ApiError {
    /// A client error (HTTP 400), which is how EC2 and ELBv2 answer nearly everything.
    pub fn bad(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.into(), message: message.into() }
    }

    /// An error with a status other than 400.
    pub fn with_status(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    pub fn missing(parameter: &str) -> Self {
        Self::bad("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }

    pub fn invalid(parameter: &str, value: &str, why: &str) -> Self {
        Self::bad("InvalidParameterValue", format!("Value ({value}) for parameter {parameter} is invalid. {why}"))
    }

    /// The answer to an operation, or a parameter of one, that the local region does not have.
    pub fn unsupported(what: &str) -> Self {
        Self::bad(
            "Unsupported",
            format!("the local region does not implement {what}; see local-region/README.md for what it implements"),
        )
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}
