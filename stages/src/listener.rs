//! The production listener: what it does now, as a value that can be compared, shown and put back.

use std::fmt;

use alcedo_pipeline::error::{ErrorKind, StepError};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, ForwardActionConfig, RedirectActionConfig,
    RedirectActionStatusCodeEnum, TargetGroupStickinessConfig, TargetGroupTuple,
};
use serde::{Deserialize, Serialize};

use crate::{
    clients::{Clients, elb_once},
    cloud_error::CloudError,
};

/// What a listener or a rule does with a request: every field that AWS keeps, so that a before-image can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    Forward {
        groups: Vec<Weighted>,
        sticky_seconds: Option<i32>,
    },
    FixedResponse {
        status: String,
        content_type: Option<String>,
        body: Option<String>,
    },
    Redirect {
        status: String,
        protocol: Option<String>,
        host: Option<String>,
        port: Option<String>,
        path: Option<String>,
        query: Option<String>,
    },
}

/// One target group of a forward action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighted {
    pub target_group: String,
    pub weight: i32,
}

/// Where a [`Routing`] stands: a listener's default action, or one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    Listener { arn: String },
    Rule { arn: String },
}

impl Place {
    pub fn arn(&self) -> &str {
        match self {
            Self::Listener { arn } | Self::Rule { arn } => arn,
        }
    }
}

impl Routing {
    /// All traffic to one group.
    pub fn to(target_group: impl Into<String>) -> Self {
        Self::Forward { groups: vec![Weighted { target_group: target_group.into(), weight: 1 }], sticky_seconds: None }
    }

    /// Traffic by weights.
    pub fn shared(mut groups: Vec<Weighted>, sticky_seconds: Option<i32>) -> Self {
        by_name(&mut groups);
        Self::Forward { groups, sticky_seconds }
    }

