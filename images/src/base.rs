//! What an artifact was built on, as its manifest says it.

use serde::{Deserialize, Serialize};

/// The root that a build ran in, without the packages added for building only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum BuildBase {
    /// A recipe's root.
    Recipe {
        name: String,
        /// `sha256:<hex>` of what goes into the recipe.
        digest: String,
    },
    /// Any other engine image.
    Image {
        /// As `alcedo.yaml` names it.
        reference: String,
        /// `sha256:<hex>`: the engine's id of the image, which follows from its content.
        digest: String,
    },
}

impl BuildBase {
    /// `sha256:<hex>`.
    pub fn digest(&self) -> &str {
        match self {
            Self::Recipe { digest, .. } | Self::Image { digest, .. } => digest,
        }
    }

    /// For people: a recipe's name, or an image's.
    pub fn name(&self) -> &str {
        match self {
            Self::Recipe { name, .. } => name,
            Self::Image { reference, .. } => reference,
        }
    }
}
