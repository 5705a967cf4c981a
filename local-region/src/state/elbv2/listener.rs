//! Listeners, their rules, and what a rule does with a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Refusal, condition::Condition};

/// A port on which a load balancer takes requests. Its protocol is HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listener {
    pub arn: String,
    pub load_balancer_arn: String,
    pub port: u16,
    pub default_action: Action,
    /// DescribeRules lists the default action as a rule, with an ARN of its own.
    pub default_rule_arn: String,
    pub tags: BTreeMap<String, String>,
}

/// Which requests are treated otherwise than by the default.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    pub arn: String,
    pub listener_arn: String,
    /// Lower is looked at first; unique in its listener.
    pub priority: u32,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    pub action: Action,
    pub tags: BTreeMap<String, String>,
}

/// The one action of a rule; actions that could stand before it (authentication) are not implemented.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// As given; only echoed.
    pub order: Option<u32>,
    pub kind: ActionKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    Forward(Forward),
    FixedResponse(FixedResponse),
    Redirect(Redirect),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    pub groups: Vec<WeightedGroup>,
    /// For how long a client keeps the group that its first request went to; `None` where it does not.
    pub sticky_seconds: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedGroup {
    pub arn: String,
    pub weight: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedResponse {
    pub status: u16,
    pub content_type: Option<String>,
    pub body: Option<String>,
}

/// Parts may hold `#{protocol}`, `#{host}`, `#{port}`, `#{path}` and `#{query}`, which stand for the request's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    pub protocol: String,
    pub host: String,
    pub port: String,
    pub path: String,
    pub query: String,
    /// 301 or 302.
    pub status: u16,
}

impl Forward {
    /// Most target groups in one action, and the largest weight (ELBv2 API reference).
    const MOST_GROUPS: usize = 5;
    const LARGEST_WEIGHT: u16 = 999;
    const LONGEST_STICKINESS_SECONDS: u32 = 604_800;

    fn check(&self) -> Result<(), Refusal> {
        if self.groups.is_empty() {
            return Err(Refusal::validation("A target group ARN must be specified for an action of type 'forward'"));
        }
        if self.groups.len() > Self::MOST_GROUPS {
            return Err(Refusal::validation(format!(
                "A forward action can have at most {} target groups",
                Self::MOST_GROUPS
            )));
        }
        if let Some(group) = self.groups.iter().find(|group| group.weight > Self::LARGEST_WEIGHT) {
            return Err(Refusal::validation(format!(
                "The weight '{}' of target group '{}' must be between 0 and {}",
                group.weight,
                group.arn,
                Self::LARGEST_WEIGHT
            )));
        }
        for (place, group) in self.groups.iter().enumerate() {
            if self.groups[..place].iter().any(|earlier| earlier.arn == group.arn) {
                return Err(Refusal::validation(format!("The target group '{}' was given twice", group.arn)));
            }
        }
        match self.sticky_seconds {
            Some(seconds) if !(1..=Self::LONGEST_STICKINESS_SECONDS).contains(&seconds) => {
                Err(Refusal::validation(format!(
                    "The stickiness duration '{seconds}' must be between 1 and {} seconds",
                    Self::LONGEST_STICKINESS_SECONDS
                )))
            }
            _ => Ok(()),
        }
    }
}

impl FixedResponse {
    const LONGEST_BODY: usize = 1024;
    const CONTENT_TYPES: [&str; 5] =
        ["text/plain", "text/css", "text/html", "application/javascript", "application/json"];

    fn check(&self) -> Result<(), Refusal> {
        if !matches!(self.status, 200..=299 | 400..=599) {
            return Err(Refusal::validation(format!(
                "The status code '{}' of a fixed response must be 2XX, 4XX or 5XX",
                self.status
            )));
        }
        if self.body.as_ref().is_some_and(|body| body.len() > Self::LONGEST_BODY) {
            return Err(Refusal::validation(format!(
                "The message body of a fixed response can have at most {} characters",
                Self::LONGEST_BODY
            )));
        }
        match &self.content_type {
            Some(given) if !Self::CONTENT_TYPES.contains(&given.as_str()) => Err(Refusal::validation(format!(
                "The content type '{given}' of a fixed response must be one of {}",
                Self::CONTENT_TYPES.join(", ")
            ))),
            _ => Ok(()),
        }
    }
}

