//! What failed servers can tell before the unwind takes them away, kept beside the run: `runs/<run>/evidence/…`.
//!
//! **What it looks at.** For each server that the run has launched: the end of its console, what the balancer says of its
//! health, what its health check answers from here where that can be reached; and over SSH, where the step that failed had
//! opened it, failed units and the journal of this boot. **What it changes.** Nothing on the servers or in the cloud.

use std::time::Duration;

use alcedo_pipeline::{
    context::StepContext,
    journal,
    plan::{PlannedStep, Stage},
    store::StoreError,
};
use alcedo_smoke_tests::{Shell, ShellCommand};
use serde_json::json;

use crate::{
    action::Action,
    gate,
    launch::{self, MadeGroup, MadeServers},
    servers::{self, Server},
    site::Site,
    smoke::SmokeTest,
    ssh::{self, Login},
    workshop::Workshop,
};

/// Bytes of a console that are kept, from its end: EC2 itself keeps 64 KiB.
const CONSOLE_BYTES: usize = 64 << 10;
/// A server that does not let anybody in within this time is looked at from outside alone.
const LOGIN: Duration = Duration::from_secs(15);
const UNITS: &str =
    "systemctl --failed --no-pager --plain; systemctl list-units --no-pager --plain --type=service --all";
const JOURNAL: &str = "journalctl --boot --no-pager --lines 1000";

/// Whether a step's failure says something of servers.
pub fn is_about_servers(failed: &PlannedStep) -> bool {
    // Somebody who says no says nothing of servers.
    !gate::is_gate(&failed.id) && matches!(failed.stage, Stage::Launch | Stage::Smoke | Stage::Flip | Stage::Hold)
}

/// Looks at the run's servers and keeps what they tell.
pub async fn examine(site: &Site, shop: &Workshop, failed: &PlannedStep, context: &StepContext) {
    let ids = servers::ids(&context.owned_by(launch::INSTANCES));
    if ids.is_empty() {
        return;
    }
    let folder = journal::evidence_folder(&site.root, context.run());
    let looks = ids.iter().map(|id| look(site, shop, failed, context, &folder, id));
    let kept: usize = futures::future::join_all(looks).await.into_iter().sum();
    context.output_line(format!(
        "kept what {} servers told: s3://{}/{folder} ({kept} files)",
        ids.len(),
        site.bucket()
    ));
}

/// Answers how many files were kept of one server.
async fn look(
    site: &Site,
    shop: &Workshop,
    failed: &PlannedStep,
    context: &StepContext,
    folder: &str,
    id: &str,
) -> usize {
    let mut kept = 0;
    let mut keep = async |name: &str, text: String| match put(site, &format!("{folder}{id}/{name}"), text).await {
        Ok(()) => kept += 1,
        Err(error) => context.warn(format!("{name} of {id} could not be kept: {error}"), None),
    };
    match servers::console(&site.clients, id).await {
        Ok(console) => keep("console.txt", tail(&console).to_owned()).await,
        Err(error) => keep("console.txt", format!("the console could not be read: {error}\n")).await,
    }
    keep("health.json", health(site, context, id).await).await;
    let made = context.maybe_output::<MadeServers>(launch::INSTANCES).ok().flatten();
    let server = made.and_then(|made| made.servers.into_iter().find(|server| server.id == id));
    if let (Some(server), Ok(Action::SmokeTest(test))) = (&server, serde_json::from_value(failed.action.clone()))
        && let Some((units, log)) = over_ssh(site, shop, context, server, &test).await
    {
        keep("units.txt", units).await;
        keep("journal.txt", log).await;
    }
    kept
}

/// What the balancer says of it, and what its health check answers to this machine.
async fn health(site: &Site, context: &StepContext, id: &str) -> String {
    let group = context.maybe_output::<MadeGroup>(launch::TARGET_GROUP).ok().flatten();
    let said = match group {
        Some(group) => launch::target_health(&site.clients, &group.arn).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let said = said.iter().find(|it| it.target().and_then(|target| target.id()) == Some(id));
    let made = context.maybe_output::<MadeServers>(launch::INSTANCES).ok().flatten();
    let server = made.and_then(|made| made.servers.into_iter().find(|server| server.id == id));
    let address = server.and_then(|server| server.address(site.pipeline.bake.private_address));
    let settings = &site.pipeline.launch;
    let answer = match address {
        None => json!(null),
        Some(address) => {
            let url = format!("http://{address}:{}{}", settings.port, settings.health_check.path);
            let asked = site.clients.http.get(&url).timeout(settings.health_check.timeout.duration()).send().await;
            match asked {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let body = answer.text().await.unwrap_or_default();
                    let body: String = site.redactor.clean(&body).chars().take(4096).collect();
                    json!({ "url": url, "status": status, "body": body })
                }
                Err(error) => json!({ "url": url, "error": error.to_string() }),
            }
        }
    };
    let balancer =
        said.map(|it| json!({ "state": launch::state(it).map(|state| state.as_str()), "why": launch::reason(it) }));
    serde_json::to_string_pretty(&json!({ "v": 1, "balancer": balancer, "from_here": answer })).expect("plain JSON")
}

/// Where a smoke test logs in, its port is open still, and its key is on the servers.
async fn over_ssh(
    site: &Site,
    shop: &Workshop,
    context: &StepContext,
    server: &Server,
    test: &SmokeTest,
) -> Option<(String, String)> {
    if !test.checks.iter().any(alcedo_pipeline::suite::Check::needs_ssh) {
        return None;
    }
    let login = Login { user: &test.ssh_user, port: test.ssh_port, private_address: test.private_address };
    let session = ssh::open(&site.clients, context, server, login, shop.key().await.ok()?, LOGIN).await.ok()?;
    let run = async |line: &str| match session.run(&ShellCommand::as_root(line)).await {
        Ok(output) => format!("{}{}", output.stdout, output.stderr),
        Err(error) => format!("`{line}` could not be run: {error}\n"),
    };
    let told = (run(UNITS).await, run(JOURNAL).await);
    let _ = session.close().await;
    Some(told)
}

async fn put(site: &Site, key: &str, text: String) -> Result<(), StoreError> {
    // An app that prints its secrets has them in its log and on its console.
    let text = site.redactor.clean(&text).into_owned();
    match site.store.create(key, text.into_bytes()).await {
        // An earlier attempt of the run has kept it.
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(CONSOLE_BYTES);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[from..]
}
