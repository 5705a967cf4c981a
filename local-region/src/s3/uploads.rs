//! Multipart uploads: parts are content that only the upload's record names, until it is completed.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use s3s::{S3Result, dto::CompletedPart, s3_error};
use serde::{Deserialize, Serialize};

use super::{
    checksums::{self, Algorithm, Checksum, Hasher},
    incoming::Received,
    store::{Attributes, Bucket, Condition, Object, Store, disk, write_record},
};

/// Every part but the last has at least this many bytes.
const LEAST_PART_BYTES: u64 = 5 << 20;

/// A part, or an object that comes in one piece, has at most this many.
pub const MOST_PART_BYTES: u64 = 5 << 30;

/// Parts are numbered from 1 to this.
pub const MOST_PARTS: i32 = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    pub format: u32,
    pub upload_id: String,
    pub key: String,
    pub initiated: Timestamp,
    /// The algorithm of the parts' checksums.
    pub algorithm: Algorithm,
    /// Whether the object's checksum will be the parts' rather than the content's.
    pub composite: bool,
    pub attributes: Attributes,
    pub parts: BTreeMap<i32, Part>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    pub content: String,
    pub size: u64,
    pub etag: String,
    pub checksum: Checksum,
    pub modified: Timestamp,
}

/// What CompleteMultipartUpload says.
pub struct Completion {
    pub parts: Vec<CompletedPart>,
    /// The checksum of the whole object, where the client says what it must be.
    pub checksum: Option<Checksum>,
    pub condition: Condition,
}

impl Bucket {
    fn upload_record(&self, upload_id: &str) -> PathBuf {
        self.folder.join("uploads").join(upload_id)
    }

    pub fn upload(&self, upload_id: &str, key: &str) -> S3Result<&Upload> {
        self.uploads.get(upload_id).filter(|upload| upload.key == key).ok_or_else(|| {
            s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted \
                 or completed."
            )
        })
    }

    fn save_upload(&mut self, upload: Upload) -> S3Result<()> {
        write_record(&self.upload_record(&upload.upload_id), &upload, self.syncs).map_err(disk)?;
        self.uploads.insert(upload.upload_id.clone(), upload);
        Ok(())
    }

    /// Forgets an upload and drops its parts' content.
    fn drop_upload(&mut self, upload_id: &str) -> S3Result<()> {
        fs::remove_file(self.upload_record(upload_id)).map_err(disk)?;
        if let Some(upload) = self.uploads.remove(upload_id) {
            upload.parts.values().for_each(|part| self.drop_content(&part.content));
        }
        Ok(())
    }
}

impl Store {
    /// Begins an upload and answers its id.
    pub fn begin_upload(&self, bucket: &str, mut upload: Upload) -> S3Result<String> {
        upload.upload_id = format!("{:032x}", rand::random::<u128>());
        let id = upload.upload_id.clone();
        self.with(bucket, |bucket| bucket.save_upload(upload))?;
        Ok(id)
    }

