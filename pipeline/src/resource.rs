//! What a step made in the cloud.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A thing that exists because a step made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// The field's word for it: `instance`, `target group`, `security group rule`, `image`, `object`…
    pub kind: String,
    /// The id that the cloud's API takes: an id, an ARN, a key.
    pub id: String,
}

impl Resource {
    pub fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// Adds what one call has made to a list of what is known, each once.
    pub fn remember<'a>(known: &mut Vec<Self>, made: impl IntoIterator<Item = &'a Self>) {
        for resource in made {
            if !known.contains(resource) {
                known.push(resource.clone());
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}
