//! A root file system as an image archive, as engines load it.
//!
//! The format is that of the "combined image JSON and filesystem changeset" of Docker's image specification 1.2, which
//! every engine reads. An import of the bare root would do in principle, but engines read the labels that go with an
//! import in different ways; here they are part of the image's own description.

use std::{collections::BTreeMap, io, path::Path};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::archive::header;

/// What the image says about itself.
#[derive(Debug, Clone)]
pub struct Description {
    /// The names it gets in the engine, e.g. `alcedo/debian-bookworm:latest`.
    pub references: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub created: jiff::Timestamp,
}

/// tar's unit: entries and their headers fill whole blocks.
const BLOCK: usize = 512;
/// How much of the root is read at a time.
const CHUNK: usize = 256 << 10;

/// The archive of one image with one layer, the tar file at `root`, as a stream of bytes.
///
/// # Errors
/// The root cannot be read.
pub async fn stream(
    root: &Path,
    description: &Description,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let (size, layer_digest) = measure(root).await?;
    let head = head(description, size, &layer_digest)?;
    // The rest of the layer's last block, and the two empty blocks that end an archive.
    let padding = usize::try_from(size % BLOCK as u64).map_or(0, |odd| (BLOCK - odd) % BLOCK);
    let tail = Bytes::from(vec![0; padding + 2 * BLOCK]);
    let layer = ReaderStream::with_capacity(tokio::fs::File::open(root).await?, CHUNK);
    Ok(stream::iter([Ok(Bytes::from(head))]).chain(layer).chain(stream::iter([Ok(tail)])))
}

/// Size and SHA-256 of a file.
async fn measure(path: &Path) -> io::Result<(u64, String)> {
    let mut file = tokio::fs::File::open(path).await?;
    let (mut size, mut hash, mut chunk) = (0, Sha256::new(), vec![0; CHUNK]);
    loop {
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Ok((size, hex::encode(hash.finalize())));
        }
        size += read as u64;
        hash.update(&chunk[..read]);
    }
}

/// Everything before the layer's own bytes: the two descriptions, and the layer's header.
fn head(description: &Description, layer_size: u64, layer_digest: &str) -> io::Result<Vec<u8>> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "created": description.created,
        "config": { "Cmd": description.command, "Labels": description.labels },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": description.created, "created_by": "alcedo image build" }],
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let layer_name = format!("{layer_digest}/layer.tar");
    let manifest =
        json!([{ "Config": config_name, "RepoTags": description.references, "Layers": [layer_name] }]).to_string();

    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [("manifest.json", &manifest), (&config_name, &config)] {
        archive.append_data(&mut file(content.len() as u64), name, content.as_bytes())?;
    }
    let mut layer = file(layer_size);
    layer.set_path(layer_name)?;
    layer.set_cksum();
    let mut head = archive.get_ref().clone();
    head.extend_from_slice(layer.as_bytes());
    Ok(head)
}

fn file(size: u64) -> tar::Header {
    header(tar::EntryType::Regular, 0o644, size)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn the_archive_describes_the_layer_it_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root.tar");
        // No multiple of a block, so that the padding is seen.
        std::fs::write(&root, vec![7; 1_000]).expect("written");
        let description = Description {
            references: vec!["alcedo/test:0".to_owned()],
            labels: BTreeMap::from([("key".to_owned(), "a value".to_owned())]),
            command: vec!["/sbin/init".to_owned()],
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let parts: Vec<Bytes> =
            stream(&root, &description).await.expect("a stream").try_collect().await.expect("bytes");
        let bytes = parts.concat();
        assert_eq!(bytes.len() % BLOCK, 0);

        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(path, content);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
        assert_eq!(manifest[0]["RepoTags"], json!(["alcedo/test:0"]));
        let layer = &files[manifest[0]["Layers"][0].as_str().expect("a name")];
        assert_eq!(layer, &vec![7; 1_000]);
        let config: serde_json::Value =
            serde_json::from_slice(&files[manifest[0]["Config"].as_str().expect("a name")]).expect("JSON");
        assert_eq!(config["config"]["Labels"], json!({ "key": "a value" }));
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(layer)));
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest]));
    }
}
