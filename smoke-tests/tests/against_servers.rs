//! Suites against real servers on loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use alcedo_pipeline::file::VersionProbe;
use alcedo_smoke_tests::{
    CheckEvent, Shell, ShellCommand, ShellError, ShellOutput, SuiteReport, Target, VersionError, answering_version,
    http, run, suite,
};
use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::{any, get},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

/// What the server under test counts.
#[derive(Default)]
struct Seen {
    flaky: AtomicU32,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    order: Mutex<Vec<String>>,
}

async fn serve() -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let app = Router::new()
        .route(
            "/health",
            get(|| async { Json(serde_json::json!({ "status": "ok", "load": 0.5, "parts": ["a", "b"] })) }),
        )
        .route("/down", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "database is away\n") }))
        .route("/redirect", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/health")]) }))
        .route("/version", get(version))
        .route("/echo", any(echo))
        .route(
            "/endless",
            get(|| async {
                Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 64 << 10])))
            }),
        )
        .route("/binary", get(|| async { vec![0xff, 0xfe, 0x00, 0x1b, b'[', b'2', b'J'] }))
        .route("/deep", get(|| async { "[".repeat(200_000) }))
        .route("/never", get(std::future::pending::<()>))
        .route("/flaky", get(flaky))
        .route("/slow", get(slow))
        .with_state(Arc::clone(&seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, seen)
}

/// Green answers behind the preview header, blue to everybody else.
async fn version(headers: HeaderMap) -> impl IntoResponse {
    let version = if headers.get("x-preview").is_some_and(|value| value == "green") { "2.0.0+abc" } else { "1.0.0" };
    Json(serde_json::json!({ "version": version }))
}

async fn echo(State(seen): State<Arc<Seen>>, headers: HeaderMap, method: axum::http::Method, body: String) -> String {
    seen.order.lock().unwrap().push(format!("{method} {body}"));
    let mut names: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?"))).collect();
    names.sort();
    format!("{method} {body} {}", names.join(" "))
}

async fn flaky(State(seen): State<Arc<Seen>>) -> StatusCode {
    if seen.flaky.fetch_add(1, Ordering::SeqCst) < 2 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
}

async fn slow(State(seen): State<Arc<Seen>>) {
    let now = seen.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most_at_once.fetch_max(now, Ordering::SeqCst);
    seen.order.lock().unwrap().push("slow begins".into());
    // Long enough for the others to arrive; the test asserts that they did, not how long this took.
    tokio::time::sleep(Duration::from_millis(300)).await;
    seen.order.lock().unwrap().push("slow ends".into());
    seen.at_once.fetch_sub(1, Ordering::SeqCst);
}

fn target(address: SocketAddr) -> Target {
    Target::server("127.0.0.1", address.port()).unwrap()
}

async fn report(yaml: &str, target: &Target) -> SuiteReport {
    run(&suite::load(yaml).unwrap(), target, None, &|_| {}).await
}

/// The one check's outcome in words, with its detail in brackets.
async fn outcome(yaml: &str, target: &Target) -> String {
    let report = report(&format!("- {yaml}"), target).await;
    let [result] = report.results.as_slice() else { panic!("one check, one result") };
    match &result.failure {
        None => "passed".into(),
        Some(failure) if failure.detail.is_empty() => failure.to_string(),
        Some(failure) => format!("{failure} [{}]", failure.detail),
    }
}

#[tokio::test]
async fn http_answers_are_judged_with_expected_and_actual() {
    let (address, _) = serve().await;
    let target = target(address);
    for (yaml, expected) in [
        ("http: { path: /health, json: { $.status: ok, $.load: 0.5, '$.parts[1]': b }, within: 5s }", "passed"),
        ("http: { path: /health, expect_headers: { Content-Type: application/json } }", "passed"),
        ("http: { path: /down }", "expected status 200, got status 503 [body: database is away ]"),
        ("http: { path: /down, status: 503, body_contains: away, body_matches: '^database' }", "passed"),
        ("http: { path: /redirect, status: 302 }", "passed"),
        ("http: { path: /nothing-here, status: 404 }", "passed"),
        (
            "http: { path: /down, status: 503, body_contains: fine }",
            r#"expected a body that contains "fine", got one that does not [body: database is away ]"#,
        ),
        (
            "http: { path: /down, status: 503, body_matches: '^fine$' }",
            r#"expected a body that matches "^fine$", got one that does not [body: database is away ]"#,
        ),
        (
            "http: { path: /health, expect_headers: { X-Missing: '1' } }",
            "expected header X-Missing: 1, got no such header",
        ),
        (
            "http: { path: /health, expect_headers: { content-type: text/html } }",
            "expected header content-type: text/html, got content-type: application/json",
        ),
        (
            "http: { path: /health, json: { $.status: down } }",
            r#"expected $.status = "down", got "ok" [body: {"load":0.5,"parts":["a","b"],"status":"ok"}]"#,
        ),
        (
            "http: { path: /never }\n  timeout: 200ms",
            "expected an end within 200ms, got none: the deadline of the try passed",
        ),
    ] {
        assert_eq!(outcome(yaml, &target).await, expected, "{yaml}");
    }
    let late = outcome("http: { path: /slow, within: 1ms }", &target).await;
    assert!(late.starts_with("expected the whole answer within 1ms, got "), "{late}");
}

