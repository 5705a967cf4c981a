//! Answers the metadata service's questions from the records.

use std::{net::Ipv4Addr, sync::Arc};

use crate::{
    metadata::{InstanceMetadata, MetadataSource},
    region::Region,
};

/// The records as the metadata service asks them.
pub struct Records(pub Arc<Region>);

impl MetadataSource for Records {
    /// What the instance at this address may know. An ended instance's address may already be another's.
    fn by_address(&self, address: Ipv4Addr) -> Option<InstanceMetadata> {
        let region = &self.0;
        region.read(|world| {
            let it = world.ec2.instances().find(|it| it.private_ip == address && !it.state.is_ended())?;
            if !it.metadata_options.enabled {
                return None;
            }
            let groups = it.security_groups.iter().filter_map(|id| world.ec2.security_group(id));
            let public_key = it.key_name.as_ref().and_then(|name| {
                let pair = world.ec2.key_pair(name)?;
                Some((name.clone(), pair.public_key.clone()))
            });
            let tags = if it.metadata_options.instance_tags { it.tags.current().clone() } else { Default::default() };
            Some(InstanceMetadata {
                instance_id: it.instance_id.clone(),
                ami_id: it.image_id.clone(),
                instance_type: it.instance_type.clone(),
                region: region.config.region.clone(),
                availability_zone: it.availability_zone.clone(),
                private_ip: it.private_ip.to_string(),
                hostname: it.private_dns_name(),
                mac: it.network_interface.mac.clone(),
                security_groups: groups.map(|group| group.name.clone()).collect(),
                public_key,
                user_data: it.user_data.clone(),
                tags: tags.into_iter().collect(),
                role: it.instance_profile_name().map(str::to_owned),
                tokens_required: it.metadata_options.tokens_required,
            })
        })
    }
}
