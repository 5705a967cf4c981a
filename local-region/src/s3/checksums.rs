//! The checksum algorithms of S3's integrity checks.
//!
//! Source: *Checking object integrity in Amazon S3* in the S3 user guide. A part's or whole object's checksum is the
//! base64 of its digest. A multipart object has either a checksum of its full content (the CRCs) or a *composite* one:
//! the digest of the parts' digests, a hyphen, and the number of parts.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use s3s::{
    crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256},
    dto,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As requests and answers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => dto::ChecksumAlgorithm::CRC32,
            Self::Crc32c => dto::ChecksumAlgorithm::CRC32C,
            Self::Crc64Nvme => dto::ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => dto::ChecksumAlgorithm::SHA1,
            Self::Sha256 => dto::ChecksumAlgorithm::SHA256,
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The header or trailer that carries it.
    fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Whether a multipart object's checksum is composite unless the upload says otherwise.
    pub fn is_composite_by_default(self) -> bool {
        self != Self::Crc64Nvme
    }
}

/// A checksum as it is kept and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    pub algorithm: Algorithm,
    /// Base64; with `-<parts>` where it is composite.
    pub value: String,
}

/// The checksum that the headers (or trailers) of a request bring, if any.
pub fn in_headers(headers: &HeaderMap) -> Option<Checksum> {
    Algorithm::ALL.into_iter().find_map(|algorithm| {
        let value = headers.get(algorithm.header())?.to_str().ok()?.to_owned();
        Some(Checksum { algorithm, value })
    })
}

/// The algorithm of a checksum that follows the body as a trailer.
pub fn announced(headers: &HeaderMap) -> Option<Algorithm> {
    let trailers = headers.get("x-amz-trailer")?.to_str().ok()?;
    Algorithm::ALL
        .into_iter()
        .find(|algorithm| trailers.split(',').any(|name| name.trim().eq_ignore_ascii_case(algorithm.header())))
}

/// Digests content as it comes.
pub enum Hasher {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(Crc32::new()),
            Algorithm::Crc32c => Self::Crc32c(Crc32c::new()),
            Algorithm::Crc64Nvme => Self::Crc64Nvme(Crc64Nvme::new()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32(hasher) => hasher.update(bytes),
            Self::Crc32c(hasher) => hasher.update(bytes),
            Self::Crc64Nvme(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// Base64 of the digest.
    pub fn finish(self) -> String {
        match self {
            Self::Crc32(hasher) => STANDARD.encode(hasher.finalize()),
            Self::Crc32c(hasher) => STANDARD.encode(hasher.finalize()),
            Self::Crc64Nvme(hasher) => STANDARD.encode(hasher.finalize()),
            Self::Sha1(hasher) => STANDARD.encode(hasher.finalize()),
            Self::Sha256(hasher) => STANDARD.encode(hasher.finalize()),
        }
    }
}

/// The composite checksum of parts; `None` where a part's is not base64.
pub fn compose<'a>(algorithm: Algorithm, parts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut hasher = Hasher::new(algorithm);
    let mut count = 0;
    for part in parts {
        hasher.update(&STANDARD.decode(part).ok()?);
        count += 1;
    }
    Some(format!("{}-{count}", hasher.finish()))
}

/// The entity tag of a multipart object: the MD5 of the parts' MD5s, and their number.
pub fn compose_etag<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut md5 = Md5::new();
    let mut count = 0;
    for part in parts {
        md5.update(&hex::decode(part).ok()?);
        count += 1;
    }
    Some(format!("{}-{count}", hex::encode(md5.finalize())))
}

/// Sets the one of an answer's five checksum fields that the object has.
macro_rules! set_checksum {
    ($output:expr, $checksum:expr) => {
        if let Some(checksum) = $checksum {
            let value = Some(checksum.value.clone());
            match checksum.algorithm {
                $crate::s3::checksums::Algorithm::Crc32 => $output.checksum_crc32 = value,
                $crate::s3::checksums::Algorithm::Crc32c => $output.checksum_crc32c = value,
                $crate::s3::checksums::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = value,
                $crate::s3::checksums::Algorithm::Sha1 => $output.checksum_sha1 = value,
                $crate::s3::checksums::Algorithm::Sha256 => $output.checksum_sha256 = value,
            }
        }
    };
}
pub(super) use set_checksum;

/// Whether an object's checksum is of its full content or of its parts'.
pub fn kind(checksum: &Checksum) -> dto::ChecksumType {
    let name = if checksum.value.contains('-') { dto::ChecksumType::COMPOSITE } else { dto::ChecksumType::FULL_OBJECT };
    dto::ChecksumType::from_static(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests_of_123456789() {
        // The check values of the CRC catalogue, and of FIPS 180, for the string of nine digits.
        let digest = |algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"12345");
            hasher.update(b"6789");
            hex::encode(STANDARD.decode(hasher.finish()).unwrap())
        };
        assert_eq!(digest(Algorithm::Crc32), "cbf43926");
        assert_eq!(digest(Algorithm::Crc32c), "e3069283");
        assert_eq!(digest(Algorithm::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(digest(Algorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
    }

    #[test]
    fn composites_count_their_parts() {
        let mut part = Hasher::new(Algorithm::Sha256);
        part.update(b"part");
        let part = part.finish();
        let whole = compose(Algorithm::Sha256, [part.as_str(), part.as_str()]).unwrap();
        assert!(whole.ends_with("-2"));
        assert_eq!(kind(&Checksum { algorithm: Algorithm::Sha256, value: whole }).as_str(), "COMPOSITE");
    }
}
