//! EC2's actions.

use std::sync::Arc;

use super::{ApiError, Params, Xml};
use crate::region::Region;

/// Answers one EC2 action: the whole `<…Response>` element.
pub async fn handle(action: &str, _params: &Params, _region: &Arc<Region>) -> Result<Xml, ApiError> {
    Err(ApiError::unsupported(&format!("the EC2 action {action}")))
}
