//! `alcedo init` on a small real app of each kind: what it writes is valid, builds in a real container as it says, and what
//! comes out of that, provisioned by the script that it writes and started as its unit says, answers.
//!
//! A JDK, Erlang, npm and cargo are hundreds of megabytes each: apps that need these are built in a soak (`cargo xtask soak`),
//! and the test command looks whether the packages could be installed.

#[allow(dead_code, reason = "each test file uses what it needs of this module")]
mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use alcedo_images::{
    Engine, bootstrap,
    build::{self, BuildError, BuildSpec},
    build_image, engine,
    event::{ImageEvent, Sink},
    inspect,
    recipe::Recipe,
};
use alcedo_pipeline::{file::Pipeline, validate::PipelineFile};
use serde_json::{Value, json};
use support::{alcedo, stdout};
use tokio_util::sync::CancellationToken;

/// What the apps call themselves, and with that the name of their service.
const APP: &str = "ferry";
const VERSION: &str = "2026.1120.190512";

/// One app and what `init` makes of it.
struct Case {
    /// Its folder below `tests/apps`.
    folder: &'static str,
    kind: &'static str,
    port: u16,
    /// Whether it is built where nobody asked for a soak.
    always: bool,
    /// What its front page says.
    greets: &'static str,
}

const fn case(folder: &'static str, kind: &'static str, always: bool, greets: &'static str) -> Case {
    Case { folder, kind, port: 8080, always, greets }
}

const CASES: [Case; 8] = [
    case("go", "go", true, "hello from Go"),
    case("python", "python", true, "hello from Python"),
    case("rust", "rust", false, "hello from Rust"),
    case("node", "node", false, "hello from Node.js"),
    case("maven", "maven", false, "hello from Java"),
    case("gradle", "gradle", false, "hello from Java"),
    case("elixir", "elixir", false, "hello from Elixir"),
    Case { port: 8090, ..case("boxed", "dockerfile", true, "hello from a box") },
];

/// A copy of the app for which `alcedo init` has written its files.
struct Begun {
    folder: PathBuf,
    pipeline: Pipeline,
    _parent: tempfile::TempDir,
}

impl Begun {
    fn new(case: &Case) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(APP);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(case.folder), &folder);
        let said: Value = serde_json::from_str(&stdout(alcedo(&folder).args(["init", "--output", "json"]))).unwrap();
        assert_eq!((&said["kind"], &said["app"]), (&json!(case.kind), &json!(APP)), "{said}");
        let validated: Value =
            serde_json::from_str(&stdout(alcedo(&folder).args(["validate", "--output", "json"]))).unwrap();
        assert_eq!(validated["environments"], json!(["local"]), "{validated}");
        let mut begun = Self { pipeline: read(&folder), folder, _parent: parent };
        assert_eq!(begun.pipeline.launch.port, case.port);
        begun.edit(case);
        begun
    }

    /// What the comments in the written files ask of a user.
    fn edit(&mut self, case: &Case) {
        match case.folder {
            // The Dockerfile's own lines are shown there, and have to be said as commands.
            "boxed" => {
                self.replace("alcedo.yaml", "- \"false\"", "- mkdir -p dist && cp -r www dist/");
                self.replace(
                    "deploy/provision.sh",
                    "set -eu\n",
                    "set -eu\napt-get update\napt-get install --yes busybox\n",
                );
                let start = format!("ExecStart=/opt/{APP}/{APP}");
                let busybox = format!("ExecStart=/usr/bin/busybox httpd -f -p 8090 -h /opt/{APP}/www");
                self.replace(&format!("deploy/{APP}.service"), &start, &busybox);
            }
            // Maven's plugins come from Maven Central; Debian has them as packages, too, and here is nothing else.
            "maven" => {
                self.replace("alcedo.yaml", "maven]", "maven, maven-repo-helper, libmaven-resources-plugin-java, libmaven-compiler-plugin-java, libmaven-jar-plugin-java, libsurefire-java]");
                self.replace(
                    "alcedo.yaml",
                    "- mvn --batch-mode",
                    "- cp --recursive --dereference /usr/share/maven-repo/. /var/cache/maven/\n    - mvn --offline --batch-mode",
                );
            }
            _ => {}
        }
        self.pipeline = read(&self.folder);
    }

    fn replace(&self, file: &str, old: &str, new: &str) {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file} does not contain {old:?}: {text}");
        fs::write(&path, text.replacen(old, new, 1)).unwrap();
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }
}

