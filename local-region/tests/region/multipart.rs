//! Multipart uploads: parts, their checksums and sizes, the race for the key, and what an abort leaves.

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};

use crate::support::{TestRegion, code};

const BUCKET: &str = "bucket";
const KEY: &str = "app/artifact";
const PART: usize = 5 << 20;

struct Upload {
    client: Client,
    id: String,
    parts: Vec<CompletedPart>,
}

impl Upload {
    async fn begin(client: &Client) -> Self {
        let begin =
            client.create_multipart_upload().bucket(BUCKET).key(KEY).checksum_algorithm(ChecksumAlgorithm::Sha256);
        let id = begin.send().await.unwrap().upload_id().unwrap().to_owned();
        Self { client: client.clone(), id, parts: Vec::new() }
    }

    async fn add(&mut self, bytes: Vec<u8>) {
        let number = i32::try_from(self.parts.len() + 1).unwrap();
        let part = self
            .client
            .upload_part()
            .bucket(BUCKET)
            .key(KEY)
            .upload_id(&self.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .body(ByteStream::from(bytes));
        let part = part.send().await.unwrap();
        let completed = CompletedPart::builder()
            .part_number(number)
            .e_tag(part.e_tag().unwrap())
            .checksum_sha256(part.checksum_sha256().unwrap());
        self.parts.push(completed.build());
    }

    fn complete(
        &self,
    ) -> aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let call = self.client.complete_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&self.id);
        call.multipart_upload(parts).if_none_match("*")
    }
}

async fn bucket(region: &TestRegion) -> Client {
    let client = region.s3();
    client.create_bucket().bucket(BUCKET).send().await.unwrap();
    client
}

fn content_files(region: &TestRegion) -> usize {
    std::fs::read_dir(region.config.folder.join("s3/bucket/content")).unwrap().count()
}

#[tokio::test]
async fn parts_become_one_object_that_is_never_overwritten() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    let (mut first, mut second) = (Upload::begin(&client).await, Upload::begin(&client).await);
    first.add(vec![1; PART]).await;
    first.add(vec![2; 10]).await;
    second.add(vec![3; 10]).await;
    let done = first.complete().send().await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""));
    assert!(done.checksum_sha256().unwrap().ends_with("-2"), "composite");
    assert_eq!(code(second.complete().send().await), "PreconditionFailed");
    let object = client.get_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    let bytes = object.body.collect().await.unwrap().to_vec();
    assert_eq!(bytes, [vec![1; PART], vec![2; 10]].concat());
    // The loser is still an upload; aborted, nothing of it is left.
    client.abort_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&second.id).send().await.unwrap();
    assert_eq!(content_files(&region), 1);
}

#[tokio::test]
async fn wrong_parts_are_refused() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    let mut upload = Upload::begin(&client).await;
    upload.add(vec![1; 10]).await;
    upload.add(vec![2; 10]).await;
    assert_eq!(code(upload.complete().send().await), "EntityTooSmall");
    let complete = |parts: Vec<CompletedPart>| {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        upload.complete().multipart_upload(parts).send()
    };
    let reversed = upload.parts.iter().rev().cloned().collect();
    assert_eq!(code(complete(reversed).await), "InvalidPartOrder");
    let absent = CompletedPart::builder().part_number(3).e_tag("\"x\"").build();
    assert_eq!(code(complete(vec![absent]).await), "InvalidPart");
    let wrong = client
        .upload_part()
        .bucket(BUCKET)
        .key(KEY)
        .upload_id(&upload.id)
        .part_number(3)
        .checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        .body(ByteStream::from_static(b"x"));
    assert_eq!(code(wrong.send().await), "BadDigest");
    let declared = upload.complete().checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=-1");
    let parts = CompletedMultipartUpload::builder().parts(upload.parts[0].clone()).build();
    assert_eq!(code(declared.multipart_upload(parts).send().await), "BadDigest");
    complete(vec![upload.parts[0].clone()]).await.unwrap();
    assert_eq!(content_files(&region), 1, "parts that were left out are gone");
}

#[tokio::test]
async fn an_abort_leaves_nothing_and_an_upload_survives_a_restart() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    let mut upload = Upload::begin(&client).await;
    upload.add(vec![1; 10]).await;
    let region = region.restart().await;
    let client = region.s3();
    let listed = client.list_parts().bucket(BUCKET).key(KEY).upload_id(&upload.id).send().await.unwrap();
    assert_eq!(listed.parts().len(), 1);
    let open = client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(open.uploads()[0].upload_id(), Some(upload.id.as_str()));
    client.abort_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&upload.id).send().await.unwrap();
    assert_eq!(content_files(&region), 0);
    let again = client.abort_multipart_upload().bucket(BUCKET).key(KEY).upload_id(&upload.id).send().await;
    assert_eq!(code(again), "NoSuchUpload");
}
