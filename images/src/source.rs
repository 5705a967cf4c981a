//! The app's source: which files count, how they travel to the engine, and their digest.
//!
//! What Git ignores is left out, and so are `.git` itself and the pipeline file, `alcedo.yaml`: what of it a build goes by
//! is known from it, and a change of anything else in it is no change of the app. A file `.alcedoignore`, written like `.gitignore`, leaves out
//! more, or with `!pattern` takes back what Git ignores. Ignore rules of the user or of parent folders do not count:
//! the same checkout gives the same files on every machine.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use ignore::WalkBuilder;
use sha2::{Digest, Sha256};

/// The pipeline file's usual name; under another one, it is source like anything else.
const PIPELINE_FILE: &str = "alcedo.yaml";

/// Why the source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the source folder {} cannot be walked", folder.display())]
    Walk {
        folder: PathBuf,
        #[source]
        source: ignore::Error,
    },
    #[error("{} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One file or symbolic link of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the source folder.
    pub path: PathBuf,
    pub is_link: bool,
}

/// The files that count, sorted by path. Folders follow from them; devices, sockets and pipes do not count.
pub fn files(folder: &Path) -> Result<Vec<SourceFile>, SourceError> {
    let mut walk = WalkBuilder::new(folder);
    walk.hidden(false)
        .parents(false)
        .ignore(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .add_custom_ignore_filename(".alcedoignore")
        .filter_entry(|entry| entry.file_name() != OsStr::new(".git"));
    let mut files = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(|source| SourceError::Walk { folder: folder.to_owned(), source })?;
        let Some(kind) = entry.file_type() else { continue };
        if !kind.is_file() && !kind.is_symlink() {
            continue;
        }
        if let Ok(path) = entry.path().strip_prefix(folder)
            && path != Path::new(PIPELINE_FILE)
        {
            files.push(SourceFile { path: path.to_owned(), is_link: kind.is_symlink() });
        }
    }
    files.sort_by(|left, right| left.path.as_os_str().as_bytes().cmp(right.path.as_os_str().as_bytes()));
    Ok(files)
}

/// SHA-256 over the paths, kinds, executable bits and bytes of the files that count. Times do not count.
pub fn digest(folder: &Path) -> Result<String, SourceError> {
    Ok(digest_of(&digests(folder)?))
}

/// What one file adds to the source's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigest {
    pub path: PathBuf,
    /// With the label under which each is digested.
    kind: &'static [u8],
    content: (&'static [u8], Vec<u8>),
}

impl FileDigest {
    /// SHA-256 over the file's kind and content, in hex.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        field(&mut hash, self.kind, self.content.0);
        hash.update(&self.content.1);
        hex::encode(hash.finalize())
    }
}

/// What each file that counts adds to the digest, sorted by path.
pub fn digests(folder: &Path) -> Result<Vec<FileDigest>, SourceError> {
    let digest = |file: SourceFile| {
        let path = folder.join(&file.path);
        let unreadable = |source| SourceError::Read { path: path.clone(), source };
        if file.is_link {
            let target = fs::read_link(&path).map_err(unreadable)?;
            let content = (&b"to"[..], target.into_os_string().into_vec());
            return Ok(FileDigest { path: file.path, kind: b"link", content });
        }
        let mut opened = File::open(&path).map_err(unreadable)?;
        let executable = opened.metadata().map_err(unreadable)?.permissions().mode() & 0o100 != 0;
        let content = (&b"content"[..], content_digest(&mut opened).map_err(unreadable)?.to_vec());
        Ok(FileDigest { path: file.path, kind: if executable { b"executable" } else { b"file" }, content })
    };
    files(folder)?.into_iter().map(digest).collect()
}

/// The source's digest by those of its files.
pub fn digest_of(files: &[FileDigest]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        field(&mut hash, file.kind, file.path.as_os_str().as_bytes());
        field(&mut hash, file.content.0, &file.content.1);
    }
    hex::encode(hash.finalize())
}

