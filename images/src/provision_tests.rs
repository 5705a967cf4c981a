use std::process::{Command, Stdio};

use super::*;

const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn input(install_path: &str, steps: Vec<LoadedStep>) -> ProvisionInput {
    ProvisionInput {
        app: "hello".into(),
        version: "2026.1120.190512".into(),
        install_path: install_path.into(),
        artifact_url: "https://bucket.s3.amazonaws.com/hello/artifact.tar.zst?X-Amz-Signature=abc%2F&x=1".into(),
        artifact_sha256: SHA.into(),
        steps,
    }
}

fn run_step(commands: &str, environment: &[(&str, &str)]) -> LoadedStep {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    LoadedStep::Run { commands: commands.into(), environment }
}

fn program(step: &ProvisionStep) -> &str {
    match step {
        ProvisionStep::Remote { program, .. } => program,
        ProvisionStep::Ansible(_) => panic!("a remote step"),
    }
}

/// Runs a program as the server would: by `sh -s`.
fn run(program: &str) -> (i32, String, String) {
    use std::io::Write;
    let mut child = Command::new("sh")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[test]
fn the_plan_is_what_the_server_will_be_told() {
    let steps =
        plan(&input("/opt/hello", vec![run_step("\napt-get update\n", &[("TOKEN", "it's \"$secret\"")])])).unwrap();
    insta::assert_snapshot!("install", program(&steps[0]));
    insta::assert_snapshot!("run", program(&steps[1]));
}

#[test]
fn no_secret_is_in_what_may_be_logged() {
    let steps = plan(&input("/opt/hello", vec![run_step("true", &[("TOKEN", "s3cret")])])).unwrap();
    let logged = format!("{steps:?}");
    assert!(logged.contains("install hello 2026.1120.190512"), "{logged}");
    assert!(!logged.contains("s3cret") && !logged.contains("X-Amz"), "{logged}");
}

#[test]
fn a_step_runs_with_its_variables_and_without_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let commands = "pwd; printf '%s|' \"$TOKEN\" \"$ALCEDO_APP\" \"$ALCEDO_VERSION\"; cat; false; echo unreached";
    let steps = plan(&input(path, vec![run_step(commands, &[("TOKEN", "it's\n$HOME")])])).unwrap();
    let (code, stdout, _) = run(program(&steps[1]));
    assert_eq!((code, stdout), (1, format!("{path}\nit's\n$HOME|hello|2026.1120.190512|")));
}

#[test]
fn a_script_is_run_by_the_interpreter_it_names() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("setup.sh"), "#!/bin/bash\n[[ -n $BASH_VERSION ]] && echo by bash; exit 9\n")
        .unwrap();
    let file =
        file::Provision { script: Some("setup.sh".into()), run: None, ansible: None, environment: BTreeMap::new() };
    let loaded = load(folder.path(), &[file]).unwrap();
    let steps = plan(&input(folder.path().to_str().unwrap(), loaded)).unwrap();
    assert_eq!(run(program(&steps[1])), (9, "by bash\n".into(), String::new()));
}

/// The whole way of an artifact, from an HTTP server to the install path, with a digest that is right and one that is
/// wrong.
#[test]
fn the_artifact_is_fetched_checked_and_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("hello");
    fs::write(&source, "#!").unwrap();
    let mut content = crate::archive::Content::new();
    content.file("bin/hello", source, true).unwrap();
    let archive = content.write(&folder.path().join("artifact.tar.zst")).unwrap();
    let url = serve(fs::read(&archive.file).unwrap(), 3);

    let install = folder.path().join("opt/hello");
    let mut input = input(install.to_str().unwrap(), Vec::new());
    input.artifact_url = url;
    let fetch = |input: &ProvisionInput| run(program(&plan(input).unwrap()[0]));
    let (code, _, stderr) = fetch(&input);
    assert_eq!(code, EXIT_DIGEST, "{stderr}");
    assert!(!install.exists(), "nothing is unpacked before it is checked");
    assert!(stderr.contains(&archive.sha256), "{stderr}");

    input.artifact_sha256 = archive.sha256;
    assert_eq!(fetch(&input), (0, String::new(), String::new()));
    assert_eq!(fs::read_to_string(install.join("bin/hello")).unwrap(), "#!");

    input.artifact_url = "http://127.0.0.1:1/artifact?X-Amz-Signature=s3cret".into();
    // Nobody listens there, so curl would try for seconds: the retries are cut for the test.
    let once = program(&plan(&input).unwrap()[0]).replace("--retry 4 --retry-connrefused", "");
    let (code, _, stderr) = run(&once);
    assert_eq!(code, EXIT_FETCH, "{stderr}");
    assert!(!stderr.contains("s3cret"), "{stderr}");
}

/// Answers so many requests with these bytes.
fn serve(body: Vec<u8>, requests: usize) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().take(requests) {
            let mut connection = connection.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() > 0 {
                request.push(byte[0]);
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            connection.write_all(head.as_bytes()).unwrap();
            connection.write_all(&body).unwrap();
        }
    });
    format!("http://{address}/artifact.tar.zst?X-Amz-Signature=abc&x=1")
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_runs() {
    for path in ["relative", "/", "//", "/opt/../etc"] {
        assert!(matches!(plan(&input(path, Vec::new())), Err(ProvisionError::InstallPath { .. })), "{path}");
    }
    let mut wrong = input("/opt/hello", Vec::new());
    wrong.artifact_url = "https://x/\"\noutput = /etc/passwd".into();
    assert!(matches!(plan(&wrong), Err(ProvisionError::Artifact)));
    let mut wrong = input("/opt/hello", Vec::new());
    wrong.artifact_sha256 = "$(id)".into();
    assert!(matches!(plan(&wrong), Err(ProvisionError::Artifact)));

    let step = |environment: &str| file::Provision {
        script: None,
        run: Some("true".into()),
        ansible: None,
        environment: BTreeMap::from([(environment.to_owned(), "x".to_owned())]),
    };
    let folder = Path::new(".");
    for name in ["", "1A", "A B", "A=B", "A;id"] {
        assert!(matches!(load(folder, &[step(name)]), Err(ProvisionError::VariableName { .. })), "{name}");
    }
    let nothing = file::Provision { script: None, run: None, ansible: None, environment: BTreeMap::new() };
    assert!(matches!(load(folder, &[nothing]), Err(ProvisionError::Shape { number: 1 })));
    let gone =
        file::Provision { script: Some("gone.sh".into()), run: None, ansible: None, environment: BTreeMap::new() };
    let error = load(folder, &[gone]).unwrap_err();
    assert!(error.to_string().contains("gone.sh"), "{error}");
}

#[test]
fn exit_codes_have_their_meaning_only_where_it_was_agreed() {
    assert!(matches!(judge("x", RemoteKind::Fetch, EXIT_DIGEST, Vec::new()), Err(ProvisionError::Digest { .. })));
    assert!(matches!(judge("x", RemoteKind::Project, EXIT_DIGEST, Vec::new()), Err(ProvisionError::Step { .. })));
    judge("x", RemoteKind::Project, 0, Vec::new()).unwrap();
}
