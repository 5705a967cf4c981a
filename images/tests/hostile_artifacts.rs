//! Archives that were made to get out of the folder they are unpacked in, or to fill the disk: each is refused. And whatever is
//! accepted, tar itself unpacks inside.

use std::{
    fs,
    io::{Read as _, Write},
    path::Path,
    process::Command,
};

use alcedo_images::{archive::Content, inspect::inspect};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

/// One entry, as a header would have it: no builder that knows better stands between.
#[derive(Debug, Clone)]
struct Raw {
    path: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    mode: u32,
    owner: u64,
    content: Vec<u8>,
}

fn file(path: &str) -> Raw {
    let path = path.as_bytes().to_vec();
    Raw { path, kind: EntryType::Regular, link: Vec::new(), mode: 0o644, owner: 0, content: b"x".to_vec() }
}

fn folder(path: &str) -> Raw {
    Raw { kind: EntryType::Directory, mode: 0o755, content: Vec::new(), ..file(path) }
}

fn link(path: &str, target: &str) -> Raw {
    Raw { kind: EntryType::Symlink, mode: 0o777, content: Vec::new(), link: target.as_bytes().to_vec(), ..file(path) }
}

fn header(raw: &Raw) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    let put = |field: &mut [u8], text: &[u8]| {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    };
    put(&mut old.name, &raw.path);
    put(&mut old.linkname, &raw.link);
    header.set_entry_type(raw.kind);
    header.set_mode(raw.mode);
    header.set_uid(raw.owner);
    header.set_gid(raw.owner);
    header.set_mtime(0);
    header.set_size(raw.content.len() as u64);
    header.set_cksum();
    header
}

