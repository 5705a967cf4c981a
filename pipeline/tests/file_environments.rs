//! What each environment of a file gets, and what reading one from disk checks beside its text.

use std::{fs, path::Path};

use alcedo_pipeline::{
    diagnostic::{Diagnostics, Severity},
    validate::{EnvironmentError, PipelineFile},
};

const BASE: &str = "\
app: hello
build: { recipe: debian-bookworm, commands: [make], pack: [hello], environment: { A: '1', B: '2' } }
publish: { bucket: acme-artifacts }
bake: { base: { recipe: debian-bookworm }, security_group: builder }
launch: { subnets: [a, b], security_groups: [hello], health_check: { interval: 10s } }
smoke_tests: [{ http: { path: / } }]
flip: { listener: { load_balancer: hello, port: 80 }, preview: { header: { name: X-Preview, value: green } } }
";

fn parse(more: &str) -> Result<PipelineFile, Diagnostics> {
    PipelineFile::parse(&format!("{BASE}{more}"), "alcedo.yaml")
}

fn valid(more: &str) -> PipelineFile {
    parse(more).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems of a file as `id line:column`.
fn problems(more: &str) -> Vec<String> {
    let all = match parse(more) {
        Ok(file) => file.warnings().clone(),
        Err(problems) => problems,
    };
    all.iter()
        .map(|one| {
            let place = one.place.as_ref().unwrap();
            format!("{} {}:{}", one.id, place.line, place.column)
        })
        .collect()
}

#[test]
fn a_file_without_environments_has_one_called_default() {
    let file = valid("");
    assert_eq!(file.environments().collect::<Vec<_>>(), ["default"]);
    let pipeline = file.environment(None).unwrap();
    assert_eq!(pipeline, file.environment(Some("default")).unwrap());
    assert_eq!(
        (file.app.as_str(), pipeline.launch.count, pipeline.launch.health_check.interval.as_secs()),
        ("hello", 2, 10)
    );
    assert_eq!(pipeline.launch.health_check.timeout.as_secs(), 2);
    assert!(file.warnings().is_empty());
}

#[test]
fn overrides_merge_maps_replace_lists_and_remove_with_null() {
    let file = valid(
        "environments:
  z-first:
    build: { environment: { B: null, C: '3' } }
    launch: { subnets: [c, d, e] }
    flip: { preview: { header: null, port: 8443 } }
  a-second:
",
    );
    // In the order of the file, not of the alphabet.
    assert_eq!(file.environments().collect::<Vec<_>>(), ["z-first", "a-second"]);
    let first = file.environment(Some("z-first")).unwrap();
    let environment: Vec<_> = first.build.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(environment, ["A=1", "C=3"]);
    assert_eq!(first.launch.subnets, ["c", "d", "e"]);
    assert_eq!(first.launch.health_check.interval.as_secs(), 10);
    assert_eq!((first.flip.preview.port, first.flip.preview.header), (Some(8443), None));
    assert_eq!(file.environment(Some("a-second")).unwrap(), valid("").environment(None).unwrap());
}

#[test]
fn the_environment_that_is_meant_is_the_one_asked_for_the_default_or_the_only_one() {
    let two = "environments: { staging: {}, production: {} }\n";
    let file = valid(&format!("{two}default_environment: staging\n"));
    assert_eq!(file.environment_name(None), Ok("staging"));
    assert_eq!(file.environment_name(Some("production")), Ok("production"));
    let unknown = file.environment_name(Some("prodution")).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no environment `prodution`");
    assert_eq!(unknown.hint(), "did you mean `production`? The file has `staging` and `production`");
    let undecided = valid(two).environment_name(None).unwrap_err();
    assert!(matches!(&undecided, EnvironmentError::NoneNamed { known } if known.len() == 2), "{undecided:?}");
    assert_eq!(valid("environments: { staging: {} }\n").environment_name(None), Ok("staging"));
}

#[test]
fn a_problem_is_told_once_at_the_line_it_comes_from() {
    let none = "environments: { a: {}, b: {}, c: {} }\n";
    assert_eq!(problems(&format!("hold: {{ for: soon }}\n{none}")), ["wrong-type 8:14"]);
    // The same slip in two environments is two slips.
    assert_eq!(
        problems("environments:\n  a: { hold: { for: soon } }\n  b: { hold: { for: soon } }\n"),
        ["wrong-type 9:21", "wrong-type 10:21"]
    );
    // In the base, although every environment replaces it.
    assert_eq!(problems("hold: { for: soon }\nenvironments: { a: { hold: { for: 1m } } }\n"), ["wrong-type 8:14"]);
}

#[test]
fn a_key_that_an_environment_removes_is_missed_there() {
    assert_eq!(problems("environments:\n  a: {}\n  b: { flip: { listener: null } }\n"), ["missing-key 10:16"]);
    assert_eq!(
        problems("environments:\n  a: {}\n  b: { flip: null, hodl: null }\n"),
        ["missing-key 10:8", "unknown-key 10:20"]
    );
}

#[test]
fn environments_that_share_versions_must_build_alike() {
    let differing = "environments:\n  a: {}\n  b: { build: { commands: [make, make test] } }\n";
    assert_eq!(problems(differing), ["build-differs 10:8"]);
    let apart = "environments:\n  a: {}\n  b: { publish: { prefix: b }, build: { commands: [make, make test] } }\n";
    assert_eq!(problems(apart), Vec::<String>::new());
}

#[test]
fn warnings_do_not_refuse_a_file() {
    let file = valid("hold: { for: 0 }\nretire:\n");
    let ids: Vec<_> = file.warnings().iter().map(|one| (one.id, one.severity)).collect();
    assert_eq!(ids, [("no-hold", Severity::Warning), ("no-value", Severity::Warning)]);
    assert!(file.environment(None).unwrap().hold.span.is_zero());
    let one = PipelineFile::parse(&BASE.replace("launch: {", "launch: { count: 1,"), "f").unwrap();
    assert_eq!(one.warnings().iter().map(|one| one.id).collect::<Vec<_>>(), ["one-server"]);
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn files_that_the_file_refers_to_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let text = BASE
        .replace(
            "security_group: builder }",
            "security_group: builder,
  provision: [{ script: deploy/a.sh }, { ansible: { playbook: deploy }, environment: {} }] }",
        )
        .replace("commands: [make]", "commands: [make], working_directory: app")
        .replace("smoke_tests: [", "smoke_tests: [{ run: { program: ./smoke.sh } }, { run: { program: curl } }, ")
        .replace("launch: {", "launch: { user_data: deploy/user-data.sh,");
    write(folder.path(), "alcedo.yaml", &text);
    write(folder.path(), "deploy/user-data.sh", &"#".repeat(16 * 1024 + 1));
    let path = folder.path().join("alcedo.yaml");
    let told = |problems: &Diagnostics| problems.iter().map(|one| one.message.clone()).collect::<Vec<_>>();
    assert_eq!(
        told(&PipelineFile::read(&path).unwrap_err()),
        [
            "there is no folder `app` beside the pipeline file",
            "there is no script `deploy/a.sh`",
            "the playbook `deploy` is a folder",
            "the user data has 16385 bytes; EC2 takes 16384",
            "there is no program `./smoke.sh`",
        ]
    );
    // The text alone is fine.
    assert!(PipelineFile::parse(&text, "alcedo.yaml").is_ok());

    for name in ["deploy/a.sh", "deploy/site.yml", "smoke.sh", "app/main.c"] {
        write(folder.path(), name, "");
    }
    write(folder.path(), "deploy/user-data.sh", "#!/bin/sh\n");
    write(folder.path(), "alcedo.yaml", &text.replace("playbook: deploy", "playbook: deploy/site.yml"));
    let file = PipelineFile::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(file.folder, folder.path());
}

