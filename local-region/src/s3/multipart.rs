//! The calls of multipart uploads, for [`super::operations`].

use s3s::{S3Request, S3Response, S3Result, dto::*, s3_error};

use super::{
    checksums::{self, Algorithm, set_checksum},
    incoming::{self, Expected},
    operations::{Objects, algorithm, answer, page_size, time, without_chunks},
    store::Attributes,
    uploads::{Completion, MOST_PART_BYTES, MOST_PARTS, Upload},
};

impl Objects {
    pub(super) async fn begin_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let algorithm = algorithm(input.checksum_algorithm.as_ref())?;
        let composite = match input.checksum_type.as_ref().map(ChecksumType::as_str) {
            None => algorithm.is_composite_by_default(),
            Some(kind) => kind == ChecksumType::COMPOSITE,
        };
        let sha = matches!(algorithm, Algorithm::Sha1 | Algorithm::Sha256);
        if composite == (algorithm == Algorithm::Crc64Nvme) || (sha && !composite) {
            return Err(s3_error!(InvalidRequest, "The checksum type and the checksum algorithm do not go together"));
        }
        let upload = Upload {
            format: 1,
            upload_id: String::new(),
            key: input.key.clone(),
            initiated: self.clock.now(),
            algorithm,
            composite,
            attributes: Attributes {
                metadata: input.metadata.unwrap_or_default().into_iter().collect(),
                content_type: input.content_type,
                content_encoding: without_chunks(input.content_encoding),
                content_disposition: input.content_disposition,
                content_language: input.content_language,
                cache_control: input.cache_control,
            },
            parts: Default::default(),
        };
        let upload_id = self.store.begin_upload(&input.bucket, upload)?;
        let kind = if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        answer(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: Some(ChecksumType::from_static(kind)),
            ..CreateMultipartUploadOutput::default()
        })
    }

    pub(super) async fn take_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        if !(1..=MOST_PARTS).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
        }
        let algorithm =
            self.store.with(&input.bucket, |bucket| Ok(bucket.upload(&input.upload_id, &input.key)?.algorithm))?;
        let expected = Expected {
            headers: &req.headers,
            trailers: req.trailing_headers,
            content_md5: input.content_md5,
            algorithm,
            most_bytes: MOST_PART_BYTES,
        };
        let received = incoming::receive(&self.store, &input.bucket, input.body, expected).await?;
        let mut output =
            UploadPartOutput { e_tag: Some(ETag::Strong(received.etag.clone())), ..UploadPartOutput::default() };
        set_checksum!(output, &Some(received.checksum.clone()));
        let (bucket, number) = (&input.bucket, input.part_number);
        self.store.add_part(bucket, &input.key, &input.upload_id, number, received, self.clock.now())?;
        answer(output)
    }

    pub(super) async fn complete_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let completion = Completion {
            parts: input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default(),
            checksum: checksums::in_headers(&req.headers),
            condition: self.condition(&input.bucket, &input.key, input.if_match, input.if_none_match)?,
        };
        let (store, now) = (self.store.clone(), self.clock.now());
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let joined = tokio::task::spawn_blocking(move || {
            store.complete_upload(&bucket, &key, &input.upload_id, &completion, now)
        });
        let object = joined.await.map_err(s3s::S3Error::internal_error)??;
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(object.e_tag()),
            checksum_type: object.checksum.as_ref().map(checksums::kind),
            ..CompleteMultipartUploadOutput::default()
        };
        set_checksum!(output, &object.checksum);
        answer(output)
    }

    pub(super) async fn open_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let mut uploads: Vec<MultipartUpload> = self.store.with(&req.input.bucket, |bucket| {
            let found = bucket.uploads.values().filter(|upload| upload.key.starts_with(&prefix));
            Ok(found
                .map(|upload| MultipartUpload {
                    key: Some(upload.key.clone()),
                    upload_id: Some(upload.upload_id.clone()),
                    initiated: Some(time(upload.initiated)),
                    ..MultipartUpload::default()
                })
                .collect())
        })?;
        uploads.sort_by(|a, b| (&a.key, &a.upload_id).cmp(&(&b.key, &b.upload_id)));
        answer(ListMultipartUploadsOutput {
            bucket: Some(req.input.bucket),
            prefix: req.input.prefix,
            is_truncated: Some(false),
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        })
    }

    pub(super) async fn parts_of(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let most = page_size(input.max_parts);
        let after = input.part_number_marker.unwrap_or(0);
        let upload = self.store.with(&input.bucket, |bucket| bucket.upload(&input.upload_id, &input.key).cloned())?;
        let mut parts: Vec<Part> = upload
            .parts
            .range(after + 1..)
            .take(most + 1)
            .map(|(number, part)| {
                let mut listed = Part {
                    part_number: Some(*number),
                    size: i64::try_from(part.size).ok(),
                    e_tag: Some(ETag::Strong(part.etag.clone())),
                    last_modified: Some(time(part.modified)),
                    ..Part::default()
                };
                set_checksum!(listed, &Some(part.checksum.clone()));
                listed
            })
            .collect();
        let more = parts.len() > most;
        parts.truncate(most);
        answer(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(more),
            next_part_number_marker: parts.last().filter(|_| more).and_then(|part| part.part_number),
            parts: Some(parts),
            ..ListPartsOutput::default()
        })
    }
}