fn tar_of(entries: &[Raw]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for raw in entries {
        tar.append(&header(raw), raw.content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn packed(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 3).unwrap()
}

fn of(entries: &[Raw]) -> Vec<u8> {
    packed(&tar_of(entries))
}

/// Changes the first header, and gives it the checksum of what stands in it then.
fn mend(tar: &mut [u8], change: impl FnOnce(&mut Header)) {
    let mut header = Header::from_byte_slice(&tar[..512]).clone();
    change(&mut header);
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
}

/// Paths that lead out, or that two readers could read in two ways.
const PATHS: [&str; 24] = [
    "/etc/passwd",
    "//etc/passwd",
    "../out",
    "a/../../out",
    "a/../b",
    "..",
    "../",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "/",
    ".",
    "./",
    "a/..",
    "../../../../../../etc/cron.d/x",
    "/proc/self/exe",
    "a\nb",
    "a\u{1b}[2Jb",
    "a\tb",
    "\u{7f}",
    "a/../a",
    "./../out",
    "x/./../y",
];

/// More than unpacks from anything.
const ZEROS: u64 = (1 << 30) + (1 << 20);

/// Where links lead out.
const TARGETS: [&str; 16] = [
    "/",
    "/etc/passwd",
    "..",
    "../",
    "../out",
    "../../etc",
    "a/../../..",
    "/proc/self/root",
    "./../..",
    "a/b/../../../x",
    "//x",
    "../../../../../../../../etc/shadow",
    "",
    "a\nb/../../..",
    "/dev/sda",
    "b/../..",
];

fn hostile() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| all.push((name, bytes));
    for path in PATHS {
        add(format!("file {path:?}"), of(&[file(path)]));
        // A folder's own way to be written.
        if path != "a/" {
            add(format!("folder {path:?}"), of(&[folder(path)]));
        }
        add(format!("link {path:?}"), of(&[link(path, "a")]));
    }
    for target in TARGETS {
        add(format!("link to {target:?}"), of(&[link("a", target)]));
        add(format!("link to {target:?} among others"), of(&[file("0"), link("a", target), file("z")]));
    }
    for mode in [0o4755, 0o2755, 0o6755, 0o1777, 0o7777, 0o4000, 0o100_755, 0o666, 0o777, 0o622] {
        add(format!("mode {mode:o}"), of(&[Raw { mode, ..file("a") }]));
        add(format!("folder of mode {mode:o}"), of(&[Raw { mode, ..folder("a") }]));
    }
    for kind in [b'1', b'3', b'4', b'6', b'7', b'S', b'M', b'D', b'N', b'V', b'x', b'g', b'X', b'A', b'Z', b'8'] {
        let kind_of = EntryType::new(kind);
        let raw = Raw { kind: kind_of, link: b"etc".to_vec(), ..file("a") };
        add(format!("kind {}", char::from(kind)), of(std::slice::from_ref(&raw)));
        add(format!("kind {} among others", char::from(kind)), of(&[file("0"), raw, file("z")]));
    }
    for owner in [1, 1000, 65_534] {
        add(format!("owner {owner}"), of(&[Raw { owner, ..file("a") }]));
    }
    // Numbers that one reader takes for one thing and another for another; and the rest of a name.
    for (what, field, text) in [
        ("a mode with a sign", 100..108, b"+11\0\0\0\0\0".as_slice()),
        ("a mode with blanks", 100..108, b"   644 \0"),
        ("a mode in base 64", 100..108, b"-Ab\0\0\0\0\0"),
        ("an empty mode", 100..108, &[0; 8]),
        ("an owner with a sign", 108..116, b"+0\0\0\0\0\0\0"),
        ("a size with a sign", 124..136, b"+1\0\0\0\0\0\0\0\0\0\0"),
        ("a size in base 64", 124..136, b"-A\0\0\0\0\0\0\0\0\0\0"),
        ("a binary size with more in it", 124..136, b"\x80\x01\0\0\0\0\0\0\0\0\0\x01"),
        ("a magic of no kind", 257..265, b"ustar\0xx"),
        ("a magic of another kind", 257..265, b"ustar\x0000"),
        ("no magic", 257..265, &[0; 8]),
        // tar gives a file to whom it names, if there is one, whatever the number says.
        ("an owner by name", 265..271, b"nobody"),
        ("a group by name", 297..304, b"nogroup"),
    ] {
        let mut bytes = tar_of(&[file("a")]);
        bytes[field].copy_from_slice(text);
        mend(&mut bytes, |_| {});
        add(what.into(), packed(&bytes));
    }
    // tar takes such a header for none, and what should be its file's content for headers.
    let mut signed = tar_of(&[file("a")]);
    let sum = u32::from_str_radix(std::str::from_utf8(&signed[148..154]).unwrap(), 8).unwrap();
    signed[148..156].copy_from_slice(format!("+{sum:06o}\0").as_bytes());
    add("a checksum with a sign".into(), packed(&signed));
    // Upwards from a name that is a link leads wherever that one does.
    add(
        "through links".into(),
        of(&[folder("d/"), link("d/up", ".."), link("x", "d/up/d/up/d/up/../../../../etc/shadow")]),
    );
    // Twice, or through one another.
    add("a file twice".into(), of(&[file("a"), file("a")]));
    add("a folder twice".into(), of(&[folder("a/"), folder("a")]));
    add("a link, then a file".into(), of(&[link("a", "b"), file("a")]));
    add("a file, then a link".into(), of(&[file("a"), link("a", "b")]));
    add("below a link".into(), of(&[link("a", "b"), file("a/x")]));
    add("deep below a link".into(), of(&[link("a", "b"), file("a/x/y/z")]));
    add("below a file".into(), of(&[file("a"), file("a/x")]));
    add("a link in a folder's place".into(), of(&[file("a/x"), link("a", "b")]));
    add("a file in a folder's place".into(), of(&[file("a/x"), file("a")]));
    add("a folder that becomes a link".into(), of(&[folder("a"), link("a", "b"), file("a/x")]));
    add("content of a folder".into(), of(&[Raw { content: b"x".to_vec(), ..folder("a") }]));
    add("content of a link".into(), of(&[Raw { content: b"x".to_vec(), ..link("a", "b") }]));
    // What stands behind the end.
    let good = tar_of(&[file("a")]);
    add("a second archive behind the first".into(), packed(&[good.clone(), tar_of(&[file("../b")])].concat()));
    add("a second frame".into(), [packed(&good), packed(&tar_of(&[file("../b")]))].concat());
    add("bytes behind the end".into(), packed(&[good.clone(), b"x".to_vec()].concat()));
    add("zeros without end".into(), packed(&[good.clone(), vec![0; 4 << 20]].concat()));
    add("bytes behind the frame".into(), [packed(&good), b"xxxx".to_vec()].concat());
    add("no tar".into(), packed(&vec![7; 4096]));
    add("no zstd".into(), good.clone());
    add("nothing".into(), Vec::new());
    let whole = of(&[file("a"), Raw { content: (0..=255).cycle().take(9_000).collect(), ..file("b") }]);
    for at in (1..whole.len()).step_by(whole.len() / 20) {
        add(format!("cut after {at} bytes"), whole[..at].to_vec());
    }
    // Names longer than a header.
    for (what, name) in [
        ("upwards", "../".repeat(60) + "x"),
        ("absolute", "/".to_owned() + &"a/".repeat(80) + "x"),
        ("endless", "a/".repeat(4_000)),
    ] {
        let long = Raw { kind: EntryType::GNULongName, content: name.into_bytes(), ..file("././@LongLink") };
        add(format!("a long name {what}"), of(&[long, file("a")]));
    }
    // GNU tar reads a long name to the first zero, beyond its size if need be; others read as far as the size says.
    for (what, kind) in [("name", EntryType::GNULongName), ("target", EntryType::GNULongLink)] {
        for (how, content, size) in [
            ("goes on behind its end", "a\0", 1),
            ("stops before its end", "a\0b\0", 4),
            ("has no end", "a", 1),
            ("is none", "", 0),
        ] {
            let long = Raw { kind, content: content.into(), ..file("././@LongLink") };
            let mut bytes = tar_of(&[long, link("b", "c")]);
            if how == "goes on behind its end" {
                bytes[512..530].copy_from_slice(b"a/../../etc/shadow");
            }
            mend(&mut bytes, |header| header.set_size(size));
            add(format!("a long {what} that {how}"), packed(&bytes));
        }
    }
    // Bombs.
    let mut bomb = Builder::new(zstd::Encoder::new(Vec::new(), 3).unwrap());
    let mut of_zeros = Header::new_gnu();
    of_zeros.set_mode(0o644);
    of_zeros.set_size(ZEROS);
    bomb.append_data(&mut of_zeros, "zeros", std::io::repeat(0).take(ZEROS)).unwrap();
    add("a bomb".into(), bomb.into_inner().unwrap().finish().unwrap());
    let lies = {
        let mut header = header(&file("a"));
        header.set_size(u64::MAX >> 1);
        header.set_cksum();
        [header.as_bytes().as_slice(), &[0; 1024]].concat()
    };
    add("a size that is a lie".into(), packed(&lies));
    let mut many = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let one = tar_of(&[file("aaaaaaaa")]);
    for at in 0..200_001_u32 {
        let mut entry = one[..1024].to_vec();
        entry[..8].copy_from_slice(format!("{at:08}").as_bytes());
        mend(&mut entry, |_| {});
        many.write_all(&entry).unwrap();
    }
    many.write_all(&[0; 1024]).unwrap();
    add("too many entries".into(), many.finish().unwrap());
    all
}

fn is_refused(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("artifact.tar.zst");
    fs::write(&path, bytes).unwrap();
    inspect(&path).is_err()
}

#[test]
fn every_hostile_archive_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let all = hostile();
    let accepted: Vec<&String> =
        all.iter().filter(|(_, bytes)| !is_refused(folder.path(), bytes)).map(|(name, _)| name).collect();
    eprintln!("{} hostile archives", all.len());
    assert!(all.len() >= 200, "{}", all.len());
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
}

