use std::process::Command;

use super::*;

/// The order of the group (RFC 8032, 5.1), lowest byte first.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

const MANIFEST: &[u8] = b"{ \"app\": \"hello\" }";

fn signer(seed: u8) -> Signer {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let id = KeyId::of(&key.verifying_key());
    Signer { key, id }
}

fn trust(signers: &[&Signer]) -> Trust {
    Trust(signers.iter().map(|signer| (signer.id.clone(), signer.key.verifying_key())).collect())
}

/// The signature with other bytes in its place.
fn with_signature(signed: &[u8], change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut signed: Signed = serde_json::from_slice(signed).unwrap();
    signed.signature = STANDARD.encode(change(STANDARD.decode(&signed.signature).unwrap()));
    serde_json::to_vec(&signed).unwrap()
}

#[test]
fn only_the_very_bytes_and_a_trusted_key_will_do() {
    let (ours, theirs) = (signer(1), signer(2));
    let both = trust(&[&ours, &theirs]);
    let signed = ours.sign(MANIFEST);
    assert_eq!(both.verify(MANIFEST, Some(&signed)), Ok(()));
    assert_eq!(ours.sign(MANIFEST), signed, "a second attempt writes the same");

    assert_eq!(both.verify(MANIFEST, None), Err(Distrust::Unsigned));
    let stranger = trust(&[&theirs]).verify(MANIFEST, Some(&signed));
    assert_eq!(stranger, Err(Distrust::Stranger(ours.id.clone())));
    for other in [b"{ \"app\": \"hellO\" }".as_slice(), b"{ \"app\": \"hello\" }\n", b""] {
        assert_eq!(both.verify(other, Some(&signed)), Err(Distrust::Forged(ours.id.clone())));
    }
    // One that says it is by another than made it.
    let mut claims: Signed = serde_json::from_slice(&signed).unwrap();
    claims.key = theirs.id.clone();
    let claims = serde_json::to_vec(&claims).unwrap();
    assert_eq!(both.verify(MANIFEST, Some(&claims)), Err(Distrust::Forged(theirs.id.clone())));
    assert!(Trust::default().verify(MANIFEST, Some(&signed)).is_err(), "who trusts nobody verifies nothing");
}

#[test]
fn what_is_no_signature_is_refused_as_such() {
    let ours = signer(1);
    let trust = trust(&[&ours]);
    let signed = ours.sign(MANIFEST);
    let refused = |signed: &[u8]| match trust.verify(MANIFEST, Some(signed)) {
        Err(Distrust::NoSignature(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&with_signature(&signed, |bytes| bytes[..63].to_vec())), "it has 63 bytes");
    assert_eq!(refused(&with_signature(&signed, |bytes| [bytes, vec![0]].concat())), "it has 65 bytes");
    assert_eq!(refused(&with_signature(&signed, |_| Vec::new())), "it has 0 bytes");
    refused(&signed[..signed.len() / 2]);
    refused(b"");
    let text = String::from_utf8(signed).unwrap();
    assert!(refused(text.replace("\"format\": 1", "\"format\": 2").as_bytes()).contains("format 2"));
    assert!(refused(text.replace("ed25519", "none").as_bytes()).contains("none"));
    refused(text.replace("\"format\"", "\"more\": 1, \"format\"").as_bytes());
    refused(text.replace("==", "").as_bytes());
}

/// `S + L` satisfies the same equation as `S`: a second signature of the same, made by somebody without the key.
#[test]
fn a_second_form_of_a_signature_is_refused() {
    let ours = signer(1);
    let malleable = with_signature(&ours.sign(MANIFEST), |mut bytes| {
        let mut carry = 0;
        for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert_eq!(carry, 0);
        bytes
    });
    assert_eq!(trust(&[&ours]).verify(MANIFEST, Some(&malleable)), Err(Distrust::Forged(ours.id.clone())));
}

/// For the neutral element as a key, a signature that knows no secret holds for every message. Such a key is not taken, and
/// were it taken, would verify nothing.
#[test]
fn a_key_that_anybody_can_sign_for_is_refused() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let weak = VerifyingKey::from_bytes(&neutral).unwrap();
    // R is the base point and S is 1.
    let mut forged = [0x66; 64];
    forged[0] = 0x58;
    forged[32..].copy_from_slice(&[0; 32]);
    forged[32] = 1;
    let signature = Signature::from_bytes(&forged);
    for message in [MANIFEST, b"anything else"] {
        ed25519_dalek::Verifier::verify(&weak, message, &signature).expect("whoever is less strict takes it");
    }
    let id = KeyId::of(&weak);
    let signed = Signed { format: 1, algorithm: "ed25519".into(), key: id.clone(), signature: STANDARD.encode(forged) };
    let signed = serde_json::to_vec(&signed).unwrap();
    let trust = Trust(BTreeMap::from([(id.clone(), weak)]));
    assert_eq!(trust.verify(MANIFEST, Some(&signed)), Err(Distrust::Forged(id)));
    let entry = STANDARD.encode(weak.to_public_key_der().unwrap().as_bytes());
    let refused = Trust::read(Path::new("/"), &[entry]).unwrap_err();
    assert!(matches!(refused, KeyError::Weak { .. }), "{refused:?}");
}

fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Keys are made and signatures checked with the tool that everybody has, as docs/security.md says.
#[test]
fn openssl_makes_the_keys_and_checks_the_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    openssl(folder.path(), &["genpkey", "-algorithm", "ed25519", "-out", "signing.pem"]);
    openssl(folder.path(), &["pkey", "-in", "signing.pem", "-pubout", "-out", "release.pem"]);
    let line = |name: &str| std::fs::read_to_string(at(name)).unwrap().lines().nth(1).unwrap().to_owned();
    let text = |name: &str| std::fs::read_to_string(at(name)).unwrap();

    let signer = Signer::read(at("signing.pem").to_str().unwrap()).unwrap();
    for form in [text("signing.pem"), line("signing.pem")] {
        assert_eq!(Signer::read(&form).unwrap().id, signer.id);
    }
    for form in
        ["release.pem".to_owned(), at("release.pem").display().to_string(), text("release.pem"), line("release.pem")]
    {
        let trust = Trust::read(folder.path(), &[form]).unwrap();
        assert_eq!(trust.verify(MANIFEST, Some(&signer.sign(MANIFEST))), Ok(()));
    }
    let der = openssl(folder.path(), &["pkey", "-pubin", "-in", "release.pem", "-outform", "DER"]);
    assert_eq!(signer.id.to_string(), hex::encode(Sha256::digest(der)));

    let signed: Signed = serde_json::from_slice(&signer.sign(MANIFEST)).unwrap();
    std::fs::write(at("manifest.json"), MANIFEST).unwrap();
    std::fs::write(at("signature"), STANDARD.decode(signed.signature).unwrap()).unwrap();
    let verify = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "release.pem",
        "-rawin",
        "-in",
        "manifest.json",
        "-sigfile",
        "signature",
    ];
    let told = openssl(folder.path(), &verify);
    assert!(String::from_utf8(told).unwrap().contains("Verified Successfully"));
}

/// Whatever is given in place of a key, and however it is broken, no error tells of it.
#[test]
fn no_error_tells_anything_of_a_private_key() {
    let canary = "Canary0Canary0Canary0Canary0Canary0Canary0Canary0";
    for text in [
        canary.to_owned(),
        format!("{PRIVATE}{canary}"),
        format!("-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN PRIVATE KEY-----\n{PRIVATE}{}\n-----END PRIVATE KEY-----\n", &canary[..40]),
    ] {
        let error = Signer::read(&text).unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let told: Vec<String> = causes.map(|error| format!("{error} {error:?}")).collect();
        assert!(!told.join("\n").contains("Canary"), "{told:?}");
    }
    let told = format!("{:?}", signer(7));
    assert!(!told.contains(&hex::encode([7; 32])) && told.len() < 30, "{told}");
}

#[test]
fn what_is_no_public_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |entry: &str| Trust::read(folder.path(), &[entry.to_owned()]).unwrap_err().to_string();
    assert_eq!(refused("keys/none.pem"), "the key `keys/none.pem` of publish.signed_by cannot be read");
    std::fs::write(folder.path().join("private.pem"), "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n")
        .unwrap();
    assert_eq!(refused("private.pem"), "`private.pem` of publish.signed_by is no Ed25519 public key");
    assert!(refused(&format!("{PUBLIC}AAAA")).contains("is no Ed25519 public key"));
}
