//! Launch: a target group, a way to reach it before it has traffic, servers, registered and healthy.
//!
//! The order matters: AWS checks the health of a target group only once a listener or rule refers to it, so the preview
//! comes before anybody waits for health.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    event::Unit,
    file::HealthCheck,
    resource::Resource,
    units::Span,
    wait::{Look, Wait},
};
use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, TargetDescription, TargetGroupAttribute, TargetHealthDescription, TargetHealthStateEnum,
    TargetTypeEnum,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    absent::{self, Thing},
    clients::{Clients, elb_once},
    cloud_error::CloudError,
    listener,
    parts::Parts,
    servers,
    tags::{self, Tags},
};

/// Step names that other steps read from.
pub const TARGET_GROUP: &str = "launch/target-group";
pub const INSTANCES: &str = "launch/instances";
pub const REGISTER: &str = "launch/register";
pub const HEALTHY: &str = "launch/healthy";

/// How long a target that leaves may finish its requests (Elastic Load Balancing, target group attributes).
pub const DEREGISTRATION_DELAY: &str = "deregistration_delay.timeout_seconds";

/// How many healthy readings in a row count: DescribeTargetHealth answers from a view that lags.
const HEALTHY_IN_A_ROW: u32 = 2;

/// Tags of whatever the running step makes.
pub fn tags(context: &StepContext) -> Tags {
    let plan = context.plan();
    Tags::of(&plan.app, &plan.environment, plan.version, &plan.run, context.step())
}

/// Makes the fleet's target group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateTargetGroup {
    /// Unique by run: see [`crate::planner::group_name`].
    pub name: String,
    pub vpc: String,
    pub port: u16,
    pub health_check: HealthCheck,
    pub deregistration_delay: Span,
    /// What the servers behind it are launched with, for whoever plans their replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_with: Option<Parts>,
    /// Where the fleet is reached, for its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<ReachedAt>,
}

/// The listener of production and the balancer's own URL there, as tags have them: whoever only wants to see finds both there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReachedAt {
    pub listener: String,
    pub url: String,
}

impl CreateTargetGroup {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        // The call has no client token. The name holds the run, so a group of this name is this step's.
        let arn = match self.find(clients).await? {
            Some(arn) => arn,
            None => match self.create(clients, context).await {
                Ok(arn) => arn,
                Err(error) if error.effect_unknown || error.is("DuplicateTargetGroupName") => {
                    self.find(clients).await?.ok_or(error)?
                }
                Err(error) => return Err(error.into()),
            },
        };
        context.own(Resource::new("target group", &arn)).await?;
        let delay = TargetGroupAttribute::builder()
            .key(DEREGISTRATION_DELAY)
            .value(self.deregistration_delay.as_secs().to_string());
        let call = clients.elb.modify_target_group_attributes().target_group_arn(&arn).attributes(delay.build());
        call.send().await.map_err(|error| CloudError::of("set the target group's deregistration delay", error))?;
        Ok(json!({ "arn": arn }))
    }

    async fn create(&self, clients: &Clients, context: &StepContext) -> Result<String, CloudError> {
        let check = &self.health_check;
        let seconds = |span: Span| i32::try_from(span.as_secs()).unwrap_or(i32::MAX);
        let mut tags = tags(context);
        if let Some(replaced) = context.plan().replaces {
            tags = tags.with(tags::REPLACES, replaced);
        }
        if let Some(commit) = &context.plan().commit {
            tags = tags.with(tags::COMMIT, commit);
        }
        if let Some(parts) = &self.launched_with {
            tags = tags.with(tags::LAUNCHED_WITH, parts);
        }
        if let Some(ReachedAt { listener, url }) = &self.place {
            tags = tags.with(tags::LISTENER, listener).with(tags::URL, url);
        }
        let answer = clients
            .elb
            .create_target_group()
            .name(&self.name)
            .protocol(ProtocolEnum::Http)
            .port(i32::from(self.port))
            .vpc_id(&self.vpc)
            .target_type(TargetTypeEnum::Instance)
            .health_check_path(&check.path)
            .health_check_interval_seconds(seconds(check.interval))
            .health_check_timeout_seconds(seconds(check.timeout))
            .healthy_threshold_count(i32::from(check.healthy_threshold))
            .unhealthy_threshold_count(i32::from(check.unhealthy_threshold))
            .matcher(Matcher::builder().http_code(&check.matcher).build())
            .set_tags(Some(tags.elb()))
            .customize()
            .config_override(elb_once())
            .send()
            .await
            .map_err(|error| CloudError::of(format!("create the target group {}", self.name), error))?;
        let arn = answer.target_groups().first().and_then(|group| group.target_group_arn());
        Ok(arn.unwrap_or_default().to_owned())
    }

    async fn find(&self, clients: &Clients) -> Result<Option<String>, CloudError> {
        match clients.elb.describe_target_groups().names(&self.name).send().await {
            Ok(answer) => {
                Ok(answer.target_groups().first().and_then(|group| group.target_group_arn().map(str::to_owned)))
            }
            Err(error) => {
                let error = CloudError::of(format!("look for the target group {}", self.name), error);
                if error.is("TargetGroupNotFound") { Ok(None) } else { Err(error) }
            }
        }
    }

    pub async fn undo(&self, clients: &Clients, _context: &StepContext) -> Result<(), StepError> {
        match self.find(clients).await? {
            Some(arn) => delete_target_group(clients, &arn).await,
            None => Ok(()),
        }
    }
}

