//! Files of the project itself: the reference, the example, and the tests' collection of files with problems.

use std::{fs, path::Path};

/// Each with its name.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| fs::read_to_string(path).expect("a file of the project can be read");
    let mut seeds = vec![
        ("reference.yaml".to_owned(), without_comments(&read(&project.join("docs/alcedo.yaml")))),
        ("example.yaml".to_owned(), without_comments(&read(&project.join("examples/hello/alcedo.yaml")))),
        ("small.yaml".to_owned(), SMALL.as_bytes().to_vec()),
    ];
    for entry in fs::read_dir(project.join("pipeline/tests/bad_files")).expect("the tests have such files") {
        let path = entry.expect("a folder can be listed").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        seeds.push((name, read(&path).into_bytes()));
    }
    seeds
}

/// The least that is accepted.
const SMALL: &str = "\
app: hello
build: { recipe: debian-bookworm, commands: [make], pack: [.] }
publish: { bucket: releases }
bake: { base: { recipe: debian-bookworm }, security_group: builder }
launch: { subnets: [a], security_groups: [hello] }
flip: { listener: { load_balancer: hello, port: 80 }, preview: { port: 81 } }
";

/// Mutations of prose are a waste.
fn without_comments(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let lines = lines.map(|line| line.split(" #").next().unwrap_or(line).trim_end());
    lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
}
