//! Records and pure state machines: every function takes the time as a parameter and does no I/O. [`World::save`] and
//! [`World::load`] are the one exception.

use std::path::Path;

use serde::{Deserialize, Serialize};

pub mod ec2;
pub mod elbv2;
pub mod parameters;

/// All records of a region.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct World {
    /// Version of this file's format; see [`World::FORMAT`].
    pub format: u32,
    pub ec2: ec2::Ec2,
    pub elbv2: elbv2::Elbv2,
    #[serde(default)]
    pub parameters: parameters::Parameters,
}

impl World {
    pub const FORMAT: u32 = 1;
}

impl World {
    const FILE: &str = "records.json";

    /// Writes the records so that a crash leaves either the old or the new ones.
    ///
    /// # Errors
    /// Where the folder cannot be written, e.g. a full disk.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, self)?;
        file.as_file().sync_all()?;
        file.persist(folder.join(Self::FILE)).map_err(|failed| failed.error)?;
        Ok(())
    }

    /// The saved records, or `None` in a fresh folder.
    ///
    /// # Errors
    /// Where the file is there but cannot be read, or is not of this format.
    pub fn load(folder: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(folder.join(Self::FILE)) {
            Ok(bytes) => {
                let world: Self = serde_json::from_slice(&bytes)?;
                if world.format != Self::FORMAT {
                    let told = format!("format {} is not {}, the one that is read", world.format, Self::FORMAT);
                    return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, told));
                }
                Ok(Some(world))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