#[test]
fn a_recipe_of_the_project_is_a_folder_with_a_recipe_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alcedo.yaml");
    write(folder.path(), "alcedo.yaml", &BASE.replace("recipe: debian-bookworm", "recipe: ./recipes/web"));
    let problems = PipelineFile::read(&path).unwrap_err();
    assert_eq!(problems.iter().map(|one| one.id).collect::<Vec<_>>(), ["no-such-file", "no-such-file"], "{problems}");
    write(folder.path(), "recipes/web/recipe.yaml", "name: web\n");
    PipelineFile::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn a_public_key_is_a_file_or_stands_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alcedo.yaml");
    let line = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    let signed = format!("signed_by: [keys/release.pem, {line}]");
    let bucket = BASE.lines().map(str::trim).find(|line| line.starts_with("publish:")).unwrap();
    let publish = bucket.replace("publish: {", &format!("publish: {{ {signed},"));
    write(folder.path(), "alcedo.yaml", &BASE.replace(bucket, &publish));
    let problems = PipelineFile::read(&path).unwrap_err();
    assert_eq!(problems.iter().map(|one| one.id).collect::<Vec<_>>(), ["no-such-file"], "{problems}");
    assert!(problems.to_string().contains("no public key `keys/release.pem`"), "{problems}");
    write(folder.path(), "keys/release.pem", "-----BEGIN PUBLIC KEY-----\n");
    let file = PipelineFile::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(file.environment(None).unwrap().publish.signed_by, ["keys/release.pem", line]);
}

#[test]
fn what_cannot_be_read_is_one_problem_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let only = |path: &Path| {
        let problems = PipelineFile::read(path).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems}");
        assert!(problems.to_string().contains(&path.display().to_string()), "{problems}");
        problems.iter().next().unwrap().clone()
    };
    let absent = only(&folder.path().join("alcedo.yaml"));
    assert_eq!((absent.id, absent.place, absent.help.len()), ("unreadable", None, 1));
    assert_eq!(only(folder.path()).message, "the pipeline file is a folder");
    fs::write(folder.path().join("latin1.yaml"), b"app: hello\n# caf\xe9\n").unwrap();
    let latin1 = only(&folder.path().join("latin1.yaml"));
    assert_eq!(latin1.place.map(|place| (place.line, place.column)), Some((2, 6)));
    fs::write(folder.path().join("marked.yaml"), b"\xef\xbb\xbfapp: caf\xe9\n").unwrap();
    let marked = only(&folder.path().join("marked.yaml"));
    assert_eq!(marked.place.map(|place| (place.line, place.column)), Some((1, 9)));
    write(folder.path(), "empty.yaml", "# nothing\n");
    assert_eq!(only(&folder.path().join("empty.yaml")).id, "empty");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_read() {
    let windows = format!("\u{feff}{}", BASE.replace('\n', "\r\n"));
    assert!(PipelineFile::parse(&windows, "f").is_ok());
    let problems = PipelineFile::parse(&windows.replace("smoke_tests", "smoke_test"), "f").unwrap_err();
    let place = problems.iter().find(|one| one.id == "unknown-key").unwrap().place.clone().unwrap();
    assert_eq!((place.line, place.column, place.end), (6, 1, (6, 11)));
}

#[test]
fn the_examples_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path().join("alcedo.yaml");
        if path.exists() {
            PipelineFile::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
            count += 1;
        }
    }
    assert!(count > 0);
}
