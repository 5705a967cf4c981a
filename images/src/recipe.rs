//! A recipe: everything that decides what a base root is made of.
//!
//! A recipe is a folder: `recipe.yaml`, and below `files/` what is laid over the packages. The recipes under
//! `images/recipes` are built in; any other folder can be named by its path.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The label of a root in the engine that holds the recipe's name.
pub const RECIPE_LABEL: &str = "io.alcedo.recipe";
/// The label of a root in the engine that holds [`Recipe::digest`].
pub const DIGEST_LABEL: &str = "io.alcedo.recipe.digest";
/// The label of a root in the engine that holds the SHA-256 of its list of package versions.
pub const PACKAGES_LABEL: &str = "io.alcedo.recipe.packages";

/// The version of `recipe.yaml` that this program reads.
const VERSION: u32 = 1;

/// How many hexadecimal digits of the digest name the image. The local region relies on the same number.
const TAG_DIGITS: usize = 12;

/// A built-in recipe: its name, its `recipe.yaml`, and its files by path.
type BuiltIn = (&'static str, &'static str, &'static [(&'static str, &'static [u8])]);

macro_rules! built_in {
    ($name:literal: $($path:literal),+ $(,)?) => {
        (
            $name,
            include_str!(concat!("../recipes/", $name, "/recipe.yaml")),
            &[$(($path, include_bytes!(concat!("../recipes/", $name, "/files", $path)))),+],
        )
    };
}

static BUILT_IN: [BuiltIn; 1] = [built_in!("debian-bookworm":
    "/etc/ssh/sshd_config.d/10-alcedo.conf",
    "/etc/sudoers.d/90-alcedo",
    "/usr/lib/alcedo/guest-agent",
    "/usr/lib/systemd/system/alcedo-identity.service",
    "/usr/lib/systemd/system/alcedo-user-data.service",
    "/usr/lib/systemd/system/ssh.service.d/10-alcedo.conf",
)];

/// `recipe.yaml`. The built-in recipe's file says what each key means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub name: String,
    pub suite: String,
    pub components: Vec<String>,
    pub mirror: String,
    pub security_mirror: String,
    pub packages: Vec<String>,
    #[serde(default)]
    pub exclude_paths: Vec<String>,
    #[serde(default)]
    pub include_paths: Vec<String>,
    #[serde(default)]
    pub files: Vec<ManifestFile>,
    #[serde(default)]
    pub enable: Vec<String>,
    #[serde(default)]
    pub mask: Vec<String>,
    #[serde(default)]
    pub commands: Vec<String>,
}

/// One file of `files/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Absolute, in the root.
    pub path: String,
    /// Permission bits in octal, e.g. `"0644"`.
    pub mode: String,
}

/// A file as it will be in the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeFile {
    /// Absolute, in the root.
    pub path: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// A recipe that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    manifest: Manifest,
    files: Vec<RecipeFile>,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error("there is no recipe `{name}`")]
    Unknown { name: String },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{origin} is no recipe")]
    Malformed { origin: String, source: serde_yaml::Error },
    #[error("{origin} is of version {found}; this program reads version {VERSION}")]
    Version { origin: String, found: u32 },
    #[error("{origin}: {what}")]
    Invalid { origin: String, what: String },
}

impl RecipeError {
    /// What to do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { name } => {
                let nearest = names().max_by(|a, b| {
                    let likeness = |known: &str| known.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
                    likeness(a).cmp(&likeness(b))
                });
                Some(format!(
                    "built-in recipes: {}{}; a recipe of your own is named by its folder's path, e.g. `./recipes/web`",
                    names().collect::<Vec<_>>().join(", "),
                    nearest
                        .filter(|known| known.starts_with(name))
                        .map_or(String::new(), |known| { format!(" (did you mean `{known}`?)") }),
                ))
            }
            Self::Version { found, .. } if *found > VERSION => Some("update alcedo".to_owned()),
            _ => None,
        }
    }
}

/// The names of the built-in recipes.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, ..)| *name)
}

