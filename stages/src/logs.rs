//! What each process of a run has shown, kept beside the run's journal: build output, waits and checks are no durable events.

use alcedo_pipeline::{ids::RunId, journal, store::StoreError};
use jiff::Timestamp;

use crate::site::Site;

/// What one process has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// When the process began; as it is in the object's name.
    pub began: String,
    pub text: String,
}

/// Keeps what a process has shown of a run. Answers where.
///
/// # Errors
/// The bucket does not take it.
pub async fn keep(site: &Site, run: &RunId, began: Timestamp, text: String) -> Result<String, StoreError> {
    let key = format!("{}{}.txt", journal::logs_folder(&site.root, run), began.strftime("%Y%m%dT%H%M%S%.3fZ"));
    site.store.create(&key, text.into_bytes()).await?;
    Ok(format!("s3://{}/{key}", site.bucket()))
}

/// What the processes of a run have shown, oldest first; one that was killed has kept nothing.
///
/// # Errors
/// The bucket cannot be read.
pub async fn read(site: &Site, run: &RunId) -> Result<Vec<Log>, StoreError> {
    let folder = journal::logs_folder(&site.root, run);
    let mut logs = Vec::new();
    for key in site.store.list(&folder).await? {
        let began = key[folder.len()..].trim_end_matches(".txt").to_owned();
        if let Some(object) = site.store.read(&key).await? {
            logs.push(Log { began, text: String::from_utf8_lossy(&object.bytes).into_owned() });
        }
    }
    Ok(logs)
}
