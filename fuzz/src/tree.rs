//! What lies in a folder, as values that can be compared.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// Links passed on one way; Linux gives up there (`path_resolution`, 7).
const MAX_LINKS: usize = 40;

/// Something in a folder. Modes are those of all twelve bits.
#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    File { mode: u32, content: Vec<u8> },
    Folder { mode: u32 },
    Link { target: String },
}

/// Everything in a folder, by its path from there. All of it belongs to `owner`, a user and a group.
///
/// # Panics
/// Something is there that no artifact has: a device, a second name of a file, a name that is no text, somebody else's.
pub fn walk(folder: &Path, owner: (u32, u32)) -> BTreeMap<String, Node> {
    let mut all = BTreeMap::new();
    let mut to_do = vec![String::new()];
    while let Some(path) = to_do.pop() {
        for entry in fs::read_dir(folder.join(&path)).expect("a folder can be listed") {
            let name = entry.expect("a folder can be listed").file_name().into_string().expect("names are text");
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let node = node(&folder.join(&path), owner);
            if let Node::Folder { .. } = node {
                to_do.push(path.clone());
            }
            all.insert(path, node);
        }
    }
    all
}

fn node(path: &Path, owner: (u32, u32)) -> Node {
    let metadata = fs::symlink_metadata(path).expect("what is listed is there");
    assert_eq!((metadata.uid(), metadata.gid()), owner, "{} is somebody else's", path.display());
    let (kind, mode) = (metadata.file_type(), metadata.mode() & 0o7777);
    if kind.is_symlink() {
        let target = fs::read_link(path).expect("a link can be read").into_os_string();
        return Node::Link { target: target.into_string().expect("links lead to text") };
    }
    // Whoever is not root could not look into what its own mode closes.
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700)).expect("modes can be changed");
    if kind.is_dir() {
        return Node::Folder { mode };
    }
    assert!(kind.is_file(), "{} is a device, a pipe or a socket", path.display());
    assert_eq!(metadata.nlink(), 1, "{} has a second name", path.display());
    Node::File { mode, content: fs::read(path).expect("a file can be read") }
}

/// Whether the way of a link leaves the folder, as the system would follow it name by name; what is missing counts as a folder
/// that could be made.
pub fn leads_out(all: &BTreeMap<String, Node>, link: &str) -> bool {
    let mut here: Vec<String> = Vec::new();
    let mut ahead: VecDeque<String> = link.split('/').map(str::to_owned).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        match name.as_str() {
            "" | "." => {}
            ".." => {
                if here.pop().is_none() {
                    return true;
                }
            }
            _ => {
                here.push(name);
                if let Some(Node::Link { target }) = all.get(&here.join("/")) {
                    links += 1;
                    if target.starts_with('/') {
                        return true;
                    }
                    if links > MAX_LINKS {
                        return false;
                    }
                    here.pop();
                    for name in target.split('/').rev() {
                        ahead.push_front(name.to_owned());
                    }
                }
            }
        }
    }
    false
}
