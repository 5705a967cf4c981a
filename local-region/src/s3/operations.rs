//! The `S3` trait of `s3s`: what a call says, in terms of the store. What is not here answers `NotImplemented`.

use std::{sync::Arc, time::SystemTime};

use s3s::{S3, S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    checksums::{self, Algorithm, set_checksum},
    incoming::{self, Expected},
    listing,
    reading::{self, modified},
    store::{Attributes, Condition, Object, Store},
    uploads::MOST_PART_BYTES,
};
use crate::clock::Clock;

/// Keys of a page unless the call says fewer; S3 never answers more.
const PAGE: usize = 1000;

pub struct Objects {
    pub store: Arc<Store>,
    pub region: String,
    pub clock: Arc<dyn Clock>,
}

pub(super) fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

/// A time as `s3s` writes it.
pub(super) fn time(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from(SystemTime::from(at))
}

pub(super) fn page_size(asked: Option<i32>) -> usize {
    asked.and_then(|size| usize::try_from(size).ok()).map_or(PAGE, |size| size.min(PAGE))
}

/// The algorithm that a request names, by which a checksum is computed where it brings none.
pub(super) fn algorithm(named: Option<&ChecksumAlgorithm>) -> S3Result<Algorithm> {
    match named {
        // What S3 adds by itself to objects that come without a checksum.
        None => Ok(Algorithm::Crc64Nvme),
        Some(name) => Algorithm::named(name.as_str())
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported.")),
    }
}