/// Deletes a target group; one that is gone is deleted.
pub async fn delete_target_group(clients: &Clients, arn: &str) -> Result<(), StepError> {
    match clients.elb.delete_target_group().target_group_arn(arn).send().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = CloudError::of(format!("delete the target group {}", listener::group_name(arn)), error);
            let error = absent::told(clients, error, Thing::TargetGroup(arn)).await;
            if error.is("TargetGroupNotFound") { Ok(()) } else { Err(error.into()) }
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct MadeGroup {
    pub arn: String,
}

/// The target group that this run made.
pub fn group_made(context: &StepContext) -> Result<String, StepError> {
    Ok(context.output::<MadeGroup>(TARGET_GROUP)?.arn)
}

/// Launches the servers, spread evenly over the subnets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchInstances {
    /// The image, where it exists already; otherwise the one this run bakes.
    pub image: Option<String>,
    pub count: u32,
    pub instance_type: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub instance_profile: Option<String>,
    pub key: Option<String>,
    /// The run's own key is put on the servers, because smoke tests log in.
    pub run_key: bool,
    pub user_data: Option<PathBuf>,
    pub timeout: Span,
}

impl LaunchInstances {
    pub async fn run(
        &self,
        clients: &Clients,
        folder: &std::path::Path,
        context: &StepContext,
    ) -> Result<Value, StepError> {
        let image = match &self.image {
            Some(image) => image.clone(),
            None => context.output::<crate::bake::MadeImage>(crate::bake::IMAGE)?.ami,
        };
        let user_data = self.user_data(folder, context)?;
        let key = match self.run_key {
            true => Some(crate::bake::key_name(context.run())),
            false => self.key.clone(),
        };
        let mut ids = Vec::new();
        for (index, subnet) in self.subnets.iter().enumerate() {
            let count = share(self.count, self.subnets.len(), index);
            if count == 0 {
                continue;
            }
            let launch = servers::Launch {
                image: &image,
                count,
                instance_type: &self.instance_type,
                subnet,
                security_groups: &self.security_groups,
                instance_profile: self.instance_profile.as_deref(),
                key: key.as_deref(),
                user_data: user_data.as_deref(),
                name: format!("{}-{}", context.plan().app, context.plan().version),
                tags: tags(context),
                // One token a subnet: the same call with other parameters would be refused.
                token: format!("{}-{index}", context.token()),
            };
            let launched = launch.run(clients).await?;
            let made = launched.iter().map(|id| Resource::new("instance", id)).collect();
            context.own_all(made).await?;
            ids.extend(launched);
            context.progress(ids.len() as u64, u64::from(self.count), Unit::Servers);
        }
        let servers = servers::await_running(clients, context, &ids, self.timeout.duration()).await?;
        Ok(json!({ "servers": servers }))
    }

