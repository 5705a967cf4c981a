//! Instances: launching with a token, waiting, reading consoles, ending.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Mutex, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    ids::{RunId, StepId},
    resource::Resource,
    wait::{Look, Wait, Waiter},
};
use aws_sdk_ec2::operation::run_instances::{RunInstancesError, builders::RunInstancesFluentBuilder};
use aws_sdk_ec2::types::{
    Filter, HttpTokensState, IamInstanceProfileSpecification, Instance, InstanceMetadataOptionsRequest,
    InstanceMetadataTagsState, InstanceStateName, Reservation, ResourceType,
};
use aws_smithy_runtime_api::client::result::SdkError;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    clients::Clients,
    cloud_error::{self, CloudError},
    tags::{self, Tags},
};

/// A server as later steps need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub id: String,
    pub private_address: Option<Ipv4Addr>,
    pub public_address: Option<Ipv4Addr>,
}

impl Server {
    /// The address to reach it at from here.
    pub fn address(&self, private: bool) -> Option<Ipv4Addr> {
        match private {
            true => self.private_address,
            false => self.public_address.or(self.private_address),
        }
    }
}

/// One RunInstances call.
pub struct Launch<'a> {
    pub image: &'a str,
    pub count: u32,
    pub instance_type: &'a str,
    pub subnet: &'a str,
    pub security_groups: &'a [String],
    pub instance_profile: Option<&'a str>,
    pub key: Option<&'a str>,
    pub user_data: Option<&'a str>,
    pub name: String,
    pub tags: Tags,
    /// The same token never launches a second time, so the SDK may try again.
    pub token: String,
}

impl Launch<'_> {
    pub async fn run(&self, clients: &Clients) -> Result<Vec<String>, CloudError> {
        let answer = self.call(clients).send().await.map_err(|error| self.failed(error))?;
        Ok(answer.instances().iter().filter_map(|instance| instance.instance_id().map(str::to_owned)).collect())
    }

    /// Asks whether EC2 would launch it for these credentials, and launches nothing.
    pub async fn rehearse(&self, clients: &Clients) -> Result<(), CloudError> {
        cloud_error::would_have_been_done(self.call(clients).dry_run(true).send().await.map_err(|it| self.failed(it)))
    }

    fn failed<R>(&self, error: SdkError<RunInstancesError, R>) -> CloudError
    where
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        CloudError::of(format!("launch {} × {}", self.count, self.instance_type), error)
    }

    fn call(&self, clients: &Clients) -> RunInstancesFluentBuilder {
        let count = i32::try_from(self.count).unwrap_or(i32::MAX);
        let tags = self.tags.clone().with("Name", &self.name);
        let metadata = InstanceMetadataOptionsRequest::builder()
            .http_tokens(HttpTokensState::Required)
            .http_put_response_hop_limit(1)
            .instance_metadata_tags(InstanceMetadataTagsState::Enabled);
        let profile = self.instance_profile.map(|name| IamInstanceProfileSpecification::builder().name(name).build());
        clients
            .ec2
            .run_instances()
            .image_id(self.image)
            .min_count(count)
            .max_count(count)
            .instance_type(self.instance_type.into())
            .subnet_id(self.subnet)
            .set_security_group_ids(Some(self.security_groups.to_vec()))
            .set_iam_instance_profile(profile)
            .set_key_name(self.key.map(str::to_owned))
            .set_user_data(self.user_data.map(|text| STANDARD.encode(text)))
            .metadata_options(metadata.build())
            .client_token(&self.token)
            .tag_specifications(tags.specification(ResourceType::Instance))
            .tag_specifications(tags.specification(ResourceType::Volume))
            .tag_specifications(tags.specification(ResourceType::NetworkInterface))
    }
}

/// Tells what each server is at, once for each change: looks follow each other quickly.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeMap<String, (String, Option<String>)>>);

impl Told {
    pub fn tell(&self, context: &StepContext, id: &str, state: &str, detail: Option<&str>) {
        let now = (state.to_owned(), detail.map(str::to_owned));
        let before = self.0.lock().expect("no panic while it is held").insert(id.to_owned(), now.clone());
        if before != Some(now) {
            context.server(id, state, detail);
        }
    }
}

