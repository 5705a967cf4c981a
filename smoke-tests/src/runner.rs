//! Runs a suite: the order, the tries, the deadlines.

use std::{ops::Range, time::Duration};

use alcedo_pipeline::{
    suite::{Ask, Check, HttpCheck},
    units::Span,
};
use futures::{StreamExt, stream};
use reqwest::Client;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    http, kept_open, program,
    report::{CheckEvent, CheckResult, Failure, SuiteReport},
    resource,
    shell::Shell,
    target::Target,
    tcp,
    version::{answering_version, same_version},
};

/// How many checks run at once. Below sshd's default `MaxSessions` of 10, since each may be one session of one
/// connection.
const AT_ONCE: usize = 8;

/// Tries, deadline and pause of the question that comes before the checks: which version answers?
const VERSION_TRIES: u32 = 3;
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION_DELAY: Duration = Duration::from_secs(1);

/// Runs the checks against the target and reports them in their own order.
///
/// Where the target says which version must answer, that is asked first, and is the report's first result. Checks that
/// only look (HTTP `GET` and `HEAD`, TCP, resources) run side by side; one that may change something (`run`, `ssh`,
/// `command`, other HTTP methods) runs alone, after all before it and before all after it. No check stops another: the
/// report has a result for each.
///
/// `shell` is needed by the checks for which [`Check::needs_ssh`] says so; without it they fail and say why.
///
/// `sink` is called as things happen, from this task, and must return at once.
///
/// Dropping the future ends everything the checks had under way, programs with their process groups included.
pub async fn run(
    checks: &[Check],
    target: &Target,
    shell: Option<&dyn Shell>,
    sink: &(dyn Fn(CheckEvent) + Send + Sync),
) -> SuiteReport {
    let mut results = Vec::with_capacity(checks.len() + 1);
    let client = match http::client() {
        Ok(client) => client,
        Err(error) => return no_client(checks, &error, sink),
    };
    if let (Some(version), Some(probe)) = (&target.version, &target.version_probe) {
        let tries = Tries { title: "version".into(), index: 0, tries: VERSION_TRIES, delay: VERSION_DELAY };
        let ask = || async {
            let answer = answering_version(&client, &target.url, &target.preview_headers, probe);
            let expected = || format!("version {version} to answer");
            match timeout(VERSION_TIMEOUT, answer).await {
                Ok(Ok(actual)) if same_version(&actual, version) => Ok(()),
                Ok(Ok(actual)) => Err(Failure::new(expected(), format!("version {actual}"))),
                Ok(Err(error)) => Err(Failure::new(expected(), http::chain(&error))),
                Err(_) => Err(Failure::new(expected(), format!("no answer within {} s", VERSION_TIMEOUT.as_secs()))),
            }
        };
        results.push(tries.run(ask, sink).await);
    }
    let offset = results.len();
    for group in groups(checks) {
        let batch = stream::iter(group.map(|at| one(offset + at, &checks[at], target, &client, shell, sink)));
        results.extend(batch.buffered(AT_ONCE).collect::<Vec<_>>().await);
    }
    SuiteReport { results }
}

/// Cuts the suite into runs of checks that only look, and single checks that may change something.
fn groups(checks: &[Check]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut joinable = false;
    for (at, check) in checks.iter().enumerate() {
        let looks = only_looks(check);
        match groups.last_mut() {
            Some(last) if joinable && looks => last.end = at + 1,
            _ => groups.push(at..at + 1),
        }
        joinable = looks;
    }
    groups
}

fn only_looks(check: &Check) -> bool {
    match check.ask() {
        Ok(Ask::Http(HttpCheck { method, .. })) => matches!(method.as_str(), "GET" | "HEAD"),
        Ok(Ask::Ssh(_) | Ask::Command(_) | Ask::Run(_)) => false,
        Ok(_) | Err(_) => true,
    }
}