fn listed(object: &Object) -> s3s::dto::Object {
    s3s::dto::Object {
        key: Some(object.key.clone()),
        size: i64::try_from(object.size).ok(),
        e_tag: Some(object.e_tag()),
        last_modified: Some(time(object.modified)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        checksum_algorithm: object
            .checksum
            .as_ref()
            .map(|checksum| vec![ChecksumAlgorithm::from_static(checksum.algorithm.name())]),
        checksum_type: object.checksum.as_ref().map(checksums::kind),
        ..s3s::dto::Object::default()
    }
}

impl Objects {
    pub(super) fn condition(
        &self,
        bucket: &str,
        key: &str,
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> S3Result<Condition> {
        Ok(Condition { if_match, if_none_match, deletions: self.store.deletions(bucket, key)? })
    }
}

#[async_trait::async_trait]
impl S3 for Objects {
    /// Making one's own bucket again succeeds in us-east-1 and nowhere else, as at AWS.
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        let made = self.store.create_bucket(&bucket, self.clock.now())?;
        if !made && self.region != "us-east-1" {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        answer(CreateBucketOutput { location: Some(format!("/{bucket}")) })
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.with(&req.input.bucket, |_| Ok(()))?;
        answer(HeadBucketOutput { bucket_region: Some(self.region.clone()), ..HeadBucketOutput::default() })
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store.with(&req.input.bucket, |_| Ok(()))?;
        // The oldest region has no name here.
        let named = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        answer(GetBucketLocationOutput { location_constraint: named })
    }

    async fn list_buckets(&self, _req: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.store.buckets();
        let buckets = buckets.iter().map(|(name, bucket)| Bucket {
            name: Some(name.clone()),
            creation_date: Some(time(bucket.created)),
            bucket_region: Some(self.region.clone()),
        });
        answer(ListBucketsOutput { buckets: Some(buckets.collect()), ..ListBucketsOutput::default() })
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store.delete_bucket(&req.input.bucket)?;
        answer(DeleteBucketOutput {})
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let condition = self.condition(&input.bucket, &input.key, input.if_match, input.if_none_match)?;
        let expected = Expected {
            headers: &req.headers,
            trailers: req.trailing_headers,
            content_md5: input.content_md5,
            algorithm: algorithm(input.checksum_algorithm.as_ref())?,
            most_bytes: MOST_PART_BYTES,
        };
        let received = incoming::receive(&self.store, &input.bucket, input.body, expected).await?;
        let content = received.content.clone();
        let mut object = Object::new(input.key, received.content, received.size, received.etag, self.clock.now());
        object.checksum = Some(received.checksum);
        object.attributes = Attributes {
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            content_type: input.content_type,
            content_encoding: without_chunks(input.content_encoding),
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
        };
        let object = match self.store.put(&input.bucket, object, &condition) {
            Ok(object) => object,
            Err(error) => {
                // The loser's content: nothing names it.
                self.store.with(&input.bucket, |bucket| {
                    bucket.drop_content(&content);
                    Ok(())
                })?;
                return Err(error);
            }
        };
        let mut output = PutObjectOutput {
            e_tag: Some(object.e_tag()),
            checksum_type: object.checksum.as_ref().map(checksums::kind),
            ..PutObjectOutput::default()
        };
        set_checksum!(output, &object.checksum);
        answer(output)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        answer(reading::get(&self.store, req.input).await?)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        answer(reading::head(&self.store, &req.input)?)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.store.delete(&req.input.bucket, &req.input.key, req.input.if_match)?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        self.store.with(&input.bucket, |_| Ok(()))?;
        let quiet = input.delete.quiet.unwrap_or(false);
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            let if_match = object.e_tag.map(ETagCondition::ETag);
            match self.store.delete(&input.bucket, &object.key, if_match) {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() }),
                Err(error) => errors.push(Error {
                    key: Some(object.key),
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        answer(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..DeleteObjectsOutput::default() })
    }

    /// Copies within the region. The copy is an object of its own: conditions on the source are not taken.
    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket: from_bucket, key: from_key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "The source of a copy is a bucket and a key"));
        };
        let (source, from) = self.store.object(from_bucket, from_key)?;
        let (content, to) = self.store.new_content(&input.bucket)?;
        tokio::fs::copy(&from, &to).await.map_err(super::store::disk)?;
        let mut copy = Object::new(input.key, content, source.size, source.etag.clone(), self.clock.now());
        copy.checksum.clone_from(&source.checksum);
        let replace = input.metadata_directive.is_some_and(|it| it.as_str() == MetadataDirective::REPLACE);
        copy.attributes = if replace {
            Attributes {
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
                content_type: input.content_type,
                content_encoding: input.content_encoding,
                content_disposition: input.content_disposition,
                content_language: input.content_language,
                cache_control: input.cache_control,
            }
        } else {
            source.attributes.clone()
        };
        let copy = self.store.put(&input.bucket, copy, &Condition::default())?;
        let mut result = CopyObjectResult {
            e_tag: Some(copy.e_tag()),
            last_modified: Some(modified(&copy)),
            ..CopyObjectResult::default()
        };
        set_checksum!(result, &copy.checksum);
        answer(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() })
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let most = page_size(input.max_keys);
        let page = self.store.with(&input.bucket, |bucket| {
            let query = listing::Query {
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
                after: input.continuation_token.as_deref().or(input.start_after.as_deref()),
                most,
            };
            Ok(if most == 0 { listing::Page::default() } else { listing::list(&bucket.objects, &query) })
        })?;
        let count = page.objects.len() + page.common_prefixes.len();
        answer(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(input.prefix.unwrap_or_default()),
            delimiter: input.delimiter,
            encoding_type: input.encoding_type,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            max_keys: i32::try_from(most).ok(),
            key_count: i32::try_from(count).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.objects.iter().map(|object| listed(object)).collect()),
            common_prefixes: Some(
                page.common_prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect(),
            ),
            ..ListObjectsV2Output::default()
        })
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let marker = req.input.marker.clone();
        let mut request = req.map_input(ListObjectsV2Input::from);
        request.input.start_after.clone_from(&marker);
        let page = self.list_objects_v2(request).await?.output;
        answer(ListObjectsOutput {
            name: page.name,
            prefix: page.prefix,
            marker,
            delimiter: page.delimiter,
            encoding_type: page.encoding_type,
            max_keys: page.max_keys,
            is_truncated: page.is_truncated,
            next_marker: page.next_continuation_token,
            contents: page.contents,
            common_prefixes: page.common_prefixes,
            ..ListObjectsOutput::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.begin_upload(req).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.take_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete_upload(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store.abort_upload(&req.input.bucket, &req.input.key, &req.input.upload_id)?;
        answer(AbortMultipartUploadOutput::default())
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.open_uploads(req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.parts_of(req).await
    }
}

/// `aws-chunked` is how the body travelled, not what the object is.
pub(super) fn without_chunks(encoding: Option<String>) -> Option<String> {
    let kept: Vec<String> = encoding?
        .split(',')
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty() && name != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}
