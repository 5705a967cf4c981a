//! ELBv2's actions.

use std::sync::Arc;

use super::{ApiError, Params, Xml};
use crate::region::Region;

pub async fn handle(action: &str, _params: &Params, _region: &Arc<Region>) -> Result<Xml, ApiError> {
    Err(ApiError::unsupported(&format!("the ELBv2 action {action}")))
}
