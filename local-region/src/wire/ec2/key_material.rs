//! Keys in the forms that EC2 gives and takes.
//!
//! Source: *Amazon EC2 key pairs* in the EC2 user guide, for the private key's forms and for how a fingerprint is made:
//! SHA-1 of the PKCS#8 private key for an RSA key that EC2 made, MD5 of the DER public key for an RSA key that was
//! imported, and OpenSSH's SHA-256 for ED25519.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs1::EncodeRsaPrivateKey,
    pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding},
};
use s3s::crypto::{Checksum, Md5, Sha1};
use ssh_key::{Algorithm, HashAlg, PrivateKey, PublicKey, public::KeyData};

use crate::wire::ApiError;

/// Size of the RSA keys that EC2 makes.
const RSA_BITS: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rsa,
    Ed25519,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// A key that was made here.
pub struct Made {
    pub private_key: String,
    pub public_key: String,
    pub fingerprint: String,
}

/// A public key that was brought.
pub struct Brought {
    pub kind: Kind,
    pub public_key: String,
    pub fingerprint: String,
}

/// Why a key could not be made: the machine's randomness, or an encoder.
#[derive(Debug, thiserror::Error)]
#[error("the key could not be generated")]
pub struct GenerateError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl GenerateError {
    fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

pub fn generate(kind: Kind) -> Result<Made, GenerateError> {
    match kind {
        Kind::Rsa => generate_rsa(),
        Kind::Ed25519 => {
            let key = PrivateKey::random(&mut rsa::rand_core::OsRng, Algorithm::Ed25519).map_err(GenerateError::new)?;
            Ok(Made {
                private_key: key.to_openssh(LineEnding::LF).map_err(GenerateError::new)?.to_string(),
                public_key: key.public_key().to_openssh().map_err(GenerateError::new)?,
                fingerprint: sha256_fingerprint(key.public_key()),
            })
        }
    }
}

fn generate_rsa() -> Result<Made, GenerateError> {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).map_err(GenerateError::new)?;
    let pkcs8 = key.to_pkcs8_der().map_err(GenerateError::new)?;
    let public = ssh_key::public::RsaPublicKey::try_from(key.to_public_key()).map_err(GenerateError::new)?;
    Ok(Made {
        private_key: key.to_pkcs1_pem(LineEnding::LF).map_err(GenerateError::new)?.to_string(),
        public_key: PublicKey::from(KeyData::Rsa(public)).to_openssh().map_err(GenerateError::new)?,
        fingerprint: colons(&Sha1::checksum(pkcs8.as_bytes())),
    })
}

/// Reads base64 of a line in OpenSSH's form, as `ImportKeyPair` takes it. The comment is dropped, as EC2 does.
///
/// # Errors
/// `InvalidKey.Format` for anything but an RSA or ED25519 public key.
pub fn read_public(material: &str) -> Result<Brought, ApiError> {
    let refused = || ApiError::bad("InvalidKey.Format", "Key is not in valid OpenSSH public key format");
    let bytes = STANDARD.decode(material.trim()).map_err(|_| refused())?;
    let text = String::from_utf8(bytes).map_err(|_| refused())?;
    let mut key = PublicKey::from_openssh(text.trim()).map_err(|_| refused())?;
    key.set_comment("");
    let (kind, fingerprint) = match key.key_data() {
        KeyData::Ed25519(_) => (Kind::Ed25519, sha256_fingerprint(&key)),
        KeyData::Rsa(public) => {
            let public = RsaPublicKey::try_from(public).map_err(|_| refused())?;
            let der = public.to_public_key_der().map_err(|_| refused())?;
            (Kind::Rsa, colons(&Md5::checksum(der.as_bytes())))
        }
        _ => return Err(refused()),
    };
    Ok(Brought { kind, public_key: key.to_openssh().map_err(|_| refused())?, fingerprint })
}

/// OpenSSH's fingerprint without its `SHA256:`, padded as EC2 shows it.
fn sha256_fingerprint(key: &PublicKey) -> String {
    STANDARD.encode(key.fingerprint(HashAlg::Sha256).as_bytes())
}

fn colons(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_keys_are_pairs_in_the_documented_forms() {
        for (kind, header) in [(Kind::Rsa, "RSA PRIVATE KEY"), (Kind::Ed25519, "OPENSSH PRIVATE KEY")] {
            let made = generate(kind).unwrap();
            assert!(made.private_key.starts_with(&format!("-----BEGIN {header}-----")), "{kind:?}");
            let brought = read_public(&STANDARD.encode(format!("{} comment", made.public_key))).unwrap();
            assert_eq!((brought.kind, &brought.public_key), (kind, &made.public_key));
        }
    }

    #[test]
    fn a_private_key_or_rubbish_is_refused() {
        for text in ["rubbish", "ssh-dss AAAA", "-----BEGIN RSA PRIVATE KEY-----"] {
            assert_eq!(read_public(&STANDARD.encode(text)).err().unwrap().code, "InvalidKey.Format");
        }
    }
}
