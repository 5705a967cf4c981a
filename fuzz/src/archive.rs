//! Whatever the inspection accepts, the tar that servers use unpacks to exactly what the inspection has read: nothing else,
//! nothing outside, nobody's but root's, no link that leads out.
//!
//! The two readers have no code in common: the inspection reads with the `tar` crate, a server with GNU tar.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Output},
};

use alcedo_images::inspect::inspect;
use tar::{EntryType, Header};

use crate::tree::{self, Node};

/// Size of tar's blocks; a header is one.
pub(crate) const BLOCK: usize = 512;
/// What unpacks to more is inspected and not unpacked: a few bytes of zeros in zstd may be up to a gibibyte.
const MAX_UNPACKED: u64 = 4 << 20;
/// Where the archive lies beside the folder it is unpacked in.
const ARTIFACT: &str = "artifact.tar.zst";

/// Takes the bytes for an artifact.
///
/// # Panics
/// The inspection accepts them, and they unpack to something else than it has read.
pub fn check(bytes: &[u8]) {
    let around = tempfile::tempdir().expect("there is a folder for temporary files");
    let artifact = around.path().join(ARTIFACT);
    fs::write(&artifact, bytes).expect("the archive can be written");
    if inspect(&artifact).is_err() {
        return;
    }
    let mut tar = Vec::new();
    let unpacked = zstd::Decoder::new(bytes).and_then(|it| it.take(MAX_UNPACKED + 1).read_to_end(&mut tar));
    unpacked.expect("what was accepted can be decompressed");
    if tar.len() as u64 <= MAX_UNPACKED {
        let read = read(&tar);
        unpack(around.path(), &read);
    }
}

/// The bytes as a tar archive in zstd: filled up to whole blocks, and each header with the checksum that it should have. To
/// guess either is beyond mutations.
pub fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    for at in headers(&tar) {
        let block = &mut tar[at..at + BLOCK];
        let mut header = Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    zstd::bulk::compress(&tar, 1).expect("memory can be compressed")
}

/// Where headers are, up to the first that is empty or not whole.
pub(crate) fn headers(tar: &[u8]) -> Vec<usize> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(block) =
        tar.get(at..).and_then(|rest| rest.get(..BLOCK)).filter(|block| block.iter().any(|it| *it != 0))
    {
        all.push(at);
        let size = Header::from_byte_slice(block).entry_size().unwrap_or(0).min(tar.len() as u64);
        at += BLOCK + usize::try_from(size).expect("it is no more than there are bytes").next_multiple_of(BLOCK);
    }
    all
}

/// What the reader that the inspection uses finds in an archive, by path.
fn read(tar: &[u8]) -> BTreeMap<String, Node> {
    let mut all = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().expect("what was accepted is an archive") {
        let mut entry = entry.expect("what was accepted has whole entries");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("what was accepted has names of text");
        let mode = entry.header().mode().expect("what was accepted has a mode");
        let node = match entry.header().entry_type() {
            EntryType::Directory => Node::Folder { mode },
            EntryType::Symlink => {
                let target = entry.link_name_bytes().expect("a link leads somewhere").into_owned();
                Node::Link { target: String::from_utf8(target).expect("what was accepted leads to text") }
            }
            EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("what was accepted has whole files");
                Node::File { mode, content }
            }
            kind => panic!("{path:?} was accepted and is of kind {kind:?}"),
        };
        let before = all.insert(path.trim_end_matches('/').to_owned(), node);
        assert!(before.is_none(), "{path:?} was accepted twice");
    }
    all
}

/// Unpacks as a server does, and compares.
fn unpack(around: &Path, read: &BTreeMap<String, Node>) {
    let inside = around.join("inside");
    fs::create_dir(&inside).expect("a folder can be made");
    let made = fs::metadata(&inside).expect("it was just made");
    let owner = (made.uid(), made.gid());
    let Output { status, stderr, .. } = Command::new("tar")
        .args(["--extract", "--zstd", "--file"])
        .arg(Path::new("..").join(ARTIFACT))
        .arg("--same-permissions")
        // As anybody else than root, files cannot be given away: then they are this user's.
        .arg(if owner.0 == 0 { "--same-owner" } else { "--no-same-owner" })
        .current_dir(&inside)
        .output()
        .expect("tar is installed");
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "accepted, and tar does not unpack it: {said}\n{read:#?}");

    let mut beside: Vec<_> = fs::read_dir(around).expect("it is there").map(|it| it.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, [ARTIFACT, "inside"], "accepted, and something is unpacked outside: {said}");

    let unpacked = tree::walk(&inside, owner);
    for (path, node) in read {
        assert_eq!(unpacked.get(path), Some(node), "{path:?}: unpacked on the left, accepted on the right");
        check_plain(path, node);
        if let Node::Link { .. } = node {
            assert!(!tree::leads_out(&unpacked, path), "{path:?} was accepted and leads out: {unpacked:#?}");
        }
    }
    for (path, node) in &unpacked {
        // tar makes folders that are not listed, for what is in them.
        let below = format!("{path}/");
        let is_implied = matches!(node, Node::Folder { .. }) && read.keys().any(|other| other.starts_with(&below));
        assert!(read.contains_key(path) || is_implied, "{path:?} was unpacked and not read: {node:?}");
    }
}

/// What must not get in although both readers agree on it: more rights than a file of an app has, and names that move a cursor.
fn check_plain(path: &str, node: &Node) {
    let text = match node {
        Node::File { mode, .. } | Node::Folder { mode } => {
            assert_eq!(mode & !0o755, 0, "{path:?} was accepted with mode {mode:o}");
            path
        }
        Node::Link { target } => target,
    };
    let is_plain = |text: &str| !text.contains(char::is_control);
    assert!(is_plain(path) && is_plain(text), "{path:?} was accepted with control characters: {node:?}");
}
