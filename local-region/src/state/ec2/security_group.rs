//! Security groups and their rules.

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Ec2, Tags, lagged::Lagged, lagged::Moment};
use crate::wire::ApiError;

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

/// Inbound or outbound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A rule as a call brings it.
#[derive(Debug, Clone)]
pub struct NewRule {
    pub permission: Permission,
    pub description: Option<String>,
}

impl SecurityGroup {
    pub fn rules(&self, direction: Direction) -> &Lagged<Vec<Rule>> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    fn rules_mut(&mut self, direction: Direction) -> &mut Lagged<Vec<Rule>> {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

impl Ec2 {
    pub fn security_groups(&self) -> impl Iterator<Item = &SecurityGroup> {
        self.security_groups.values()
    }

    /// The default group of a VPC.
    pub fn default_group(&self, vpc_id: &str) -> Option<&SecurityGroup> {
        self.security_groups.values().find(|group| group.vpc_id == vpc_id && group.name == "default")
    }

    /// The group if a reader already sees it.
    pub fn find_group(&self, group_id: &str, moment: Moment) -> Result<&SecurityGroup, ApiError> {
        self.security_groups.get(group_id).filter(|group| moment.sees(group.created_at)).ok_or_else(|| {
            ApiError::bad("InvalidGroup.NotFound", format!("The security group '{group_id}' does not exist"))
        })
    }

    /// The rule of this id if a reader already sees it.
    pub fn rule(&self, rule_id: &str, moment: Moment) -> Option<&Rule> {
        self.security_groups
            .values()
            .flat_map(|group| group.ingress.seen(moment).iter().chain(group.egress.seen(moment)))
            .find(|rule| rule.rule_id == rule_id)
    }

    /// Makes a group that lets nothing in and everything out.
    ///
    /// # Errors
    /// `InvalidGroup.Duplicate` where the VPC has a group of this name.
    pub fn create_group(
        &mut self,
        name: &str,
        description: &str,
        vpc_id: &str,
        tags: Tags,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        if !self.vpcs.contains_key(vpc_id) {
            return Err(ApiError::bad("InvalidVpcID.NotFound", format!("The vpc ID '{vpc_id}' does not exist")));
        }
        if name.starts_with("sg-") || name.chars().count() > 255 {
            return Err(ApiError::invalid("GroupName", name, "A name has 1 to 255 characters and no prefix 'sg-'."));
        }
        if self.security_groups.values().any(|group| group.vpc_id == vpc_id && group.name == name) {
            return Err(ApiError::bad(
                "InvalidGroup.Duplicate",
                format!("The security group '{name}' already exists for VPC '{vpc_id}'"),
            ));
        }
        let group_id = self.ids.next("sg");
        let allow_all = Rule {
            rule_id: self.ids.next("sgr"),
            permission: Permission {
                protocol: "-1".to_owned(),
                from_port: None,
                to_port: None,
                peer: Peer::Ipv4(Ipv4Net::default()),
            },
            description: None,
            tags: Tags::new(),
        };
        let group = SecurityGroup {
            group_id: group_id.clone(),
            name: name.to_owned(),
            description: description.to_owned(),
            vpc_id: vpc_id.to_owned(),
            ingress: Lagged::new(Vec::new(), now),
            egress: Lagged::new(vec![allow_all], now),
            tags: Lagged::new(tags, now),
            created_at: now,
        };
        self.security_groups.insert(group_id.clone(), group);
        Ok(group_id)
    }

    /// Removes a group that nothing uses. `used_elsewhere` says who else does, e.g. a load balancer.
    ///
    /// # Errors
    /// `DependencyViolation` where an instance, a load balancer or another group's rule uses it; `CannotDelete` for the
    /// default group.
    pub fn delete_group(&mut self, group_id: &str, used_elsewhere: bool, moment: Moment) -> Result<(), ApiError> {
        let group = self.find_group(group_id, moment)?;
        if group.name == "default" {
            return Err(ApiError::bad(
                "CannotDelete",
                "the specified group: \"default\" name cannot be deleted by a user",
            ));
        }
        let attached = self.instances.values().any(|it| {
            it.state != super::InstanceState::Terminated && it.security_groups.iter().any(|id| id == group_id)
        });
        let peer = Peer::Group(group_id.to_owned());
        let referred = self.security_groups.values().filter(|other| other.group_id != group_id).any(|other| {
            other.ingress.current().iter().chain(other.egress.current()).any(|rule| rule.permission.peer == peer)
        });
        if attached || referred || used_elsewhere {
            return Err(ApiError::bad("DependencyViolation", format!("resource {group_id} has a dependent object")));
        }
        self.security_groups.remove(group_id);
        Ok(())
    }

    /// Adds rules, all or none, and answers them with their ids.
    ///
    /// # Errors
    /// `InvalidPermission.Duplicate` where one is there already (or twice in the call), whatever its description;
    /// `RulesPerSecurityGroupLimitExceeded` beyond 60.
    pub fn authorize(
        &mut self,
        group_id: &str,
        direction: Direction,
        new: Vec<NewRule>,
        tags: &Tags,
        moment: Moment,
    ) -> Result<Vec<Rule>, ApiError> {
        let group = self.find_group(group_id, moment)?;
        let current = group.rules(direction).current();
        for (index, rule) in new.iter().enumerate() {
            if let Peer::Group(peer) = &rule.permission.peer {
                self.find_group(peer, moment)?;
            }
            let twice = new[..index].iter().any(|other| other.permission == rule.permission);
            if twice || current.iter().any(|old| old.permission == rule.permission) {
                return Err(ApiError::bad(
                    "InvalidPermission.Duplicate",
                    format!("the specified rule \"{}\" already exists", describe(&rule.permission)),
                ));
            }
        }
        if current.len() + new.len() > RULES_PER_GROUP {
            return Err(ApiError::bad(
                "RulesPerSecurityGroupLimitExceeded",
                "The maximum number of rules per security group has been reached.",
            ));
        }
        let rules: Vec<Rule> = new
            .into_iter()
            .map(|rule| Rule {
                rule_id: self.ids.next("sgr"),
                permission: rule.permission,
                description: rule.description,
                tags: tags.clone(),
            })
            .collect();
        let group = self.security_groups.get_mut(group_id).expect("it was just found");
        group.rules_mut(direction).change(moment, |all| all.extend(rules.iter().cloned()));
        Ok(rules)
    }

    /// Removes rules by their ids, all or none, and answers them.
    ///
    /// # Errors
    /// `InvalidSecurityGroupRuleId.NotFound` where the group has no such rule.
    pub fn revoke_by_id(
        &mut self,
        group_id: &str,
        direction: Direction,
        rule_ids: &[&str],
        moment: Moment,
    ) -> Result<Vec<Rule>, ApiError> {
        self.revoke(group_id, direction, moment, |current| {
            let absent = rule_ids.iter().find(|id| !current.iter().any(|rule| rule.rule_id == **id));
            if let Some(id) = absent {
                return Err(ApiError::bad(
                    "InvalidSecurityGroupRuleId.NotFound",
                    format!("The security group rule ID '{id}' does not exist"),
                ));
            }
            Ok(current.iter().filter(|rule| rule_ids.contains(&rule.rule_id.as_str())).cloned().collect())
        })
    }

    /// Removes rules by what they permit, all or none, and answers them.
    ///
    /// # Errors
    /// `InvalidPermission.NotFound` where one is absent, as in a VPC that is not the default one: a revoke that finds
    /// nothing must not look like one that closed something.
    pub fn revoke_permissions(
        &mut self,
        group_id: &str,
        direction: Direction,
        permissions: &[Permission],
        moment: Moment,
    ) -> Result<Vec<Rule>, ApiError> {
        self.revoke(group_id, direction, moment, |current| {
            let absent = permissions.iter().find(|wanted| !current.iter().any(|rule| rule.permission == **wanted));
            if absent.is_some() {
                return Err(ApiError::bad(
                    "InvalidPermission.NotFound",
                    "The specified rule does not exist in this security group.",
                ));
            }
            Ok(current.iter().filter(|rule| permissions.contains(&rule.permission)).cloned().collect())
        })
    }

    fn revoke(
        &mut self,
        group_id: &str,
        direction: Direction,
        moment: Moment,
        choose: impl FnOnce(&[Rule]) -> Result<Vec<Rule>, ApiError>,
    ) -> Result<Vec<Rule>, ApiError> {
        self.find_group(group_id, moment)?;
        let group = self.security_groups.get_mut(group_id).expect("it was just found");
        let leaving = choose(group.rules(direction).current())?;
        group
            .rules_mut(direction)
            .change(moment, |all| all.retain(|rule| !leaving.iter().any(|gone| gone.rule_id == rule.rule_id)));
        Ok(leaving)
    }
}

/// A permission the way EC2's messages put it.
fn describe(permission: &Permission) -> String {
    let peer = match &permission.peer {
        Peer::Ipv4(net) => net.to_string(),
        Peer::Ipv6(net) => net.to_string(),
        Peer::Group(id) | Peer::PrefixList(id) => id.clone(),
    };
    match (permission.from_port, permission.to_port) {
        (Some(from), Some(to)) => {
            let protocol = permission.protocol.to_uppercase();
            format!("peer: {peer}, {protocol}, from port: {from}, to port: {to}, ALLOW")
        }
        _ => format!("peer: {peer}, ALL, ALLOW"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (Ec2, String, Moment) {
        let now = Timestamp::UNIX_EPOCH;
        let mut ec2 = Ec2::fresh("10.213.0.0/16".parse().unwrap(), "us-east-1", "seed", now);
        let vpc = ec2.vpcs().next().unwrap().vpc_id.clone();
        let group = ec2.create_group("g", "d", &vpc, Tags::new(), now).unwrap();
        (ec2, group, Moment::new(now, std::time::Duration::ZERO))
    }

    fn ssh_from(cidr: &str, description: &str) -> NewRule {
        let permission = Permission {
            protocol: "tcp".into(),
            from_port: Some(22),
            to_port: Some(22),
            peer: Peer::Ipv4(cidr.parse().unwrap()),
        };
        NewRule { permission, description: Some(description.into()) }
    }

    #[test]
    fn a_rule_is_a_duplicate_whatever_its_description() {
        let (mut ec2, group, moment) = world();
        let rule = |text| vec![ssh_from("10.0.0.1/32", text)];
        ec2.authorize(&group, Direction::Ingress, rule("one"), &Tags::new(), moment).unwrap();
        let again = ec2.authorize(&group, Direction::Ingress, rule("two"), &Tags::new(), moment).unwrap_err();
        assert_eq!(again.code, "InvalidPermission.Duplicate");
    }

    #[test]
    fn the_sixty_first_rule_is_refused_and_none_of_its_call_is_added() {
        let (mut ec2, group, moment) = world();
        let rules = (0..59).map(|n| ssh_from(&format!("10.0.0.{n}/32"), "")).collect();
        ec2.authorize(&group, Direction::Ingress, rules, &Tags::new(), moment).unwrap();
        let two = vec![ssh_from("10.0.1.1/32", ""), ssh_from("10.0.1.2/32", "")];
        let refused = ec2.authorize(&group, Direction::Ingress, two, &Tags::new(), moment).unwrap_err();
        assert_eq!(refused.code, "RulesPerSecurityGroupLimitExceeded");
        assert_eq!(ec2.security_group(&group).unwrap().ingress.current().len(), 59);
    }

    #[test]
    fn revoking_takes_away_one_rule_and_names_an_absent_one() {
        let (mut ec2, group, moment) = world();
        let both = vec![ssh_from("10.0.0.1/32", ""), ssh_from("10.0.0.2/32", "")];
        let made = ec2.authorize(&group, Direction::Ingress, both, &Tags::new(), moment).unwrap();
        let id = made[0].rule_id.as_str();
        ec2.revoke_by_id(&group, Direction::Ingress, &[id], moment).unwrap();
        let left = ec2.security_group(&group).unwrap().ingress.current();
        assert_eq!(left.iter().map(|rule| &rule.rule_id).collect::<Vec<_>>(), [&made[1].rule_id]);
        let again = ec2.revoke_by_id(&group, Direction::Ingress, &[id], moment).unwrap_err();
        assert_eq!(again.code, "InvalidSecurityGroupRuleId.NotFound");
        let permission = made[0].permission.clone();
        let again = ec2.revoke_permissions(&group, Direction::Ingress, &[permission], moment).unwrap_err();
        assert_eq!(again.code, "InvalidPermission.NotFound");
    }

    #[test]
    fn a_group_that_another_groups_rule_names_cannot_be_deleted() {
        let (mut ec2, group, moment) = world();
        let vpc = ec2.vpcs().next().unwrap().vpc_id.clone();
        let other = ec2.create_group("other", "d", &vpc, Tags::new(), moment.now).unwrap();
        let permission =
            Permission { protocol: "-1".into(), from_port: None, to_port: None, peer: Peer::Group(group.clone()) };
        let rule = NewRule { permission, description: None };
        ec2.authorize(&other, Direction::Ingress, vec![rule], &Tags::new(), moment).unwrap();
        assert_eq!(ec2.delete_group(&group, false, moment).unwrap_err().code, "DependencyViolation");
        ec2.delete_group(&other, false, moment).unwrap();
        ec2.delete_group(&group, false, moment).unwrap();
    }
}
