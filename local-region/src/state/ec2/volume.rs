//! Volumes and snapshots, as records: an instance's disk is its container's root.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Ec2, Lagged, Moment, Tags};
use crate::wire::ApiError;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    pub volume_id: String,
    pub size_gib: u32,
    pub volume_type: String,
    pub snapshot_id: Option<String>,
    pub availability_zone: String,
    pub encrypted: bool,
    pub attachment: Option<Attachment>,
    pub tags: Lagged<Tags>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    pub instance_id: String,
    pub device: String,
    pub delete_on_termination: bool,
    pub attached_at: Timestamp,
}

impl Volume {
    pub fn state(&self) -> &'static str {
        if self.attachment.is_some() { "in-use" } else { "available" }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    Pending,
    Completed,
    Error,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    pub snapshot_id: String,
    pub volume_id: String,
    pub size_gib: u32,
    pub state: SnapshotState,
    pub description: String,
    pub tags: Lagged<Tags>,
    pub started_at: Timestamp,
}

impl Snapshot {
    pub fn state_name(&self) -> &'static str {
        match self.state {
            SnapshotState::Pending => "pending",
            SnapshotState::Completed => "completed",
            SnapshotState::Error => "error",
        }
    }

    pub(super) fn finish(&mut self, done: bool) {
        self.state = if done { SnapshotState::Completed } else { SnapshotState::Error };
    }
}

impl Ec2 {
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    pub fn volume(&self, volume_id: &str) -> Option<&Volume> {
        self.volumes.get(volume_id)
    }

    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values()
    }

    pub fn find_volume(&self, volume_id: &str, moment: Moment) -> Result<&Volume, ApiError> {
        self.volumes
            .get(volume_id)
            .filter(|volume| moment.sees(volume.created_at))
            .ok_or_else(|| ApiError::bad("InvalidVolume.NotFound", format!("The volume '{volume_id}' does not exist.")))
    }

    pub fn find_snapshot(&self, snapshot_id: &str, moment: Moment) -> Result<&Snapshot, ApiError> {
        self.snapshots.get(snapshot_id).filter(|snapshot| moment.sees(snapshot.started_at)).ok_or_else(|| {
            ApiError::bad("InvalidSnapshot.NotFound", format!("The snapshot '{snapshot_id}' does not exist."))
        })
    }

    /// Removes a volume that no instance has.
    pub fn delete_volume(&mut self, volume_id: &str, moment: Moment) -> Result<(), ApiError> {
        if let Some(attachment) = &self.find_volume(volume_id, moment)?.attachment {
            return Err(ApiError::bad(
                "VolumeInUse",
                format!("Volume {volume_id} is currently attached to {}", attachment.instance_id),
            ));
        }
        self.volumes.remove(volume_id);
        Ok(())
    }

    /// Makes a snapshot of a volume. It holds no data: what can be launched is an image.
    pub fn create_snapshot(
        &mut self,
        volume_id: &str,
        description: &str,
        tags: Tags,
        moment: Moment,
    ) -> Result<String, ApiError> {
        let size_gib = self.find_volume(volume_id, moment)?.size_gib;
        let id = self.begin_snapshot(volume_id.to_owned(), size_gib, description.to_owned(), tags, moment.now);
        self.snapshots.get_mut(&id).expect("it was just made").finish(true);
        Ok(id)
    }

    pub(super) fn begin_snapshot(
        &mut self,
        volume_id: String,
        size_gib: u32,
        description: String,
        tags: Tags,
        now: Timestamp,
    ) -> String {
        let snapshot_id = self.ids.next("snap");
        let snapshot = Snapshot {
            snapshot_id: snapshot_id.clone(),
            volume_id,
            size_gib,
            state: SnapshotState::Pending,
            description,
            tags: Lagged::new(tags, now),
            started_at: now,
        };
        self.snapshots.insert(snapshot_id.clone(), snapshot);
        snapshot_id
    }

    /// Removes a snapshot that no image stands on.
    pub fn delete_snapshot(&mut self, snapshot_id: &str, moment: Moment) -> Result<(), ApiError> {
        self.find_snapshot(snapshot_id, moment)?;
        if let Some(image) = self.images.values().find(|image| image.snapshot_id.as_deref() == Some(snapshot_id)) {
            return Err(ApiError::bad(
                "InvalidSnapshot.InUse",
                format!("The snapshot {snapshot_id} is currently in use by {}", image.image_id),
            ));
        }
        self.snapshots.remove(snapshot_id);
        Ok(())
    }
}
