//! Twenty canaries: values from every source, in an app that prints them wherever it can. They reach the servers, and nothing
//! that can be read afterwards has one of them in it, in whichever form.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use age::secrecy::ExposeSecret;
use aws_sdk_ssm::types::ParameterType;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use crate::{
    run::{Ended, Running, assert_says, text},
    traffic::client,
    world::{BUCKET, World},
};

/// What the app does with them: it logs them, shows them to whoever asks, and tells a digest of them.
const LEAK: &str = r#"package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
)

func canaries() []string {
	var found []string
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "CANARY_") {
			found = append(found, entry)
		}
	}
	sort.Strings(found)
	return found
}

func leaked() string {
	var lines []string
	for _, entry := range canaries() {
		_, value, _ := strings.Cut(entry, "=")
		quoted, _ := json.Marshal(map[string]string{"token": value})
		lines = append(lines,
			"raw "+value,
			"json "+string(quoted),
			"url https://example.com/?token="+url.QueryEscape(value)+"&path="+url.PathEscape(value),
			"basic "+base64.StdEncoding.EncodeToString([]byte("user:"+value)),
			"urlsafe "+base64.RawURLEncoding.EncodeToString([]byte("x"+value+"!")),
			"hex "+hex.EncodeToString([]byte(value)),
			fmt.Sprintf("go %q", value))
	}
	return strings.Join(lines, "\n")
}

func init() {
	if len(canaries()) > 0 {
		log.Print(leaked())
	}
}

func leak(mux *http.ServeMux) {
	mux.HandleFunc("/leak", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, leaked()) })
	mux.HandleFunc("/digest", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.Sum256([]byte(strings.Join(canaries(), "\n")))
		fmt.Fprint(w, hex.EncodeToString(sum[:]))
	})
}
"#;

/// Shows what it inherited, and fails.
const NOSY: &str = "#!/bin/sh\nenv\nexit 1\n";

/// One planted value.
struct Canary {
    name: String,
    value: String,
    /// The part of the value that no encoding of text touches.
    core: String,
}

impl Canary {
    fn new(source: &str, index: usize) -> Self {
        let core = format!("canary{index}Q{:016x}", rand::random::<u64>());
        let value = match index {
            0 => core.clone(),
            1 => format!("p@ss \"{core}\" \\ $HOME `id` 'x' äß€"),
            2 => format!("postgres://u:{core}@db/x?a=1&b=%41+<c>"),
            3 => format!("-----BEGIN {core}-----\nMIIE{core}\n-----END {core}-----\n"),
            _ => format!("{core}={core}"),
        };
        Self { name: format!("CANARY_{source}_{index}"), value, core }
    }

    /// How it could be found: the core as it is, in hexadecimal, and in base64 wherever it may begin.
    fn traces(&self) -> Vec<String> {
        let hex = hex::encode(&self.core);
        let mut traces = vec![self.core.clone(), hex.to_uppercase(), hex];
        for before in 0..3 {
            let shifted = [&b"\0\0\0"[..before], self.core.as_bytes()].concat();
            let inner = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
            traces.extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|it| it.encode(&shifted)[inner.clone()].to_owned()));
        }
        traces
    }
}

/// Looks for all of them.
#[derive(Clone)]
struct Search {
    finder: Arc<aho_corasick::AhoCorasick>,
    names: Arc<Vec<String>>,
}

impl Search {
    fn of(canaries: &[Canary]) -> Self {
        let traces: Vec<(String, String)> =
            canaries.iter().flat_map(|it| it.traces().into_iter().map(|trace| (it.name.clone(), trace))).collect();
        let finder = aho_corasick::AhoCorasick::new(traces.iter().map(|(_, trace)| trace)).unwrap();
        Self { finder: Arc::new(finder), names: Arc::new(traces.into_iter().map(|(name, _)| name).collect()) }
    }

    fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        self.finder.find(bytes).map(|found| self.names[found.pattern()].as_str())
    }

    #[track_caller]
    fn assert_clean(&self, what: &str, bytes: &[u8]) {
        if let Some(name) = self.found_in(bytes) {
            panic!("{what} has {name} in it:\n{}", String::from_utf8_lossy(bytes));
        }
    }
}

