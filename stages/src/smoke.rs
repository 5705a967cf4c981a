//! Smoke: the suite against every green server and through the preview route, before any traffic moves.

use std::{collections::BTreeMap, time::Duration};

use alcedo_images::session::Session;
use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    file::Preview,
    suite::{Ask, Check, HttpCheck, TcpCheck},
    wait::{Look, Wait},
};
use alcedo_smoke_tests::{CheckEvent, Shell, SuiteReport, Target, run, same_version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    keep_alive::KeepAlive,
    launch::{self, MadeServers},
    probes::{FrontDoor, Known},
    servers::Server,
    site::Site,
    ssh::{self, Login},
    workshop::Workshop,
};

/// From a healthy server, sshd answers at once; its console may lag.
const LOGIN_DEADLINE: Duration = Duration::from_secs(180);

/// AWS publishes no bound for how long a node may lag; two minutes are the longest that anybody reports
/// (argoproj/argo-rollouts #4595).
const PREVIEW_WITHIN: Duration = Duration::from_secs(120);

/// Runs the suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmokeTest {
    pub checks: Vec<Check>,
    /// Whether the servers can be reached directly from here.
    pub servers: bool,
    pub private_address: bool,
    pub app_port: u16,
    pub ssh_user: String,
    pub ssh_port: u16,
    pub front_door: FrontDoor,
    pub preview: Preview,
    pub version: String,
    /// Whether the servers keep idle connections for longer than the balancer does is looked at meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
}

impl SmokeTest {
    pub async fn run(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let made: MadeServers = context.output(launch::INSTANCES)?;
        let servers = made.servers.iter().map(|server| self.on_server(site, shop, context, server));
        let tested = async {
            let (mut reports, sessions): (Vec<_>, Vec<_>) = match self.servers {
                true => futures::future::try_join_all(servers).await?.into_iter().unzip(),
                false => {
                    context.warn("the servers cannot be tested directly: this machine's address is not known", None);
                    (Vec::new(), Vec::new())
                }
            };
            // Where a server itself is not as it should be, nobody waits for its preview.
            if all_good(&reports) {
                self.await_preview(context).await?;
            }
            reports.push(self.through_preview(site, context).await?);
            Ok::<_, StepError>((reports, sessions))
        };
        let ((reports, sessions), refused) = match &self.keep_alive {
            Some(looked_at) if self.servers => {
                let targets = made.servers.iter().map(|server| Ok((server.id.clone(), self.target(site, server)?)));
                let targets = targets.collect::<Result<Vec<_>, StepError>>()?;
                looked_at.beside(&site.clients, context, targets, tested, |(reports, _)| all_good(reports)).await?
            }
            _ => (tested.await?, None),
        };
        let passed = refused.is_none() && all_good(&reports);
        let leave = made.servers.iter().zip(sessions).filter_map(|(server, session)| Some((server, session?)));
        let leave = leave.map(|(server, session)| log_out(shop, context, server, session, passed));
        futures::future::try_join_all(leave).await?;
        let failures: Vec<String> = reports
            .iter()
            .flat_map(|(target, report)| in_words(report).map(move |it| format!("{target}: {it}")))
            .collect();
        if let Some(refused) = refused {
            if failures.is_empty() {
                return Err(refused);
            }
            let record = refused.record();
            context.warn(record.causes.join("; "), record.hints.into_iter().next());
        }
        if failures.is_empty() {
            let passed: usize = reports.iter().map(|(_, report)| report.results.len()).sum();
            return Ok(json!({ "passed": passed }));
        }
        let kept = alcedo_pipeline::journal::evidence_folder(&site.root, context.run());
        let step = StepError::failed(format!("{} smoke tests failed; no traffic was moved", failures.len()))
            .hint(format!("what the servers had to tell is kept in s3://{}/{kept}", site.bucket()));
        Err(because_of_all(step, failures))
    }

    async fn on_server(
        &self,
        site: &Site,
        shop: &Workshop,
        context: &StepContext,
        server: &Server,
    ) -> Result<((String, SuiteReport), Option<Session>), StepError> {
        let target = self.with_version(self.target(site, server)?);
        let session = match self.checks.iter().any(Check::needs_ssh) {
            false => None,
            true => {
                let login = Login { user: &self.ssh_user, port: self.ssh_port, private_address: self.private_address };
                let key = shop.key().await?;
                Some(ssh::open(&site.clients, context, server, login, key, LOGIN_DEADLINE).await?)
            }
        };
        let shell = session.as_ref().map(|session| session as &dyn Shell);
        let report = self.suite(&self.checks, &target, shell, context, &server.id).await?;
        Ok(((server.id.clone(), report), session))
    }

    fn target(&self, site: &Site, server: &Server) -> Result<Target, StepError> {
        let address = server.address(self.private_address).map(|address| address.to_string()).unwrap_or_default();
        let target = Target::server(&address, self.app_port)
            .map_err(|error| StepError::failed(format!("{address} is not an address")).because(error))?;
        Ok(Target { folder: site.folder.clone(), ..target })
    }

    /// How requests come to green before it has traffic.
    fn preview(&self) -> (FrontDoor, BTreeMap<String, String>) {
        let door = self.front_door.clone().on_port(self.preview.port);
        let mut headers = BTreeMap::new();
        if let Some(header) = &self.preview.header {
            // Every fleet's rule answers to its version; the header's own value could reach another's.
            headers.insert(header.name.clone(), self.version.clone());
        }
        (door, headers)
    }