    fn user_data(&self, folder: &std::path::Path, context: &StepContext) -> Result<Option<String>, StepError> {
        let Some(path) = &self.user_data else { return Ok(None) };
        let template = std::fs::read_to_string(folder.join(path)).map_err(|error| {
            StepError::failed(format!("the user data template {} cannot be read", path.display())).because(error)
        })?;
        let plan = context.plan();
        let values = BTreeMap::from([
            ("app", plan.app.clone()),
            ("environment", plan.environment.clone()),
            ("version", plan.version.to_string()),
        ]);
        let text = values.iter().fold(template, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
        Ok(Some(text))
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        servers::end(clients, context).await
    }
}

/// How many of `count` go to the subnet at `index`: the first subnets take the rest.
fn share(count: u32, subnets: usize, index: usize) -> u32 {
    let subnets = u32::try_from(subnets).expect("few subnets");
    count / subnets + u32::from(u32::try_from(index).expect("few subnets") < count % subnets)
}

#[derive(Debug, Deserialize)]
pub struct MadeServers {
    pub servers: Vec<servers::Server>,
}

/// Puts the servers behind the target group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterTargets {}

impl RegisterTargets {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let targets = targets(context)?;
        let call = clients.elb.register_targets().target_group_arn(group_made(context)?).set_targets(Some(targets));
        call.send().await.map_err(|error| CloudError::of("register the servers", error))?;
        Ok(Value::Null)
    }

    pub async fn undo(&self, clients: &Clients, context: &StepContext) -> Result<(), StepError> {
        let Some(group) = context.maybe_output::<MadeGroup>(TARGET_GROUP)? else { return Ok(()) };
        let Ok(targets) = targets(context) else { return Ok(()) };
        let call = clients.elb.deregister_targets().target_group_arn(&group.arn).set_targets(Some(targets));
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = CloudError::of("deregister the servers", error);
                let error = absent::told(clients, error, Thing::TargetGroup(&group.arn)).await;
                let gone = ["InvalidTarget", "TargetGroupNotFound"].iter().any(|code| error.is(code));
                if gone { Ok(()) } else { Err(error.into()) }
            }
        }
    }
}

fn targets(context: &StepContext) -> Result<Vec<TargetDescription>, StepError> {
    let made: MadeServers = context.output(INSTANCES)?;
    Ok(made.servers.iter().map(|server| TargetDescription::builder().id(&server.id).build()).collect())
}

/// Waits until the balancer finds every server healthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AwaitHealthy {
    pub count: u32,
    pub timeout: Span,
}

impl AwaitHealthy {
    pub async fn run(&self, clients: &Clients, context: &StepContext) -> Result<Value, StepError> {
        let group = group_made(context)?;
        let wait = Wait::new(Duration::from_millis(500), self.timeout.duration()).in_a_row(HEALTHY_IN_A_ROW);
        let told = servers::Told::default();
        let healthy = wait
            .until(context, "all servers to be healthy", || async {
                let health = target_health(clients, &group).await?;
                health.iter().for_each(|target| tell(&told, context, target));
                let healthy = count_healthy(&health);
                context.progress(healthy as u64, u64::from(self.count), Unit::Servers);
                Ok(match healthy >= self.count as usize && healthy == health.len() {
                    true => Look::Ready(()),
                    false => Look::NotYet(in_words(&health)),
                })
            })
            .await;
        match healthy {
            Ok(()) => Ok(Value::Null),
            Err(error) if error.kind == ErrorKind::TimedOut => Err(self.explain(clients, context, &group, error).await),
            Err(error) => Err(error),
        }
    }