impl Recipe {
    /// Reads a recipe: a built-in one by its name, any other by its folder's path (which contains a `/`).
    ///
    /// # Errors
    /// There is no such recipe, or it cannot be read or does not hold together.
    pub fn load(name_or_path: &str) -> Result<Self, RecipeError> {
        if name_or_path.contains('/') {
            return Self::from_folder(Path::new(name_or_path));
        }
        let (name, manifest, files) = BUILT_IN
            .iter()
            .find(|(name, ..)| *name == name_or_path)
            .ok_or_else(|| RecipeError::Unknown { name: name_or_path.to_owned() })?;
        let origin = format!("the built-in recipe {name}");
        Self::parse(&origin, manifest, |path| {
            let found = files.iter().find(|(known, _)| *known == path);
            found
                .map(|(_, content)| content.to_vec())
                .ok_or_else(|| RecipeError::Invalid { origin: origin.clone(), what: format!("{path} is not built in") })
        })
    }

    fn from_folder(folder: &Path) -> Result<Self, RecipeError> {
        let unreadable = |path: &Path, source| RecipeError::Unreadable { path: path.to_owned(), source };
        let manifest_path = folder.join("recipe.yaml");
        let manifest = fs::read_to_string(&manifest_path).map_err(|source| unreadable(&manifest_path, source))?;
        Self::parse(&manifest_path.display().to_string(), &manifest, |path| {
            let file = folder.join("files").join(path.trim_start_matches('/'));
            fs::read(&file).map_err(|source| unreadable(&file, source))
        })
    }

    fn parse(
        origin: &str,
        manifest: &str,
        read: impl Fn(&str) -> Result<Vec<u8>, RecipeError>,
    ) -> Result<Self, RecipeError> {
        let manifest: Manifest = serde_yaml::from_str(manifest)
            .map_err(|source| RecipeError::Malformed { origin: origin.to_owned(), source })?;
        if manifest.version != VERSION {
            return Err(RecipeError::Version { origin: origin.to_owned(), found: manifest.version });
        }
        let invalid = |what: String| RecipeError::Invalid { origin: origin.to_owned(), what };
        check(&manifest).map_err(invalid)?;
        let file = |file: &ManifestFile| {
            let mode = u32::from_str_radix(&file.mode, 8).ok().filter(|mode| *mode <= 0o7777);
            let mode =
                mode.ok_or_else(|| invalid(format!("the mode `{}` of {} is not octal", file.mode, file.path)))?;
            Ok(RecipeFile { path: file.path.clone(), mode, content: read(&file.path)? })
        };
        let mut files = manifest.files.iter().map(file).collect::<Result<Vec<_>, RecipeError>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { manifest, files })
    }

    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The files to lay over the packages, by path.
    pub fn files(&self) -> &[RecipeFile] {
        &self.files
    }

    /// `sha256:…` over every input that decides the root's content: the machine's architecture, the packages' names, the
    /// files, the units, the commands. Not the mirrors, which all hold the same packages; and not the packages' versions,
    /// which are the distribution's to move: the root itself lists them, in [`crate::bootstrap::PACKAGE_LIST`].
    pub fn digest(&self) -> String {
        let mut manifest = Manifest {
            mirror: String::new(),
            security_mirror: String::new(),
            files: Vec::new(),
            ..self.manifest.clone()
        };
        // What is a set has one order; commands keep theirs, as it matters.
        for set in [&mut manifest.packages, &mut manifest.enable, &mut manifest.mask] {
            set.sort();
            set.dedup();
        }
        let files: Vec<_> =
            self.files.iter().map(|file| (&file.path, file.mode, hex::encode(Sha256::digest(&file.content)))).collect();
        let canonical = serde_json::json!({
            "canonical_form": 1,
            "architecture": std::env::consts::ARCH,
            "manifest": manifest,
            "files": files,
        });
        format!("sha256:{}", hex::encode(Sha256::digest(canonical.to_string())))
    }

    /// The root's reference in the engine, `alcedo/<name>:<first 12 hex of the digest>`.
    pub fn reference(&self) -> String {
        let digest = self.digest();
        let digits = digest.trim_start_matches("sha256:").get(..TAG_DIGITS).unwrap_or_default();
        format!("{}:{digits}", self.repository())
    }

    /// The reference without its tag, `alcedo/<name>`.
    pub fn repository(&self) -> String {
        format!("alcedo/{}", self.manifest.name)
    }
}