async fn one(
    index: usize,
    check: &Check,
    target: &Target,
    client: &Client,
    shell: Option<&dyn Shell>,
    sink: &(dyn Fn(CheckEvent) + Send + Sync),
) -> CheckResult {
    let tries = Tries {
        title: check.title(),
        index,
        tries: check.retries.saturating_add(1),
        delay: check.retry_delay.duration(),
    };
    tries.run(|| try_once(check, target, client, shell), sink).await
}

async fn try_once(check: &Check, target: &Target, client: &Client, shell: Option<&dyn Shell>) -> Result<(), Failure> {
    let ask = check.ask().map_err(|several| {
        Failure::new("exactly one thing to check", if several.is_empty() { "none".into() } else { several.join(", ") })
    })?;
    let idle = match ask {
        Ask::Http(HttpCheck { kept_open: Some(idle), .. }) => *idle,
        _ => Span::ZERO,
    };
    let deadline = check.timeout.duration() + idle.duration();
    // A program is ended by its own deadline, which knows its last words.
    if let Ask::Run(run) = ask {
        return program::check(run, target, deadline).await;
    }
    let look = async {
        match ask {
            Ask::Http(request) => {
                http::check(client, request, target).await?;
                match request.kept_open {
                    Some(idle) => kept_open::check(request, target, idle).await,
                    None => Ok(()),
                }
            }
            Ask::Tcp(connection) => tcp::check(connection, target).await,
            other => on_server(&other, shell).await,
        }
    };
    timeout(deadline, look).await.unwrap_or_else(|_| {
        Err(Failure::new(format!("an end within {}", check.timeout), "none: the deadline of the try passed"))
    })
}

async fn on_server(ask: &Ask<'_>, shell: Option<&dyn Shell>) -> Result<(), Failure> {
    let Some(command) = resource::command_for(ask) else { return Ok(()) };
    let Some(shell) = shell else {
        return Err(Failure::new("a shell on the server", "none: this target is not reached over SSH"));
    };
    match shell.run(&command).await {
        Ok(output) => resource::judge(ask, &output),
        Err(error) => Err(Failure::new("a command run on the server", http::chain(&error))),
    }
}

/// One check's tries.
struct Tries {
    title: String,
    index: usize,
    /// At least 1.
    tries: u32,
    delay: Duration,
}

impl Tries {
    async fn run<F>(self, mut once: impl FnMut() -> F, sink: &(dyn Fn(CheckEvent) + Send + Sync)) -> CheckResult
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let Self { title, index, tries, delay } = self;
        sink(CheckEvent::Started { index, title: title.clone() });
        let started = Instant::now();
        let mut attempt = 1;
        let failure = loop {
            match once().await {
                Ok(()) => break None,
                Err(failure) if attempt >= tries => break Some(failure),
                Err(failure) => {
                    sink(CheckEvent::Retrying { index, title: title.clone(), attempt, failure });
                    sleep(delay).await;
                    attempt += 1;
                }
            }
        };
        let result = CheckResult { title, passed: failure.is_none(), tries: attempt, took: started.elapsed(), failure };
        sink(CheckEvent::Finished { index, result: result.clone() });
        result
    }
}

/// Without an HTTP client (a machine without any trusted certificate, say) nothing can be claimed about any check.
fn no_client(checks: &[Check], error: &reqwest::Error, sink: &(dyn Fn(CheckEvent) + Send + Sync)) -> SuiteReport {
    let failure = Failure::new("an HTTP client", http::chain(error));
    let titles = if checks.is_empty() { vec!["http client".into()] } else { checks.iter().map(Check::title).collect() };
    let results: Vec<CheckResult> = titles
        .into_iter()
        .map(|title: String| CheckResult {
            title,
            passed: false,
            tries: 1,
            took: Duration::ZERO,
            failure: Some(failure.clone()),
        })
        .collect();
    for (index, result) in results.iter().enumerate() {
        sink(CheckEvent::Finished { index, result: result.clone() });
    }
    SuiteReport { results }
}