#[tokio::test]
async fn hostile_bodies_are_read_no_further_than_they_must_be() {
    let (address, _) = serve().await;
    let target = target(address);
    let cut = outcome("http: { path: /endless, body_contains: y }", &target).await;
    assert!(cut.contains("only the first 1 MiB of the body is read"), "{cut}");
    assert!(cut.len() < 1000, "an excerpt, not the body");
    assert_eq!(outcome("http: { path: /endless, body_contains: x }", &target).await, "passed");
    let binary = outcome("http: { path: /binary, status: 204 }", &target).await;
    assert!(!binary.contains('\x1b'), "no control sequence reaches a terminal: {binary:?}");
    let deep = outcome("http: { path: /deep, json: { $.a: 1 } }", &target).await;
    assert!(deep.starts_with("expected a JSON body, got one that is not"), "{deep}");
    let deep = outcome("http: { path: /endless, json: { $.a: 1 } }", &target).await;
    assert!(deep.starts_with("expected a JSON body, got one that is not"), "{deep}");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_speaks_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let garbage = outcome("http: { path: / }", &target(address)).await;
    assert!(garbage.starts_with(&format!("expected an answer from http://{address}/, got ")), "{garbage}");
    assert_eq!(outcome("tcp: {}", &target(address)).await, "passed");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = outcome(&format!("tcp: {{ port: {} }}", free.port()), &target(address)).await;
    assert!(refused.starts_with(&format!("expected a TCP connection to {free}, got Connection refused")), "{refused}");
    let refused = outcome("http: { path: / }", &target(free)).await;
    assert!(refused.contains("Connection refused"), "{refused}");
}

#[tokio::test]
async fn requests_carry_what_the_check_and_the_preview_say() {
    let (address, _) = serve().await;
    let mut target = target(address);
    target.preview_headers = BTreeMap::from([("X-Preview".into(), "green".into()), ("X-Own".into(), "preview".into())]);
    let yaml = "http: { path: /echo, method: POST, body: ping, headers: { x-own: check }, \
                body_contains: 'POST ping', body_matches: 'x-own=check .*x-preview=green' }";
    assert_eq!(outcome(yaml, &target).await, "passed");
}

#[tokio::test]
async fn retries_are_told_and_counted() {
    let (address, _) = serve().await;
    let checks = suite::load("- http: { path: /flaky }\n  retries: 5\n  retry_delay: 1ms").unwrap();
    let events = Mutex::new(Vec::new());
    let report = run(&checks, &target(address), None, &|event| events.lock().unwrap().push(event)).await;
    assert!(report.passed());
    assert_eq!(report.results[0].tries, 3);
    let events = events.into_inner().unwrap();
    let retried: Vec<(u32, String)> = events
        .iter()
        .filter_map(|event| match event {
            CheckEvent::Retrying { attempt, failure, .. } => Some((*attempt, failure.to_string())),
            _ => None,
        })
        .collect();
    let words = "expected status 200, got status 502".to_owned();
    assert_eq!(retried, [(1, words.clone()), (2, words)]);
    assert!(matches!(events.first(), Some(CheckEvent::Started { index: 0, .. })));
    assert!(matches!(events.last(), Some(CheckEvent::Finished { result, .. }) if result.passed));
}