/// What types cannot say: names become parts of image references, arguments and paths.
fn check(manifest: &Manifest) -> Result<(), String> {
    let is_name = |text: &str, also: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || also.contains(c))
    };
    if !is_name(&manifest.name, "-") || manifest.name.ends_with('-') || manifest.name.contains("--") {
        return Err(format!("the name `{}` is not of the form a-z, 0-9 and single hyphens", manifest.name));
    }
    if manifest.components.is_empty() {
        return Err("`components` is empty; `main` is the one that all of Debian has".to_owned());
    }
    for word in [&manifest.suite].into_iter().chain(&manifest.components).chain(&manifest.packages) {
        if !is_name(word, "-+.:") {
            return Err(format!("`{word}` is no name of a suite, component or package"));
        }
    }
    for unit in manifest.enable.iter().chain(&manifest.mask) {
        if unit.contains('/') || !unit.contains('.') {
            return Err(format!("`{unit}` is no name of a unit, such as `ssh.service`"));
        }
    }
    for file in &manifest.files {
        if !file.path.starts_with('/') || file.path.split('/').any(|part| part == "..") {
            return Err(format!("`{}` is no absolute path", file.path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "version: 1\nname: small\nsuite: bookworm\ncomponents: [main]\nmirror: http://a\n\
                         security_mirror: http://b\npackages: [systemd, sudo]\n";

    fn small(more: &str) -> Result<Recipe, RecipeError> {
        Recipe::parse("test", &format!("{SMALL}{more}"), |path| Ok(path.as_bytes().to_vec()))
    }

    #[test]
    fn every_built_in_recipe_loads_and_uses_all_of_its_files() {
        for (name, _, files) in &BUILT_IN {
            let recipe = Recipe::load(name).expect("it loads");
            assert_eq!(recipe.name(), *name);
            assert_eq!(recipe.files().len(), files.len(), "a file is built in but not listed, or listed twice");
        }
    }

    #[test]
    fn a_folder_gives_the_same_recipe_as_the_built_in_one() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/debian-bookworm");
        assert_eq!(Recipe::load(folder).expect("it loads"), Recipe::load("debian-bookworm").expect("it loads"));
    }

    #[test]
    fn the_digest_names_what_goes_in_and_not_where_it_comes_from() {
        let digest = |more: &str| small(more).expect("it loads").digest();
        let plain = digest("");
        assert_eq!(plain.len(), "sha256:".len() + 64);
        for different in ["mask: [a.service]", "commands: ['true']", "files: [{path: /etc/a, mode: '0644'}]"] {
            assert_ne!(digest(different), plain, "{different}");
        }
        assert_ne!(digest("commands: ['true', 'false']"), digest("commands: ['false', 'true']"));
        let elsewhere =
            SMALL.replace("http://a", "http://mirror.example").replace("[systemd, sudo]", "[sudo, systemd]");
        let elsewhere = Recipe::parse("test", &elsewhere, |_| Ok(Vec::new())).expect("it loads");
        assert_eq!(elsewhere.digest(), plain);
    }

    #[test]
    fn a_changed_file_changes_the_digest() {
        let with = |content: &str| {
            let manifest = format!("{SMALL}files: [{{path: /etc/a, mode: '0644'}}]");
            Recipe::parse("test", &manifest, |_| Ok(content.into())).expect("it loads").digest()
        };
        assert_ne!(with("a"), with("b"));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        for bad in [
            "mask: [nftables]",
            "mask: ['../x.service']",
            "files: [{path: etc/a, mode: '0644'}]",
            "files: [{path: /etc/../a, mode: '0644'}]",
            "files: [{path: /etc/a, mode: rw}]",
        ] {
            assert!(matches!(small(bad), Err(RecipeError::Invalid { .. })), "{bad}");
        }
        assert!(matches!(small("masks: []"), Err(RecipeError::Malformed { .. })));
        let newer = SMALL.replace("version: 1", "version: 2");
        assert!(matches!(
            Recipe::parse("test", &newer, |_| Ok(Vec::new())),
            Err(RecipeError::Version { found: 2, .. })
        ));
        let option = SMALL.replace("sudo]", "--help]");
        assert!(matches!(Recipe::parse("test", &option, |_| Ok(Vec::new())), Err(RecipeError::Invalid { .. })));
    }

    #[test]
    fn an_unknown_name_gets_the_known_ones() {
        let error = Recipe::load("debian").expect_err("there is none");
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("did you mean `debian-bookworm`"), "{hint}");
    }
}
