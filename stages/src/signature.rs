//! Who has published a version: an Ed25519 signature over the exact bytes of its manifest, in `manifest.json.sig` beside it.
//!
//! The manifest holds the artifact's digest, so that whoever trusts the one has the other. **Guarantees.** Where the file
//! names keys, no artifact and no image made of one is used whose manifest is not signed by one of them; the bytes that were
//! verified are the bytes that are read. **Caveats.** A fleet that is held was verified when it was launched, and gets its
//! traffic back without another look. What a signature does not say: that a version is the newest, or is for this environment.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use alcedo_pipeline::secret::{Redactor, Secret, Secrets};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{
    Signature, SignatureError, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{self, DecodePrivateKey, DecodePublicKey, EncodePublicKey},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The variable that has the private key: the path of a PEM file, its text, or the line between its markers.
pub const VARIABLE: &str = "ALCEDO_SIGNING_KEY";

/// How a key's DER begins in base64 (RFC 8410, 7 and 4): up to here, those of all Ed25519 keys are alike.
const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEI";
const PUBLIC: &str = "MCowBQYDK2VwAyEA";

/// What a public key is known by: SHA-256 of its DER, as `openssl pkey -pubin -outform DER | sha256sum` tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    fn of(key: &VerifyingKey) -> Self {
        let der = key.to_public_key_der().expect("32 bytes have a DER");
        Self(hex::encode(Sha256::digest(der.as_bytes())))
    }

    /// Enough of it for a person to tell keys apart.
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(16)]
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a key cannot be used. Nothing of a private one is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the file that {VARIABLE} names cannot be read")]
    PrivateFile(#[source] io::Error),
    #[error("{VARIABLE} holds no Ed25519 private key")]
    Private(#[source] pkcs8::Error),
    #[error("the key `{entry}` of publish.signed_by cannot be read")]
    PublicFile {
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("`{entry}` of publish.signed_by is no Ed25519 public key")]
    Public {
        entry: String,
        #[source]
        source: pkcs8::spki::Error,
    },
    #[error("`{entry}` of publish.signed_by is a weak key: anybody can sign for it")]
    Weak { entry: String },
    #[error("{VARIABLE} holds the key {}, which publish.signed_by does not name", .0.short())]
    NotTrusted(KeyId),
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::PrivateFile(_) | Self::Private(_) => {
                "set it to the path or the text of what `openssl genpkey -algorithm ed25519` has made"
            }
            Self::NotTrusted(_) => {
                "add its public half, from `openssl pkey -pubout`, or sign with a key that is named there"
            }
            _ => {
                "name a PEM file from `openssl pkey -pubout`, or the line between its markers; paths start at alcedo.yaml"
            }
        }
    }
}

/// Why a version is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("it is not signed")]
    Unsigned,
    #[error("it is signed by the key {}, which publish.signed_by does not name", .0.short())]
    Stranger(KeyId),
    #[error("its signature is none: {0}")]
    NoSignature(String),
    #[error("its signature by the key {} is not one of this manifest", .0.short())]
    Forged(KeyId),
}

impl Distrust {
    /// Whether nothing is wrong with it but that nobody who is trusted has signed it: so was all that came before the first key.
    pub fn is_of_before(&self) -> bool {
        matches!(self, Self::Unsigned | Self::Stranger(_))
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unsigned | Self::Stranger(_) => {
                "build its commit again, which signs it; a key that was in use before is named in publish.signed_by as well"
            }
            Self::NoSignature(_) | Self::Forged(_) => {
                "the bucket holds what nobody with a trusted key has published: find out who wrote it, and build again"
            }
        }
    }
}

/// `manifest.json.sig`. Which key it says it is by is a hint, and proves nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    format: u32,
    algorithm: String,
    key: KeyId,
    /// Base64 of 64 bytes (RFC 8032, 5.1.6).
    signature: String,
}

const FORMAT: u32 = 1;
const ALGORITHM: &str = "ed25519";

/// A private key. Its memory is overwritten when it goes.
pub struct Signer {
    key: SigningKey,
    pub id: KeyId,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.id.short())
    }
}

impl Signer {
    /// The key that the environment names; `None` where it names none. What is printed is cleaned of it from then on.
    ///
    /// # Errors
    /// What is there is no key.
    pub fn of_environment(redactor: &Redactor) -> Result<Option<Self>, KeyError> {
        let Some(named) = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        let text = private(&named)?;
        let lines = text.expose().lines().filter(|line| !line.starts_with("-----"));
        redactor.learn(&Secrets::from([(VARIABLE.to_owned(), Secret::new(lines.collect::<String>()))]));
        Self::of_text(&text).map(Some)
    }

