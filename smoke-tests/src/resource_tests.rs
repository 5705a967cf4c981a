use alcedo_pipeline::suite::Check;

use super::*;
use crate::suite;

fn one(yaml: &str) -> Check {
    suite::load(&format!("- {yaml}")).unwrap().remove(0)
}

/// Judges an output, and puts the outcome in words.
fn outcome(yaml: &str, exit_code: i32, stdout: &str) -> String {
    let check = one(yaml);
    let output = ShellOutput { exit_code, stdout: stdout.into(), stderr: String::new() };
    judge(&check.ask().unwrap(), &output).map_or_else(|failure| failure.to_string(), |()| "passed".into())
}

/// Runs the check's command line on this machine and judges what really came.
fn really(yaml: &str) -> String {
    let check = one(yaml);
    let ask = check.ask().unwrap();
    let out = std::process::Command::new("sh").arg("-c").arg(command_for(&ask).unwrap().line).output().unwrap();
    let output = ShellOutput {
        exit_code: out.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    judge(&ask, &output).map_or_else(|failure| failure.to_string(), |()| "passed".into())
}

#[test]
fn packages() {
    let outcome = |yaml, stdout| outcome(yaml, 0, stdout);
    assert_eq!(outcome("package: { name: nginx }", "installed 1.22.1-9\n"), "passed");
    assert_eq!(outcome("package: { name: nginx, version: '1.22*' }", "installed 1.22.1-9\n"), "passed");
    assert_eq!(
        outcome("package: { name: nginx, version: '1.24*' }", "installed 1.22.1-9\n"),
        "expected package nginx in version 1.24*, got version 1.22.1-9"
    );
    assert_eq!(outcome("package: { name: nginx }", ""), "expected package nginx installed, got not installed");
    assert_eq!(
        outcome("package: { name: nginx }", "config-files 1.2\n"),
        "expected package nginx installed, got not installed"
    );
    assert_eq!(
        outcome("package: { name: nginx, installed: false }", "installed 1.2\n"),
        "expected package nginx not installed, got version 1.2 installed"
    );
    assert_eq!(outcome("package: { name: nginx, installed: false }", ""), "passed");
}

#[test]
fn services() {
    let outcome = |yaml, stdout| outcome(yaml, 0, stdout);
    let up = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n";
    let down = "LoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=disabled\n";
    let absent = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n";
    assert_eq!(outcome("service: { name: hello }", up), "passed");
    assert_eq!(outcome("service: { name: hello }", down), "passed", "it exists");
    assert_eq!(outcome("service: { name: hello, running: true, enabled: true }", up), "passed");
    assert_eq!(
        outcome("service: { name: hello, running: true }", down),
        "expected service hello running, got failed (failed)"
    );
    assert_eq!(
        outcome("service: { name: hello, enabled: true }", down),
        "expected service hello enabled, got disabled"
    );
    assert_eq!(
        outcome("service: { name: hello, enabled: false }", up),
        "expected service hello not enabled, got enabled"
    );
    assert_eq!(outcome("service: { name: hello }", absent), "expected service hello, got a unit that is not-found");
    assert_eq!(outcome("service: { name: hello, running: false }", absent), "passed");
}

#[test]
fn files() {
    let outcome = |yaml, stdout| outcome(yaml, 0, stdout);
    assert_eq!(
        outcome("file: { path: /x, mode: '0755', owner: root, group: root }", "present 755 root root\n"),
        "passed"
    );
    assert_eq!(
        outcome("file: { path: /x, mode: '0644' }", "present 755 root root\n"),
        "expected /x with mode 0644, got mode 0755"
    );
    assert_eq!(
        outcome("file: { path: /x, owner: hello }", "present 755 root root\n"),
        "expected /x with owner hello, got owner root"
    );
    assert_eq!(outcome("file: { path: /x }", "absent\n"), "expected /x to exist, got nothing there");
    assert_eq!(outcome("file: { path: /x, exists: false }", "absent\n"), "passed");
    assert_eq!(
        outcome("file: { path: /x, exists: false }", "present 755 a b\n"),
        "expected nothing at /x, got a file or folder"
    );
    assert_eq!(outcome("file: { path: /x, contains: \"b\\nc\" }", "present 755 a b\na\nb\nc\n"), "passed");
    assert_eq!(
        outcome("file: { path: /x, contains: 755 }", "present 755 a b\nno\n"),
        "expected /x to contain \"755\", got no such text"
    );
}

#[test]
fn ports_are_read_from_the_kernels_table() {
    let table = "  sl  local_address rem_address   st tx_queue\n\
                 0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n\
                 1: 0100007F:0050 0100007F:9C40 01 00000000:00000000\n";
    assert_eq!(outcome("port: { number: 8080 }", 0, table), "passed");
    assert_eq!(outcome("port: { number: 80 }", 0, table), "expected something listening on TCP port 80, got nothing");
    assert_eq!(outcome("port: { number: 80, listening: false }", 0, table), "passed");
    assert_eq!(
        outcome("port: { number: 8080, listening: false }", 0, table),
        "expected nothing listening on TCP port 8080, got a listener"
    );
}

#[test]
fn users() {
    let entry = "hello:x:990:990::/var/lib/hello:/usr/sbin/nologin\nhello adm\n";
    assert_eq!(outcome("user: { name: hello, shell: /usr/sbin/nologin, groups: [adm] }", 0, entry), "passed");
    assert_eq!(
        outcome("user: { name: hello, groups: [sudo] }", 0, entry),
        "expected user hello in group sudo, got groups hello, adm"
    );
    assert_eq!(
        outcome("user: { name: hello, shell: /bin/sh }", 0, entry),
        "expected user hello with shell /bin/sh, got shell /usr/sbin/nologin"
    );
    assert_eq!(outcome("user: { name: hello }", 2, ""), "expected user hello, got no such user");
    assert_eq!(outcome("user: { name: hello, exists: false }", 2, ""), "passed");
}

#[test]
fn commands() {
    assert_eq!(outcome("command: { line: hello --version, stdout_contains: '1.' }", 0, "hello 1.2"), "passed");
    assert_eq!(outcome("command: { line: hello }", 3, ""), "expected exit code 0, got exit code 3");
    assert_eq!(
        outcome("command: { line: hello, stdout_matches: '^v\\d+$' }", 0, "v1x"),
        r#"expected an output that matches "^v\\d+$", got one that does not"#
    );
}

#[test]
fn a_command_that_cannot_read_the_facts_is_a_failure_not_an_absence() {
    assert_eq!(
        outcome("package: { name: nginx, installed: false }", 69, ""),
        "expected the list of packages, got exit code 69 of the command that reads it"
    );
    assert_eq!(
        outcome("file: { path: /x, exists: false }", 1, ""),
        "expected the state of the file, got exit code 1 of the command that reads it"
    );
}

/// The command lines themselves, on whatever Linux runs the tests.
#[test]
fn command_lines_find_real_facts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's a file; $(false)");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(really(&format!(r#"file: {{ path: "{path}", contains: "one\ntwo" }}"#)), "passed");
    assert_eq!(really(&format!(r#"file: {{ path: "{path}.not", exists: false }}"#)), "passed");
    assert_eq!(really("user: { name: root, groups: [root] }"), "passed");
    assert_eq!(really("user: { name: no-such-user-here, exists: false }"), "passed");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(really(&format!("port: {{ number: {port} }}")), "passed");
    drop(listener);
    assert_eq!(really(&format!("port: {{ number: {port}, listening: false }}")), "passed");
    assert_eq!(really("package: { name: no-such-package-here, installed: false }"), "passed");
    assert_eq!(really("command: { line: 'echo hi; exit 3', exit_code: 3, stdout_contains: hi }"), "passed");
}

#[test]
fn patterns() {
    for (pattern, text, matches) in [
        ("1.22*", "1.22.1-9", true),
        ("*", "", true),
        ("1.2", "1.22", false),
        ("*-9", "1-9-8", false),
        ("a*b*c", "aXbYbZc", true),
    ] {
        assert_eq!(matches_pattern(pattern, text), matches, "{pattern} {text}");
    }
}
