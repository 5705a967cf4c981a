//! RunInstances, as far as it is records: checks, idempotency by client token, capacity, addresses.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    Ec2, ImageState, Instance, InstanceState, Lagged, MetadataOptions, Moment, Tags,
    image::ROOT_DEVICE,
    instance::{BlockDevice, NetworkInterface},
    instance_type,
    volume::{Attachment, Volume},
};
use crate::{config::Capacity, instances::containers::mac_address, wire::ApiError};

/// RunInstances' limit on decoded user data.
const USER_DATA_BYTES: usize = 16 * 1024;

/// What RunInstances asks for.
#[derive(Debug, Clone, Default)]
pub struct LaunchRequest {
    pub image_id: String,
    pub instance_type: String,
    pub min_count: u32,
    pub max_count: u32,
    pub subnet_id: Option<String>,
    pub availability_zone: Option<String>,
    pub private_ip: Option<Ipv4Addr>,
    /// Ids; the VPC's default group where empty.
    pub security_groups: Vec<String>,
    /// Names of groups in the default VPC, from `SecurityGroup.N`.
    pub security_group_names: Vec<String>,
    pub key_name: Option<String>,
    pub user_data: Option<Vec<u8>>,
    pub client_token: Option<String>,
    /// Digest of all parameters but the token: what must be equal when the token comes again.
    pub fingerprint: String,
    pub instance_profile: Option<String>,
    /// `None` follows the image: tokens required where its `ImdsSupport` is `v2.0`.
    pub tokens_required: Option<bool>,
    pub hop_limit: Option<u8>,
    pub metadata_enabled: Option<bool>,
    pub instance_tags_in_metadata: bool,
    pub root_volume: RootVolume,
    pub instance_tags: Tags,
    pub volume_tags: Tags,
    pub network_interface_tags: Tags,
    pub network_interface_description: String,
    pub disable_api_termination: bool,
    pub terminate_on_shutdown: bool,
    pub ebs_optimized: bool,
    pub monitoring: bool,
}

/// What the launch says of the root volume.
#[derive(Debug, Clone, Default)]
pub struct RootVolume {
    pub size_gib: Option<u32>,
    pub volume_type: Option<String>,
    pub keep_on_termination: bool,
    pub encrypted: bool,
}

/// What a client token was answered with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    fingerprint: String,
    reservation_id: String,
    instance_ids: Vec<String>,
}

impl Launch {
    pub(super) fn instance_ids(&self) -> &[String] {
        &self.instance_ids
    }
}

/// The answer to a launch.
#[derive(Debug, Clone)]
pub struct Launched {
    pub reservation_id: String,
    pub instance_ids: Vec<String>,
    /// The token was seen before: nothing new was made.
    pub repeated: bool,
}

