//! Records and pure state machines: every function takes the time as a parameter and does no I/O. [`World::save`] and
//! [`World::load`] are the one exception.

use std::path::Path;

use serde::{Deserialize, Serialize};

pub mod ec2;
pub mod elbv2;

/// All records of a region.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct World {
    /// Version of this file's format; see [`World::FORMAT`].
    pub format: u32,
    pub ec2: ec2::Ec2,
    pub elbv2: elbv2::Elbv2,
}

impl World {
    pub const FORMAT: u32 = 1;
}
