//! `alcedo init` for each kind of app: what it writes is a valid file, and says what it guessed.

use std::{fs, path::Path, process::Command};

use alcedo_pipeline::{
    init::{InitOutcome, Kind, init},
    validate::PipelineFile,
};
use proptest::prelude::*;

/// An app's folder with these files in it.
fn folder(name: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join(name);
    fs::create_dir(&folder).unwrap();
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (parent, folder)
}

fn valid(text: &str) -> PipelineFile {
    let file = PipelineFile::parse(text, "alcedo.yaml").unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert!(file.warnings().is_empty(), "{}", file.warnings());
    file
}

/// Runs `init`, writes what it offers, and reads it back as a user's next command would.
fn written(folder: &Path) -> (InitOutcome, PipelineFile) {
    let outcome = init(folder);
    fs::write(folder.join("alcedo.yaml"), &outcome.text).unwrap();
    for file in &outcome.files {
        let path = folder.join(&file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.text).unwrap();
    }
    valid(&outcome.text);
    let file = PipelineFile::read(&folder.join("alcedo.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    (outcome, file)
}

/// The kind to recognise, the app's name, and the files that tell it.
type Case = (Kind, &'static str, &'static [(&'static str, &'static str)]);

#[test]
fn each_kind_of_app_gets_a_valid_file() {
    let cases: &[Case] = &[
        (Kind::Rust, "shop", &[("Cargo.toml", "[package]\nname = \"shop\"\n"), ("Cargo.lock", "")]),
        (Kind::Go, "api", &[("go.mod", "module example.com/acme/api/v2\n\ngo 1.19\n"), ("cmd/api/main.go", "")]),
        (
            Kind::Node,
            "acme-web",
            &[(
                "package.json",
                r#"{ "name": "@acme/web", "main": "./server.js", "scripts": { "test": "x", "build": "y" } }"#,
            )],
        ),
        (
            Kind::Python,
            "notes",
            &[("pyproject.toml", "[project]\nname = \"notes\"\n"), ("requirements.txt", "flask\n")],
        ),
        (
            Kind::Maven,
            "ledger",
            &[(
                "pom.xml",
                "<project><parent><artifactId>p</artifactId></parent><artifactId>ledger</artifactId></project>",
            )],
        ),
        (
            Kind::Gradle,
            "bank",
            &[("build.gradle.kts", ""), ("settings.gradle.kts", "rootProject.name = \"bank\"\n"), ("gradlew", "")],
        ),
        (
            Kind::Elixir,
            "chat-room",
            &[("mix.exs", "def project do\n  [app: :chat_room, deps: [{:plug, \"~> 1.14\"}]]\nend\n")],
        ),
        (
            Kind::Dockerfile,
            "boxed",
            &[("Dockerfile", "FROM debian:12\nRUN make: all # \"x\"\nEXPOSE 9000/tcp\nCMD [\"/run\"]\n")],
        ),
        (Kind::Generic, "site", &[("Makefile", "all:\n")]),
        (Kind::Generic, "nothing", &[]),
    ];
    for (kind, app, files) in cases {
        let (_parent, folder) = folder(app, files);
        let (outcome, file) = written(&folder);
        assert_eq!((outcome.kind, outcome.app.as_str(), file.app.as_str()), (*kind, *app, *app));
        assert_eq!(file.environment_name(None), Ok("local"));
        let local = file.environment(None).unwrap();
        assert_eq!(local.aws.endpoint.as_deref(), Some("local"));
        assert_eq!((local.publish.bucket.as_str(), local.hold.span.as_secs()), ("alcedo-local", 10));
        let service = [format!("deploy/{app}.service"), "**".into()];
        assert!(service.iter().any(|pattern| local.build.pack.contains(pattern)), "{:?}", local.build.pack);
        assert!(!outcome.guesses.is_empty(), "an honest file says what it guessed");
        insta::assert_snapshot!(
            format!("init_{app}"),
            [&outcome.text, &outcome.files[0].text, &outcome.files[1].text].map(String::as_str).join("\n──────\n")
        );
    }
}

#[test]
fn the_production_environment_is_valid_once_its_marks_are_gone() {
    let (_parent, folder) = folder("hello", &[("go.mod", "module hello\n")]);
    let text = init(&folder).text;
    let (before, marked) = text.split_at(text.find("  # production:").unwrap());
    let unmarked: String = marked.lines().map(|line| format!("{}\n", line.replacen("# ", "", 1))).collect();
    let file = valid(&format!("{before}{unmarked}"));
    assert_eq!(file.environments().collect::<Vec<_>>(), ["local", "production"]);
    let production = file.environment(Some("production")).unwrap();
    assert_eq!((production.launch.count, production.flip.listener.port), (3, 443));
    assert_eq!((production.aws.endpoint, production.bake.base.recipe), (None, None));
}

#[test]
fn the_language_counts_more_than_a_dockerfile_which_still_tells_the_port() {
    let (_parent, folder) = folder("x", &[("Dockerfile", "FROM scratch\nEXPOSE 3000\n"), ("go.mod", "module x\n")]);
    let (outcome, file) = written(&folder);
    assert_eq!((outcome.kind, file.environment(None).unwrap().launch.port), (Kind::Go, 3000));
}

#[test]
fn an_app_without_packages_of_others_asks_nobodys_registry() {
    let (_parent, folder) = folder("x", &[("mix.exs", "[app: :x, deps: []]\n")]);
    let commands = written(&folder).1.environment(None).unwrap().build.commands;
    assert_eq!(commands, ["mix release --overwrite --path dist"]);
}

/// Mix refuses the name of a release that `mix.exs` does not set up.
#[test]
fn a_release_is_named_where_the_project_names_one() {
    let project = "[app: :shop, deps: [], releases: [storefront: [steps: [:assemble]], other: []]]";
    let (_parent, folder) = folder("shop", &[("mix.exs", project)]);
    let (outcome, file) = written(&folder);
    let commands = file.environment(None).unwrap().build.commands;
    assert_eq!(commands, ["mix release --overwrite --path dist storefront"]);
    assert!(outcome.files[1].text.contains("ExecStart=/opt/shop/bin/storefront start"), "{}", outcome.files[1].text);
}

/// What a build has made, and what others wrote, is not looked at.
#[test]
fn the_path_at_which_an_app_says_that_it_is_well_is_found_in_its_source() {
    for (files, path) in [
        (&[("go.mod", "module x\n"), ("web/routes.go", "mux.Get(\"/healthz\", ok)")][..], "/healthz"),
        (&[("package.json", "{}"), ("app.js", "get('/health', ok)"), ("b.js", "x('/up')")], "/health"),
        (&[("package.json", "{}"), ("node_modules/x/app.js", "get('/health', ok)")], "/"),
        (&[("go.mod", "module x\n"), ("main.go", "// see /health")], "/"),
    ] {
        let (_parent, folder) = folder("x", files);
        let (outcome, file) = written(&folder);
        let local = file.environment(None).unwrap();
        let tested = local.smoke_tests[0].http.as_ref().unwrap().path.clone();
        assert_eq!((local.launch.health_check.path.as_str(), tested.as_str()), (path, path), "{files:?}");
        assert!(
            outcome.guesses.iter().any(|guess| guess.contains(&format!("GET of {path} "))),
            "{:?}",
            outcome.guesses
        );
    }
}

#[test]
fn the_scripts_are_shell() {
    let (_parent, folder) = folder("x", &[("package.json", "{}")]);
    let (outcome, _) = written(&folder);
    for file in outcome.files.iter().filter(|file| file.executable) {
        let status = Command::new("sh").arg("-n").arg(folder.join(&file.path)).status().unwrap();
        assert!(status.success(), "{}", file.text);
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_empty_one() {
    let outcome = init(Path::new("/nonexistent/My Project"));
    assert_eq!((outcome.kind, outcome.app.as_str()), (Kind::Generic, "my-project"));
    valid(&outcome.text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Nothing that a project's own files say can make the file mean something else.
    #[test]
    fn names_from_anywhere_are_made_safe(name in "\\PC{0,30}|[a-z:{}\\[\\]\"'#$\\n]{0,20}", folder_name in "[^/\0]{1,20}") {
        prop_assume!(folder_name != "." && folder_name != "..");
        let quoted = serde_json::Value::from(name.as_str()).to_string();
        let manifests = [
            ("package.json", format!("{{ \"name\": {quoted}, \"main\": {quoted} }}")),
            ("Cargo.toml", format!("[package]\nname = \"{name}\"\n[[bin]]\nname = \"{name}\"\n")),
            ("go.mod", format!("module {name}\n")),
            ("mix.exs", format!("[app: :{name}]\n")),
            ("pom.xml", format!("<artifactId>{name}</artifactId>")),
            ("Dockerfile", format!("FROM x\nRUN {name}\nEXPOSE {name}\n")),
        ];
        for (path, text) in manifests {
            let (_parent, folder) = folder(&folder_name, &[(path, &text)]);
            let outcome = init(&folder);
            let file = PipelineFile::parse(&outcome.text, "alcedo.yaml");
            prop_assert!(file.is_ok(), "{}\n{}", file.unwrap_err(), outcome.text);
            prop_assert_eq!(&file.unwrap().app, &outcome.app);
            let start = outcome.files[1].text.lines().filter(|line| line.starts_with("ExecStart=")).count();
            prop_assert_eq!(start, 1);
        }
    }
}
