//! Finding, checking and beginning a pipeline file.

mod support;

use std::fs;

use serde_json::Value;
use support::{alcedo, stderr, stdout};

/// The commands that need a file, each in its shortest form.
const COMMANDS: [&[&str]; 8] =
    [&["validate"], &["plan"], &["deploy"], &["rollback"], &["status"], &["releases"], &["runs"], &["doctor"]];

#[test]
fn without_a_file_every_command_says_how_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let output = alcedo(folder.path()).args(command).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command:?}: {text}");
        assert!(text.contains("there is no alcedo.yaml") && text.contains("help: alcedo init"), "{command:?}: {text}");
    }
    assert!(!folder.path().join("region").exists(), "nothing is started for a file that is not there");
}

#[test]
fn init_writes_a_file_that_is_fine_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("go.mod"), "module example.org/greeter\n\ngo 1.19\n").unwrap();
    fs::write(folder.path().join("main.go"), "package main\n\nfunc main() {}\n").unwrap();
    let said = stdout(alcedo(folder.path()).arg("init").arg("."));
    assert!(said.contains("alcedo.yaml"), "{said}");
    alcedo(folder.path()).arg("validate").assert().success();
    let before = fs::read(folder.path().join("alcedo.yaml")).unwrap();
    let again = alcedo(folder.path()).arg("init").output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(fs::read(folder.path().join("alcedo.yaml")).unwrap(), before);
    // A file that is there already is kept, and said to be.
    fs::remove_file(folder.path().join("alcedo.yaml")).unwrap();
    fs::write(folder.path().join("deploy/provision.sh"), "mine\n").unwrap();
    let third = stdout(alcedo(folder.path()).arg("init"));
    assert!(third.contains("kept"), "{third}");
    assert_eq!(fs::read_to_string(folder.path().join("deploy/provision.sh")).unwrap(), "mine\n");
}

#[test]
fn the_file_is_found_from_a_folder_below() {
    let folder = tempfile::tempdir().unwrap();
    alcedo(folder.path()).arg("init").assert().success();
    let below = folder.path().join("src/deep");
    fs::create_dir_all(&below).unwrap();
    alcedo(&below).arg("validate").assert().success();
    // A folder is as good as the file in it.
    alcedo(&below).args(["validate", "-f", "../.."]).assert().success();
    alcedo(&below).args(["-f", "../../alcedo.yaml", "validate"]).assert().success();
}

#[test]
fn every_problem_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    alcedo(folder.path()).arg("init").assert().success();
    let path = folder.path().join("alcedo.yaml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nlaunch:"), "{text}");
    fs::write(&path, text.replace("\nlaunch:", "\nsmoke_testz: []\nlaunch:\n  counts: 3")).unwrap();
    let output = alcedo(folder.path()).arg("validate").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("smoke_testz") && said.contains("smoke_tests"), "{said}");
    assert!(said.contains("counts") && said.contains("count"), "{said}");
    assert!(said.contains("alcedo.yaml:"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");

    let line: Value =
        serde_json::from_str(&stdout(alcedo(folder.path()).args(["validate", "--output", "json"]))).unwrap();
    assert_eq!((&line["event"], &line["exit_code"]), (&"error".into(), &2.into()));
    assert!(line["diagnostics"].as_array().unwrap().len() >= 2, "{line}");
}

#[test]
fn an_unknown_environment_is_named_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    alcedo(folder.path()).arg("init").assert().success();
    let listed: Value =
        serde_json::from_str(&stdout(alcedo(folder.path()).args(["validate", "--output", "json"]))).unwrap();
    let known = listed["environments"][0].as_str().unwrap();
    let said = stderr(alcedo(folder.path()).args(["deploy", "--env", "nowhere"]));
    assert!(said.contains("no environment `nowhere`") && said.contains(known), "{said}");
    alcedo(folder.path()).args(["status", "--env", "nowhere"]).assert().code(2);
}