#[test]
fn what_a_build_packs_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::write(&source, vec![0; 3 << 20]).unwrap();
    let mut content = Content::new();
    let long = "deep/".repeat(60) + "file";
    for path in ["bin/hello", "a", "ünïcode", "with space", long.as_str()] {
        content.file(path, source.clone(), true).unwrap();
    }
    content.folder("empty").unwrap();
    content.link("bin/alias", "../a").unwrap();
    content.link("bin/far", &("../".to_owned() + &long)).unwrap();
    let archive = content.write(&folder.path().join("out.tar.zst")).unwrap();
    inspect(&archive.file).unwrap();
}

/// Entries from a small world, in which paths meet often.
fn entry() -> impl Strategy<Value = Raw> {
    let path = prop::sample::select(vec!["a", "b", "a/b", "a/c", "b/a", "../a", "/a", "a/../b", "c"]);
    let target = prop::sample::select(vec!["a", "b", "../b", "a/c", "../../x", "/tmp/x", "."]);
    let kind = prop::sample::select(vec![b'0', b'5', b'2', b'1', b'L', b'K', b'x', b'3']);
    (path, target, kind, prop::sample::select(vec![0o644, 0o755, 0o777, 0o4755])).prop_map(
        |(path, target, kind, mode)| {
            let content =
                if matches!(kind, b'0' | b'L' | b'K' | b'x') { target.as_bytes().to_vec() } else { Vec::new() };
            Raw { kind: EntryType::new(kind), link: target.as_bytes().to_vec(), mode, content, ..file(path) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("ALCEDO_SOAK").is_some() { 50_000 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Nothing panics; and what is accepted, the tar that servers use unpacks inside of its folder.
    #[test]
    fn what_is_accepted_stays_inside(entries in prop::collection::vec(entry(), 1..6), flip in any::<Option<(usize, u8)>>()) {
        let around = tempfile::tempdir().unwrap();
        let mut bytes = of(&entries);
        if let Some((at, mask)) = flip {
            let at = at % bytes.len();
            bytes[at] ^= mask;
        }
        if !is_refused(around.path(), &bytes) {
            let inside = around.path().join("inside");
            fs::create_dir(&inside).unwrap();
            let unpacked = Command::new("tar")
                .args(["--extract", "--zstd", "--file", "../artifact.tar.zst", "--same-permissions"])
                .current_dir(&inside)
                .output()
                .unwrap();
            prop_assert!(unpacked.status.success(), "{entries:?}: {}", String::from_utf8_lossy(&unpacked.stderr));
            let mut outside: Vec<_> = fs::read_dir(around.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
            outside.sort();
            prop_assert_eq!(outside, ["artifact.tar.zst", "inside"]);
        }
    }

    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 0..3_000), compressed in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = if compressed { packed(&noise) } else { noise };
        // An empty archive is one: a tar of nothing but zeros.
        if !is_refused(folder.path(), &bytes) {
            prop_assert!(zstd::decode_all(&bytes[..]).unwrap().iter().all(|byte| *byte == 0));
        }
    }
}
