//! Files that are made to exhaust whoever reads them: a pull request from anybody can hold one. Each is refused, in little time
//! and little memory.

use std::time::{Duration, Instant};

use alcedo_pipeline::validate::PipelineFile;

#[global_allocator]
static ALLOC: dhat::Alloc = dhat::Alloc;

/// Without the optimiser everything takes ten times as long or more.
const WITHIN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });
const HEAP: usize = 32 << 20;

/// A file in which nothing is wrong, to hang something on.
const GOOD: &str = "\
app: hello
build: { recipe: debian-bookworm, commands: [make], pack: [.] }
publish: { bucket: releases }
bake: { base: { recipe: debian-bookworm }, security_group: builder }
launch: { count: 2, subnets: [a], security_groups: [hello], port: 8080, health_check: { path: /health } }
flip: { listener: { load_balancer: hello, port: 80 }, preview: { header: { name: X-Preview, value: green } } }
";

/// So many levels of aliases, each of which names the one before so many times.
fn laughs(levels: usize, each: usize) -> String {
    let mut text = String::from("l0: &l0 [lol]\n");
    for level in 1..=levels {
        let names = vec![format!("*l{}", level - 1); each].join(", ");
        text += &format!("l{level}: &l{level} [{names}]\n");
    }
    text
}

/// The same with maps that are merged.
fn merges(levels: usize, each: usize) -> String {
    let mut text = String::from("m0: &m0 {a: 1}\n");
    for level in 1..=levels {
        let names = vec![format!("*m{}", level - 1); each].join(", ");
        text += &format!("m{level}: &m{level} {{<<: [{names}], k{level}: 1}}\n");
    }
    text
}

fn nested_blocks(depth: usize) -> String {
    (0..depth).map(|level| format!("{}a:\n", " ".repeat(level))).collect()
}

/// Each with its name.
fn bombs() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: String, text: String| all.push((name, text));
    for (levels, each) in [(9, 9), (10, 10), (30, 2), (100, 2), (1_000, 2), (5, 100), (3, 1_000), (2, 3_900)] {
        add(format!("aliases, {levels} levels of {each}"), laughs(levels, each));
        add(format!("merges, {levels} levels of {each}"), merges(levels, each));
    }
    for depth in [33, 100, 10_000, 80_000] {
        add(format!("{depth} open lists"), "[".repeat(depth));
        add(format!("{depth} closed lists"), format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        add(format!("{depth} open maps"), "{a: ".repeat(depth));
        add(format!("{depth} dashes"), "- ".repeat(depth));
        add(format!("{depth} question marks"), "? ".repeat(depth));
    }
    for depth in [33, 1_000] {
        add(format!("{depth} nested blocks"), nested_blocks(depth));
    }
    for count in [4_001, 80_000] {
        add(format!("{count} items"), format!("app: [{}]", "1,".repeat(count)));
        add(format!("{count} lines"), "- 1\n".repeat(count / 2));
        add(format!("{count} empty maps"), format!("app: [{}]", "{},".repeat(count)));
    }
    for count in [60, 900, 10_000] {
        let keys: String = (0..count).map(|at| format!("unknown_key_number_{at}: 1\n")).collect();
        add(format!("{count} unknown keys"), format!("{GOOD}{keys}"));
        let twice: String = (0..count).map(|_| "app: hello\n").collect();
        add(format!("{count} times the same key"), format!("{GOOD}{twice}"));
        let environments: String = (0..count).map(|at| format!("  e{at}: {{}}\n")).collect();
        add(format!("{count} environments"), format!("{GOOD}environments:\n{environments}"));
        let wrong: String = (0..count).map(|at| format!("  e{at}: {{launch: {{count: many}}}}\n")).collect();
        add(format!("{count} wrong environments"), format!("{GOOD}environments:\n{wrong}"));
        let checks = "  - http: {path: 7}\n".repeat(count);
        add(format!("{count} wrong checks"), format!("{GOOD}smoke_tests:\n{checks}"));
        add(format!("{count} documents"), format!("{GOOD}{}", "---\na: 1\n".repeat(count)));
        add(format!("{count} tags"), format!("app: [{}]", "!t 1,".repeat(count)));
    }
    let long = "x".repeat(250_000);
    add("a long scalar, many times".into(), format!("a: &a {}\nb: [{}]", &long[..100_000], "*a,".repeat(3_000)));
    add("a long key".into(), format!("{long}: 1"));
    add("a long value".into(), format!("app: {long}"));
    add("a long number".into(), format!("app: {}", "9".repeat(900_000)));
    add("a long hexadecimal number".into(), format!("app: 0x{}", "f".repeat(900_000)));
    add("a number beyond all bounds".into(), "app: 1e999999999999".into());
    add("a long line of escapes".into(), format!("app: \"{}\"", "\\u0041".repeat(43_000)));
    add("a string without an end".into(), format!("app: \"{long}"));
    add("a long anchor".into(), format!("app: &{long} 1"));
    add("a long tag".into(), format!("app: !{long} 1"));
    add("a long comment".into(), format!("#{long}"));
    add("many line ends".into(), "\n".repeat(260_000));
    add("many spaces".into(), " ".repeat(260_000));
    add("many tabs".into(), "\t".repeat(260_000));
    add("many directives".into(), "%YAML 1.2\n".repeat(26_000));
    add("an alias of itself".into(), "a: &a [*a]".into());
    add("an alias of nothing".into(), "a: *nothing".into());
    add("characters that are none".into(), "app: \u{0}\u{1b}[2J".into());
    add("more bytes than are read".into(), format!("app: hello\n#{}", "x".repeat(2 << 20)));
    all
}

#[test]
fn every_bomb_is_refused_in_little_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alcedo.yaml");
    std::fs::write(&path, GOOD).unwrap();
    assert!(PipelineFile::read(&path).is_ok(), "{:?}", PipelineFile::read(&path).err());
    let bombs = bombs();
    assert!(bombs.len() >= 50, "{}", bombs.len());
    let mut wrong = Vec::new();
    let (mut slowest, mut largest) = (Duration::ZERO, 0);
    for (name, text) in &bombs {
        std::fs::write(&path, text).unwrap();
        // The quickest of three: the machine may have something else to do.
        let took = (0..3)
            .map(|_| {
                let began = Instant::now();
                let read = PipelineFile::read(&path);
                let took = began.elapsed();
                if let Ok(file) = read {
                    wrong.push(format!("{name}: not refused, {:?}", file.environments().next()));
                }
                took
            })
            .min()
            .unwrap_or_default();
        let profiler = dhat::Profiler::builder().testing().build();
        let refusal = PipelineFile::read(&path).err().map(|problems| problems.to_string());
        let heap = dhat::HeapStats::get().max_bytes;
        drop(profiler);
        if took > WITHIN || heap > HEAP {
            wrong.push(format!("{name}: {took:.1?}, {:.1} MiB", heap as f64 / f64::from(1 << 20)));
        }
        if let Some(refusal) = refusal.filter(|refusal| refusal.len() > 64 << 10) {
            wrong.push(format!("{name}: {} bytes of words", refusal.len()));
        }
        (slowest, largest) = (slowest.max(took), largest.max(heap));
    }
    eprintln!("{} bombs, the slowest {slowest:.1?}, the largest {} KiB", bombs.len(), largest >> 10);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