/// Looks at the arguments of every process of this machine, those in containers as well, as long as it lives.
struct Lookout {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<Option<String>>>,
}

impl Lookout {
    fn post(search: &Search) -> Self {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (search, told, counted) = (search.clone(), stop.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
                    if let Some(name) = search.found_in(&words) {
                        return Some(format!("{name} in {}", String::from_utf8_lossy(&words).replace('\0', " ")));
                    }
                }
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            None
        });
        Self { stop, looks, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().expect("it is ended once").join().expect("it does not panic");
        assert_eq!(seen, None, "arguments are everybody's to read");
        self.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Scene {
    world: World,
    canaries: Vec<Canary>,
    search: Search,
    variables: BTreeMap<String, String>,
    /// Everything that was said.
    heard: Vec<(String, Ended)>,
}

impl Scene {
    fn set() -> Self {
        let world = World::new("secrets");
        let canaries: Vec<Canary> = ["ENV", "FILE", "SSM", "AGE"]
            .into_iter()
            .flat_map(|source| (0..5).map(move |at| Canary::new(source, at)))
            .collect();
        let identity = age::x25519::Identity::generate();
        let mut variables =
            BTreeMap::from([("ALCEDO_AGE_IDENTITY".to_owned(), identity.to_string().expose_secret().to_owned())]);
        let mut sources = String::from("secrets:\n");
        let mut encrypted = BTreeMap::new();
        for Canary { name, value, .. } in &canaries {
            let source = match name.split('_').nth(1) {
                Some("ENV") => {
                    variables.insert(format!("FROM_{name}"), value.clone());
                    format!("environment: FROM_{name}")
                }
                Some("FILE") => {
                    let path = world.path().join(name);
                    fs::write(&path, value).unwrap();
                    format!("file: {}", path.display())
                }
                Some("SSM") => {
                    let parameter = format!("/hello/{name}");
                    let put = world.clients().ssm.put_parameter().name(&parameter).value(value);
                    let put = put.r#type(ParameterType::SecureString).send();
                    world.runtime.block_on(put).expect("the parameter is written");
                    format!("ssm: {parameter}")
                }
                _ => {
                    encrypted.insert(name, value);
                    "age: deploy/secrets.age".to_owned()
                }
            };
            sources.push_str(&format!("  {name}: {{ {source} }}\n"));
        }
        let plain = serde_json::to_vec(&encrypted).unwrap();
        let armored = age::encrypt_and_armor(&identity.to_public(), &plain).unwrap();
        let app = &world.app;
        app.write("deploy/secrets.age", &armored);
        app.write("leak.go", LEAK);
        app.write("smoke/nosy.sh", NOSY);
        app.replace("main.go", "return readOnly(mux)", "leak(mux)\n\treturn readOnly(mux)");
        app.replace(
            "deploy/hello.service",
            "EnvironmentFile=/etc/hello.env",
            "EnvironmentFile=/etc/hello.env\nEnvironmentFile=/run/alcedo/secrets.env",
        );
        app.replace("deploy/hello.service", "multi-user.target", "alcedo-secrets.target");
        app.replace("alcedo.yaml", "count: 2", "count: 1");
        app.replace("alcedo.yaml", "smoke_tests:\n", &format!("{sources}\nsmoke_tests:\n"));
        app.commit("Know twenty secrets");
        let search = Search::of(&canaries);
        let path = world.path().join("app/smoke/nosy.sh");
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { world, canaries, search, variables, heard: Vec::new() }
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.world.command(arguments);
        command.envs(&self.variables);
        command
    }

    /// Runs `alcedo` to its end, at its most talkative.
    #[track_caller]
    fn run(&mut self, arguments: &[&str], code: i32) -> &Ended {
        let mut command = self.command(arguments);
        command.arg("-vvv");
        let ended = Running::start(self.world.runtime.handle(), command).end().expect(code);
        self.heard.push((arguments.join(" "), ended));
        &self.heard.last().unwrap().1
    }

    fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.world.nodes()[0]);
        let asked = async { client(false).get(url).send().await.unwrap().text().await.unwrap() };
        self.world.runtime.block_on(asked)
    }

    /// What the app tells if it was handed each of them, unchanged.
    fn digest(&self) -> String {
        // A file's only line has lost its end; of several lines the last still has one.
        let mut entries: Vec<String> = self.canaries.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
        entries.sort();
        hex::encode(Sha256::digest(entries.join("\n")))
    }

    /// Everything that is kept: the bucket, the region's records and log, the servers' consoles.
    fn assert_nothing_kept(&self) {
        let region = self.world.path().join("region");
        let mut files = 0;
        each_file(&region, &mut |path| {
            let mut bytes = fs::read(path).unwrap();
            if path.ends_with("records.json") {
                let mut records: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                // Where parameters are kept is the one place for them.
                records.as_object_mut().unwrap().remove("parameters").expect("it has parameters");
                bytes = serde_json::to_vec(&records).unwrap();
            }
            if path.extension().is_some_and(|it| it == "zst") {
                bytes = zstd::decode_all(bytes.as_slice()).unwrap();
            }
            self.search.assert_clean(&path.display().to_string(), &bytes);
            files += 1;
        });
        assert!(files > 50, "{files} files are not a bucket with journals");
    }
}

