//! What an artifact must be before a server unpacks it as root. Whoever can write the bucket could have put there whatever
//! they like, with a manifest that has its digest.
//!
//! An archive that [`crate::archive`] writes has few forms, and nothing else is accepted: files, folders and symbolic links of
//! root's, with plain modes, each path once, relative, below the archive's root and below no link, and no link that leads out.
//! Devices, hard links, set-user-id bits, extension headers that a second reader could read otherwise, and anything after the
//! end are refused, as is what unpacks to more than its size lets one expect.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use tar::EntryType;

use crate::archive::{normal, stays_inside};

/// Most entries. A service with all its libraries has some ten thousand.
pub const MAX_ENTRIES: usize = 200_000;
/// Most bytes that it may unpack to.
pub const MAX_BYTES: u64 = 16 << 30;
/// How many times its size an archive may unpack to, once that is more than [`FREE_BYTES`]. Text and logs shrink to a
/// twentieth, zeros to some ten-thousandth.
pub const MAX_RATIO: u64 = 1_000;
/// So much may unpack from anything: an app may bring an empty database, and a server has room for it.
const FREE_BYTES: u64 = 1 << 30;
/// A path that systems still take (Linux, `PATH_MAX`).
const MAX_PATH: usize = 4096;
/// Zeros that may follow the end: tar fills blocks, other tools up to 10 KiB.
const MAX_PADDING: u64 = 1 << 20;

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("it is no tar archive in zstd")]
    Unreadable(#[source] io::Error),
    #[error("`{path}` {why}")]
    Entry { path: String, why: &'static str },
    #[error("it {0}")]
    Whole(&'static str),
}

/// Reads a whole archive and looks at everything in it.
///
/// # Errors
/// Something in it has no place in an artifact.
pub fn inspect(file: &Path) -> Result<(), Refused> {
    let compressed = File::open(file).and_then(|file| file.metadata()).map_err(Refused::Unreadable)?.len();
    let most = MAX_BYTES.min(FREE_BYTES.max(compressed.saturating_mul(MAX_RATIO)));
    let open = || -> Result<Bounded, Refused> {
        let file = File::open(file).map_err(Refused::Unreadable)?;
        let inner = zstd::Decoder::new(file).map_err(Refused::Unreadable)?;
        Ok(Bounded { inner, left: most })
    };
    forms(open()?)?;
    names(open()?)
}

/// Bytes up to a bound.
struct Bounded {
    inner: zstd::Decoder<'static, io::BufReader<File>>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 && !buffer.is_empty() {
            // Is there more than may be?
            if self.inner.read(&mut [0])? > 0 {
                return Err(io::Error::other("it unpacks to more than its size lets one expect"));
            }
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The headers as they stand, before any of them has a say in how the next is read.
fn forms(source: Bounded) -> Result<(), Refused> {
    let mut archive = tar::Archive::new(source);
    let mut count = 0;
    for entry in archive.entries().map_err(Refused::Unreadable)?.raw(true) {
        let mut entry = entry.map_err(Refused::Unreadable)?;
        count += 1;
        if count > 2 * MAX_ENTRIES {
            return Err(Refused::Whole("has more entries than an app has files"));
        }
        let header = entry.header();
        let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let refuse = |why| Err(Refused::Entry { path: path.clone(), why });
        if !is_plain(header) {
            return refuse("has a header that two readers could read in two ways");
        }
        match header.entry_type() {
            EntryType::Regular | EntryType::Directory | EntryType::Symlink => {}
            // A name that is longer than a header, and nothing but a name.
            EntryType::GNULongName | EntryType::GNULongLink => {
                if header.entry_size().map_err(Refused::Unreadable)? > MAX_PATH as u64 {
                    return refuse("has a name that no system takes");
                }
                // GNU tar reads to the first zero, wherever that is; others as far as the size says.
                let mut name = Vec::new();
                entry.read_to_end(&mut name).map_err(Refused::Unreadable)?;
                if name.iter().position(|byte| *byte == 0).map(|zero| zero + 1) != Some(name.len()) {
                    return refuse("has a name that does not end where it says");
                }
                continue;
            }
            EntryType::Link => return refuse("is a hard link"),
            EntryType::Block | EntryType::Char | EntryType::Fifo => return refuse("is a device or a pipe"),
            _ => return refuse("is of a kind that an artifact does not have"),
        }
        let number = |value: io::Result<u64>| value.map_err(Refused::Unreadable);
        let mode = header.mode().map_err(Refused::Unreadable)?;
        if mode & !0o777 != 0 {
            return refuse("is set-user-id, set-group-id or sticky");
        }
        if mode & 0o022 != 0 && header.entry_type() != EntryType::Symlink {
            return refuse("can be written by others than root");
        }
        // A name counts for more than a number where the server knows it, and we write none.
        let is_named = header.as_gnu().is_some_and(|gnu| gnu.uname.iter().chain(&gnu.gname).any(|byte| *byte != 0));
        if is_named || number(header.uid())? != 0 || number(header.gid())? != 0 {
            return refuse("is not root's");
        }
        if header.entry_type() != EntryType::Regular && number(header.entry_size())? != 0 {
            return refuse("has content and is no file");
        }
    }
    // tar reads up to the end that is written in it; what stands behind could be read by another.
    let mut rest = archive.into_inner();
    let (mut padding, mut buffer) = (0, [0; 8192]);
    loop {
        let read = rest.read(&mut buffer).map_err(Refused::Unreadable)?;
        padding += read as u64;
        if buffer[..read].iter().any(|byte| *byte != 0) || padding > MAX_PADDING {
            return Err(Refused::Whole("goes on after its end"));
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// Whether a header is in GNU's form, with numbers as everybody reads them. Readers differ in what else they take for one: a
/// sign, blanks, a base of sixty-four; and in when the rest of a name counts.
fn is_plain(header: &tar::Header) -> bool {
    let Some(gnu) = header.as_gnu() else { return false };
    let octal = |field: &[u8]| {
        let digits = field.iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        digits > 0 && field[digits..].iter().all(|byte| *byte == 0)
    };
    // What does not fit is binary: GNU's form, of which the first byte says so.
    let binary = |field: &[u8]| field[0] == 0x80 && field[1..4].iter().all(|byte| *byte == 0);
    let plain = [gnu.mode.as_slice(), &gnu.uid, &gnu.gid, &gnu.mtime, &gnu.cksum].into_iter().all(octal);
    plain && (octal(&gnu.size) || binary(&gnu.size)) && gnu.magic == *b"ustar " && gnu.version == *b" \0"
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link,
}

/// The paths, with long names put together.
fn names(source: Bounded) -> Result<(), Refused> {
    let mut archive = tar::Archive::new(source);
    let mut seen: BTreeMap<String, Kind> = BTreeMap::new();
    for entry in archive.entries().map_err(Refused::Unreadable)? {
        let entry = entry.map_err(Refused::Unreadable)?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |why| Err(Refused::Entry { path: shown.clone(), why });
        let bytes = entry.path_bytes();
        let Ok(text) = std::str::from_utf8(&bytes) else { return refuse("has a name that is no text") };
        if text.len() > MAX_PATH || text.chars().any(char::is_control) {
            return refuse("has a name that no system takes, or with control characters");
        }
        let kind = match entry.header().entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Link,
            _ => Kind::File,
        };
        let Ok(path) = normal(text) else { return refuse("is absolute or leads upwards") };
        // As it was written by us: one way to write a path, so that two readers agree on it.
        if path.is_empty() || path != text.strip_suffix('/').filter(|_| kind == Kind::Folder).unwrap_or(text) {
            return refuse("has a path that is not written plainly");
        }
        if kind == Kind::Link {
            let target = entry.link_name_bytes().unwrap_or_default();
            let Ok(target) = std::str::from_utf8(&target) else { return refuse("leads to a name that is no text") };
            if target.chars().any(char::is_control) || !stays_inside(&path, target) {
                return refuse("is a symbolic link that leads out of the artifact");
            }
        }
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if above.into_iter().any(|above| matches!(seen.get(above), Some(Kind::File | Kind::Link))) {
            return refuse("lies below something that is no folder");
        }
        // A link that comes after what lies below its path would take the place of a folder.
        let below = format!("{path}/");
        let has_below = seen.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below));
        if seen.contains_key(&path) || (has_below && kind != Kind::Folder) {
            return refuse("is there twice");
        }
        seen.insert(path, kind);
        if seen.len() > MAX_ENTRIES {
            return Err(Refused::Whole("has more entries than an app has files"));
        }
    }
    Ok(())
}
