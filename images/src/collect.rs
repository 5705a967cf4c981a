//! What a build made, out of its container and into an artifact.
//!
//! Files arrive as the engine's tar stream and are not trusted: names are checked one by one, content goes to files of
//! this program's own naming in a temporary folder, and nothing is ever unpacked to a path that the stream chose.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use tar::EntryType;

use crate::{
    archive::{Archive, ArchiveError, Content},
    container::{Container, ContainerError},
    key::private_folder,
    pack::Patterns,
    pipe,
};

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("nothing to pack: `{pattern}` matches no file that the build left")]
    Nothing { pattern: String },
    #[error("the engine sent an archive that cannot be read")]
    Broken(#[source] io::Error),
    #[error("what the build left could not be kept on this machine")]
    Keep(#[source] io::Error),
    #[error("`{path}` cannot be packed: {why}")]
    Entry { path: String, why: &'static str },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("packing was interrupted")]
    Interrupted,
}

impl CollectError {
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Nothing { .. } => Some("patterns in `build.pack` are relative to `build.working_directory`"),
            Self::Keep(_) => Some("check the free space of the folder for temporary files (TMPDIR)"),
            _ => None,
        }
    }
}

/// Packs what the patterns name below `directory` (absolute, in the container) to `out`.
pub(crate) async fn collect(
    container: &Container,
    directory: &str,
    patterns: &Patterns,
    out: &Path,
) -> Result<Archive, CollectError> {
    let mut collected = Collected::new(patterns.clone())?;
    for root in patterns.roots() {
        let path = if root.is_empty() { directory.to_owned() } else { format!("{directory}/{root}") };
        if !container.has(&path).await? {
            continue;
        }
        let (moving, reader) = pipe::incoming(container.download(&path));
        let reading = tokio::task::spawn_blocking(move || collected.read(reader, &root).map(|()| collected));
        let (kept, ()) = tokio::join!(reading, moving);
        collected = kept.map_err(|_| CollectError::Interrupted)??;
    }
    let out = out.to_owned();
    let packing = tokio::task::spawn_blocking(move || collected.pack(&out));
    packing.await.map_err(|_| CollectError::Interrupted)?
}

/// Files of the build, kept on this machine until they are packed.
struct Collected {
    folder: tempfile::TempDir,
    patterns: Patterns,
    /// Which patterns have matched a file.
    matched: Vec<bool>,
    content: Content,
    /// By path in the build's folder: what a hard link may refer to.
    files: HashMap<String, (PathBuf, bool)>,
}

impl Collected {
    fn new(patterns: Patterns) -> Result<Self, CollectError> {
        Ok(Self {
            folder: private_folder().map_err(CollectError::Keep)?,
            matched: vec![false; patterns.len()],
            patterns,
            content: Content::new(),
            files: HashMap::new(),
        })
    }

    /// Takes what belongs to the artifact from the engine's archive of `root`, whose entries begin with the root's
    /// last name.
    fn read(&mut self, stream: impl Read, root: &str) -> Result<(), CollectError> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(CollectError::Broken)? {
            let mut entry = entry.map_err(CollectError::Broken)?;
            let path = placed(root, &entry.path().map_err(CollectError::Broken)?)?;
            let kind = entry.header().entry_type();
            if kind == EntryType::Directory {
                if let Some((place, _)) = self.patterns.place(&path) {
                    self.content.folder(&place)?;
                }
                continue;
            }
            let Some((place, takers)) = self.patterns.place(&path) else { continue };
            for taker in takers {
                self.matched[taker] = true;
            }
            match kind {
                EntryType::Regular | EntryType::Continuous => {
                    let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                    let kept = self.folder.path().join(self.files.len().to_string());
                    let mut file = File::create_new(&kept).map_err(CollectError::Keep)?;
                    io::copy(&mut entry, &mut file).map_err(CollectError::Keep)?;
                    self.content.file(&place, kept.clone(), executable)?;
                    self.files.insert(path, (kept, executable));
                }
                EntryType::Symlink => {
                    let target = entry.link_name().map_err(CollectError::Broken)?.unwrap_or_default();
                    self.content.link(&place, &target.to_string_lossy())?;
                }
                EntryType::Link => {
                    let target = entry.link_name().map_err(CollectError::Broken)?.unwrap_or_default();
                    let first = self.files.get(&placed(root, &target)?).cloned();
                    let Some((kept, executable)) = first else {
                        let why = "it is a hard link to a file that is not packed before it";
                        return Err(CollectError::Entry { path, why });
                    };
                    self.content.file(&place, kept, executable)?;
                }
                _ => return Err(CollectError::Entry { path, why: "it is a device, a socket or a pipe" }),
            }
        }
        Ok(())
    }

    fn pack(self, out: &Path) -> Result<Archive, CollectError> {
        if let Some(at) = self.matched.iter().position(|matched| !matched) {
            return Err(CollectError::Nothing { pattern: self.patterns.text(at).to_owned() });
        }
        Ok(self.content.write(out)?)
    }
}