impl Ec2 {
    /// Makes instances in `pending`, or answers what the same client token was answered before.
    ///
    /// # Errors
    /// `IdempotentParameterMismatch` where the token came with other parameters; the documented code of whatever is
    /// invalid, absent or used up. Then nothing was made.
    pub fn launch(
        &mut self,
        request: &LaunchRequest,
        capacity: &Capacity,
        moment: Moment,
    ) -> Result<Launched, ApiError> {
        if let Some(launched) = self.launched_before(request)? {
            return Ok(launched);
        }
        let image = self.check_image(&request.image_id, moment)?;
        let (image_gib, image_imds_v2) = (image.volume_gib, image.imds_v2);
        let image_snapshot = image.snapshot_id.clone();
        let root_reference = image.reference.clone().unwrap_or_default();
        let kind = instance_type::find(&request.instance_type).ok_or_else(|| {
            ApiError::bad(
                "InvalidParameterValue",
                format!("Invalid value '{}' for InstanceType.", request.instance_type),
            )
        })?;
        if request.min_count == 0 || request.max_count < request.min_count {
            return Err(ApiError::invalid("MinCount", &request.min_count.to_string(), "1 <= MinCount <= MaxCount."));
        }
        if request.user_data.as_ref().is_some_and(|data| data.len() > USER_DATA_BYTES) {
            return Err(ApiError::bad("InvalidParameterValue", "User data is limited to 16384 bytes"));
        }
        if let Some(key) = request.key_name.as_deref().filter(|key| self.key_pair(key).is_none()) {
            return Err(ApiError::bad("InvalidKeyPair.NotFound", format!("The key pair '{key}' does not exist")));
        }
        let subnet_id = self.choose_subnet(request)?;
        let groups = self.choose_groups(request, &subnet_id, moment)?;
        let size_gib = request.root_volume.size_gib.unwrap_or(image_gib);
        if size_gib < image_gib {
            return Err(ApiError::bad(
                "InvalidBlockDeviceMapping",
                format!("Volume of size {size_gib}GB is smaller than snapshot, expect size >= {image_gib}GB"),
            ));
        }
        let zone = self.subnets[&subnet_id].availability_zone.clone();
        let count = self.count_within(capacity, request, kind.vcpus, &zone)?;
        let addresses = self.take_addresses(&subnet_id, request.private_ip, count)?;

        let reservation_id = self.ids.next("r");
        let mut instance_ids = Vec::new();
        for (launch_index, private_ip) in (0..count).zip(addresses) {
            let instance_id = self.ids.next("i");
            let volume_id = self.ids.next("vol");
            let volume = Volume {
                volume_id: volume_id.clone(),
                size_gib,
                volume_type: request.root_volume.volume_type.clone().unwrap_or_else(|| "gp2".to_owned()),
                snapshot_id: image_snapshot.clone(),
                availability_zone: zone.clone(),
                encrypted: request.root_volume.encrypted,
                attachment: Some(Attachment {
                    instance_id: instance_id.clone(),
                    device: ROOT_DEVICE.to_owned(),
                    delete_on_termination: !request.root_volume.keep_on_termination,
                    attached_at: moment.now,
                }),
                tags: Lagged::new(request.volume_tags.clone(), moment.now),
                created_at: moment.now,
            };
            self.volumes.insert(volume_id.clone(), volume);
            let network_interface = NetworkInterface {
                network_interface_id: self.ids.next("eni"),
                mac: mac_address(private_ip),
                description: request.network_interface_description.clone(),
                tags: Lagged::new(request.network_interface_tags.clone(), moment.now),
            };
            let instance = Instance {
                instance_id: instance_id.clone(),
                reservation_id: reservation_id.clone(),
                launch_index,
                image_id: request.image_id.clone(),
                instance_type: request.instance_type.clone(),
                state: InstanceState::Pending,
                state_reason: None,
                state_transition_reason: String::new(),
                private_ip,
                vpc_id: self.subnets[&subnet_id].vpc_id.clone(),
                subnet_id: subnet_id.clone(),
                availability_zone: zone.clone(),
                security_groups: groups.clone(),
                tags: Lagged::new(request.instance_tags.clone(), moment.now),
                launch_time: moment.now,
                created_at: moment.now,
                terminated_at: None,
                user_data: request.user_data.clone(),
                client_token: request.client_token.clone(),
                key_name: request.key_name.clone(),
                instance_profile: request.instance_profile.clone(),
                metadata_options: MetadataOptions {
                    tokens_required: request.tokens_required.unwrap_or(image_imds_v2),
                    hop_limit: request.hop_limit.unwrap_or(if image_imds_v2 { 2 } else { 1 }),
                    enabled: request.metadata_enabled.unwrap_or(true),
                    instance_tags: request.instance_tags_in_metadata,
                },
                block_devices: vec![BlockDevice {
                    device_name: ROOT_DEVICE.to_owned(),
                    volume_id,
                    delete_on_termination: !request.root_volume.keep_on_termination,
                    attached_at: moment.now,
                }],
                network_interface,
                disable_api_termination: request.disable_api_termination,
                terminate_on_shutdown: request.terminate_on_shutdown,
                ebs_optimized: request.ebs_optimized,
                monitoring: request.monitoring,
                source_dest_check: true,
                root_reference: root_reference.clone(),
                has_machine: false,
            };
            self.instances.insert(instance_id.clone(), instance);
            instance_ids.push(instance_id);
        }
        if let Some(token) = &request.client_token {
            let launch = Launch {
                fingerprint: request.fingerprint.clone(),
                reservation_id: reservation_id.clone(),
                instance_ids: instance_ids.clone(),
            };
            self.launches.insert(token.clone(), launch);
        }
        Ok(Launched { reservation_id, instance_ids, repeated: false })
    }

    fn launched_before(&self, request: &LaunchRequest) -> Result<Option<Launched>, ApiError> {
        let Some(launch) = request.client_token.as_ref().and_then(|token| self.launches.get(token)) else {
            return Ok(None);
        };
        if launch.fingerprint != request.fingerprint {
            return Err(ApiError::bad(
                "IdempotentParameterMismatch",
                "The request uses the same client token as a previous, but non-identical request.",
            ));
        }
        Ok(Some(Launched {
            reservation_id: launch.reservation_id.clone(),
            instance_ids: launch.instance_ids.clone(),
            repeated: true,
        }))
    }

    fn check_image(&self, image_id: &str, moment: Moment) -> Result<&super::Image, ApiError> {
        let image = self.find_image(image_id, moment)?;
        if image.state != ImageState::Available {
            return Err(ApiError::bad(
                "InvalidAMIID.Unavailable",
                format!("The image ID '{image_id}' is {} and cannot be launched", image.state.name()),
            ));
        }
        Ok(image)
    }

