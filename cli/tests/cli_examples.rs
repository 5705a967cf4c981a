//! What is in `examples/` beside whole apps. The CI configurations: each fits its provider's published schema, and every
//! `alcedo` in it is a command line that `alcedo` takes. The Terraform configuration: it is formatted, and makes what the
//! `alcedo.yaml` beside it names.

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

#[test]
fn terraform_makes_what_its_file_names() {
    let python = std::env::var_os("ALCEDO_TEST_PYTHON").expect("`cargo xtask test` names a Python with python-hcl2");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terraform_example.py");
    let check = |folder: &Path| Command::new(&python).arg(&script).arg(folder).output().unwrap();
    let output = check(&example("terraform"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    // The check of the check: what it has to notice, and how it says so.
    for (name, old, new, notice) in [
        ("security-groups.tf", "${var.app}-builder", "${var.app}-baker", "bake.security_group is hello-builder"),
        ("balancer.tf", "ignore_changes = [default_action]", "ignore_changes = [tags]", "no listener"),
        ("network.tf", "cidr_block = var.network", "cidr_block  = var.network", "terraform fmt"),
        ("role.tf", "role = aws_iam_role.servers.name", "role = aws_iam_role.server.name", "declared nowhere"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(example("terraform")).unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        let wrong = folder.path().join(name);
        let text = fs::read_to_string(&wrong).unwrap();
        assert!(text.contains(old), "{name} has no `{old}`");
        fs::write(&wrong, text.replace(old, new)).unwrap();
        let output = check(folder.path());
        assert!(!output.status.success(), "{name}: `{new}` is not noticed");
        assert!(said(&output.stdout).contains(notice), "{name}: `{new}`: {}", said(&output.stdout));
    }
}

#[test]
fn the_file_beside_terraform_is_fine() {
    let mut alcedo = Command::new(env!("CARGO_BIN_EXE_alcedo"));
    let output =
        alcedo.args(["validate", "--strict", "--file"]).arg(example("terraform/alcedo.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