    /// Adds a part, in place of an earlier one of the same number.
    pub fn add_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: i32,
        received: Received,
        now: Timestamp,
    ) -> S3Result<()> {
        self.with(bucket, |bucket| {
            let content = received.content.clone();
            let add = |bucket: &mut Bucket| {
                let mut upload = bucket.upload(upload_id, key)?.clone();
                let Received { content, size, etag, checksum } = received;
                let old = upload.parts.insert(number, Part { content, size, etag, checksum, modified: now });
                bucket.save_upload(upload)?;
                Ok(old)
            };
            match add(bucket) {
                Ok(old) => {
                    old.iter().for_each(|part| bucket.drop_content(&part.content));
                    Ok(())
                }
                Err(error) => {
                    bucket.drop_content(&content);
                    Err(error)
                }
            }
        })
    }

    pub fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> S3Result<()> {
        self.with(bucket, |bucket| {
            bucket.upload(upload_id, key)?;
            bucket.drop_upload(upload_id)
        })
    }

    /// Joins the parts into an object, if the condition holds. Reads and writes files: not for an async thread.
    ///
    /// # Errors
    /// `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`, `BadDigest`, or the condition's; the upload stays then.
    pub fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        completion: &Completion,
        now: Timestamp,
    ) -> S3Result<Arc<Object>> {
        let upload = self.with(bucket, |bucket| bucket.upload(upload_id, key).cloned())?;
        let parts = chosen(&upload, &completion.parts)?;
        let (content, path) = self.new_content(bucket)?;
        let finish = || {
            let sources = self.with(bucket, |bucket| {
                Ok(parts.iter().map(|part| bucket.content(&part.content)).collect::<Vec<_>>())
            })?;
            let (size, full) = join(&path, &sources, upload.algorithm).map_err(disk)?;
            let bad_part = || s3_error!(InvalidPart, "A part's digest cannot be read");
            let value = if upload.composite {
                let digests = parts.iter().map(|part| part.checksum.value.as_str());
                checksums::compose(upload.algorithm, digests).ok_or_else(bad_part)?
            } else {
                full
            };
            let checksum = Checksum { algorithm: upload.algorithm, value };
            if let Some(declared) = &completion.checksum
                && !agrees(declared, &checksum)
            {
                let name = declared.algorithm.name();
                return Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."));
            }
            let etag = checksums::compose_etag(parts.iter().map(|part| part.etag.as_str())).ok_or_else(bad_part)?;
            let mut object = Object::new(key.to_owned(), content.clone(), size, etag, now);
            object.attributes = upload.attributes.clone();
            object.checksum = Some(checksum);
            self.with(bucket, |bucket| {
                // Completed or aborted meanwhile: then its parts may be gone.
                bucket.upload(upload_id, key)?;
                let object = bucket.put(object, &completion.condition)?;
                bucket.drop_upload(upload_id)?;
                Ok(object)
            })
        };
        let outcome = finish();
        if outcome.is_err() {
            // It may not even have been made.
            let _ = fs::remove_file(&path);
        }
        outcome
    }
}

/// Whether what the client declares is what was computed. SDKs may leave out a composite's number of parts.
fn agrees(declared: &Checksum, computed: &Checksum) -> bool {
    declared.algorithm == computed.algorithm
        && (declared.value == computed.value
            || computed.value.split_once('-').is_some_and(|(digest, _)| digest == declared.value))
}

/// The parts that the client names, checked against those that came.
fn chosen<'a>(upload: &'a Upload, named: &[CompletedPart]) -> S3Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    let mut parts: Vec<&Part> = Vec::new();
    let mut before = 0;
    for name in named {
        let number = name.part_number.unwrap_or(0);
        if number <= before {
            return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
        }
        before = number;
        let absent = || s3_error!(InvalidPart, "One or more of the specified parts could not be found.");
        let part = upload.parts.get(&number).ok_or_else(absent)?;
        if name.e_tag.as_ref().is_some_and(|etag| etag.value() != part.etag) {
            return Err(absent());
        }
        let declared = [
            (Algorithm::Crc32, &name.checksum_crc32),
            (Algorithm::Crc32c, &name.checksum_crc32c),
            (Algorithm::Crc64Nvme, &name.checksum_crc64nvme),
            (Algorithm::Sha1, &name.checksum_sha1),
            (Algorithm::Sha256, &name.checksum_sha256),
        ];
        for (algorithm, value) in declared {
            if value.as_ref().is_some_and(|value| part.checksum != Checksum { algorithm, value: value.clone() }) {
                return Err(s3_error!(InvalidPart, "A part's checksum is not the one that it came with."));
            }
        }
        parts.push(part);
    }
    if parts.split_last().is_some_and(|(_, others)| others.iter().any(|part| part.size < LEAST_PART_BYTES)) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
    }
    Ok(parts)
}

/// Writes the parts' content one after another, and answers its size and the digest of all of it.
fn join(path: &std::path::Path, sources: &[PathBuf], algorithm: Algorithm) -> std::io::Result<(u64, String)> {
    let mut file = fs::File::create(path)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    for source in sources {
        let mut part = fs::File::open(source)?;
        loop {
            let count = part.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            size += count as u64;
        }
    }
    file.sync_all()?;
    Ok((size, hasher.finish()))
}