    fn choose_subnet(&self, request: &LaunchRequest) -> Result<String, ApiError> {
        if let Some(subnet_id) = &request.subnet_id {
            return match self.subnets.get(subnet_id) {
                Some(_) => Ok(subnet_id.clone()),
                None => Err(ApiError::bad(
                    "InvalidSubnetID.NotFound",
                    format!("The subnet ID '{subnet_id}' does not exist"),
                )),
            };
        }
        let mut subnets: Vec<_> = self.subnets.values().collect();
        subnets.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
        let wanted = request.availability_zone.as_deref();
        subnets
            .into_iter()
            .find(|subnet| wanted.is_none_or(|zone| zone == subnet.availability_zone))
            .map(|subnet| subnet.subnet_id.clone())
            .ok_or_else(|| {
                ApiError::invalid("Placement.AvailabilityZone", wanted.unwrap_or_default(), "There is no such zone.")
            })
    }

    fn choose_groups(&self, request: &LaunchRequest, subnet_id: &str, moment: Moment) -> Result<Vec<String>, ApiError> {
        let vpc_id = &self.subnets[subnet_id].vpc_id;
        let mut groups = Vec::new();
        for id in &request.security_groups {
            groups.push(self.find_group(id, moment)?.group_id.clone());
        }
        for name in &request.security_group_names {
            let found = self.security_groups.values().find(|group| group.vpc_id == *vpc_id && group.name == *name);
            let Some(group) = found else {
                return Err(ApiError::bad(
                    "InvalidGroup.NotFound",
                    format!("The security group '{name}' does not exist in VPC '{vpc_id}'"),
                ));
            };
            groups.push(group.group_id.clone());
        }
        if groups.is_empty() {
            groups.extend(self.default_group(vpc_id).map(|group| group.group_id.clone()));
        }
        let mut seen = BTreeSet::new();
        groups.retain(|id| seen.insert(id.clone()));
        Ok(groups)
    }

    /// How many instances the account's quota and the zone allow, between the wanted minimum and maximum.
    fn count_within(
        &self,
        capacity: &Capacity,
        request: &LaunchRequest,
        vcpus: u32,
        zone: &str,
    ) -> Result<u32, ApiError> {
        if capacity.lacks(&request.instance_type, zone) {
            return Err(ApiError::with_status(
                500,
                "InsufficientInstanceCapacity",
                format!(
                    "We currently do not have sufficient {} capacity in the Availability Zone you requested ({zone}).",
                    request.instance_type
                ),
            ));
        }
        let used: u32 = self
            .instances
            .values()
            .filter(|it| matches!(it.state, InstanceState::Pending | InstanceState::Running))
            .filter_map(|it| instance_type::find(&it.instance_type))
            .map(|kind| kind.vcpus)
            .sum();
        let fit = capacity.vcpus.saturating_sub(used) / vcpus;
        if fit < request.min_count {
            return Err(ApiError::bad(
                "VcpuLimitExceeded",
                format!(
                    "You have requested more vCPU capacity than your current vCPU limit of {} allows for the instance \
                     bucket that the specified instance type belongs to.",
                    capacity.vcpus
                ),
            ));
        }
        Ok(request.max_count.min(fit))
    }

    fn take_addresses(
        &mut self,
        subnet_id: &str,
        wanted: Option<Ipv4Addr>,
        count: u32,
    ) -> Result<Vec<Ipv4Addr>, ApiError> {
        let mut taken: BTreeSet<Ipv4Addr> = self
            .instances
            .values()
            .filter(|it| it.state != InstanceState::Terminated)
            .map(|it| it.private_ip)
            .collect();
        let subnet = self.subnets.get_mut(subnet_id).expect("the subnet was chosen among these");
        if let Some(address) = wanted {
            if !subnet.offers(address) || count > 1 {
                return Err(ApiError::invalid(
                    "PrivateIpAddress",
                    &address.to_string(),
                    "It is for one instance, and an address of the subnet that AWS does not reserve.",
                ));
            }
            if taken.contains(&address) {
                return Err(ApiError::bad("InvalidIPAddress.InUse", format!("Address {address} is in use.")));
            }
            return Ok(vec![address]);
        }
        (0..count)
            .map(|_| {
                let address = subnet.take_address(&taken).ok_or_else(|| {
                    ApiError::bad(
                        "InsufficientFreeAddressesInSubnet",
                        format!("There are not enough free addresses in subnet '{subnet_id}'"),
                    )
                })?;
                taken.insert(address);
                Ok(address)
            })
            .collect()
    }
}