#[tokio::test]
async fn checks_that_only_look_run_side_by_side_and_others_alone() {
    let (address, seen) = serve().await;
    let yaml = "
- http: { path: /slow }
- http: { path: /slow }
- http: { path: /down }
- http: { path: /echo, method: POST, body: change }
- http: { path: /slow }
";
    let report = report(yaml, &target(address)).await;
    let titles: Vec<&str> = report.results.iter().map(|result| &*result.title).collect();
    assert_eq!(titles, ["GET /slow", "GET /slow", "GET /down", "POST /echo", "GET /slow"], "the suite's order");
    assert_eq!(report.results.iter().map(|result| result.passed).collect::<Vec<_>>(), [true, true, false, true, true]);
    assert_eq!(seen.most_at_once.load(Ordering::SeqCst), 2);
    assert_eq!(
        *seen.order.lock().unwrap(),
        ["slow begins", "slow begins", "slow ends", "slow ends", "POST change", "slow begins", "slow ends"],
        "the change waits for those before it, and those after it for the change"
    );
}

#[tokio::test]
async fn the_deployed_version_must_be_the_one_that_answers() {
    let (address, _) = serve().await;
    let probe = VersionProbe { path: "/version".into(), json: Some("$.version".into()) };
    let mut target = target(address);
    target.version = Some("2.0.0".into());
    target.version_probe = Some(probe.clone());
    target.preview_headers = BTreeMap::from([("X-Preview".into(), "green".into())]);
    let report = report("- http: { path: /health }", &target).await;
    assert_eq!(report.results.iter().map(|result| &*result.title).collect::<Vec<_>>(), ["version", "GET /health"]);
    assert!(report.passed(), "build metadata may be left out");

    target.preview_headers.clear();
    let report = run(&[], &target, None, &|_| {}).await;
    let failure = report.results[0].failure.as_ref().unwrap();
    assert_eq!(failure.to_string(), "expected version 2.0.0 to answer, got version 1.0.0");

    let client = http::client().unwrap();
    let none = BTreeMap::new();
    let asked = answering_version(&client, &target.url, &none, &probe).await.unwrap();
    assert_eq!(asked, "1.0.0");
    let down = VersionProbe { path: "/down".into(), json: None };
    let error = answering_version(&client, &target.url, &none, &down).await.unwrap_err();
    assert!(matches!(error, VersionError::Status { status: 503, .. }), "{error:?}");
    let absent = VersionProbe { path: "/health".into(), json: Some("$.version".into()) };
    let error = answering_version(&client, &target.url, &none, &absent).await.unwrap_err();
    assert!(error.to_string().ends_with("has no version: there is nothing at $.version"), "{error}");
}