    /// Why it never became healthy, server by server, with the end of each console.
    async fn explain(&self, clients: &Clients, context: &StepContext, group: &str, error: StepError) -> StepError {
        let health = target_health(clients, group).await.unwrap_or_default();
        let ill: Vec<&TargetHealthDescription> =
            health.iter().filter(|it| state(it) != Some(&TargetHealthStateEnum::Healthy)).collect();
        for target in &ill {
            let id = target.target().and_then(|target| target.id()).unwrap_or_default();
            context.output_line(format!("--- {id}: {}; the end of its console:", reason(target)));
            match servers::console(clients, id).await {
                Ok(text) => tail(&text, 20).for_each(|line| context.output_line(format!("{id} | {line}"))),
                Err(error) => context.output_line(format!("{id} | the console cannot be read: {error}")),
            }
        }
        let which = ill
            .iter()
            .map(|it| format!("{}: {}", it.target().and_then(|target| target.id()).unwrap_or_default(), reason(it)));
        let message = format!(
            "{} of {} servers were not healthy after {} ({})",
            ill.len(),
            self.count,
            self.timeout,
            which.collect::<Vec<_>>().join("; ")
        );
        StepError::new(ErrorKind::TimedOut, message)
            .hint("the health check's path and port are launch.health_check.path and launch.port; the service must listen on all addresses")
            .hint("the servers' security group must let the balancer in on that port")
            .because(error)
    }
}

fn tell(told: &servers::Told, context: &StepContext, target: &TargetHealthDescription) {
    let Some(id) = target.target().and_then(|target| target.id()) else { return };
    let health = target.target_health();
    let word = state(target).map_or("unknown", TargetHealthStateEnum::as_str);
    let why = health.and_then(|health| health.description().or(health.reason().map(|reason| reason.as_str())));
    told.tell(context, id, word, why);
}

fn tail(text: &str, lines: usize) -> impl Iterator<Item = &str> {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = all.len().saturating_sub(lines);
    all.into_iter().skip(from)
}

/// What the balancer says of each target.
pub async fn target_health(clients: &Clients, group: &str) -> Result<Vec<TargetHealthDescription>, CloudError> {
    let answer = clients.elb.describe_target_health().target_group_arn(group).send().await;
    let answer = answer.map_err(|error| CloudError::of("read the servers' health", error))?;
    Ok(answer.target_health_descriptions().to_vec())
}

/// How many of them may get requests and answer.
pub fn count_healthy(health: &[TargetHealthDescription]) -> usize {
    health.iter().filter(|target| state(target) == Some(&TargetHealthStateEnum::Healthy)).count()
}

pub fn state(target: &TargetHealthDescription) -> Option<&TargetHealthStateEnum> {
    target.target_health().and_then(|health| health.state())
}

pub fn reason(target: &TargetHealthDescription) -> String {
    let Some(health) = target.target_health() else { return "unknown".into() };
    let state = health.state().map_or("unknown", TargetHealthStateEnum::as_str);
    match (health.reason(), health.description()) {
        (Some(reason), Some(description)) => format!("{state}, {}: {description}", reason.as_str()),
        (Some(reason), None) => format!("{state}, {}", reason.as_str()),
        _ => state.to_owned(),
    }
}

fn in_words(health: &[TargetHealthDescription]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for target in health {
        *counts.entry(state(target).map_or("unknown", TargetHealthStateEnum::as_str)).or_default() += 1;
    }
    match counts.is_empty() {
        true => "no server is registered yet".to_owned(),
        false => counts.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn servers_are_spread_evenly() {
        let spread = |count, subnets| (0..subnets).map(|index| share(count, subnets, index)).collect::<Vec<_>>();
        assert_eq!(spread(2, 2), [1, 1]);
        assert_eq!(spread(5, 3), [2, 2, 1]);
        assert_eq!(spread(1, 3), [1, 0, 0]);
    }
}
