//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The project's folder.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project's folder")
}

/// Cargo's target folder, where everything that can be made again is kept.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(given) => folder().join(given),
        None => folder().join("target"),
    }
}

/// The `alcedo` that `cargo build -p alcedo` makes.
pub fn alcedo() -> PathBuf {
    target().join("debug/alcedo")
}

/// The user's folder for state that outlives the project's folder, as the XDG base directory specification names it.
pub fn state() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home().join(".local/state"))
        .join("alcedo")
}

/// `path` as seen from the project's folder, where it lies inside it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(folder()).unwrap_or(path).display().to_string()
}
