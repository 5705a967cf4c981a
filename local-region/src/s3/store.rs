//! Buckets and objects: an index in memory, files on disk.
//!
//! ```text
//! <bucket>/bucket.json                 when it was made
//! <bucket>/objects/<sha256 of key>     one object's record, naming its content
//! <bucket>/content/<random>            content; never changed once a record names it
//! <bucket>/uploads/<upload id>         one multipart upload's record, naming its parts' content
//! ```
//!
//! A record is replaced by a rename, after its content is on disk: a crash leaves the old object or the new one. Every
//! condition is decided under the lock under which the record is replaced.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::Timestamp;
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{ETag, ETagCondition},
    s3_error,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{checksums::Checksum, uploads::Upload};

/// The version of the record files' format.
const FORMAT: u32 = 1;

/// Content up to this size is written and read at once; a journal's entries are. More goes through threads of its own, so
/// that nobody waits for a disk.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// One object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Object {
    pub format: u32,
    pub key: String,
    /// File of its content, within the bucket's `content`.
    pub content: String,
    pub size: u64,
    pub etag: String,
    pub modified: Timestamp,
    pub checksum: Option<Checksum>,
    pub attributes: Attributes,
}

/// What a writer says of an object and a reader gets back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub metadata: BTreeMap<String, String>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub content_disposition: Option<String>,
    pub content_language: Option<String>,
    pub cache_control: Option<String>,
}

/// What must hold of a key for a write or delete to happen.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    /// How often the key had been deleted when the request began; see [`Store::deletions`].
    pub deletions: u64,
}

impl Condition {
    /// # Errors
    /// `PreconditionFailed` (412); `NoSuchKey` (404) for `If-Match` on what is not there; `ConditionalRequestConflict`
    /// (409) where the key was deleted while the request was under way.
    fn check(&self, current: Option<&Object>, deletions: u64) -> S3Result<()> {
        if (self.if_match.is_some() || self.if_none_match.is_some()) && self.deletions != deletions {
            return Err(s3_error!(
                ConditionalRequestConflict,
                "The conditional request cannot succeed due to a conflicting operation against this resource."
            ));
        }
        let failed = || s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold");
        match (&self.if_match, current) {
            (None, _) | (Some(ETagCondition::Any), Some(_)) => {}
            (Some(_), None) => return Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Some(ETagCondition::ETag(wanted)), Some(object)) if wanted.value() == object.etag => {}
            (Some(ETagCondition::ETag(_)), Some(_)) => return Err(failed()),
        }
        match (&self.if_none_match, current) {
            (Some(ETagCondition::Any), Some(_)) => Err(failed()),
            (Some(ETagCondition::ETag(_)), _) => {
                Err(s3_error!(NotImplemented, "A conditional write takes no If-None-Match but *"))
            }
            _ => Ok(()),
        }
    }
}

pub(super) struct Bucket {
    pub folder: PathBuf,
    pub created: Timestamp,
    pub objects: BTreeMap<String, Arc<Object>>,
    pub uploads: BTreeMap<String, Upload>,
    deletions: HashMap<String, u64>,
    pub syncs: Syncs,
}

/// Whether what is written is on disk before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    Each,
    /// For simulations, which nobody takes up after a crash.
    Never,
}

#[derive(Debug, Serialize, Deserialize)]
struct BucketRecord {
    format: u32,
    created: Timestamp,
}

