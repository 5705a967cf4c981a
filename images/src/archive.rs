//! The artifact as one file: a tar archive, compressed with zstd, whose bytes follow from its content alone.
//!
//! Same content, same digest: entries are sorted by path; owner and group are 0 and unnamed; every time is
//! [`MTIME_SECONDS`]; a file's mode is 0755 where its owner may execute it and 0644 otherwise, a folder's 0755; the
//! compression level is fixed and runs in one thread. Folders are listed only where they are empty, since whether a
//! file system lists a folder is chance. Hard links become files of their own, and devices, sockets and pipes are refused.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The time of every entry: 2000-01-01T00:00:00Z. Not 0, which some tools take for "no time", and which makes ZIP-based
/// formats, whose time starts in 1980, refuse files.
pub const MTIME_SECONDS: u64 = 946_684_800;

/// zstd's own default: beyond it, a compiled service shrinks by a few percent for several times the time.
pub const COMPRESSION_LEVEL: i32 = 3;

/// What an archive is made of: paths inside it, and what is there.
#[derive(Debug, Default)]
pub struct Content {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    File { source: PathBuf, executable: bool },
    Folder,
    Link { target: String },
}

/// One line of an archive's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub path: String,
    /// Bytes; 0 for folders and links.
    pub size: u64,
    pub executable: bool,
    /// What a symbolic link points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// An archive on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    pub file: PathBuf,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes of the file.
    pub size: u64,
    /// Sorted by path.
    pub entries: Vec<Listed>,
}

/// Why an archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("`{path}` cannot be packed: {why}")]
    Entry { path: String, why: &'static str },
    #[error("{} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the archive {} cannot be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Content {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a file whose bytes are read from `source` when the archive is written.
    pub fn file(&mut self, path: &str, source: PathBuf, executable: bool) -> Result<(), ArchiveError> {
        self.insert(path, Entry::File { source, executable })
    }

    /// Adds a folder. It is listed only where nothing else is inside it.
    pub fn folder(&mut self, path: &str) -> Result<(), ArchiveError> {
        if normal(path).is_ok_and(|path| path.is_empty()) {
            return Ok(());
        }
        self.insert(path, Entry::Folder)
    }

    /// Adds a symbolic link. One that leads out of the archive is refused: on the server it would point at something
    /// the build never saw.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), ArchiveError> {
        if !stays_inside(&normal(path)?, target) {
            let why = "it is a symbolic link that leads out of what is packed";
            return Err(ArchiveError::Entry { path: path.to_owned(), why });
        }
        self.insert(path, Entry::Link { target: target.to_owned() })
    }

    fn insert(&mut self, path: &str, entry: Entry) -> Result<(), ArchiveError> {
        let refuse = |why| ArchiveError::Entry { path: path.to_owned(), why };
        let normal = normal(path)?;
        if normal.is_empty() {
            return Err(refuse("it has no name"));
        }
        match self.entries.get(&normal) {
            // Two patterns may name one folder; two files of one name would be chance.
            Some(Entry::Folder) if matches!(entry, Entry::Folder) => Ok(()),
            Some(_) => Err(refuse("two things would have this path")),
            None => {
                self.entries.insert(normal, entry);
                Ok(())
            }
        }
    }

    /// Writes the archive. It appears under `out` whole or not at all.
    pub fn write(&self, out: &Path) -> Result<Archive, ArchiveError> {
        let wrong = |source| ArchiveError::Write { path: out.to_owned(), source };
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unfinished = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
        let counted = Counted { inner: BufWriter::new(unfinished), hash: Sha256::new(), size: 0 };
        let encoder = zstd::Encoder::new(counted, COMPRESSION_LEVEL).map_err(wrong)?;
        let mut tar = tar::Builder::new(encoder);
        tar.mode(tar::HeaderMode::Deterministic);

        let mut entries = Vec::with_capacity(self.entries.len());
        for (path, entry) in &self.entries {
            if matches!(entry, Entry::Folder) && self.has_inside(path) {
                continue;
            }
            entries.push(append(&mut tar, path, entry, out)?);
        }
        let counted = tar.into_inner().and_then(zstd::Encoder::finish).map_err(wrong)?;
        let (hash, size) = (counted.hash, counted.size);
        let file = counted.inner.into_inner().map_err(|error| wrong(error.into_error()))?;
        file.as_file().sync_all().map_err(wrong)?;
        file.persist(out).map_err(|error| wrong(error.error))?;
        Ok(Archive { file: out.to_owned(), sha256: hex::encode(hash.finalize()), size, entries })
    }

    fn has_inside(&self, folder: &str) -> bool {
        let inside = format!("{folder}/");
        self.entries.range(inside.clone()..).next().is_some_and(|(path, _)| path.starts_with(&inside))
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, entry: &Entry, out: &Path) -> Result<Listed, ArchiveError> {
    let wrong = |source| ArchiveError::Write { path: out.to_owned(), source };
    let of_kind = |kind, mode, size| {
        let mut header = header(kind, mode, size);
        header.set_mtime(MTIME_SECONDS);
        header
    };
    let mut listed = Listed { path: path.to_owned(), size: 0, executable: false, link: None };
    match entry {
        Entry::Folder => {
            let mut header = of_kind(EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, format!("{path}/"), io::empty()).map_err(wrong)?;
        }
        Entry::Link { target } => {
            tar.append_link(&mut of_kind(EntryType::Symlink, 0o777, 0), path, target).map_err(wrong)?;
            listed.link = Some(target.clone());
        }
        Entry::File { source, executable } => {
            let unreadable = |error| ArchiveError::Read { path: source.clone(), source: error };
            let file = File::open(source).map_err(unreadable)?;
            let size = file.metadata().map_err(unreadable)?.len();
            let mut header = of_kind(EntryType::Regular, if *executable { 0o755 } else { 0o644 }, size);
            // A file that grows meanwhile is cut at its announced size, one that shrinks is an error below.
            let mut content = Exactly { inner: file, left: size };
            tar.append_data(&mut header, path, &mut content).map_err(wrong)?;
            listed.size = size;
            listed.executable = *executable;
        }
    }
    Ok(listed)
}

