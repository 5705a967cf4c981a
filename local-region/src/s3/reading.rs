//! GetObject and HeadObject: conditions, ranges, and what an answer says of the object.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::SystemTime,
};

use s3s::{
    S3Result,
    dto::{
        ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, StreamingBlob, Timestamp,
    },
    s3_error,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{
    checksums::{kind, set_checksum},
    store::{Object, SMALL_BYTES, Store, disk},
};

/// What a read may demand of the object.
struct Demands<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

impl Demands<'_> {
    /// By RFC 9110's precedence: entity tags before times.
    fn check(&self, object: &Object) -> S3Result<()> {
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == object.etag,
        };
        let modified = modified(object);
        let failed = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => !is(condition),
            (None, Some(since)) => modified > *since,
            (None, None) => false,
        };
        if failed {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let unchanged = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => is(condition),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if unchanged { Err(s3_error!(NotModified, "Not Modified")) } else { Ok(()) }
    }
}

/// When the object was written, in whole seconds as HTTP has them.
pub fn modified(object: &Object) -> Timestamp {
    let seconds = jiff::Timestamp::from_second(object.modified.as_second()).unwrap_or(object.modified);
    Timestamp::from(SystemTime::from(seconds))
}

fn wants_checksum(mode: Option<&s3s::dto::ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == s3s::dto::ChecksumMode::ENABLED)
}

/// What S3 calls content whose writer did not say.
fn default_type() -> Option<String> {
    Some("binary/octet-stream".to_owned())
}

pub async fn get(store: &Store, input: GetObjectInput) -> S3Result<GetObjectOutput> {
    let (object, path) = store.object(&input.bucket, &input.key)?;
    Demands {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&object)?;
    let range = input.range.map(|range| range.check(object.size)).transpose()?;
    let (start, length) = range.as_ref().map_or((0, object.size), |range| (range.start, range.end - range.start));
    let body = match content(&path, start, length).await {
        Ok(body) => body,
        // Replaced or deleted since it was looked up; S3 answers with one of the two objects, so look again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (_, path) = store.object(&input.bucket, &input.key)?;
            content(&path, start, length).await.map_err(disk)?
        }
        Err(error) => return Err(disk(error)),
    };

    let attributes = object.attributes.clone();
    let mut output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(body),
        content_length: i64::try_from(length).ok(),
        content_range: range.as_ref().map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, object.size)),
        e_tag: Some(object.e_tag()),
        last_modified: Some(modified(&object)),
        metadata: Some(attributes.metadata.into_iter().collect()),
        content_type: input.response_content_type.or(attributes.content_type).or_else(default_type),
        content_encoding: input.response_content_encoding.or(attributes.content_encoding),
        content_disposition: input.response_content_disposition.or(attributes.content_disposition),
        content_language: input.response_content_language.or(attributes.content_language),
        cache_control: input.response_cache_control.or(attributes.cache_control),
        ..GetObjectOutput::default()
    };
    if wants_checksum(input.checksum_mode.as_ref()) && length == object.size {
        output.checksum_type = object.checksum.as_ref().map(kind);
        set_checksum!(output, &object.checksum);
    }
    Ok(output)
}

/// A part of a file.
async fn content(path: &Path, start: u64, length: u64) -> io::Result<StreamingBlob> {
    if length <= SMALL_BYTES as u64 {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        return Ok(StreamingBlob::from(s3s::Body::from(bytes)));
    }
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(SeekFrom::Start(start)).await?;
    Ok(StreamingBlob::wrap(ReaderStream::with_capacity(file.take(length), 64 << 10)))
}

pub fn head(store: &Store, input: &HeadObjectInput) -> S3Result<HeadObjectOutput> {
    let (object, _) = store.object(&input.bucket, &input.key)?;
    Demands {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&object)?;
    let attributes = object.attributes.clone();
    let mut output = HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(object.size).ok(),
        e_tag: Some(object.e_tag()),
        last_modified: Some(modified(&object)),
        metadata: Some(attributes.metadata.into_iter().collect()),
        content_type: attributes.content_type.or_else(default_type),
        content_encoding: attributes.content_encoding,
        content_disposition: attributes.content_disposition,
        content_language: attributes.content_language,
        cache_control: attributes.cache_control,
        ..HeadObjectOutput::default()
    };
    if wants_checksum(input.checksum_mode.as_ref()) {
        output.checksum_type = object.checksum.as_ref().map(kind);
        set_checksum!(output, &object.checksum);
    }
    Ok(output)
}