/// All buckets under one folder.
pub struct Store {
    folder: PathBuf,
    syncs: Syncs,
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

impl Store {
    /// Opens the folder, making it if it is not there, and drops content that no record names: what a crash left.
    ///
    /// # Errors
    /// Where the folder cannot be used, or a record in it cannot be read.
    pub fn open(folder: &Path, syncs: Syncs) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut buckets = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (Ok(name), true) = (entry.file_name().into_string(), entry.file_type()?.is_dir()) else { continue };
            // A crash between making the folder and its record leaves no bucket.
            if entry.path().join("bucket.json").exists() {
                buckets.insert(name, Bucket::open(entry.path(), syncs)?);
            }
        }
        Ok(Self { folder: folder.to_owned(), syncs, buckets: Mutex::new(buckets) })
    }

    pub(super) fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().expect("no panic while the index is held")
    }

    /// Looks at, or changes, one bucket.
    ///
    /// # Errors
    /// `NoSuchBucket`, or whatever `work` answers.
    pub(super) fn with<T>(&self, name: &str, work: impl FnOnce(&mut Bucket) -> S3Result<T>) -> S3Result<T> {
        match self.buckets().get_mut(name) {
            Some(bucket) => work(bucket),
            None => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")),
        }
    }

    /// Makes a bucket. Answers `false` where it is there already.
    pub fn create_bucket(&self, name: &str, now: Timestamp) -> S3Result<bool> {
        let mut buckets = self.buckets();
        if buckets.contains_key(name) {
            return Ok(false);
        }
        let folder = self.folder.join(name);
        let make = || {
            for part in ["objects", "content", "uploads"] {
                fs::create_dir_all(folder.join(part))?;
            }
            let record = BucketRecord { format: FORMAT, created: now };
            write_record(&folder.join("bucket.json"), &record, self.syncs)
        };
        make().map_err(disk)?;
        let bucket = Bucket {
            folder,
            created: now,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            deletions: HashMap::new(),
            syncs: self.syncs,
        };
        buckets.insert(name.to_owned(), bucket);
        Ok(true)
    }

    /// Removes an empty bucket.
    pub fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets();
        let bucket = buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        if !bucket.objects.is_empty() {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        // The record goes first: without it the rest is no bucket.
        fs::remove_file(bucket.folder.join("bucket.json")).map_err(disk)?;
        fs::remove_dir_all(&bucket.folder).map_err(disk)?;
        buckets.remove(name);
        Ok(())
    }

    /// The object and the file of its content.
    pub fn object(&self, bucket: &str, key: &str) -> S3Result<(Arc<Object>, PathBuf)> {
        self.with(bucket, |bucket| {
            let object = bucket.objects.get(key).cloned();
            let object = object.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?;
            let path = bucket.content(&object.content);
            Ok((object, path))
        })
    }

    /// How often a key has been deleted: what a conditional write compares at its end with its beginning.
    pub fn deletions(&self, bucket: &str, key: &str) -> S3Result<u64> {
        self.with(bucket, |bucket| Ok(bucket.deletions.get(key).copied().unwrap_or(0)))
    }

    /// Puts an object whose content is on disk already, if the condition holds.
    pub fn put(&self, bucket: &str, object: Object, condition: &Condition) -> S3Result<Arc<Object>> {
        self.with(bucket, |bucket| bucket.put(object, condition))
    }

    /// Removes an object, if the condition holds. Deleting what is not there succeeds.
    pub fn delete(&self, bucket: &str, key: &str, if_match: Option<ETagCondition>) -> S3Result<()> {
        self.with(bucket, |bucket| {
            let deletions = bucket.deletions.get(key).copied().unwrap_or(0);
            let condition = Condition { if_match, if_none_match: None, deletions };
            condition.check(bucket.objects.get(key).map(Arc::as_ref), deletions)?;
            let Some(object) = bucket.objects.get(key).cloned() else { return Ok(()) };
            fs::remove_file(bucket.record(key)).map_err(disk)?;
            bucket.objects.remove(key);
            *bucket.deletions.entry(key.to_owned()).or_default() += 1;
            bucket.drop_content(&object.content);
            Ok(())
        })
    }

    pub(super) fn syncs(&self) -> Syncs {
        self.syncs
    }

    /// A file for content to come, outside the lock: nothing names it yet.
    pub fn new_content(&self, bucket: &str) -> S3Result<(String, PathBuf)> {
        let name = format!("{:032x}", rand::random::<u128>());
        let path = self.with(bucket, |bucket| Ok(bucket.content(&name)))?;
        Ok((name, path))
    }
}

impl Bucket {
    fn open(folder: PathBuf, syncs: Syncs) -> io::Result<Self> {
        let record: BucketRecord = read_record(&folder.join("bucket.json"))?;
        let mut objects = BTreeMap::new();
        for object in read_records::<Object>(&folder.join("objects"))? {
            objects.insert(object.key.clone(), Arc::new(object));
        }
        let mut uploads = BTreeMap::new();
        for upload in read_records::<Upload>(&folder.join("uploads"))? {
            uploads.insert(upload.upload_id.clone(), upload);
        }
        let bucket = Self { folder, created: record.created, objects, uploads, deletions: HashMap::new(), syncs };
        bucket.drop_unnamed()?;
        Ok(bucket)
    }

