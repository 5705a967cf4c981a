//! What an app is made with, and how such apps are usually built, packed and started on Debian bookworm.

use std::{fs::File, io::Read, path::Path};

use serde_json::Value;

use super::{
    app::{Guess, Kind, app_name, is_plain},
    health,
};

/// More of a file is not read: what matters stands in its first lines.
const MOST_BYTES: u64 = 256 * 1024;

/// A project's folder, as far as it is looked at.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    fn text(&self, name: &str) -> Option<String> {
        let path = self.0.join(name);
        if !path.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The name of the folder itself, for apps that declare none.
    fn name(&self) -> String {
        let path = self.0.canonicalize().unwrap_or_else(|_| self.0.to_owned());
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn app(&self, declared: Option<&str>) -> String {
        app_name(&declared.filter(|name| !name.is_empty()).map_or_else(|| self.name(), str::to_owned))
    }
}

/// Looks at the folder's files. The first kind whose file is there counts: a Dockerfile beside a `Cargo.toml` says how
/// the Rust app is put into a container, not what it is.
pub(super) fn recognise(path: &Path) -> Guess {
    let folder = Folder(path);
    let mut guess = if let Some(text) = folder.text("Cargo.toml") {
        rust(&folder, &text)
    } else if let Some(text) = folder.text("go.mod") {
        go(&folder, &text)
    } else if let Some(text) = folder.text("package.json") {
        node(&folder, &text)
    } else if folder.has("pyproject.toml") || folder.has("requirements.txt") {
        python(&folder)
    } else if let Some(text) = folder.text("pom.xml") {
        maven(&folder, &text)
    } else if folder.has("build.gradle") || folder.has("build.gradle.kts") {
        gradle(&folder)
    } else if let Some(text) = folder.text("mix.exs") {
        elixir(&folder, &text)
    } else if folder.has("Dockerfile") {
        dockerfile(&folder)
    } else {
        generic(&folder)
    };
    if let Some(port) = folder.text("Dockerfile").as_deref().and_then(exposed_port) {
        guess.port = port;
    } else {
        guess.guess(format!("the app listens on the port in the variable PORT, {}", guess.port));
    }
    match health::path(path) {
        Some(found) => {
            guess.health = found;
            guess.guess(format!("a GET of {found} answers 200 when the app is well: its source has that path"));
        }
        None => guess.guess("a GET of / answers 200 when the app is well: name a better path if it has one"),
    }
    guess
}

/// The value of `key = "value"` below `[section]`, without reading all of TOML.
fn toml_value(text: &str, section: &str, key: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == section;
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return value.trim().strip_prefix('"')?.split('"').next().map(str::to_owned);
        }
    }
    None
}

fn plain_or(text: Option<String>, other: &str) -> String {
    text.filter(|text| is_plain(text)).unwrap_or_else(|| other.to_owned())
}

fn rust(folder: &Folder<'_>, manifest: &str) -> Guess {
    let package = toml_value(manifest, "[package]", "name");
    let mut guess = Guess::new(Kind::Rust, folder.app(package.as_deref()));
    let program = plain_or(toml_value(manifest, "[[bin]]", "name").or(package.clone()), &guess.app);
    guess.build_packages = vec!["cargo"];
    if folder.text("Cargo.lock").is_some_and(|lock| lock.contains("name = \"openssl-sys\"")) {
        guess.build_packages.extend(["pkg-config", "libssl-dev"]);
        guess.run_packages.push("libssl3");
    }
    guess.environment =
        vec![("CARGO_HOME", "/var/cache/cargo/home".into()), ("CARGO_TARGET_DIR", "/var/cache/cargo/target".into())];
    guess.cache = vec!["/var/cache/cargo"];
    let locked = if folder.has("Cargo.lock") { " --locked" } else { "" };
    guess.command(format!("cargo test{locked}"));
    guess.command(format!("cargo build --release{locked}"));
    guess.command(format!("install -D -t dist \"$CARGO_TARGET_DIR/release/{program}\""));
    guess.pack = vec!["dist/".into()];
    guess.start = format!("{}/{program}", guess.install_path());
    guess.guess("Debian bookworm's Rust is 1.63; for a newer one, let the first command install rustup's toolchain");
    if package.is_none() {
        guess.guess(format!("Cargo.toml is a workspace: the program is called {program}"));
    }
    guess
}

