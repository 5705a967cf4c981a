//! S3 objects: conditions, checksums, listing, ranges, presigned URLs.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{BucketLocationConstraint, ChecksumAlgorithm, ChecksumMode, CreateBucketConfiguration},
};

use crate::support::{TestRegion, code};

const BUCKET: &str = "bucket";

async fn bucket(region: &TestRegion) -> Client {
    let client = region.s3();
    let place = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuWest1).build();
    client.create_bucket().bucket(BUCKET).create_bucket_configuration(place).send().await.unwrap();
    client
}

fn body(text: &str) -> ByteStream {
    ByteStream::from(text.as_bytes().to_vec())
}

async fn content(client: &Client, key: &str) -> String {
    let answer = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    String::from_utf8(answer.body.collect().await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn of_many_writers_of_one_key_exactly_one_wins() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    let writes = (0..20).map(|writer| {
        let client = client.clone();
        async move {
            let text = writer.to_string();
            let put = client.put_object().bucket(BUCKET).key("runs/1/0001.json").if_none_match("*").body(body(&text));
            (text, put.send().await)
        }
    });
    let outcomes = futures::future::join_all(writes).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
    assert_eq!(won.len(), 1);
    assert_eq!(content(&client, "runs/1/0001.json").await, won[0].0);
    for (_, outcome) in lost {
        let error = outcome.unwrap_err();
        assert_eq!(error.raw_response().unwrap().status().as_u16(), 412);
        assert_eq!(code::<(), _>(Err(error)), "PreconditionFailed");
    }
}

#[tokio::test]
async fn a_write_and_a_delete_can_demand_the_entity_tag_that_was_read() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    let put = |text: &str, etag: &str| {
        client.put_object().bucket(BUCKET).key("VERSION").if_match(etag).body(body(text)).send()
    };
    assert_eq!(code(put("1", "\"absent\"").await), "NoSuchKey");
    let first = client.put_object().bucket(BUCKET).key("VERSION").body(body("1")).send().await.unwrap();
    let first = first.e_tag().unwrap().to_owned();
    let second = put("2", &first).await.unwrap().e_tag().unwrap().to_owned();
    assert_eq!(code(put("3", &first).await), "PreconditionFailed");
    let delete = |etag: &str| client.delete_object().bucket(BUCKET).key("VERSION").if_match(etag).send();
    assert_eq!(code(delete(&first).await), "PreconditionFailed");
    assert_eq!(content(&client, "VERSION").await, "2");
    delete(&second).await.unwrap();
    let gone = client.head_object().bucket(BUCKET).key("VERSION").send().await.unwrap_err();
    assert_eq!(gone.raw_response().unwrap().status().as_u16(), 404);
}

#[tokio::test]
async fn a_wrong_checksum_changes_nothing() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    client.put_object().bucket(BUCKET).key("k").body(body("good")).send().await.unwrap();
    // Base64 of 32 zero bytes: no content has this digest.
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let put = || client.put_object().bucket(BUCKET).key("k").body(body("bad"));
    assert_eq!(code(put().checksum_sha256(zeros).send().await), "BadDigest");
    assert_eq!(code(put().checksum_crc64_nvme("AAAAAAAAAAA=").send().await), "BadDigest");
    assert_eq!(code(put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await), "BadDigest");
    assert_eq!(content(&client, "k").await, "good");
    let files = std::fs::read_dir(region.config.folder.join("s3/bucket/content")).unwrap().count();
    assert_eq!(files, 1, "what was refused is not kept");
}

#[tokio::test]
async fn each_checksum_algorithm_is_taken_and_given_back() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let put = client.put_object().bucket(BUCKET).key("k").checksum_algorithm(algorithm.clone()).body(body("text"));
        put.send().await.unwrap();
        let head = client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);
        let head = head.send().await.unwrap();
        let given = [
            head.checksum_crc32(),
            head.checksum_crc32_c(),
            head.checksum_crc64_nvme(),
            head.checksum_sha1(),
            head.checksum_sha256(),
        ];
        assert_eq!(given.iter().flatten().count(), 1, "{algorithm}");
        // The SDK checks the body against it.
        let get = client.get_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);
        assert_eq!(get.send().await.unwrap().body.collect().await.unwrap().to_vec(), b"text");
    }
}

#[tokio::test]
async fn a_listing_pages_through_keys_and_common_prefixes() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    for key in ["a/VERSION", "a/VERSION/x", "a/1/m", "a/1/n", "a/2/m", "b", "z/ü & <"] {
        client.put_object().bucket(BUCKET).key(key).body(body(key)).send().await.unwrap();
    }
    let list = client.list_objects_v2().bucket(BUCKET).prefix("a/").delimiter("/").max_keys(1);
    let mut pages = list.into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert_eq!(page.key_count(), Some(1));
        found.extend(page.contents().iter().map(|it| it.key().unwrap().to_owned()));
        found.extend(page.common_prefixes().iter().map(|it| it.prefix().unwrap().to_owned()));
    }
    assert_eq!(found, ["a/1/", "a/2/", "a/VERSION", "a/VERSION/"]);
    assert_eq!(content(&client, "z/ü & <").await, "z/ü & <");
    assert_eq!(code(client.delete_bucket().bucket(BUCKET).send().await), "BucketNotEmpty");
    assert_eq!(code(client.list_objects_v2().bucket("none").send().await), "NoSuchBucket");
}

#[tokio::test]
async fn ranges_metadata_and_conditions_of_reads() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .metadata("run", "7")
        .content_type("text/x")
        .body(body("0123456789"));
    let etag = put.send().await.unwrap().e_tag().unwrap().to_owned();
    let get = || client.get_object().bucket(BUCKET).key("k");
    let part = get().range("bytes=2-4").send().await.unwrap();
    assert_eq!(part.content_range(), Some("bytes 2-4/10"));
    assert_eq!(part.metadata().unwrap()["run"], "7");
    assert_eq!(part.content_type(), Some("text/x"));
    assert_eq!(part.body.collect().await.unwrap().to_vec(), b"234");
    let tail = get().range("bytes=-3").send().await.unwrap();
    assert_eq!(tail.body.collect().await.unwrap().to_vec(), b"789");
    assert_eq!(code(get().range("bytes=10-").send().await), "InvalidRange");
    let unchanged = get().if_none_match(&etag).send().await.unwrap_err();
    assert_eq!(unchanged.raw_response().unwrap().status().as_u16(), 304);
    assert_eq!(code(get().if_match("\"other\"").send().await), "PreconditionFailed");
}

#[tokio::test]
async fn a_presigned_url_works_for_anyone_until_it_is_changed() {
    let region = TestRegion::start().await;
    let client = bucket(&region).await;
    client.put_object().bucket(BUCKET).key("k").body(body("for all")).send().await.unwrap();
    let lasts = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let url = client.get_object().bucket(BUCKET).key("k").presigned(lasts).await.unwrap().uri().to_owned();
    assert_eq!(reqwest::get(&url).await.unwrap().text().await.unwrap(), "for all");
    let other = reqwest::get(url.replace("/k?", "/j?")).await.unwrap();
    assert_eq!(other.status().as_u16(), 403);
    assert!(other.text().await.unwrap().contains("SignatureDoesNotMatch"));
    let unsigned = reqwest::get(format!("{}/{BUCKET}/k", region.running.endpoint)).await.unwrap();
    assert_eq!(unsigned.status().as_u16(), 403);
}
