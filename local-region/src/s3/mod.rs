//! S3: wire formats and signatures by the `s3s` crate, objects in the region's folder.
//!
//! `s3s` brings a file system backend of its own, which is not used: it replaces an object before it has checked the
//! checksum of the new one, decides conditional writes without a lock, and keeps keys as paths, so that `VERSION` and
//! `VERSION/x` exclude each other. What is built on here is its wire layer alone.
//!
//! | file | holds |
//! |---|---|
//! | [`store`] | buckets, objects and uploads: an index in memory, files on disk, conditions decided under one lock |
//! | [`checksums`] | the five algorithms: computing, comparing, composing |
//! | [`incoming`] | a body on its way to disk, checked before anything refers to it |
//! | [`operations`], [`multipart`] | the `S3` trait: each call in terms of the others |

use std::sync::Arc;

use s3s::{
    S3Result,
    auth::{S3Auth, SecretKey},
    config::{S3Config, StaticConfigProvider},
    s3_error,
    service::{S3Service, S3ServiceBuilder},
};

use crate::{clock::Clock, wire::sigv4::Keys};

pub mod checksums;
mod incoming;
mod listing;
mod multipart;
mod operations;
mod reading;
mod store;
mod uploads;

pub use store::{Store, Syncs};

/// S3 over `store`, for the holder of `keys`.
pub fn service(store: Store, keys: &Keys, region: &str, clock: Arc<dyn Clock>) -> S3Service {
    // `s3s` judges the time of a signature by the machine's clock alone, and a simulation goes by its own.
    let simulated = store.syncs() == Syncs::Never;
    let mut builder =
        S3ServiceBuilder::new(operations::Objects { store: Arc::new(store), region: region.to_owned(), clock });
    if simulated {
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    }
    builder.set_auth(OneKey(keys.clone()));
    builder.build()
}

struct OneKey(Keys);

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.0.access_key {
            return Ok(SecretKey::from(self.0.secret_key.as_str()));
        }
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}