fn each_file(folder: &Path, look: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => each_file(&entry.path(), look),
            kind if kind.is_file() => look(&entry.path()),
            _ => {}
        }
    }
}

#[test]
fn twenty_canaries_reach_the_servers_and_are_seen_nowhere_else() {
    let mut scene = Scene::set();
    let lookout = Lookout::post(&scene.search);

    // Without one of them nothing is begun, and every one that is missing is named.
    let gone = scene.variables.remove("FROM_CANARY_ENV_1").unwrap();
    let identity = scene.variables.remove("ALCEDO_AGE_IDENTITY").unwrap();
    let refused = scene.run(&["deploy"], 1);
    assert_says(
        &refused.stderr,
        &[
            "nothing was begun",
            "CANARY_ENV_1: the variable FROM_CANARY_ENV_1 is not set",
            "CANARY_AGE_4: ",
            "ALCEDO_AGE_IDENTITY",
        ],
    );
    scene.world.inventory().assert_nothing_open();
    let found = scene.run(&["doctor"], 1);
    assert_says(&found.stdout, &["secrets", "FROM_CANARY_ENV_1 is not set"]);
    scene.variables.insert("FROM_CANARY_ENV_1".into(), gone);
    scene.variables.insert("ALCEDO_AGE_IDENTITY".into(), identity);
    scene.world.tell("missing ones are named");

    // All of them arrive as they are.
    let first = scene.run(&["deploy", "--output", "json"], 0).version();
    assert_eq!(scene.get("/digest"), scene.digest(), "what the app was handed");
    assert_eq!(scene.search.found_in(scene.get("/leak").as_bytes()).map(|it| it.starts_with("CANARY_")), Some(true));
    scene.assert_nothing_kept();
    let consoles = scene.world.runtime.block_on(consoles(&scene.world));
    assert!(!consoles.is_empty());
    consoles.iter().for_each(|console| scene.search.assert_clean("a console", console.as_bytes()));
    scene.world.inventory().assert_nothing_open();
    scene.world.tell("handed over");

    // A smoke test that shows them in its failure, and a program that looks for them.
    scene.world.app.greet("Hello again.");
    let app = &scene.world.app;
    let before = app.read("alcedo.yaml");
    app.replace(
        "alcedo.yaml",
        "smoke_tests:\n",
        "smoke_tests:\n  - http: { path: /leak, body_matches: ^nothing$ }\n  - run: { program: smoke/nosy.sh }\n",
    );
    let failed = scene.run(&["deploy", "--output", "json"], 1);
    assert_says(&failed.failure(), &["raw [secret CANARY_AGE_0]", "basic dXNlcjp[secret CANARY_AGE_0]", "ALCEDO_URL="]);
    assert!(!failed.failure().contains("FROM_CANARY"), "a program that is started inherits none");
    let (run, id) = (failed.name(), text(&failed.output("launch/instances")["servers"][0]["id"]));
    let journal = scene.world.evidence(&run, &id, "journal.txt");
    assert_says(&journal, &["raw [secret CANARY_ENV_0]", "[secret CANARY_SSM_4]"]);
    scene.assert_nothing_kept();
    scene.world.app.write("alcedo.yaml", &before);
    scene.world.tell("a smoke test that shows them");

    // A server that shows them on its console and never gets well, told to a person.
    scene.world.app.replace(
        "deploy/hello.service",
        "[Service]",
        "[Service]\nStandardOutput=journal+console\nStandardError=journal+console",
    );
    let ok = "health_check: { path: /health,";
    scene.world.app.replace("alcedo.yaml", ok, "timeout: 8s\n  health_check: { path: /nowhere,");
    let failed = scene.run(&["deploy", "--output", "lines"], 1);
    assert_says(&format!("{}{}", failed.stdout, failed.stderr), &["were not healthy", "[secret CANARY_"]);
    scene.assert_nothing_kept();
    scene.world.app.write("alcedo.yaml", &before);
    scene.world.tell("a console that shows them");

    // A process that is made to crash while it has them leaves nothing of its memory.
    let mut shell = scene.command(&[]);
    let program = shell.as_std().get_program().to_owned();
    let mut crashing = tokio::process::Command::new("sh");
    crashing.args(["-c", "ulimit -c unlimited; exec \"$0\" deploy --output json"]).arg(program);
    crashing.current_dir(&scene.world.app.folder).env_clear();
    shell.as_std_mut().get_envs().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| {
        crashing.env(name, value);
    });
    let mut running = Running::start(scene.world.runtime.handle(), crashing);
    running.until_begins("launch/secrets");
    running.signal(Signal::SIGABRT);
    assert_eq!(running.end().code, None, "a signal ended it");
    let cores = fs::read_dir(&scene.world.app.folder).unwrap().flatten();
    let cores: Vec<_> = cores.map(|it| it.file_name()).filter(|it| it.to_string_lossy().starts_with("core")).collect();
    assert!(cores.is_empty(), "{cores:?}");
    scene.world.empty_tmp();
    scene.world.tell("a crash");

    // Another process goes on with it, with secrets that it finds itself, and new servers.
    let resumed = scene.run(&["resume", "--output", "json"], 0).version();
    assert_ne!(resumed, first);
    assert_eq!(scene.get("/digest"), scene.digest(), "what the app of the resumed run was handed");
    scene.world.tell("resumed");

    // Going back to a fleet that is held needs no secrets.
    scene.variables.clear();
    scene.run(&["rollback", "--output", "progress"], 0);
    for looking in [&["status"][..], &["releases"], &["runs"], &["runs", "show", &run], &["logs", &run], &["plan"]] {
        scene.run(looking, 0);
    }
    scene.assert_nothing_kept();
    let looks = lookout.end();
    assert!(looks > 500, "{looks}");
    for (what, Ended { stdout, stderr, .. }) in &scene.heard {
        scene.search.assert_clean(&format!("the output of {what}"), stdout.as_bytes());
        scene.search.assert_clean(&format!("the log of {what}"), stderr.as_bytes());
    }
    println!(
        "{} canaries in {} forms: nothing in the output of {} commands, in the bucket {BUCKET}, in records, consoles, core dumps, \
         or in {looks} looks at all processes",
        scene.canaries.len(),
        scene.canaries[0].traces().len(),
        scene.heard.len(),
    );
}

async fn consoles(world: &World) -> Vec<String> {
    let ec2 = &world.clients().ec2;
    let servers = ec2.describe_instances().send().await.expect("it answers");
    let mut consoles = Vec::new();
    for server in servers.reservations().iter().flat_map(|it| it.instances()) {
        let console = ec2.get_console_output().instance_id(server.instance_id().unwrap()).send().await;
        let text = console.ok().and_then(|it| it.output).unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("consoles are base64");
        consoles.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    consoles
}
