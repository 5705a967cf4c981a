//! The inputs that libFuzzer begins with, put where cargo-fuzz has it look for them.

use std::{fs, path::Path};

/// Writes seeds into the corpus of a target. What is there already stays: it was found in earlier runs.
pub fn seed(target: &str, seeds: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the corpus has a folder");
    for (name, content) in seeds {
        fs::write(folder.join(format!("seed-{name}")), content).expect("a seed can be written");
    }
}
