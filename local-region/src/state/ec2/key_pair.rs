//! Key pairs: the region keeps public keys only; a private key leaves in the one answer that made it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Ec2, Lagged, Tags};
use crate::wire::ApiError;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyPair {
    pub key_pair_id: String,
    pub name: String,
    /// `rsa` or `ed25519`.
    pub key_type: String,
    /// As EC2 shows it; how it is computed depends on the type and on who made the key.
    pub fingerprint: String,
    /// One line in OpenSSH's form.
    pub public_key: String,
    pub tags: Lagged<Tags>,
    pub created_at: Timestamp,
}

/// A key that is to be kept under a name.
#[derive(Debug, Clone)]
pub struct NewKeyPair {
    pub name: String,
    pub key_type: String,
    pub fingerprint: String,
    pub public_key: String,
    pub tags: Tags,
}

impl Ec2 {
    pub fn key_pairs(&self) -> impl Iterator<Item = &KeyPair> {
        self.key_pairs.values()
    }

    pub fn key_pair(&self, name: &str) -> Option<&KeyPair> {
        self.key_pairs.get(name)
    }

    /// Keeps a public key. Key pairs are seen at once: AWS is not known to lag here, and no token could repair it.
    ///
    /// # Errors
    /// `InvalidKeyPair.Duplicate` where the name is taken.
    pub fn add_key_pair(&mut self, new: NewKeyPair, now: Timestamp) -> Result<&KeyPair, ApiError> {
        if new.name.chars().count() > 255 {
            return Err(ApiError::invalid("KeyName", &new.name, "A name has at most 255 characters."));
        }
        self.refuse_taken_key_name(&new.name)?;
        let key_pair = KeyPair {
            key_pair_id: self.ids.next("key"),
            name: new.name.clone(),
            key_type: new.key_type,
            fingerprint: new.fingerprint,
            public_key: new.public_key,
            tags: Lagged::new(new.tags, now),
            created_at: now,
        };
        Ok(self.key_pairs.entry(new.name).or_insert(key_pair))
    }

    pub fn refuse_taken_key_name(&self, name: &str) -> Result<(), ApiError> {
        if self.key_pairs.contains_key(name) {
            return Err(ApiError::bad("InvalidKeyPair.Duplicate", format!("The keypair '{name}' already exists.")));
        }
        Ok(())
    }

    /// Forgets a key pair by name or id. Deleting an absent one succeeds, as at AWS.
    pub fn delete_key_pair(&mut self, name: Option<&str>, id: Option<&str>) -> Option<KeyPair> {
        let found = self
            .key_pairs
            .values()
            .find(|pair| name == Some(&pair.name) || id == Some(&pair.key_pair_id))
            .map(|pair| pair.name.clone())?;
        self.key_pairs.remove(&found)
    }
}