/// Waits until EC2 says that all run. A new id can be unknown for a while: that is not an error.
pub async fn await_running(
    clients: &Clients,
    context: &StepContext,
    ids: &[String],
    deadline: Duration,
) -> Result<Vec<Server>, StepError> {
    let wait = Wait::new(Duration::from_millis(250), deadline);
    let told = Told::default();
    wait.until(context, "the servers to run", || async {
        let found = match describe(clients, ids).await {
            Ok(found) => found,
            Err(error) if error.is("InvalidInstanceID.NotFound") => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for it in &found {
            if let (Some(id), Some(state)) = (it.instance_id(), state(it)) {
                told.tell(context, id, state.as_str(), None);
            }
        }
        if let Some(ended) = found.iter().find(|it| has_ended(it)) {
            return Err(why_ended(clients, ended).await);
        }
        let running: Vec<Server> =
            found.iter().filter(|it| state(it) == Some(&InstanceStateName::Running)).filter_map(server).collect();
        Ok(match running.len() == ids.len() {
            true => Look::Ready(running),
            false => Look::NotYet(format!("{} of {} run", running.len(), ids.len())),
        })
    })
    .await
}

fn server(instance: &Instance) -> Option<Server> {
    Some(Server {
        id: instance.instance_id()?.to_owned(),
        private_address: instance.private_ip_address().and_then(|address| address.parse().ok()),
        public_address: instance.public_ip_address().and_then(|address| address.parse().ok()),
    })
}

fn state(instance: &Instance) -> Option<&InstanceStateName> {
    instance.state().and_then(|state| state.name())
}

fn has_ended(instance: &Instance) -> bool {
    matches!(
        state(instance),
        Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown | InstanceStateName::Stopped)
    )
}

async fn why_ended(clients: &Clients, instance: &Instance) -> StepError {
    let id = instance.instance_id().unwrap_or_default();
    let why = instance.state_reason().and_then(|reason| reason.message()).unwrap_or("no reason given");
    let mut error = StepError::new(ErrorKind::Failed, format!("server {id} ended by itself: {why}"));
    if let Ok(text) = console(clients, id).await
        && let Some(last) = text.lines().rev().find(|line| !line.trim().is_empty())
    {
        error = error.hint(format!("the last line of its console: {last}"));
    }
    error
}

pub async fn describe(clients: &Clients, ids: &[String]) -> Result<Vec<Instance>, CloudError> {
    let answer = clients.ec2.describe_instances().set_instance_ids(Some(ids.to_vec())).send().await;
    let answer = answer.map_err(|error| CloudError::of("look at the servers", error))?;
    Ok(answer.reservations().iter().flat_map(Reservation::instances).cloned().collect())
}

/// The serial console's text so far; empty where there is none yet.
pub async fn console(clients: &Clients, id: &str) -> Result<String, CloudError> {
    let answer = clients.ec2.get_console_output().instance_id(id).latest(true).send().await;
    let answer = answer.map_err(|error| CloudError::of(format!("read the console of {id}"), error))?;
    // The API's text is base64 of whatever bytes the console had.
    let bytes = answer.output().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Instance ids among resources.
pub fn ids(resources: &[Resource]) -> Vec<String> {
    resources.iter().filter(|it| it.kind == "instance").map(|it| it.id.clone()).collect()
}

/// Ends every server that this step of the run has launched: those that are known, and those that only their tags tell.
///
/// Where the step has not succeeded, the answer of a call may have been lost, and a new server can be invisible for a moment;
/// so the tags are read for as long as that lasts before nothing more means nothing more.
pub async fn end(clients: &Clients, context: &StepContext) -> Result<(), StepError> {
    let begun = Instant::now();
    let all_are_known = context.maybe_output::<serde_json::Value>(context.step().as_str())?.is_some();
    let mut ids = ids(&context.owned());
    loop {
        for id in tagged(clients, context.run(), context.step()).await? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if all_are_known || begun.elapsed() >= clients.visible {
            return terminate(clients, context, &ids).await;
        }
        tokio::time::sleep(LOOK_AGAIN.min(clients.visible)).await;
    }
}

/// The servers that carry a run's and step's tags and have not ended.
pub async fn tagged(clients: &Clients, run: &RunId, step: &StepId) -> Result<Vec<String>, CloudError> {
    let filter = |name: &str, value: &str| Filter::builder().name(format!("tag:{name}")).values(value).build();
    let call = clients
        .ec2
        .describe_instances()
        .filters(filter(tags::RUN, run.as_str()))
        .filters(filter(tags::STEP, step.as_str()));
    let mut pages = call.into_paginator().send();
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CloudError::of("look for the run's servers", error))?;
        let instances = page.reservations().iter().flat_map(Reservation::instances);
        let alive = instances.filter(|it| state(it) != Some(&InstanceStateName::Terminated));
        ids.extend(alive.filter_map(|it| it.instance_id().map(str::to_owned)));
    }
    Ok(ids)
}

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// EC2 advises against more ids in one call (TerminateInstances, API reference: at most 1,000).
const AT_ONCE: usize = 200;

