//! Why ELBv2 refuses a call: its error code, and a message for a person.

/// An error of the ELBv2 API reference. All of them are answered with HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationError", message)
    }

    pub fn load_balancer_not_found(arn: &str) -> Self {
        Self::new("LoadBalancerNotFound", format!("Load balancer '{arn}' not found"))
    }

    pub fn target_group_not_found(arn: &str) -> Self {
        Self::new("TargetGroupNotFound", format!("Target group '{arn}' not found"))
    }

    pub fn listener_not_found(arn: &str) -> Self {
        Self::new("ListenerNotFound", format!("Listener '{arn}' not found"))
    }

    pub fn rule_not_found(arn: &str) -> Self {
        Self::new("RuleNotFound", format!("Rule '{arn}' not found"))
    }
}
