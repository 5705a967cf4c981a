//! Images (AMIs): recipe roots that the engine holds, and captured servers.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ec2, Lagged, Moment, Tags, ids};
use crate::{instances::BaseImage, wire::ApiError};

/// The one root device of every image.
pub const ROOT_DEVICE: &str = "/dev/xvda";

/// Account that the region answers as.
pub const ACCOUNT: &str = "000000000000";

const GIB: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageState {
    Pending,
    Available,
    Failed,
}

impl ImageState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    pub image_id: String,
    pub name: String,
    pub description: Option<String>,
    pub state: ImageState,
    /// Why it failed.
    pub state_reason: Option<String>,
    /// What the engine calls its root; `None` while it is captured.
    pub reference: Option<String>,
    /// Size of the root volume that an instance gets by default.
    pub volume_gib: u32,
    /// `None` for a recipe's root, which no snapshot stands behind.
    pub snapshot_id: Option<String>,
    pub source_instance: Option<String>,
    /// Whether CreateImage left the instance running.
    pub no_reboot: bool,
    /// `ImdsSupport=v2.0`: tokens are required at launch unless the launch says otherwise.
    pub imds_v2: bool,
    /// Present for a recipe's root: `sha256:…`.
    pub recipe_digest: Option<String>,
    /// Accounts and groups that may launch it, as a record.
    pub launch_permissions: Vec<LaunchPermission>,
    pub tags: Lagged<Tags>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaunchPermission {
    User(String),
    Group(String),
}

/// What CreateImage asks for.
#[derive(Debug, Clone, Default)]
pub struct ImageRequest {
    pub instance_id: String,
    pub name: String,
    pub description: Option<String>,
    pub no_reboot: bool,
    pub image_tags: Tags,
    pub snapshot_tags: Tags,
}

/// Gibibytes of volume for a root of this size: at least the 8 GiB of AWS's Debian images.
fn volume_for(size_bytes: u64) -> u32 {
    u32::try_from(size_bytes.div_ceil(GIB)).unwrap_or(u32::MAX).max(8)
}

/// CreateImage's rule for names: 3–128 characters of letters, digits and `()[] ./-'@_`.
fn check_name(name: &str) -> Result<(), ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if (3..=128).contains(&name.chars().count()) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(ApiError::bad(
        "InvalidAMIName.Malformed",
        "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', \
         '/', '_', '[', ']', '@', ''' and spaces",
    ))
}

impl Ec2 {
    /// Makes the images of recipe roots match what the engine holds. A root's id follows from its digest, so the same
    /// root is the same image in every region. Answers whether anything changed.
    pub fn sync_base_images(&mut self, held: &[BaseImage], lag: SignedDuration, now: Timestamp) -> bool {
        let before = self.images.len();
        let wanted: Vec<String> = held.iter().map(|base| ids::id_of("ami", base.digest.as_bytes())).collect();
        self.images.retain(|id, image| image.recipe_digest.is_none() || wanted.contains(id));
        let removed = before != self.images.len();
        let mut changed = removed;
        for (base, image_id) in held.iter().zip(wanted) {
            if let Some(image) = self.images.get_mut(&image_id) {
                changed |= image.reference.as_deref() != Some(&base.reference);
                image.reference = Some(base.reference.clone());
                continue;
            }
            changed = true;
            let digest = base.digest.strip_prefix("sha256:").unwrap_or(&base.digest);
            let short: String = digest.chars().take(12).collect();
            let tags = Tags::from([
                ("alcedo:recipe".to_owned(), base.recipe.clone()),
                ("alcedo:recipe-digest".to_owned(), base.digest.clone()),
            ]);
            let image = Image {
                image_id: image_id.clone(),
                name: format!("alcedo/{}/{short}", base.recipe),
                description: Some(format!("Root of the recipe {}", base.recipe)),
                state: ImageState::Available,
                state_reason: None,
                reference: Some(base.reference.clone()),
                volume_gib: volume_for(base.size_bytes),
                snapshot_id: None,
                source_instance: None,
                no_reboot: false,
                imds_v2: true,
                recipe_digest: Some(base.digest.clone()),
                launch_permissions: Vec::new(),
                tags: Lagged::new(tags, now),
                // It was there before anyone asked, so no reader may miss it.
                created_at: now.saturating_sub(lag).unwrap_or(Timestamp::MIN),
            };
            self.images.insert(image_id, image);
        }
        changed
    }

