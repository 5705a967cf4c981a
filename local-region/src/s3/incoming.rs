//! A body on its way to disk. Nothing refers to it before its length and checksums are checked.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt;
use http::HeaderMap;
use s3s::{
    S3Error, S3Result, TrailingHeaders,
    crypto::{Checksum as _, Md5},
    dto::StreamingBlob,
    s3_error,
};
use tokio::io::AsyncWriteExt;

use super::{
    checksums::{self, Algorithm, Checksum, Hasher},
    store::{SMALL_BYTES, Store, Syncs, disk},
};

/// What a request says its body will be.
pub struct Expected<'a> {
    pub headers: &'a HeaderMap,
    pub trailers: Option<TrailingHeaders>,
    pub content_md5: Option<String>,
    /// The algorithm that the caller wants where the request brings no checksum.
    pub algorithm: Algorithm,
    pub most_bytes: u64,
}

/// Checked content on disk.
pub struct Received {
    /// Its file, within the bucket's `content`.
    pub content: String,
    pub size: u64,
    /// Hexadecimal MD5.
    pub etag: String,
    pub checksum: Checksum,
}

/// Writes a body into the bucket's content and checks it.
///
/// # Errors
/// `BadDigest` where a checksum is another than the request says, `EntityTooLarge`, and whatever the body's stream ends
/// with, such as a signature that does not match. Nothing is left on disk then.
pub async fn receive(
    store: &Store,
    bucket: &str,
    body: Option<StreamingBlob>,
    expected: Expected<'_>,
) -> S3Result<Received> {
    let (content, path) = store.new_content(bucket)?;
    let outcome = write(store, &path, body, expected).await;
    match outcome {
        Ok((size, etag, checksum)) => Ok(Received { content, size, etag, checksum }),
        Err(error) => {
            // It may not even have been made.
            let _ = tokio::fs::remove_file(&path).await;
            Err(error)
        }
    }
}

async fn write(
    store: &Store,
    path: &Path,
    body: Option<StreamingBlob>,
    expected: Expected<'_>,
) -> S3Result<(u64, String, Checksum)> {
    let declared = checksums::in_headers(expected.headers);
    let algorithm = declared
        .as_ref()
        .map(|checksum| checksum.algorithm)
        .or_else(|| checksums::announced(expected.headers))
        .unwrap_or(expected.algorithm);
    let mut file = Content::new(path);
    let (mut md5, mut hasher, mut size) = (Md5::new(), Hasher::new(algorithm), 0);
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(stream_error)?;
            size += chunk.len() as u64;
            if size > expected.most_bytes {
                return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
            }
            md5.update(&chunk);
            hasher.update(&chunk);
            file.write(&chunk).await.map_err(disk)?;
        }
    }
    file.finish(store.syncs()).await.map_err(disk)?;

    let (md5, value) = (md5.finalize(), hasher.finish());
    if expected.content_md5.is_some_and(|declared| declared != STANDARD.encode(md5)) {
        return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    let trailing = expected.trailers.and_then(|trailers| trailers.take());
    let declared = declared.or_else(|| trailing.as_ref().and_then(checksums::in_headers));
    if declared.is_some_and(|declared| declared.value != value) {
        let name = algorithm.name();
        return Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."));
    }
    Ok((size, hex::encode(md5), Checksum { algorithm, value }))
}

/// Content on its way to its file. What is small is written at once, without a thread's help.
struct Content<'a> {
    path: &'a Path,
    small: Vec<u8>,
    large: Option<tokio::fs::File>,
}

impl<'a> Content<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, small: Vec::new(), large: None }
    }

    async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.large.is_none() && self.small.len() + chunk.len() <= SMALL_BYTES {
            self.small.extend_from_slice(chunk);
            return Ok(());
        }
        let file = match &mut self.large {
            Some(file) => file,
            none => none.insert(tokio::fs::File::create(self.path).await?),
        };
        file.write_all(&std::mem::take(&mut self.small)).await?;
        file.write_all(chunk).await
    }

    async fn finish(self, syncs: Syncs) -> io::Result<()> {
        let Some(mut file) = self.large else {
            let mut file = std::fs::File::create(self.path)?;
            std::io::Write::write_all(&mut file, &self.small)?;
            return if syncs == Syncs::Each { file.sync_all() } else { Ok(()) };
        };
        file.flush().await?;
        if syncs == Syncs::Each { file.sync_all().await } else { Ok(()) }
    }
}

/// What ended the stream early: a failed check of `s3s`, which has its own code, or a connection that was lost.
fn stream_error(error: s3s::StdError) -> S3Error {
    match error.downcast::<S3Error>() {
        Ok(refused) => *refused,
        Err(other) => {
            let mut refused = s3_error!(IncompleteBody, "The request body ended early, or is not what was signed.");
            refused.set_source(other);
            refused
        }
    }
}