    /// A node of the balancer may not know of the preview yet, which says nothing of green. What is still wrong at the end of
    /// the wait, the suite says in its own words.
    async fn await_preview(&self, context: &StepContext) -> Result<(), StepError> {
        let (door, headers) = self.preview();
        let (known, what) = (Known::default(), format!("every node to know the preview of {}", self.version));
        let answers = Wait::new(Duration::from_secs(1), PREVIEW_WITHIN).until(context, &what, || async {
            let answers = match door.ask(&headers, &known).await {
                Ok(answers) => answers,
                Err(error) => return Ok(Look::NotYet(error.message)),
            };
            let wrong = answers.into_iter().find_map(|(node, answer)| match answer {
                Ok(version) if same_version(&version, &self.version) => None,
                Ok(version) => Some(format!("{node} answers {version}")),
                Err(why) => Some(format!("{node}: {why}")),
            });
            Ok(wrong.map_or(Look::Ready(()), Look::NotYet))
        });
        match answers.await {
            Err(error) if error.kind != ErrorKind::TimedOut => Err(error),
            _ => Ok(()),
        }
    }

    /// Through the balancer, by the preview's header or port. What needs a shell, or names a port of the servers, was
    /// asked of each server already.
    async fn through_preview(&self, site: &Site, context: &StepContext) -> Result<(String, SuiteReport), StepError> {
        let (door, headers) = self.preview();
        let show = |event| show(context, "preview", &event);
        let report = through_balancer(site, context, (&door, &headers), &self.version, &self.checks, &show).await?;
        Ok(("preview".into(), report))
    }

    fn with_version(&self, target: Target) -> Target {
        Target { version: Some(self.version.clone()), version_probe: self.front_door.version.clone(), ..target }
    }

    async fn suite(
        &self,
        checks: &[Check],
        target: &Target,
        shell: Option<&dyn Shell>,
        context: &StepContext,
        name: &str,
    ) -> Result<SuiteReport, StepError> {
        let show = |event| show(context, name, &event);
        tokio::select! {
            report = run(checks, target, shell, &show) => Ok(report),
            () = context.cancellation().cancelled() => Err(StepError::interrupted()),
        }
    }
}

/// Those of the checks that a visitor could make, through the balancer, with these headers; `version` must be the one that
/// answers.
pub async fn through_balancer(
    site: &Site,
    context: &StepContext,
    (door, headers): (&FrontDoor, &BTreeMap<String, String>),
    version: &str,
    checks: &[Check],
    show: &(dyn Fn(CheckEvent) + Send + Sync),
) -> Result<SuiteReport, StepError> {
    let url = door.parsed()?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let target = Target {
        app_port: port,
        preview_headers: headers.clone(),
        version: Some(version.to_owned()),
        version_probe: door.version.clone(),
        folder: site.folder.clone(),
        url,
        host,
        port,
    };
    let checks: Vec<Check> = checks.iter().filter(|check| is_for_preview(check)).cloned().collect();
    tokio::select! {
        report = run(&checks, &target, None, show) => Ok(report),
        () = context.cancellation().cancelled() => Err(StepError::interrupted()),
    }
}

fn all_good(reports: &[(String, SuiteReport)]) -> bool {
    reports.iter().all(|(_, report)| report.failures().next().is_none())
}

/// Ends a session. From a server that is to serve, the key goes as well: nobody can log in with it afterwards. On one whose
/// suite failed it stays, because what the server has to tell is read before it is terminated.
async fn log_out(
    shop: &Workshop,
    context: &StepContext,
    server: &Server,
    session: Session,
    passed: bool,
) -> Result<(), StepError> {
    if passed {
        ssh::lock_out(shop.key().await?, context, server, &session).await;
    }
    let _ = session.close().await;
    Ok(())
}

fn is_for_preview(check: &Check) -> bool {
    let of_servers_alone = matches!(
        check.ask(),
        Ok(Ask::Tcp(TcpCheck { port: Some(_) }) | Ask::Http(HttpCheck { kept_open: Some(_), .. }))
    );
    !check.needs_ssh() && !of_servers_alone
}

/// One of several failures; its source is the next one, so that each is a cause of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct OneOf {
    text: String,
    #[source]
    next: Option<Box<OneOf>>,
}

/// Gives an error all of these as causes, in order.
pub fn because_of_all(error: StepError, failures: Vec<String>) -> StepError {
    let chain = failures.into_iter().rev().fold(None, |next, text| Some(Box::new(OneOf { text, next })));
    match chain {
        Some(first) => error.because(first),
        None => error,
    }
}

/// What failed, each with what was expected, what came, and the end of what was said.
pub fn in_words(report: &SuiteReport) -> impl Iterator<Item = String> {
    report.failures().map(|result| match &result.failure {
        None => result.title.clone(),
        Some(failure) => {
            let detail = if failure.detail.is_empty() { String::new() } else { format!("\n{}", failure.detail) };
            format!("{}: expected {}, got {}{detail}", result.title, failure.expected, failure.actual)
        }
    })
}

/// A check's event as the step's.
pub fn show(context: &StepContext, target: &str, event: &CheckEvent) {
    match event {
        CheckEvent::Finished { result, .. } => {
            let detail = result
                .failure
                .as_ref()
                .map_or_else(String::new, |it| format!("expected {}, got {}", it.expected, it.actual));
            context.checked(target, &result.title, result.passed, &detail, result.took.as_secs_f64());
        }
        CheckEvent::Retrying { title, failure, attempt, .. } => {
            context.waiting(format!("{target}: {title}: try {attempt} got {}", failure.actual));
        }
        CheckEvent::Started { .. } => {}
    }
}