/// A program in a folder of its own.
fn program(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("check.sh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test]
async fn a_program_is_told_where_the_server_is() {
    let folder = program(
        "#!/bin/sh\n[ \"$ALCEDO_URL $ALCEDO_HOST $ALCEDO_PORT $ALCEDO_VERSION $ALCEDO_HEADER_NAME=$ALCEDO_HEADER_VALUE $1\" = \"http://127.0.0.1:8080/ 127.0.0.1 8080 1.2.3 X-Preview=green --fast\" ] && [ -f check.sh ]\n",
    );
    let mut target = Target::server("127.0.0.1", 8080).unwrap();
    target.version = Some("1.2.3".into());
    target.preview_headers = BTreeMap::from([("X-Preview".into(), "green".into())]);
    target.folder = folder.path().to_owned();
    for name in ["check.sh", "./check.sh"] {
        assert_eq!(outcome(&format!("run: {{ program: {name}, arguments: [--fast] }}"), &target).await, "passed");
    }
    assert_eq!(outcome("run: { program: 'true' }", &target).await, "passed");
    let gone = outcome("run: { program: ./gone }", &target).await;
    assert!(gone.starts_with("expected exit code 0 of ./gone, got it could not be started: No such file"), "{gone}");
}

#[tokio::test]
async fn a_program_that_fails_is_told_with_its_last_lines() {
    let folder = program("#!/bin/sh\nseq 100\nprintf 'no newline' >&2\nexit 4\n");
    let mut target = Target::server("127.0.0.1", 8080).unwrap();
    target.folder = folder.path().to_owned();
    let outcome = outcome("run: { program: ./check.sh }", &target).await;
    assert!(outcome.starts_with("expected exit code 0 of ./check.sh, got exit code 4 ["), "{outcome}");
    assert!(outcome.contains("no newline") && outcome.contains("100") && !outcome.contains("\n50\n"), "{outcome}");
}

#[tokio::test]
async fn a_program_ends_at_its_deadline_with_all_it_has_started() {
    // Its child outlives it unless the whole group is killed; the child's number tells.
    let folder = program("#!/bin/sh\necho waiting\nsleep 600 &\necho $! >child\nwait\n");
    let mut target = Target::server("127.0.0.1", 8080).unwrap();
    target.folder = folder.path().to_owned();
    let begun = Instant::now();
    let outcome = outcome("run: { program: ./check.sh }\n  timeout: 500ms", &target).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(
        outcome,
        "expected ./check.sh to end within 500 ms, got it was killed, with everything it had started [waiting]"
    );
    until_ended(&std::fs::read_to_string(folder.path().join("child")).unwrap()).await;
}

#[tokio::test]
async fn a_suite_that_is_dropped_leaves_no_program_running() {
    let folder = program("#!/bin/sh\nsleep 600 &\necho $! >child.part && mv child.part child\nwait\n");
    let mut target = Target::server("127.0.0.1", 8080).unwrap();
    target.folder = folder.path().to_owned();
    let child = folder.path().join("child");
    let checks = suite::load("- run: { program: ./check.sh }\n  timeout: 10m").unwrap();
    let started = async {
        while !child.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        report = run(&checks, &target, None, &|_| {}) => panic!("it has not ended: {report:?}"),
        () = started => {}
    }
    until_ended(&std::fs::read_to_string(&child).unwrap()).await;
}

/// Waits for the process to end: gone, or a zombie that nobody has looked after yet.
async fn until_ended(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if matches!(state, None | Some('Z')) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A shell that answers from a table and keeps what it was asked.
struct Table {
    answers: BTreeMap<&'static str, ShellOutput>,
    asked: Mutex<Vec<ShellCommand>>,
}

#[async_trait]
impl Shell for Table {
    async fn run(&self, command: &ShellCommand) -> Result<ShellOutput, ShellError> {
        self.asked.lock().unwrap().push(command.clone());
        self.answers
            .iter()
            .find(|(part, _)| command.line.contains(**part))
            .map(|(_, output)| output.clone())
            .ok_or_else(|| ShellError("the connection was reset".into()))
    }
}

#[tokio::test]
async fn resources_are_asked_over_the_shell() {
    let output = |stdout: &str| ShellOutput { stdout: stdout.into(), ..ShellOutput::default() };
    let shell = Table {
        answers: BTreeMap::from([("dpkg-query", output("installed 1.2\n")), ("uptime", output("up 1 day\n"))]),
        asked: Mutex::default(),
    };
    let checks = suite::load(
        "- package: { name: nginx }\n- ssh: { line: uptime, stdout_matches: '^up' }\n- service: { name: hello }\n",
    )
    .unwrap();
    let target = Target::server("127.0.0.1", 8080).unwrap();
    let report = run(&checks, &target, Some(&shell), &|_| {}).await;
    let words: Vec<String> = report
        .results
        .iter()
        .map(|result| result.failure.as_ref().map_or_else(|| "passed".into(), ToString::to_string))
        .collect();
    assert_eq!(
        words,
        [
            "passed",
            "passed",
            "expected a command run on the server, got the command could not be run on the server: the connection was reset"
        ]
    );
    let asked = shell.asked.into_inner().unwrap();
    assert_eq!(asked.iter().map(|command| command.as_root).collect::<Vec<_>>(), [true, false, true]);

    let report = run(&checks[..1], &target, None, &|_| {}).await;
    assert_eq!(
        report.results[0].failure.as_ref().unwrap().to_string(),
        "expected a shell on the server, got none: this target is not reached over SSH"
    );
}

/// A server that keeps an idle connection for this long.
async fn keeps_idle(kept: Duration) -> SocketAddr {
    use tokio::io::AsyncReadExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(Ok(1..)) = tokio::time::timeout(kept, stream.read(&mut request)).await {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_too_early_is_found() {
    let checks = suite::load("- http: { path: /, kept_open: 600ms }\n  timeout: 2s\n").unwrap();
    for (kept, passes) in [(Duration::from_secs(10), true), (Duration::from_millis(200), false)] {
        let target = Target::server("127.0.0.1", keeps_idle(kept).await.port()).unwrap();
        let report = run(&checks, &target, None, &|_| {}).await;
        assert_eq!(report.passed(), passes, "{report:?}");
        if !passes {
            let failure = report.failures().next().unwrap().failure.clone().unwrap();
            assert_eq!(failure.expected, "a connection that still answers after 600ms without a request");
            assert!(failure.actual.starts_with("the server closed it after "), "{failure:?}");
        }
    }
}
