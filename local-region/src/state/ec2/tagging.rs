//! Tags of any resource, found by its id.

use super::{Ec2, Lagged, Moment, Tags};
use crate::wire::ApiError;

/// AWS's limit per resource.
const TAGS_PER_RESOURCE: usize = 50;

/// Checks keys and values of tags that a call brings.
pub fn check(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() > TAGS_PER_RESOURCE {
        return Err(ApiError::bad("TagLimitExceeded", "A resource has at most 50 tags"));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > 127 || key.starts_with("aws:") {
            return Err(ApiError::bad(
                "InvalidParameterValue",
                format!("Tag key '{key}' is invalid: 1 to 127 characters, not beginning with 'aws:'"),
            ));
        }
        if value.chars().count() > 255 {
            return Err(ApiError::bad(
                "InvalidParameterValue",
                "Tag value exceeds the maximum length of 255 characters",
            ));
        }
    }
    Ok(())
}

/// EC2's name of a resource's kind, from its id.
pub fn resource_type(id: &str) -> Option<&'static str> {
    Some(match id.rsplit_once('-')?.0 {
        "i" => "instance",
        "ami" => "image",
        "vol" => "volume",
        "snap" => "snapshot",
        "sg" => "security-group",
        "sgr" => "security-group-rule",
        "subnet" => "subnet",
        "vpc" => "vpc",
        "key" => "key-pair",
        "eni" => "network-interface",
        _ => return None,
    })
}

/// The error code of an unknown id.
fn not_found(id: &str) -> ApiError {
    let code = match resource_type(id) {
        Some("instance") => "InvalidInstanceID.NotFound",
        Some("image") => "InvalidAMIID.NotFound",
        Some("volume") => "InvalidVolume.NotFound",
        Some("snapshot") => "InvalidSnapshot.NotFound",
        Some("security-group") => "InvalidGroup.NotFound",
        Some("security-group-rule") => "InvalidSecurityGroupRuleId.NotFound",
        Some("subnet") => "InvalidSubnetID.NotFound",
        Some("vpc") => "InvalidVpcID.NotFound",
        Some("key-pair") => "InvalidKeyPair.NotFound",
        Some("network-interface") => "InvalidNetworkInterfaceID.NotFound",
        _ => return ApiError::bad("InvalidID", format!("The ID '{id}' is not valid")),
    };
    ApiError::bad(code, format!("The ID '{id}' does not exist"))
}

impl Ec2 {
    /// Changes the tags of all these resources, or of none.
    ///
    /// # Errors
    /// `Invalid….NotFound` where an id is unknown or not yet seen; `TagLimitExceeded` beyond 50 tags.
    pub fn change_tags(&mut self, ids: &[&str], moment: Moment, change: impl Fn(&mut Tags)) -> Result<(), ApiError> {
        for id in ids {
            let mut tags = self.tags_of(id, moment).ok_or_else(|| not_found(id))?;
            change(&mut tags);
            check(&tags)?;
        }
        for id in ids {
            self.change_tags_of(id, moment, &change);
        }
        Ok(())
    }

    /// Every tag that a reader sees: resource id, kind, and the tags.
    pub fn all_tags(&self, moment: Moment) -> Vec<(String, &'static str, Tags)> {
        let ids = self
            .instances
            .values()
            .flat_map(|instance| [&instance.instance_id, &instance.network_interface.network_interface_id])
            .chain(self.images.keys())
            .chain(self.volumes.keys())
            .chain(self.snapshots.keys())
            .chain(self.security_groups.keys())
            .chain(self.subnets.keys())
            .chain(self.vpcs.keys())
            .chain(self.key_pairs.values().map(|pair| &pair.key_pair_id))
            .cloned();
        let rules = self.security_groups.values().flat_map(|group| {
            group.ingress.seen(moment).iter().chain(group.egress.seen(moment)).map(|rule| rule.rule_id.clone())
        });
        let mut found: Vec<_> = ids
            .chain(rules)
            .filter_map(|id| {
                let tags = self.tags_of(&id, moment)?;
                let kind = resource_type(&id)?;
                (!tags.is_empty()).then_some((id, kind, tags))
            })
            .collect();
        found.sort();
        found
    }

