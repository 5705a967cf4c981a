//! The path at which an app says that it is well, where its source has one of the usual ones.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// What apps call it, the most telling first.
const PATHS: [&str; 5] = ["/healthz", "/health", "/api/health", "/_health", "/up"];
const SOURCES: [&str; 14] =
    ["rs", "go", "js", "mjs", "cjs", "ts", "py", "java", "kt", "scala", "groovy", "ex", "exs", "eex"];
/// What others wrote, or what a build has made.
const NOT_SOURCES: [&str; 8] = ["node_modules", "vendor", "target", "deps", "_build", "dist", "build", "deploy"];

/// More is not read: routes stand near the top of a project.
const MOST_FILES: usize = 400;
const MOST_BYTES: u64 = 256 * 1024;
const DEEPEST: usize = 8;

pub(super) fn path(folder: &Path) -> Option<&'static str> {
    let mut files = Vec::new();
    collect(folder, DEEPEST, &mut files);
    let mut found: Vec<&'static str> = Vec::new();
    for file in files {
        let text = read(&file);
        found.extend(PATHS.into_iter().filter(|path| has(&text, path)));
    }
    PATHS.into_iter().find(|path| found.contains(path))
}

/// Whether the path stands there as a text of its own.
fn has(text: &str, path: &str) -> bool {
    ['"', '\'', '`'].iter().any(|quote| text.contains(&format!("{quote}{path}{quote}")))
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    // The same folder gives the same answer.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if files.len() >= MOST_FILES {
            return;
        }
        // Links are not followed: they may lead anywhere.
        let Ok(kind) = entry.file_type() else { continue };
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if kind.is_dir() {
            if depth > 0 && !name.starts_with('.') && !NOT_SOURCES.contains(&&*name) {
                collect(&path, depth - 1, files);
            }
        } else if kind.is_file() && path.extension().is_some_and(|it| SOURCES.iter().any(|known| it == *known)) {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(file).map(|file| file.take(MOST_BYTES).read_to_end(&mut bytes)) {
        Ok(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}