/// Terminates servers and waits until EC2 says that they are.
///
/// EC2 refuses a whole call for one id that it does not know, and an id that was new a moment ago can be unknown. So only
/// what Describe shows is told to end, and what it does not show counts as ended only once that has lasted longer than new
/// instances stay invisible.
pub async fn terminate(clients: &Clients, waiter: &impl Waiter, ids: &[String]) -> Result<(), StepError> {
    let begun = Instant::now();
    // Whether each that is left has been told to end.
    let left = Mutex::new(ids.iter().map(|id| (id.clone(), false)).collect::<BTreeMap<String, bool>>());
    let wait = Wait::new(Duration::from_millis(500), Duration::from_secs(300));
    wait.until(waiter, "the servers to end", || async {
        let mut pending = left.lock().expect("no panic while it is held").clone();
        let states = states(clients, pending.keys()).await?;
        pending.retain(|id, _| match states.get(id) {
            Some(state) => *state != InstanceStateName::Terminated,
            None => begun.elapsed() < clients.visible,
        });
        let to_tell: Vec<String> =
            pending.iter().filter(|(id, told)| !**told && states.contains_key(*id)).map(|(id, _)| id.clone()).collect();
        for chunk in to_tell.chunks(AT_ONCE) {
            match clients.ec2.terminate_instances().set_instance_ids(Some(chunk.to_vec())).send().await {
                Ok(_) => pending.extend(chunk.iter().map(|id| (id.clone(), true))),
                Err(error) => {
                    let error = CloudError::of("terminate the servers", error);
                    // One reader sees what another does not see yet: the next look tells them again.
                    if !error.is("InvalidInstanceID.NotFound") {
                        return Err(error.into());
                    }
                }
            }
        }
        let count = pending.len();
        *left.lock().expect("no panic while it is held") = pending;
        Ok(if count == 0 { Look::Ready(()) } else { Look::NotYet(format!("{count} of {} are ending", ids.len())) })
    })
    .await
}

/// The states of those that can be seen. A filter, unlike a list of ids, does not refuse what it does not know.
async fn states(
    clients: &Clients,
    ids: impl Iterator<Item = &String>,
) -> Result<BTreeMap<String, InstanceStateName>, CloudError> {
    let ids: Vec<String> = ids.cloned().collect();
    let mut found = BTreeMap::new();
    for chunk in ids.chunks(AT_ONCE) {
        let filter = Filter::builder().name("instance-id").set_values(Some(chunk.to_vec())).build();
        let mut pages = clients.ec2.describe_instances().filters(filter).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| CloudError::of("look at the servers", error))?;
            for instance in page.reservations().iter().flat_map(Reservation::instances) {
                if let (Some(id), Some(state)) = (instance.instance_id(), state(instance)) {
                    found.insert(id.to_owned(), state.clone());
                }
            }
        }
    }
    Ok(found)
}