fn go(folder: &Folder<'_>, module: &str) -> Guess {
    let declared = module.lines().find_map(|line| line.trim().strip_prefix("module ")).map(str::trim);
    let name = declared.and_then(|module| module.rsplit('/').find(|part| !is_major_version(part)));
    let mut guess = Guess::new(Kind::Go, folder.app(name));
    guess.build_packages = vec!["golang-go"];
    guess.environment = vec![
        ("CGO_ENABLED", "0".into()),
        ("GOCACHE", "/var/cache/go/build".into()),
        ("GOPATH", "/var/cache/go/path".into()),
    ];
    guess.cache = vec!["/var/cache/go"];
    let app = guess.app.clone();
    let package = if folder.has(&format!("cmd/{app}")) { format!("./cmd/{app}") } else { ".".into() };
    guess.command("go vet ./...");
    guess.command("go test ./...");
    guess.commented(
        format!("go build -trimpath -buildvcs=false -o dist/{app} {package}"),
        "No paths and no version control state in the program: the same source gives the same bytes.",
    );
    guess.pack = vec!["dist/".into()];
    guess.start = format!("{}/{app}", guess.install_path());
    guess.guess("Debian bookworm's Go is 1.19; golang-1.22-go and newer are in bookworm-backports");
    guess
}

fn is_major_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn node(folder: &Folder<'_>, manifest: &str) -> Guess {
    let manifest: Value = serde_json::from_str(manifest).unwrap_or_default();
    let mut guess = Guess::new(Kind::Node, folder.app(manifest["name"].as_str()));
    guess.build_packages = vec!["nodejs", "npm"];
    guess.run_packages = vec!["nodejs"];
    guess.environment = vec![("npm_config_cache", "/var/cache/npm".into())];
    guess.cache = vec!["/var/cache/npm"];
    guess.command(if folder.has("package-lock.json") { "npm ci" } else { "npm install" });
    let has_script = |name: &str| manifest["scripts"][name].is_string();
    if has_script("test") {
        guess.command("npm test");
    }
    if has_script("build") {
        guess.command("npm run build");
    }
    guess.commented("npm prune --omit=dev", "What only the build needs stays here.");
    let main = manifest["main"].as_str().map(|main| main.trim_start_matches("./").to_owned());
    let known = ["server.js", "app.js", "dist/index.js", "src/index.js", "src/server.js"];
    let found = known.into_iter().find(|name| folder.has(name)).unwrap_or("index.js");
    let main = plain_or(main, found);
    guess.pack = vec!["**".into()];
    guess.exclude = vec![".git", "deploy/provision.sh", "**/*.test.js"];
    guess.start = format!("/usr/bin/node {}/{main}", guess.install_path());
    guess.service_environment = vec![("NODE_ENV", "production".into())];
    guess.guess(format!("the app starts with `node {main}`"));
    guess.guess("Debian bookworm's Node.js is 18");
    guess
}