fn read(folder: &Path) -> Pipeline {
    let file = PipelineFile::read(&folder.join("alcedo.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(file.warnings().is_empty(), "{}", file.warnings());
    file.environment(None).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(drop).unwrap(),
        }
    }
}

/// Builds in containers, and keeps what they say for when something fails.
struct Bench {
    engine: Engine,
}

impl Bench {
    async fn new() -> Self {
        let engine = engine::connect().await;
        let engine =
            engine.unwrap_or_else(|error| panic!("this test needs a container engine: {error}; {}", error.hint()));
        Self { engine }
    }

    /// The commands of a `build:` in a root of the recipe with these packages.
    async fn build(&self, what: &str, source: &Path, settings: &Value, out: &Path) {
        let settings: alcedo_pipeline::file::Build = serde_json::from_value(settings.clone()).unwrap();
        let cancel = CancellationToken::new();
        let (sink, said) = recording();
        let recipe = Recipe::load("debian-bookworm").unwrap();
        let base = bootstrap::bootstrap(self.engine.docker(), &recipe, &sink, &cancel).await.unwrap();
        let root = build_image::of_recipe(&self.engine, &base, &settings.packages, &sink, &cancel).await;
        let root = root.unwrap_or_else(|error| panic!("{what}: {error}\n{}", error.last_lines().join("\n")));
        let spec = BuildSpec::new(APP, source, &settings, root);
        match build::run(&self.engine, &spec, out, &sink, &cancel).await {
            Ok(_) => {}
            Err(error @ BuildError::Command { .. }) => panic!("{what}: {error}\n{}", said.lock().unwrap().join("\n")),
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    /// Builds the app as its file says.
    async fn build_app(&self, what: &str, app: &Begun) -> PathBuf {
        let artifact = app.folder.join("../artifact.tar.zst");
        let settings = serde_json::to_value(&app.pipeline.build).unwrap();
        self.build(what, &app.folder, &settings, &artifact).await;
        inspect::inspect(&artifact).unwrap_or_else(|refused| panic!("{what}: {refused}"));
        artifact
    }

    /// Makes a server's root of what was packed, by the script that `init` has written, and starts the app there as systemd
    /// would by the unit; then asks it.
    async fn start(&self, case: &Case, app: &Begun, artifact: &Path) {
        let folder = app.folder.join("../server");
        fs::create_dir(&folder).unwrap();
        fs::copy(artifact, folder.join("artifact.tar.zst")).unwrap();
        fs::write(folder.join("provision.sh"), app.text("deploy/provision.sh")).unwrap();
        let unit = app.text(&format!("deploy/{APP}.service"));
        let settings = |key: &str| unit.lines().filter_map(move |line| line.strip_prefix(key)).collect::<Vec<_>>();
        let [start] = settings("ExecStart=")[..] else { panic!("{unit}") };
        let environment = settings("Environment=").join(" ");
        let port = app.pipeline.launch.port;
        fs::write(folder.join("start.sh"), format!("cd /opt/{APP}\nexec {start}\n")).unwrap();
        let script = format!(
            r#"
            export ALCEDO_APP={APP} ALCEDO_VERSION={VERSION} ALCEDO_INSTALL_PATH=/opt/{APP}
            mkdir -p $ALCEDO_INSTALL_PATH
            tar --extract --zstd --file artifact.tar.zst --directory $ALCEDO_INSTALL_PATH
            sh provision.sh
            systemctl is-enabled {APP}.service
            systemd-analyze verify /etc/systemd/system/{APP}.service
            install --directory --owner {APP} /var/lib/{APP}
            env --ignore-environment PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                {environment} $(cat /etc/{APP}.env) setpriv --reuid={APP} --regid={APP} --init-groups sh start.sh &
            ask() {{ curl --silent --show-error --fail --max-time 5 --retry 60 --retry-delay 1 --retry-connrefused "http://127.0.0.1:{port}$1"; }}
            ask / >answers
            ask /health >>answers
            {version}
            cat answers
            "#,
            // A folder of files knows no version.
            version = if case.folder == "boxed" { ":" } else { "ask /version >>answers" },
        );
        let settings = json!({ "recipe": "debian-bookworm", "commands": [script], "pack": ["answers"] });
        let out = app.folder.join("../answers.tar.zst");
        self.build(&format!("{} on a server", case.folder), &folder, &settings, &out).await;
        let shown =
            std::process::Command::new("tar").args(["--extract", "--zstd", "--to-stdout", "--file"]).arg(&out).output();
        let answers = String::from_utf8(shown.unwrap().stdout).unwrap();
        let mut expected = format!("{}\nok\n", case.greets);
        if case.folder != "boxed" {
            expected.push_str(VERSION);
        }
        assert_eq!(answers.trim_end(), expected.trim_end(), "{}", case.folder);
    }
}

fn recording() -> (Sink, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let said = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let into = said.clone();
    let sink = move |event: ImageEvent| {
        into.lock().unwrap().push(match event {
            ImageEvent::Started { what } => format!("── {what}"),
            ImageEvent::Line { text, .. } => text,
            ImageEvent::Skipped { lines } => format!("… {lines} lines left out"),
        });
    };
    (std::sync::Arc::new(sink), said)
}

/// The packages that provisioning installs.
fn installed_by(script: &str) -> Vec<String> {
    let line = script.lines().find_map(|line| line.split_once("--no-install-recommends ").map(|(_, names)| names));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_each_kind_builds_and_runs_by_what_init_writes() {
    let bench = Bench::new().await;
    let soak = std::env::var_os("ALCEDO_SOAK").is_some();
    // One of them alone, for whoever works on it.
    let only = std::env::var("ALCEDO_INIT_APP").ok();
    let mut packages: BTreeSet<String> = BTreeSet::new();
    let mut built = 0;
    for case in &CASES {
        if only.as_deref().is_some_and(|only| only != case.folder) {
            continue;
        }
        let app = Begun::new(case);
        packages.extend(app.pipeline.build.packages.iter().cloned());
        packages.extend(installed_by(&app.text("deploy/provision.sh")));
        if !(soak || case.always || only.is_some()) {
            continue;
        }
        let began = Instant::now();
        let artifact = bench.build_app(case.folder, &app).await;
        let took = began.elapsed();
        bench.start(case, &app, &artifact).await;
        eprintln!(
            "{}: built in {:.0} s, provisioned, started and asked in {:.0} s",
            case.folder,
            took.as_secs_f64(),
            (began.elapsed() - took).as_secs_f64()
        );
        built += 1;
    }
    // Each by itself: not all of them have to get along.
    let began = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let simulated: Vec<String> = packages
        .iter()
        .map(|name| format!("apt-get install --simulate --no-install-recommends {name} >/dev/null"))
        .collect();
    let commands = [vec!["apt-get update".to_owned()], simulated, vec!["touch done".to_owned()]].concat();
    let settings = json!({ "recipe": "debian-bookworm", "commands": commands, "pack": ["done"] });
    bench.build("the packages", folder.path(), &settings, &folder.path().join("out.tar.zst")).await;
    eprintln!(
        "{built} of {} apps built and started; {} packages can be installed (looked for {:.0} s)",
        CASES.len(),
        packages.len(),
        began.elapsed().as_secs_f64()
    );
}
