//! Journals, plans and locks in S3, by its conditional writes.

use std::time::Duration;

use alcedo_pipeline::store::{Object, Store, StoreError};
use async_trait::async_trait;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use jiff::Timestamp;

use crate::{clients::Clients, cloud_error::CloudError, guard::StoreClock};

/// A bucket as a [`Store`].
#[derive(Debug, Clone)]
pub struct S3Store {
    client: aws_sdk_s3::Client,
    clock: StoreClock,
    bucket: String,
}

impl S3Store {
    pub fn new(clients: &Clients, bucket: impl Into<String>) -> Self {
        Self { client: clients.s3.clone(), clock: clients.store_clock.clone(), bucket: bucket.into() }
    }

    /// How long ago something was written, by S3's clock.
    fn age(&self, written: Option<&DateTime>) -> Duration {
        let written = written.and_then(|written| Timestamp::from_second(written.secs()).ok());
        let age = written.map(|written| self.clock.now().duration_since(written));
        age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
    }
}

/// 412: somebody else's write won. 409: two writes raced and S3 asks for another attempt; the SDK's answer to that is
/// the caller's, who reads first.
fn failed<E, R>(key: &str, error: SdkError<E, R>) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match error.code() {
        Some("PreconditionFailed" | "ConditionalRequestConflict") => StoreError::Conflict { key: key.to_owned() },
        _ => StoreError::Unavailable {
            key: key.to_owned(),
            source: CloudError::of(format!("reach {key}"), error).into(),
        },
    }
}

#[async_trait]
impl Store for S3Store {
    async fn create(&self, key: &str, bytes: Vec<u8>) -> Result<String, StoreError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).if_none_match("*");
        let answer = put.body(ByteStream::from(bytes)).send().await.map_err(|error| failed(key, error))?;
        Ok(answer.e_tag().unwrap_or_default().to_owned())
    }

    async fn replace(&self, key: &str, bytes: Vec<u8>, tag: &str) -> Result<String, StoreError> {
        let put = self.client.put_object().bucket(&self.bucket).key(key).if_match(tag);
        let answer = put.body(ByteStream::from(bytes)).send().await.map_err(|error| match error.code() {
            // The object is gone, so it is not the one that was read.
            Some("NoSuchKey") => StoreError::Conflict { key: key.to_owned() },
            _ => failed(key, error),
        })?;
        Ok(answer.e_tag().unwrap_or_default().to_owned())
    }

    async fn read(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let answer = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(failed(key, error)),
        };
        let tag = answer.e_tag().unwrap_or_default().to_owned();
        let age = self.age(answer.last_modified());
        let bytes = answer
            .body
            .collect()
            .await
            .map_err(|error| StoreError::Unavailable { key: key.to_owned(), source: Box::new(error) })?;
        Ok(Some(Object { bytes: bytes.to_vec(), tag, age }))
    }

    async fn remove(&self, key: &str, tag: &str) -> Result<(), StoreError> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(key).if_match(tag);
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchKey") => Err(StoreError::Conflict { key: key.to_owned() }),
            Err(error) => Err(failed(key, error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(prefix, error))?;
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        Ok(keys)
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
        let mut pages = list.into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(prefix, error))?;
            let folders = page.common_prefixes().iter().filter_map(|folder| folder.prefix());
            names.extend(folders.map(|folder| folder[prefix.len()..].trim_end_matches('/').to_owned()));
        }
        Ok(names)
    }
}
