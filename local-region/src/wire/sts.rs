//! STS: who is calling. There is one account and one user.

use super::{ApiError, Params, Xml};
use crate::state::ec2::image::ACCOUNT;

/// The one user there is.
pub const USER: &str = "local-region";
pub const USER_ID: &str = "AIDALOCALREGION";

pub fn user_arn() -> String {
    format!("arn:aws:iam::{ACCOUNT}:user/{USER}")
}

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Answers one STS action: the whole `<…Response>` element, without its request id.
///
/// # Errors
/// `Unsupported`, naming the action, for everything but GetCallerIdentity: the region has no roles.
pub fn handle(action: &str, _params: &Params) -> Result<Xml, ApiError> {
    match action {
        "GetCallerIdentity" => {
            let result = Xml::node(
                "GetCallerIdentityResult",
                [Xml::text("Arn", user_arn()), Xml::text("UserId", USER_ID), Xml::text("Account", ACCOUNT)],
            );
            Ok(Xml::node("GetCallerIdentityResponse", [result]).in_namespace(NAMESPACE))
        }
        _ => Err(ApiError::unsupported(&format!("the STS action {action}"))),
    }
}
