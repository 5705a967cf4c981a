//! Versions that somebody wants to keep beyond the retention: `pins/<version>.json` beside the versions.

use alcedo_pipeline::{store::StoreError, version::Version};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{execute, site::Site};

/// Why a version is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Version of this format.
    pub v: u32,
    pub reason: Option<String>,
    /// `user@host`.
    pub by: String,
    pub at: Timestamp,
}

fn folder(root: &str) -> String {
    format!("{root}pins/")
}

impl Site {
    /// The pinned versions, oldest first.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn pins(&self) -> Result<Vec<Version>, StoreError> {
        let folder = folder(&self.root);
        let keys = self.store.list(&folder).await?;
        let named = |key: &String| key.strip_prefix(&folder)?.strip_suffix(".json")?.parse().ok();
        let mut pins: Vec<Version> = keys.iter().filter_map(named).collect();
        pins.sort();
        Ok(pins)
    }

    /// Pins a version; one that is pinned already stays as it is.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn pin(&self, version: Version, reason: Option<String>) -> Result<(), StoreError> {
        let pin = Pin { v: 1, reason, by: execute::holder(), at: self.now() };
        let body = serde_json::to_vec_pretty(&pin).expect("a pin is JSON");
        match self.store.create(&format!("{}{version}.json", folder(&self.root)), body).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a pin away. Answers whether there was one.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn unpin(&self, version: Version) -> Result<bool, StoreError> {
        let key = format!("{}{version}.json", folder(&self.root));
        let Some(there) = self.store.read(&key).await? else { return Ok(false) };
        self.store.remove(&key, &there.tag).await?;
        Ok(true)
    }
}