    pub fn image(&self, image_id: &str) -> Option<&Image> {
        self.images.get(image_id)
    }

    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.values()
    }

    /// The image if a reader already sees it.
    pub fn find_image(&self, image_id: &str, moment: Moment) -> Result<&Image, ApiError> {
        if !image_id.starts_with("ami-") {
            return Err(ApiError::bad("InvalidAMIID.Malformed", format!("Invalid id: \"{image_id}\"")));
        }
        self.images.get(image_id).filter(|image| moment.sees(image.created_at)).ok_or_else(|| {
            ApiError::bad("InvalidAMIID.NotFound", format!("The image id '[{image_id}]' does not exist"))
        })
    }

    /// Begins an image of an instance: it is `pending` until [`Ec2::finish_image`].
    ///
    /// # Errors
    /// Where the name is malformed or taken, or the instance is neither running nor stopped.
    pub fn begin_image(&mut self, request: &ImageRequest, moment: Moment) -> Result<String, ApiError> {
        check_name(&request.name)?;
        let instance = self.find_instance(&request.instance_id, moment)?;
        if !matches!(instance.state, super::InstanceState::Running | super::InstanceState::Stopped) {
            return Err(ApiError::bad(
                "IncorrectInstanceState",
                format!(
                    "The instance '{}' is not in the 'running' or 'stopped' state, but {}.",
                    request.instance_id,
                    instance.state.name()
                ),
            ));
        }
        if let Some(taken) = self.images.values().find(|image| image.name == request.name) {
            return Err(ApiError::bad(
                "InvalidAMIName.Duplicate",
                format!("AMI name {} is already in use by AMI {}", request.name, taken.image_id),
            ));
        }
        let root = instance.block_devices.first().map(|device| device.volume_id.clone());
        let imds_v2 = self.images.get(&instance.image_id).is_some_and(|image| image.imds_v2);
        let volume_gib = root.as_ref().and_then(|id| self.volumes.get(id)).map_or(8, |volume| volume.size_gib);
        let image_id = self.ids.next("ami");
        let snapshot_id = self.begin_snapshot(
            root.unwrap_or_default(),
            volume_gib,
            format!("Created by CreateImage({}) for {image_id}", request.instance_id),
            request.snapshot_tags.clone(),
            moment.now,
        );
        let image = Image {
            image_id: image_id.clone(),
            name: request.name.clone(),
            description: request.description.clone(),
            state: ImageState::Pending,
            state_reason: None,
            reference: None,
            volume_gib,
            snapshot_id: Some(snapshot_id),
            source_instance: Some(request.instance_id.clone()),
            no_reboot: request.no_reboot,
            imds_v2,
            recipe_digest: None,
            launch_permissions: Vec::new(),
            tags: Lagged::new(request.image_tags.clone(), moment.now),
            created_at: moment.now,
        };
        self.images.insert(image_id.clone(), image);
        Ok(image_id)
    }

    /// Ends an image's `pending`: with the engine's reference and size of its root, or with why it failed.
    pub fn finish_image(&mut self, image_id: &str, outcome: Result<(String, u64), String>) {
        let Some(image) = self.images.get_mut(image_id) else { return };
        let snapshot_id = image.snapshot_id.clone();
        let done = outcome.is_ok();
        match outcome {
            Ok((reference, size_bytes)) => {
                image.state = ImageState::Available;
                image.reference = Some(reference);
                image.volume_gib = image.volume_gib.max(volume_for(size_bytes));
            }
            Err(reason) => {
                image.state = ImageState::Failed;
                image.state_reason = Some(reason);
            }
        }
        if let Some(snapshot) = snapshot_id.and_then(|id| self.snapshots.get_mut(&id)) {
            snapshot.finish(done);
        }
    }

    /// Removes an image; its snapshot stays. Answers the engine's reference of the root where nothing else uses it.
    ///
    /// # Errors
    /// Where there is no such image, or it is a recipe's root, which only the engine can remove.
    pub fn deregister_image(&mut self, image_id: &str, moment: Moment) -> Result<Option<String>, ApiError> {
        let image = self.find_image(image_id, moment)?;
        if image.recipe_digest.is_some() {
            return Err(ApiError::bad(
                "AuthFailure",
                format!("The image '{image_id}' is the root of a recipe that the engine holds; remove it there"),
            ));
        }
        let image = self.images.remove(image_id);
        Ok(image.and_then(|image| image.reference))
    }

    /// Changes who may launch an image. Recorded only: a region has one account.
    pub fn change_launch_permissions(
        &mut self,
        image_id: &str,
        add: Vec<LaunchPermission>,
        remove: &[LaunchPermission],
        moment: Moment,
    ) -> Result<(), ApiError> {
        self.find_image(image_id, moment)?;
        let image = self.images.get_mut(image_id).expect("it was just found");
        image.launch_permissions.retain(|permission| !remove.contains(permission));
        for permission in add {
            if !image.launch_permissions.contains(&permission) {
                image.launch_permissions.push(permission);
            }
        }
        Ok(())
    }

    /// Sets an image's description.
    pub fn describe_image_as(&mut self, image_id: &str, text: &str, moment: Moment) -> Result<(), ApiError> {
        self.find_image(image_id, moment)?;
        self.images.get_mut(image_id).expect("it was just found").description = Some(text.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_documented_rule() {
        assert!(check_name("hello-2026.1120.190512 (a/b) [c]@_'").is_ok());
        for bad in ["ab", "name+plus", &"x".repeat(129)] {
            assert_eq!(check_name(bad).unwrap_err().code, "InvalidAMIName.Malformed", "{bad}");
        }
    }

    #[test]
    fn a_recipes_root_is_the_same_image_everywhere_and_leaves_with_the_engine() {
        let base = BaseImage {
            recipe: "debian-bookworm".into(),
            digest: "sha256:0123456789abcdef".into(),
            reference: "engine/ref".into(),
            size_bytes: 1,
        };
        let (mut one, mut other) = (Ec2::default(), Ec2::default());
        assert!(one.sync_base_images(std::slice::from_ref(&base), SignedDuration::ZERO, Timestamp::UNIX_EPOCH));
        assert!(!one.sync_base_images(std::slice::from_ref(&base), SignedDuration::ZERO, Timestamp::UNIX_EPOCH));
        other.sync_base_images(&[base], SignedDuration::ZERO, Timestamp::UNIX_EPOCH);
        let names: Vec<_> = one.images().map(|image| (&image.image_id, &image.name)).collect();
        assert_eq!(names, other.images().map(|image| (&image.image_id, &image.name)).collect::<Vec<_>>());
        assert_eq!(names[0].1, "alcedo/debian-bookworm/0123456789ab");
        assert!(one.sync_base_images(&[], SignedDuration::ZERO, Timestamp::UNIX_EPOCH));
        assert_eq!(one.images().count(), 0);
    }
}
