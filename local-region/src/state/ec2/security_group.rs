//! Security groups and their rules.

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Tags, lagged::Lagged};

/// The default quota of inbound (and of outbound) rules per group.
pub const RULES_PER_GROUP: usize = 60;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub group_id: String,
    pub name: String,
    pub description: String,
    pub vpc_id: String,
    pub ingress: Lagged<Vec<Rule>>,
    /// Kept as records only: instances may send anything to anyone.
    pub egress: Lagged<Vec<Rule>>,
    pub tags: Lagged<Tags>,
    pub created_at: Timestamp,
}

/// One permission: one protocol, one range of ports, one peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    pub rule_id: String,
    pub permission: Permission,
    pub description: Option<String>,
    pub tags: Tags,
}

/// What makes two rules the same rule to EC2: description and tags do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `-1` for all, or another protocol's number.
    pub protocol: String,
    /// `None` where the protocol is `-1`. ICMP: the type, -1 for any.
    pub from_port: Option<i32>,
    pub to_port: Option<i32>,
    pub peer: Peer,
}

/// Whom a rule lets in (or, outbound, whom it reaches).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    Ipv4(Ipv4Net),
    Ipv6(Ipv6Net),
    /// The members of a group, by its id.
    Group(String),
    PrefixList(String),
}