    /// The groups that get traffic.
    pub fn serving(&self) -> Vec<&str> {
        match self {
            Self::Forward { groups, .. } => {
                groups.iter().filter(|group| group.weight > 0).map(|group| group.target_group.as_str()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Every group that is named, with or without traffic.
    pub fn named(&self) -> Vec<&str> {
        match self {
            Self::Forward { groups, .. } => groups.iter().map(|group| group.target_group.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Reads AWS's form.
    ///
    /// # Errors
    /// The actions contain one that Alcedo could not put back as it was, such as authentication.
    pub fn read(actions: &[Action]) -> Result<Self, String> {
        let [action] = actions else {
            return Err(format!("it has {} actions; Alcedo can restore a single one", actions.len()));
        };
        match action.r#type() {
            Some(ActionTypeEnum::Forward) => Ok(forward(action)),
            Some(ActionTypeEnum::FixedResponse) => {
                let fixed = action.fixed_response_config().ok_or("its fixed response is not described")?;
                Ok(Self::FixedResponse {
                    status: fixed.status_code().unwrap_or_default().to_owned(),
                    content_type: fixed.content_type().map(str::to_owned),
                    body: fixed.message_body().map(str::to_owned),
                })
            }
            Some(ActionTypeEnum::Redirect) => {
                let redirect = action.redirect_config().ok_or("its redirect is not described")?;
                Ok(Self::Redirect {
                    status: redirect.status_code().map(|code| code.as_str().to_owned()).unwrap_or_default(),
                    protocol: redirect.protocol().map(str::to_owned),
                    host: redirect.host().map(str::to_owned),
                    port: redirect.port().map(str::to_owned),
                    path: redirect.path().map(str::to_owned),
                    query: redirect.query().map(str::to_owned),
                })
            }
            other => Err(format!("it has an action of type {other:?}, which Alcedo cannot restore")),
        }
    }

    /// AWS's form.
    pub fn action(&self) -> Action {
        match self {
            Self::Forward { groups, sticky_seconds } => {
                let tuples = groups.iter().map(|group| {
                    TargetGroupTuple::builder().target_group_arn(&group.target_group).weight(group.weight).build()
                });
                let mut config = ForwardActionConfig::builder().set_target_groups(Some(tuples.collect()));
                if let Some(seconds) = sticky_seconds {
                    let sticky = TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(*seconds);
                    config = config.target_group_stickiness_config(sticky.build());
                }
                Action::builder().r#type(ActionTypeEnum::Forward).forward_config(config.build()).build()
            }
            Self::FixedResponse { status, content_type, body } => {
                let config = FixedResponseActionConfig::builder()
                    .status_code(status)
                    .set_content_type(content_type.clone())
                    .set_message_body(body.clone())
                    .build();
                Action::builder().r#type(ActionTypeEnum::FixedResponse).fixed_response_config(config).build()
            }
            Self::Redirect { status, protocol, host, port, path, query } => {
                let config = RedirectActionConfig::builder()
                    .status_code(RedirectActionStatusCodeEnum::from(status.as_str()))
                    .set_protocol(protocol.clone())
                    .set_host(host.clone())
                    .set_port(port.clone())
                    .set_path(path.clone())
                    .set_query(query.clone())
                    .build();
                Action::builder().r#type(ActionTypeEnum::Redirect).redirect_config(config).build()
            }
        }
    }
}

/// The target groups that actions send to, or would with another weight; whatever else they do, such as to authenticate.
pub fn named_by(actions: &[Action]) -> Vec<String> {
    let forwards = actions.iter().filter(|action| action.r#type() == Some(&ActionTypeEnum::Forward));
    forwards.flat_map(|action| forward(action).named().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// AWS promises no order of the groups: two that differ in it are the same.
fn by_name(groups: &mut [Weighted]) {
    groups.sort_by(|one, other| one.target_group.cmp(&other.target_group));
}

fn forward(action: &Action) -> Routing {
    let config = action.forward_config();
    let mut groups: Vec<Weighted> = config
        .map(ForwardActionConfig::target_groups)
        .unwrap_or_default()
        .iter()
        .filter_map(|tuple| {
            Some(Weighted { target_group: tuple.target_group_arn()?.to_owned(), weight: tuple.weight().unwrap_or(1) })
        })
        .collect();
    // The short form names its one group beside the configuration.
    if let (true, Some(arn)) = (groups.is_empty(), action.target_group_arn()) {
        groups.push(Weighted { target_group: arn.to_owned(), weight: 1 });
    }
    by_name(&mut groups);
    let sticky_seconds = config
        .and_then(ForwardActionConfig::target_group_stickiness_config)
        .filter(|sticky| sticky.enabled().unwrap_or(false))
        .and_then(TargetGroupStickinessConfig::duration_seconds);
    Routing::Forward { groups, sticky_seconds }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward { groups, .. } => {
                let names: Vec<String> = groups
                    .iter()
                    .map(|group| format!("{} (weight {})", group_name(&group.target_group), group.weight))
                    .collect();
                write!(f, "forward to {}", names.join(", "))
            }
            Self::FixedResponse { status, .. } => write!(f, "answer {status}"),
            Self::Redirect { status, .. } => write!(f, "redirect with {status}"),
        }
    }
}

/// The name inside a target group's ARN: `…:targetgroup/<name>/<id>`.
pub fn group_name(arn: &str) -> &str {
    arn.split('/').nth(1).unwrap_or(arn)
}

/// What stands there now.
pub async fn read(clients: &Clients, place: &Place) -> Result<Routing, StepError> {
    let actions = match place {
        Place::Listener { arn } => {
            let answer = clients.elb.describe_listeners().listener_arns(arn).send().await;
            let answer = answer.map_err(|error| CloudError::of("read the listener", error))?;
            answer.listeners().first().map(|listener| listener.default_actions().to_vec())
        }
        Place::Rule { arn } => {
            let answer = clients.elb.describe_rules().rule_arns(arn).send().await;
            let answer = answer.map_err(|error| CloudError::of("read the listener's rule", error))?;
            answer.rules().first().map(|rule| rule.actions().to_vec())
        }
    };
    let actions = actions.ok_or_else(|| {
        StepError::new(ErrorKind::Changed, format!("{} is gone", place.arn()))
            .hint("restore the listener, then run again")
    })?;
    Routing::read(&actions)
        .map_err(|why| StepError::new(ErrorKind::Changed, format!("the listener cannot be used: {why}")))
}

/// Changes it. Doing this twice is doing it once, but it is not repeated here: nobody can say whether somebody else's
/// change came in between.
pub async fn write(clients: &Clients, place: &Place, routing: &Routing) -> Result<(), CloudError> {
    match place {
        Place::Listener { arn } => {
            let call = clients.elb.modify_listener().listener_arn(arn).default_actions(routing.action());
            call.customize()
                .config_override(elb_once())
                .send()
                .await
                .map(drop)
                .map_err(|error| CloudError::of("change the listener", error))
        }
        Place::Rule { arn } => {
            let call = clients.elb.modify_rule().rule_arn(arn).actions(routing.action());
            call.customize()
                .config_override(elb_once())
                .send()
                .await
                .map(drop)
                .map_err(|error| CloudError::of("change the listener's rule", error))
        }
    }
}