impl Redirect {
    fn check(&self) -> Result<(), Refusal> {
        if !matches!(self.status, 301 | 302) {
            return Err(Refusal::validation("The status code of a redirect must be HTTP_301 or HTTP_302"));
        }
        if !matches!(self.protocol.as_str(), "HTTP" | "HTTPS" | "#{protocol}") {
            return Err(Refusal::validation("The protocol of a redirect must be HTTP, HTTPS or #{protocol}"));
        }
        let unchanged = [
            (&self.protocol, "#{protocol}"),
            (&self.host, "#{host}"),
            (&self.port, "#{port}"),
            (&self.path, "/#{path}"),
        ];
        if unchanged.iter().all(|(part, same)| part.as_str() == *same) {
            return Err(Refusal::new(
                "InvalidLoadBalancerAction",
                "The redirect would lead to itself: at least one of protocol, host, port and path must change",
            ));
        }
        Ok(())
    }

    /// The `Location` that a request is sent to.
    pub fn location(&self, request: &RedirectedRequest<'_>) -> String {
        let fill = |part: &str| {
            part.replace("#{protocol}", "http")
                .replace("#{host}", request.host)
                .replace("#{port}", &request.port.to_string())
                .replace("#{path}", request.path.trim_start_matches('/'))
                .replace("#{query}", request.query)
        };
        let protocol = fill(&self.protocol).to_lowercase();
        let query = fill(&self.query);
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{protocol}://{}:{}{}{mark}{query}", fill(&self.host), fill(&self.port), fill(&self.path))
    }
}

/// What a redirect can repeat.
#[derive(Debug, Clone, Copy)]
pub struct RedirectedRequest<'a> {
    /// Without the port.
    pub host: &'a str,
    pub port: u16,
    pub path: &'a str,
    pub query: &'a str,
}

impl Action {
    /// Checks what can be checked without other records.
    ///
    /// # Errors
    /// `ValidationError` or `InvalidLoadBalancerAction`.
    pub fn check(&self) -> Result<(), Refusal> {
        match &self.kind {
            ActionKind::Forward(forward) => forward.check(),
            ActionKind::FixedResponse(response) => response.check(),
            ActionKind::Redirect(redirect) => redirect.check(),
        }
    }

    /// The groups it refers to. A weight of 0 is a reference too: AWS keeps such a group from being deleted, and the
    /// local region takes it to start the health checks as well, which AWS documents nowhere.
    pub fn group_arns(&self) -> impl Iterator<Item = &str> {
        let groups = match &self.kind {
            ActionKind::Forward(forward) => forward.groups.as_slice(),
            _ => &[],
        };
        groups.iter().map(|group| group.arn.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(path: &str) -> Redirect {
        Redirect {
            protocol: "#{protocol}".into(),
            host: "#{host}".into(),
            port: "8443".into(),
            path: path.into(),
            query: "#{query}&from=#{host}".into(),
            status: 302,
        }
    }

    #[test]
    fn a_redirect_repeats_the_parts_of_the_request() {
        let request = RedirectedRequest { host: "shop", port: 80, path: "/a/b", query: "q=1" };
        assert_eq!(redirect("/new/#{path}").location(&request), "http://shop:8443/new/a/b?q=1&from=shop");
    }

    #[test]
    fn a_redirect_to_itself_is_refused() {
        let same = Redirect { port: "#{port}".into(), ..redirect("/#{path}") };
        assert_eq!(same.check().unwrap_err().code, "InvalidLoadBalancerAction");
        assert!(redirect("/#{path}").check().is_ok());
    }

    #[test]
    fn weights_and_numbers_of_groups_are_bounded() {
        let forward = |weights: &[u16]| Forward {
            groups: weights
                .iter()
                .enumerate()
                .map(|(place, weight)| WeightedGroup { arn: place.to_string(), weight: *weight })
                .collect(),
            sticky_seconds: None,
        };
        assert!(forward(&[0, 999]).check().is_ok());
        assert!(forward(&[]).check().is_err());
        assert!(forward(&[1000]).check().is_err());
        assert!(forward(&[1; 6]).check().is_err());
    }
}
