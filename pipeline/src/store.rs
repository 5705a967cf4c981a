//! Where journals, plans and locks are kept: objects with compare-and-swap. S3 in use, memory in tests.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

/// What a store answers to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub bytes: Vec<u8>,
    /// Changes with every write of the object.
    pub tag: String,
    /// How long ago it was written, by the store's own clock: readers' clocks may be wrong. To a second, as S3 tells it.
    pub age: Duration,
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer came first: the object exists, or is no longer the one that was read.
    #[error("{key} was written by somebody else")]
    Conflict { key: String },
    /// Whether it was done is unknown.
    #[error("the store did not answer for {key}")]
    Unavailable {
        key: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Objects with compare-and-swap. Reads see every write that was answered before they began.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes an object that must not exist. Answers its tag.
    async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<String, StoreError>;
    /// Overwrites the object that has this tag. Answers the new tag.
    async fn replace(&self, key: &str, bytes: Vec<u8>, tag: &str) -> Result<String, StoreError>;
    async fn read(&self, key: &str) -> Result<Option<Object>, StoreError>;
    /// Removes the object that has this tag.
    async fn remove(&self, key: &str, tag: &str) -> Result<(), StoreError>;
    /// All keys with this prefix, in order.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
    /// The names up to the next `/` after this prefix, in order: what a file manager would show as folders.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
}

/// A store in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<(u64, BTreeMap<String, Written>)>,
}

#[derive(Debug)]
struct Written {
    bytes: Vec<u8>,
    tag: String,
    at: Instant,
}

impl MemoryStore {
    fn with<T>(&self, act: impl FnOnce(&mut u64, &mut BTreeMap<String, Written>) -> T) -> T {
        let mut objects = self.objects.lock().expect("no panic while the objects are held");
        let (writes, map) = &mut *objects;
        act(writes, map)
    }

    fn put(writes: &mut u64, map: &mut BTreeMap<String, Written>, key: &str, bytes: Vec<u8>) -> String {
        *writes += 1;
        let tag = writes.to_string();
        map.insert(key.to_owned(), Written { bytes, tag: tag.clone(), at: Instant::now() });
        tag
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
        self.with(|writes, map| match map.contains_key(key) {
            true => Err(StoreError::Conflict { key: key.into() }),
            false => Ok(Self::put(writes, map, key, bytes)),
        })
    }

    async fn replace(&self, key: &str, bytes: Vec<u8>, tag: &str) -> Result<String, StoreError> {
        self.with(|writes, map| match map.get(key) {
            Some(object) if object.tag == tag => Ok(Self::put(writes, map, key, bytes)),
            _ => Err(StoreError::Conflict { key: key.into() }),
        })
    }

    async fn read(&self, key: &str) -> Result<Option<Object>, StoreError> {
        Ok(self.with(|_, map| {
            let there = map.get(key)?;
            Some(Object { bytes: there.bytes.clone(), tag: there.tag.clone(), age: there.at.elapsed() })
        }))
    }

    async fn remove(&self, key: &str, tag: &str) -> Result<(), StoreError> {
        self.with(|_, map| match map.get(key) {
            Some(object) if object.tag == tag => {
                map.remove(key);
                Ok(())
            }
            _ => Err(StoreError::Conflict { key: key.into() }),
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.with(|_, map| map.keys().filter(|key| key.starts_with(prefix)).cloned().collect()))
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let keys = self.list(prefix).await?;
        let mut names: Vec<String> =
            keys.iter().filter_map(|key| Some(key[prefix.len()..].split_once('/')?.0.to_owned())).collect();
        names.dedup();
        Ok(names)
    }
}