    /// # Errors
    /// What is there is no key.
    pub fn read(named: &str) -> Result<Self, KeyError> {
        Self::of_text(&private(named)?)
    }

    fn of_text(text: &Secret) -> Result<Self, KeyError> {
        let key = match der(text.expose(), PRIVATE) {
            Some(der) => SigningKey::from_pkcs8_der(&der),
            None => SigningKey::from_pkcs8_pem(text.expose()),
        };
        let key = key.map_err(KeyError::Private)?;
        let id = KeyId::of(&key.verifying_key());
        Ok(Self { key, id })
    }

    /// What is kept beside a manifest of these bytes. The same bytes have the same signature.
    pub fn sign(&self, manifest: &[u8]) -> Vec<u8> {
        let signature = STANDARD.encode(self.key.sign(manifest).to_bytes());
        let signed = Signed { format: FORMAT, algorithm: ALGORITHM.into(), key: self.id.clone(), signature };
        serde_json::to_vec_pretty(&signed).expect("plain JSON")
    }
}

/// The keys that the file names.
#[derive(Debug, Default)]
pub struct Trust(BTreeMap<KeyId, VerifyingKey>);

impl Trust {
    /// Reads them: each a PEM file, its text, or the line between its markers.
    ///
    /// # Errors
    /// One of them is no key, or one that anybody can sign for.
    pub fn read(folder: &Path, entries: &[String]) -> Result<Self, KeyError> {
        entries.iter().map(|entry| read_public(folder, entry)).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, id: &KeyId) -> bool {
        self.0.contains_key(id)
    }

    /// Whether somebody who is trusted has signed exactly these bytes.
    ///
    /// # Errors
    /// Nobody has, as far as one can tell.
    pub fn verify(&self, manifest: &[u8], signed: Option<&[u8]>) -> Result<(), Distrust> {
        let no_signature = Distrust::NoSignature;
        let signed = signed.ok_or(Distrust::Unsigned)?;
        let signed: Signed = serde_json::from_slice(signed).map_err(|error| no_signature(error.to_string()))?;
        if signed.format != FORMAT || signed.algorithm != ALGORITHM {
            let Signed { format, algorithm, .. } = signed;
            return Err(no_signature(format!("it has the format {format} and the algorithm {algorithm}")));
        }
        let bytes = STANDARD.decode(&signed.signature).map_err(|error| no_signature(error.to_string()))?;
        let signature =
            Signature::from_slice(&bytes).map_err(|_| no_signature(format!("it has {} bytes", bytes.len())))?;
        let key = self.0.get(&signed.key).ok_or_else(|| Distrust::Stranger(signed.key.clone()))?;
        // Strictly: no key and no point of small order, and no second form of one signature (RFC 8032, 5.1.7).
        key.verify_strict(manifest, &signature).map_err(|_: SignatureError| Distrust::Forged(signed.key))
    }
}

fn read_public(folder: &Path, entry: &str) -> Result<(KeyId, VerifyingKey), KeyError> {
    let text = entry.trim();
    let named = || text.lines().next().unwrap_or_default().to_owned();
    let key = if text.starts_with("-----BEGIN") {
        VerifyingKey::from_public_key_pem(text)
    } else if let Some(der) = der(text, PUBLIC) {
        VerifyingKey::from_public_key_der(&der)
    } else {
        let path: PathBuf = folder.join(text);
        let file = std::fs::read_to_string(path).map_err(|source| KeyError::PublicFile { entry: named(), source })?;
        VerifyingKey::from_public_key_pem(file.trim())
    };
    let key = key.map_err(|source| KeyError::Public { entry: named(), source })?;
    if key.is_weak() {
        return Err(KeyError::Weak { entry: named() });
    }
    Ok((KeyId::of(&key), key))
}

/// A private key's text, from its file where it is not the text that was given.
fn private(named: &str) -> Result<Secret, KeyError> {
    let named = named.trim();
    if named.starts_with("-----BEGIN") || der(named, PRIVATE).is_some() {
        return Ok(Secret::new(named));
    }
    let file = std::fs::read_to_string(named).map_err(KeyError::PrivateFile)?;
    Ok(Secret::new(file.trim()))
}

/// The DER that a text is the base64 of, where it begins like a key of this kind.
fn der(text: &str, begins: &str) -> Option<Vec<u8>> {
    text.starts_with(begins).then(|| STANDARD.decode(text).ok()).flatten()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