/// The path, relative to the build's folder, of an entry of the archive of `root`.
fn placed(root: &str, entry: &Path) -> Result<String, CollectError> {
    let mut names = Vec::new();
    for component in entry.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy()),
            Component::CurDir => {}
            _ => {
                let why = "its path is absolute or leads upwards";
                return Err(CollectError::Entry { path: entry.display().to_string(), why });
            }
        }
    }
    // The first name is the root's own.
    let inside = names.get(1..).unwrap_or_default().join("/");
    Ok(match (root.is_empty(), inside.is_empty()) {
        (true, _) => inside,
        (false, true) => root.to_owned(),
        (false, false) => format!("{root}/{inside}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    }

    /// An engine's archive: name, kind, content or target.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            match kind {
                EntryType::Symlink | EntryType::Link => {
                    tar.append_link(&mut header(*kind, 0o777, 0), name, text).unwrap();
                }
                _ => tar.append_data(&mut header(*kind, 0o755, text.len() as u64), name, text.as_bytes()).unwrap(),
            }
        }
        tar.into_inner().unwrap()
    }

    fn collect(take: &[&str], root: &str, entries: &[(&str, EntryType, &str)]) -> Result<Vec<String>, CollectError> {
        let take: Vec<String> = take.iter().map(|text| (*text).to_owned()).collect();
        let mut collected = Collected::new(Patterns::new(&take, &[]).unwrap())?;
        collected.read(&archive(entries)[..], root)?;
        let folder = tempfile::tempdir().unwrap();
        let packed = collected.pack(&folder.path().join("out"))?;
        Ok(packed.entries.into_iter().map(|entry| entry.path).collect())
    }

    #[test]
    fn files_links_and_folders_are_taken_by_pattern() {
        let entries = [
            ("dist/", EntryType::Directory, ""),
            ("dist/app", EntryType::Regular, "elf"),
            ("dist/copy", EntryType::Link, "dist/app"),
            ("dist/alias", EntryType::Symlink, "app"),
            ("dist/empty/", EntryType::Directory, ""),
        ];
        assert_eq!(collect(&["dist/"], "dist", &entries).unwrap(), ["alias", "app", "copy", "empty"]);
        assert_eq!(
            collect(&["dist"], "dist", &entries).unwrap(),
            ["dist/alias", "dist/app", "dist/copy", "dist/empty"]
        );
        assert_eq!(collect(&["dist/app"], "dist/app", &[("app", EntryType::Regular, "x")]).unwrap(), ["dist/app"]);
        assert_eq!(collect(&["*"], "", &[("src/main", EntryType::Regular, "x")]).unwrap(), ["main"]);
    }

    #[test]
    fn a_pattern_without_a_match_is_an_error() {
        let error = collect(&["dist", "missing"], "dist", &[("dist/a", EntryType::Regular, "x")]).unwrap_err();
        assert_eq!(error.to_string(), "nothing to pack: `missing` matches no file that the build left");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for (entry, why) in [
            (("dist/null", EntryType::Char, ""), "device"),
            (("dist/out", EntryType::Symlink, "/etc/passwd"), "leads out"),
            (("dist/hard", EntryType::Link, "dist/unknown"), "hard link"),
        ] {
            let error = collect(&["dist"], "dist", &[entry]).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(placed("dist", Path::new("../x")).is_err());
    }
}
