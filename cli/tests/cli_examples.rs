//! The CI configurations in `examples/`: each fits its provider's published schema, and every `alcedo` in it is a command
//! line that `alcedo` takes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Each with the name of its schema in `check-jsonschema`, which carries the providers' own.
const CONFIGURATIONS: [(&str, &str); 3] = [
    ("circleci/config.yml", "vendor.circle-ci"),
    ("github-actions/deploy.yml", "vendor.github-workflows"),
    ("gitlab/.gitlab-ci.yml", "vendor.gitlab-ci"),
];

/// What providers and shells put in, as they would.
const FILLED_IN: [(&str, &str); 6] = [
    ("${VERSION:+--version \"$VERSION\"}", "--version 2026.1120.190512"),
    ("${VERSION:+--to \"$VERSION\"}", "--to 2026.1120.190512"),
    ("\"$(cat version/version)\"", "2026.1120.190512"),
    ("\"<< pipeline.parameters.rollback-to >>\"", "2026.1120.190512"),
    ("<< parameters.environment >>", "production"),
    ("\"$GITHUB_STEP_SUMMARY\"", "summary.md"),
];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

#[test]
fn each_fits_its_providers_schema() {
    let python =
        std::env::var_os("ALCEDO_TEST_PYTHON").expect("`cargo xtask test` names a Python with check-jsonschema");
    let checker = Path::new(&python).with_file_name("check-jsonschema");
    let check = |file: &Path, schema: &str| {
        let output = Command::new(&checker).args(["--builtin-schema", schema]).arg(file).output();
        output.unwrap_or_else(|error| panic!("{}: {error}", checker.display()))
    };
    for (name, schema) in CONFIGURATIONS {
        let output = check(&example(name), schema);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
    // The check of the check.
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("config.yml");
    let text = fs::read_to_string(example(CONFIGURATIONS[0].0)).unwrap();
    fs::write(&wrong, text.replace("    executor: deployer", "    executors: deployer")).unwrap();
    assert!(!check(&wrong, CONFIGURATIONS[0].1).status.success(), "a misspelt key is not noticed");
}

/// The command lines that begin with `alcedo`.
fn commands(text: &str) -> Vec<Vec<String>> {
    let filled = FILLED_IN.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new));
    let mut found = Vec::new();
    for line in filled.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let line =
            line.trim_start().trim_start_matches("- ").trim_start_matches("run:").trim_start_matches("command:").trim();
        if let Some(rest) = line.strip_prefix("alcedo ") {
            let command = rest.split(['|', ';', '&']).next().unwrap_or_default();
            found.push(command.split_whitespace().map(str::to_owned).collect());
        }
    }
    found
}

#[test]
fn every_command_is_one_that_alcedo_takes() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[String]| {
        let mut alcedo = Command::new(env!("CARGO_BIN_EXE_alcedo"));
        // There is no alcedo.yaml here: whatever can be understood ends with that.
        let output = alcedo.args(arguments).current_dir(folder.path()).env("HOME", folder.path()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let is_understood = |said: &str| said.contains("alcedo.yaml") && !said.contains("Usage:");
    let mut count = 0;
    for (name, _) in CONFIGURATIONS {
        for arguments in commands(&fs::read_to_string(example(name)).unwrap()) {
            let said = run(&arguments);
            assert!(is_understood(&said), "{name}: alcedo {}: {said}", arguments.join(" "));
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} commands were found");
    assert!(!is_understood(&run(&["deploy".into(), "--environment".into(), "x".into()])), "anything is understood");
}
