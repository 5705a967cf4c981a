//! What is not there any more, where AWS says only that one may not.
//!
//! Under a policy that goes by a resource's tags, a call for something that is gone is refused: what is not there has no
//! tags. So a refusal is no answer to whether something was removed before, and somebody has to look.

use crate::{clients::Clients, cloud_error::CloudError};

/// What a call was for, by id or ARN.
#[derive(Debug, Clone, Copy)]
pub enum Thing<'a> {
    Image(&'a str),
    Snapshot(&'a str),
    SecurityGroupRule(&'a str),
    TargetGroup(&'a str),
    ListenerRule(&'a str),
}

impl Thing<'_> {
    const fn not_found(self) -> &'static str {
        match self {
            Self::Image(_) => "InvalidAMIID.NotFound",
            Self::Snapshot(_) => "InvalidSnapshot.NotFound",
            Self::SecurityGroupRule(_) => "InvalidSecurityGroupRuleId.NotFound",
            Self::TargetGroup(_) => "TargetGroupNotFound",
            Self::ListenerRule(_) => "RuleNotFound",
        }
    }

    async fn is_there(self, clients: &Clients) -> Result<bool, CloudError> {
        let failed = "look whether it is there";
        let (ec2, elb) = (&clients.ec2, &clients.elb);
        let found = match self {
            Self::Image(id) => {
                let answer = ec2.describe_images().image_ids(id).send().await;
                answer.map(|answer| !answer.images().is_empty()).map_err(|error| CloudError::of(failed, error))
            }
            Self::Snapshot(id) => {
                let answer = ec2.describe_snapshots().snapshot_ids(id).send().await;
                answer.map(|answer| !answer.snapshots().is_empty()).map_err(|error| CloudError::of(failed, error))
            }
            Self::SecurityGroupRule(id) => {
                let answer = ec2.describe_security_group_rules().security_group_rule_ids(id).send().await;
                let found = answer.map(|answer| !answer.security_group_rules().is_empty());
                found.map_err(|error| CloudError::of(failed, error))
            }
            Self::TargetGroup(arn) => {
                let answer = elb.describe_target_groups().target_group_arns(arn).send().await;
                answer.map(|answer| !answer.target_groups().is_empty()).map_err(|error| CloudError::of(failed, error))
            }
            Self::ListenerRule(arn) => {
                let answer = elb.describe_rules().rule_arns(arn).send().await;
                answer.map(|answer| !answer.rules().is_empty()).map_err(|error| CloudError::of(failed, error))
            }
        };
        found.or_else(|error| if error.is(self.not_found()) { Ok(false) } else { Err(error) })
    }
}

/// The error of a call, as it would be if AWS had said what it knows: a refusal for something that is gone says that it is
/// not found.
pub async fn told(clients: &Clients, error: CloudError, thing: Thing<'_>) -> CloudError {
    // Where it cannot be looked at, the refusal stands.
    if !error.is_refused() || thing.is_there(clients).await.unwrap_or(true) {
        return error;
    }
    error.meaning(thing.not_found())
}