fn python(folder: &Folder<'_>) -> Guess {
    let project = folder.text("pyproject.toml").unwrap_or_default();
    let declared = toml_value(&project, "[project]", "name").or_else(|| toml_value(&project, "[tool.poetry]", "name"));
    let mut guess = Guess::new(Kind::Python, folder.app(declared.as_deref()));
    guess.build_packages = vec!["python3-pip"];
    guess.run_packages = vec!["python3"];
    guess.environment = vec![("PIP_CACHE_DIR", "/var/cache/pip".into())];
    guess.cache = vec!["/var/cache/pip"];
    let what = if folder.has("requirements.txt") { "-r requirements.txt" } else { "." };
    guess.commented(
        format!("python3 -m pip install --target vendor {what}"),
        "Into a folder of its own: unlike a virtual environment, it can be moved to where the server has it.",
    );
    let script = ["main.py", "app.py", "server.py", "wsgi.py"].into_iter().find(|name| folder.has(name));
    let module = app_name(declared.as_deref().unwrap_or(&guess.app)).replace('-', "_");
    guess.pack = vec!["**".into()];
    guess.exclude = vec![".git", ".venv", "**/__pycache__", "deploy/provision.sh"];
    let path = guess.install_path();
    guess.start = match script {
        Some(script) => format!("/usr/bin/python3 {path}/{script}"),
        None => format!("/usr/bin/python3 -m {module}"),
    };
    guess.service_environment = vec![("PYTHONPATH", format!("{path}/vendor:{path}"))];
    guess.guess(match script {
        Some(script) => format!("the app starts with `python3 {script}`"),
        None => format!("the app starts with `python3 -m {module}`"),
    });
    guess.guess("Debian bookworm's Python is 3.11");
    guess
}

fn java(kind: Kind, app: String) -> Guess {
    let mut guess = Guess::new(kind, app);
    guess.build_packages = vec!["openjdk-17-jdk-headless"];
    guess.run_packages = vec!["openjdk-17-jre-headless"];
    let path = guess.install_path();
    // The jar's name has its version in it.
    guess.start = format!("/bin/sh -c 'exec java -jar {path}/*.jar'");
    guess.guess("one jar that runs alone is made; exclude any other one");
    guess.guess("Debian bookworm's Java is 17");
    guess
}

fn maven(folder: &Folder<'_>, project: &str) -> Guess {
    // The parent's artifactId comes first where there is a parent.
    let own = project.rsplit_once("</parent>").map_or(project, |(_, rest)| rest);
    let declared =
        own.split_once("<artifactId>").and_then(|(_, rest)| rest.split_once('<')).map(|(name, _)| name.trim());
    let mut guess = java(Kind::Maven, folder.app(declared));
    guess.build_packages.push("maven");
    guess.cache = vec!["/var/cache/maven"];
    guess.command("mvn --batch-mode -Dmaven.repo.local=/var/cache/maven package");
    jar(&mut guess, "target");
    guess
}