    fn drop_unnamed(&self) -> io::Result<()> {
        let parts = self.uploads.values().flat_map(|upload| upload.parts.values().map(|part| &part.content));
        let named: Vec<&String> = self.objects.values().map(|object| &object.content).chain(parts).collect();
        for entry in fs::read_dir(self.folder.join("content"))? {
            let entry = entry?;
            if !named.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub fn content(&self, name: &str) -> PathBuf {
        self.folder.join("content").join(name)
    }

    /// Keys are not file names: they may hold anything, and be longer than a name can be.
    fn record(&self, key: &str) -> PathBuf {
        self.folder.join("objects").join(hex::encode(Sha256::digest(key)))
    }

    pub fn put(&mut self, object: Object, condition: &Condition) -> S3Result<Arc<Object>> {
        let deletions = self.deletions.get(&object.key).copied().unwrap_or(0);
        condition.check(self.objects.get(&object.key).map(Arc::as_ref), deletions)?;
        write_record(&self.record(&object.key), &object, self.syncs).map_err(disk)?;
        let object = Arc::new(object);
        if let Some(old) = self.objects.insert(object.key.clone(), object.clone()) {
            self.drop_content(&old.content);
        }
        Ok(object)
    }

    /// Readers that have it open keep it.
    pub fn drop_content(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.content(name)) {
            tracing::warn!(%error, "content that nothing names could not be removed; the next start does");
        }
    }
}

impl Object {
    pub fn e_tag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    pub(super) fn new(key: String, content: String, size: u64, etag: String, modified: Timestamp) -> Self {
        let attributes = Attributes::default();
        Self { format: FORMAT, key, content, size, etag, modified, checksum: None, attributes }
    }
}

/// The error of a disk that is full or gone.
pub(super) fn disk(error: io::Error) -> S3Error {
    let message = format!("the region's folder cannot be used: {error}");
    let mut answer = S3Error::with_message(S3ErrorCode::InternalError, message);
    answer.set_source(Box::new(error));
    answer
}

/// Writes a record so that a crash leaves the old one or the new one.
pub(super) fn write_record(path: &Path, record: &impl Serialize, syncs: Syncs) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = fs::File::create(&next)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    if syncs == Syncs::Each {
        file.sync_all()?;
    }
    fs::rename(&next, path)
}

fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let value: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
    if value.get("format").and_then(serde_json::Value::as_u64) != Some(u64::from(FORMAT)) {
        let told = format!("{} is not of format {FORMAT}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, told));
    }
    Ok(serde_json::from_value(value)?)
}

fn read_records<T: DeserializeOwned>(folder: &Path) -> io::Result<Vec<T>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some() {
            fs::remove_file(&path)?;
        } else {
            records.push(read_record(&path)?);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, condition: &Condition) -> Result<(), String> {
        let (content, path) = store.new_content("b").unwrap();
        fs::write(path, b"x").unwrap();
        let object = Object::new("k".to_owned(), content, 1, "e".to_owned(), Timestamp::UNIX_EPOCH);
        store.put("b", object, condition).map(drop).map_err(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn a_conditional_write_that_a_delete_overtakes_is_told_to_try_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Syncs::Each).unwrap();
        store.create_bucket("b", Timestamp::UNIX_EPOCH).unwrap();
        let absent =
            |deletions| Condition { if_none_match: Some(ETagCondition::Any), deletions, ..Condition::default() };
        let begun = store.deletions("b", "k").unwrap();
        put(&store, &absent(begun)).unwrap();
        assert_eq!(put(&store, &absent(begun)).unwrap_err(), "PreconditionFailed");
        store.delete("b", "k", None).unwrap();
        assert_eq!(put(&store, &absent(begun)).unwrap_err(), "ConditionalRequestConflict");
        put(&store, &absent(store.deletions("b", "k").unwrap())).unwrap();
    }

    #[test]
    fn content_that_no_record_names_is_dropped_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Syncs::Each).unwrap();
        store.create_bucket("b", Timestamp::UNIX_EPOCH).unwrap();
        put(&store, &Condition::default()).unwrap();
        let (_, lost) = store.new_content("b").unwrap();
        fs::write(&lost, b"half").unwrap();
        drop(store);
        let store = Store::open(folder.path(), Syncs::Each).unwrap();
        assert!(!lost.exists());
        assert!(store.object("b", "k").unwrap().1.exists());
    }
}