    /// The tags that a resource has, whoever sees them; `None` where there is no such resource.
    pub fn tags_now(&self, id: &str) -> Option<Tags> {
        if id.starts_with("sgr-") {
            let groups = self.security_groups.values();
            let mut rules = groups.flat_map(|group| group.ingress.current().iter().chain(group.egress.current()));
            return rules.find(|rule| rule.rule_id == id).map(|rule| rule.tags.clone());
        }
        Some(self.lagged_tags(id)?.current().clone())
    }

    /// The tags that a reader sees, or `None` where it does not see the resource.
    fn tags_of(&self, id: &str, moment: Moment) -> Option<Tags> {
        if id.starts_with("sgr-") {
            return self.rule(id, moment).map(|rule| rule.tags.clone());
        }
        let created = match resource_type(id)? {
            "instance" => Some(self.instances.get(id)?.created_at),
            "image" => Some(self.images.get(id)?.created_at),
            "volume" => Some(self.volumes.get(id)?.created_at),
            "snapshot" => Some(self.snapshots.get(id)?.started_at),
            "security-group" => Some(self.security_groups.get(id)?.created_at),
            "network-interface" => Some(self.interface_owner(id)?.created_at),
            _ => None,
        };
        if created.is_some_and(|at| !moment.sees(at)) {
            return None;
        }
        Some(self.lagged_tags(id)?.seen(moment).clone())
    }

    /// The tags of anything but a rule, whose tags change with its group's rules.
    fn lagged_tags(&self, id: &str) -> Option<&Lagged<Tags>> {
        Some(match resource_type(id)? {
            "instance" => &self.instances.get(id)?.tags,
            "image" => &self.images.get(id)?.tags,
            "volume" => &self.volumes.get(id)?.tags,
            "snapshot" => &self.snapshots.get(id)?.tags,
            "security-group" => &self.security_groups.get(id)?.tags,
            "subnet" => &self.subnets.get(id)?.tags,
            "vpc" => &self.vpcs.get(id)?.tags,
            "key-pair" => &self.key_pairs.values().find(|pair| pair.key_pair_id == id)?.tags,
            "network-interface" => &self.interface_owner(id)?.network_interface.tags,
            _ => return None,
        })
    }

    fn interface_owner(&self, id: &str) -> Option<&super::Instance> {
        self.instances.values().find(|instance| instance.network_interface.network_interface_id == id)
    }

    fn change_tags_of(&mut self, id: &str, moment: Moment, change: impl Fn(&mut Tags)) {
        if id.starts_with("sgr-") {
            for group in self.security_groups.values_mut() {
                for rules in [&mut group.ingress, &mut group.egress] {
                    if rules.current().iter().any(|rule| rule.rule_id == id) {
                        rules.change(moment, |rules| {
                            rules.iter_mut().filter(|rule| rule.rule_id == id).for_each(|rule| change(&mut rule.tags));
                        });
                    }
                }
            }
            return;
        }
        let tags: Option<&mut Lagged<Tags>> = match resource_type(id) {
            Some("instance") => self.instances.get_mut(id).map(|it| &mut it.tags),
            Some("image") => self.images.get_mut(id).map(|it| &mut it.tags),
            Some("volume") => self.volumes.get_mut(id).map(|it| &mut it.tags),
            Some("snapshot") => self.snapshots.get_mut(id).map(|it| &mut it.tags),
            Some("security-group") => self.security_groups.get_mut(id).map(|it| &mut it.tags),
            Some("subnet") => self.subnets.get_mut(id).map(|it| &mut it.tags),
            Some("vpc") => self.vpcs.get_mut(id).map(|it| &mut it.tags),
            Some("key-pair") => self.key_pairs.values_mut().find(|it| it.key_pair_id == id).map(|it| &mut it.tags),
            Some("network-interface") => self
                .instances
                .values_mut()
                .map(|it| &mut it.network_interface)
                .find(|it| it.network_interface_id == id)
                .map(|it| &mut it.tags),
            _ => None,
        };
        if let Some(tags) = tags {
            tags.change(moment, |tags| change(tags));
        }
    }
}