fn gradle(folder: &Folder<'_>) -> Guess {
    let settings = folder.text("settings.gradle").or_else(|| folder.text("settings.gradle.kts")).unwrap_or_default();
    let declared = settings.lines().find_map(|line| line.trim().strip_prefix("rootProject.name"));
    let declared = declared.map(|rest| rest.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    let mut guess = java(Kind::Gradle, folder.app(declared));
    guess.environment = vec![("GRADLE_USER_HOME", "/var/cache/gradle".into())];
    guess.cache = vec!["/var/cache/gradle"];
    if folder.has("gradlew") {
        guess.command("./gradlew --no-daemon build");
    } else {
        guess.build_packages.push("gradle");
        guess.command("gradle --no-daemon build");
        guess.guess("Debian bookworm's Gradle is 4.4; a wrapper (gradlew) brings the one that you use");
    }
    jar(&mut guess, "build/libs");
    guess
}

/// The jar goes to a folder of its own, so that it lies at the top of the artifact.
fn jar(guess: &mut Guess, folder: &str) {
    guess.command(format!("mkdir -p dist && cp {folder}/*.jar dist/ && rm -f dist/*-plain.jar dist/*-sources.jar"));
    guess.pack = vec!["dist/".into()];
}

fn elixir(folder: &Folder<'_>, project: &str) -> Guess {
    let declared = project.split_once("app: :").map(|(_, rest)| {
        rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default().to_owned()
    });
    let mut guess = Guess::new(Kind::Elixir, folder.app(declared.as_deref()));
    // Only a release that the project has set up itself has a name that Mix takes.
    let named = release_name(project);
    let release = named.clone().unwrap_or_else(|| plain_or(declared, &guess.app.replace('-', "_")));
    guess.build_packages = vec!["elixir", "erlang-dev", "erlang-parsetools", "erlang-xmerl", "git"];
    guess.environment = vec![
        ("MIX_ENV", "prod".into()),
        ("MIX_HOME", "/var/cache/mix".into()),
        ("HEX_HOME", "/var/cache/hex".into()),
        ("LANG", "C.UTF-8".into()),
    ];
    guess.cache = vec!["/var/cache/mix", "/var/cache/hex"];
    // Without packages of others nothing is asked of anybody's registry.
    if folder.has("mix.lock") || project.contains("{:") {
        guess.command("mix local.hex --force && mix local.rebar --force");
        guess.command("mix deps.get --only prod");
    }
    guess.commented(
        format!("mix release --overwrite --path dist{}", named.map(|name| format!(" {name}")).unwrap_or_default()),
        "It brings Erlang with it; the server needs none.",
    );
    guess.pack = vec!["dist/".into()];
    guess.start = format!("{}/bin/{release} start", guess.install_path());
    // The release writes its settings when it starts, and a cookie where Erlang speaks to other nodes, which it need not.
    let state = format!("/var/lib/{}", guess.app);
    guess.service_environment = vec![
        ("LANG", "C.UTF-8".into()),
        ("HOME", state.clone()),
        ("RELEASE_TMP", state),
        ("RELEASE_DISTRIBUTION", "none".into()),
    ];
    guess.guess("Debian bookworm's Elixir is 1.14");
    guess.guess("tests need the packages of MIX_ENV=test: add a command for them");
    guess
}

/// The first of the releases that a `mix.exs` sets up.
fn release_name(project: &str) -> Option<String> {
    let (_, releases) = project.split_once("releases:")?;
    let (name, _) = releases.trim_start().strip_prefix('[')?.split_once(':')?;
    Some(name.trim().to_owned()).filter(|name| is_plain(name))
}

fn dockerfile(folder: &Folder<'_>) -> Guess {
    let mut guess = Guess::new(Kind::Dockerfile, folder.app(None));
    let text = folder.text("Dockerfile").unwrap_or_default();
    let copied =
        |word: &str| text.lines().map(str::trim).filter(|line| line.starts_with(word)).take(12).collect::<Vec<_>>();
    guess
        .build_comments
        .push("Servers run the app itself, not a container: say here what the Dockerfile's lines do.".into());
    let lines = copied("RUN ").into_iter().chain(copied("COPY ")).chain(copied("CMD ")).chain(copied("ENTRYPOINT "));
    guess.build_comments.extend(lines.map(|line| format!("  {}", shown(line))));
    guess.commented("false", "Until then the build fails here.");
    unknown_program(&mut guess);
    guess.guess("what the Dockerfile does has to be said again in `build.commands` and deploy/provision.sh");
    guess
}

fn generic(folder: &Folder<'_>) -> Guess {
    let mut guess = Guess::new(Kind::Generic, folder.app(None));
    if folder.has("Makefile") {
        guess.build_packages = vec!["build-essential"];
        guess.command("make");
        guess.guess("`make` builds the app");
    } else {
        guess.build_comments.push("Say here how the app is built.".into());
        guess.commented("false", "Until then the build fails here.");
        guess.guess("no file tells how the app is built: say it in `build.commands`");
    }
    unknown_program(&mut guess);
    guess
}

fn unknown_program(guess: &mut Guess) {
    guess.pack = vec!["dist/".into()];
    guess.start = format!("{}/{}", guess.install_path(), guess.app);
    guess.guess(format!("the build leaves what the server needs in dist, and the program is dist/{}", guess.app));
}

/// A line of a file as a comment can hold it.
fn shown(line: &str) -> String {
    crate::diagnostic::clean(line).chars().take(100).collect()
}

/// The first port that a Dockerfile exposes.
fn exposed_port(dockerfile: &str) -> Option<u16> {
    let exposed = dockerfile.lines().find_map(|line| line.trim().strip_prefix("EXPOSE "))?;
    exposed.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|&port| port > 0)
}
