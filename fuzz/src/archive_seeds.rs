//! Archives that the inspection accepts, one for each form it knows: hostile ones are a few changes away.

use alcedo_images::archive::header;
use tar::{Builder, EntryType};

/// Each with its name: as tar, and one as it lies in a bucket.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let long = "deep/".repeat(30) + "file";
    let seeds = [
        ("file", tar(|tar| file(tar, "a", b"x"))),
        ("folder", tar(|tar| entry(tar, EntryType::Directory, "a/", 0o755, b""))),
        ("link", tar(|tar| link(tar, "a/b", "../c"))),
        ("long-name", tar(|tar| file(tar, &long, b"x"))),
        ("long-link", tar(|tar| link(tar, "a", &long))),
        (
            "app",
            tar(|tar| {
                entry(tar, EntryType::Directory, "bin/", 0o755, b"");
                entry(tar, EntryType::Regular, "bin/hello", 0o755, &[7; 600]);
                link(tar, "bin/alias", "hello");
                link(tar, "current", "bin");
                file(tar, "etc/hello.conf", b"port = 80\n");
            }),
        ),
    ];
    let frame = zstd::bulk::compress(&seeds[0].1, 1).expect("memory can be compressed");
    let seeds = seeds.into_iter().map(|(name, tar)| (format!("{name}.tar"), tar));
    seeds.chain([("frame.tar.zst".to_owned(), frame)]).collect()
}

fn tar(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    fill(&mut tar);
    tar.into_inner().expect("memory can be written")
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    entry(tar, EntryType::Regular, path, 0o644, content);
}

fn entry(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, mode: u32, content: &[u8]) {
    tar.append_data(&mut header(kind, mode, content.len() as u64), path, content).expect("a seed is plain");
}

fn link(tar: &mut Builder<Vec<u8>>, path: &str, target: &str) {
    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target).expect("a seed is plain");
}