/// The header of something that is root's, at the beginning of 1970: an inspection accepts its form.
pub fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// The path with `/` between its names and none at its ends; anything that could leave the archive is refused.
pub(crate) fn normal(path: &str) -> Result<String, ArchiveError> {
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy()),
            Component::CurDir => {}
            _ => {
                let why = "its path is absolute or leads upwards";
                return Err(ArchiveError::Entry { path: path.to_owned(), why });
            }
        }
    }
    Ok(names.join("/"))
}

/// Whether a link at this path stays below the archive's root, whatever other links it passes: it leads upwards first and then
/// down only. Upwards from a name that is itself a link would lead wherever that one does.
pub(crate) fn stays_inside(path: &str, target: &str) -> bool {
    let mut above = path.matches('/').count();
    let mut descends = false;
    for component in Path::new(target).components() {
        match component {
            Component::Normal(_) => descends = true,
            Component::CurDir => {}
            Component::ParentDir if above > 0 && !descends => above -= 1,
            _ => return false,
        }
    }
    !target.is_empty()
}

/// Reads exactly the announced bytes; an early end is an error, since the archive would be corrupt.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..room])? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was packed")),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Hashes and counts what passes through.
struct Counted<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Packs these files, added in this order, each with its own time.
    fn pack(files: &[(&str, &str, bool)], seconds_ago: u64) -> (tempfile::TempDir, Archive) {
        let folder = tempfile::tempdir().unwrap();
        let mut content = Content::new();
        for (index, (path, text, executable)) in files.iter().enumerate() {
            let source = folder.path().join(format!("source-{index}"));
            fs::write(&source, text).unwrap();
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds_ago + index as u64);
            File::options().write(true).open(&source).unwrap().set_modified(time).unwrap();
            content.file(path, source, *executable).unwrap();
        }
        content.folder("empty").unwrap();
        content.folder("lib").unwrap();
        content.link("bin/alias", "../lib/x.so").unwrap();
        let archive = content.write(&folder.path().join("out.tar.zst")).unwrap();
        (folder, archive)
    }

    const FILES: [(&str, &str, bool); 3] =
        [("bin/hello", "#!", true), ("lib/x.so", "elf", false), ("a.txt", "a", false)];

    #[test]
    fn the_digest_follows_from_the_content_alone() {
        let (_one, first) = pack(&FILES, 0);
        let mut turned = FILES;
        turned.reverse();
        let (_two, second) = pack(&turned, 86_400);
        assert_eq!(first.sha256, second.sha256, "neither the order of adding nor times may matter");
        // Pinned: a new version of a library that writes other bytes would make every app be uploaded and baked again.
        insta::assert_snapshot!(first.sha256, @"d7e9a7e2c2d4f99c28a6c0a769a97c180cfa1ffa982c7ca3b4140ce9b58ae04e");

        for changed in [
            [("bin/hello", "#?", true), FILES[1], FILES[2]],
            [("bin/hello", "#!", false), FILES[1], FILES[2]],
            [("bin/hallo", "#!", true), FILES[1], FILES[2]],
        ] {
            assert_ne!(pack(&changed, 0).1.sha256, first.sha256, "{changed:?}");
        }
    }

    #[test]
    fn the_archive_is_what_it_says() {
        let (_folder, archive) = pack(&FILES, 0);
        let bytes = fs::read(&archive.file).unwrap();
        assert_eq!(archive.size, bytes.len() as u64);
        assert_eq!(archive.sha256, hex::encode(Sha256::digest(&bytes)));
        let mut tar = tar::Archive::new(zstd::Decoder::new(&bytes[..]).unwrap());
        let mut seen = Vec::new();
        for entry in tar.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), MTIME_SECONDS);
            seen.push(format!("{} {:o}", entry.path().unwrap().display(), header.mode().unwrap()));
        }
        assert_eq!(seen, ["a.txt 644", "bin/alias 777", "bin/hello 755", "empty/ 755", "lib/x.so 644"]);
        assert_eq!(archive.entries.iter().map(|entry| &*entry.path).collect::<Vec<_>>().len(), 5);
    }

    #[test]
    fn nothing_leads_out_of_the_archive() {
        let mut content = Content::new();
        for path in ["/etc/passwd", "../x", "a/../../x", "", "."] {
            assert!(content.file(path, "x".into(), false).is_err(), "{path}");
        }
        for (path, target) in
            [("a", "/etc/passwd"), ("a", "../x"), ("a/b", "../../x"), ("a/b", "c/../../../x"), ("a", "")]
        {
            assert!(content.link(path, target).is_err(), "{path} -> {target}");
        }
        content.link("a/b", "../c").unwrap();
        content.file("./c", "x".into(), false).unwrap();
        assert!(content.file("c", "y".into(), false).is_err(), "one path, two files");
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = Content::new();
        content.file("gone", folder.path().join("gone"), false).unwrap();
        let out = folder.path().join("out.tar.zst");
        assert!(matches!(content.write(&out), Err(ArchiveError::Read { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn long_paths_are_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::write(&source, "x").unwrap();
        let long = vec!["folder-of-some-length"; 20].join("/");
        let mut content = Content::new();
        content.file(&long, source, false).unwrap();
        let archive = content.write(&folder.path().join("out.tar.zst")).unwrap();
        let mut tar = tar::Archive::new(zstd::Decoder::new(File::open(&archive.file).unwrap()).unwrap());
        assert_eq!(tar.entries().unwrap().next().unwrap().unwrap().path().unwrap(), Path::new(&long));
    }
}