fn content_digest(file: &mut File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// A labelled value with its length, so that no two lists of fields hash alike.
fn field(hash: &mut Sha256, label: &[u8], value: &[u8]) {
    hash.update((label.len() as u64).to_be_bytes());
    hash.update(label);
    hash.update((value.len() as u64).to_be_bytes());
    hash.update(value);
}

/// Writes the files as a tar archive, below `prefix`, with their own modes and times: build tools such as `make` and
/// `cargo` go by times, and what they cached is only of use where those are kept. Owned by root.
pub fn write_tar(folder: &Path, prefix: &str, out: impl Write) -> Result<(), SourceError> {
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    let wrong = |path: &Path, source| SourceError::Read { path: path.to_owned(), source };
    let mut root = tar::Header::new_gnu();
    root.set_entry_type(tar::EntryType::Directory);
    root.set_mode(0o755);
    root.set_size(0);
    tar.append_data(&mut root, format!("{prefix}/"), io::empty()).map_err(|source| wrong(folder, source))?;
    for file in files(folder)? {
        let path = folder.join(&file.path);
        append(&mut tar, &path, &Path::new(prefix).join(&file.path), file.is_link)
            .map_err(|source| wrong(&path, source))?;
    }
    tar.into_inner().and_then(|mut out| out.flush()).map_err(|source| wrong(folder, source))
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &Path, name: &Path, is_link: bool) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    if is_link {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        return tar.append_link(&mut header, name, fs::read_link(path)?);
    }
    let file = File::open(path)?;
    let facts = file.metadata()?;
    header.set_metadata_in_mode(&facts, tar::HeaderMode::Complete);
    header.set_uid(0);
    header.set_gid(0);
    // A file that grows meanwhile is cut; one that shrinks makes the archive too short, which the engine refuses.
    let size = facts.len();
    header.set_size(size);
    tar.append_data(&mut header, name, file.take(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".gitignore", "target/\n*.log\nkept.bin\n");
        write(".alcedoignore", "docs/\n!kept.bin\n");
        write(".git/HEAD", "ref");
        write("src/main.rs", "fn main() {}");
        write("target/debug/x", "x");
        write("a.log", "x");
        write("kept.bin", "x");
        write("docs/x.md", "x");
        write(".env.example", "x");
        std::os::unix::fs::symlink("src/main.rs", folder.path().join("link")).unwrap();
        folder
    }

    #[test]
    fn what_git_and_alcedo_ignore_does_not_count() {
        let folder = tree();
        let files: Vec<_> =
            files(folder.path()).unwrap().into_iter().map(|file| file.path.display().to_string()).collect();
        assert_eq!(files, [".alcedoignore", ".env.example", ".gitignore", "kept.bin", "link", "src/main.rs"]);
    }

    #[test]
    fn the_digest_follows_what_counts_and_nothing_else() {
        let folder = tree();
        let before = digest(folder.path()).unwrap();
        fs::write(folder.path().join("a.log"), "changed").unwrap();
        fs::write(folder.path().join("target/debug/x"), "changed").unwrap();
        let main = folder.path().join("src/main.rs");
        File::options().write(true).open(&main).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(digest(folder.path()).unwrap(), before);
        assert_eq!(digest(tree().path()).unwrap(), before, "another checkout, the same digest");

        fs::set_permissions(&main, fs::Permissions::from_mode(0o755)).unwrap();
        let executable = digest(folder.path()).unwrap();
        assert_ne!(executable, before);
        fs::write(&main, "fn main() { }").unwrap();
        let changed = digest(folder.path()).unwrap();
        assert_ne!(changed, executable);
        fs::rename(&main, folder.path().join("src/lib.rs")).unwrap();
        assert_ne!(digest(folder.path()).unwrap(), changed);
    }

    #[test]
    fn the_tar_has_the_files_with_their_times() {
        let folder = tree();
        let main = folder.path().join("src/main.rs");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        File::options().write(true).open(&main).unwrap().set_modified(time).unwrap();
        let mut bytes = Vec::new();
        write_tar(folder.path(), "src", &mut bytes).unwrap();
        let mut tar = tar::Archive::new(&bytes[..]);
        let entries: Vec<(String, u64)> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mtime().unwrap()))
            .collect();
        assert!(entries.contains(&("src/src/main.rs".into(), 1_000_000)), "{entries:?}");
        assert_eq!(entries.len(), 7);
    }
}
