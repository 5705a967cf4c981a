//! Instances and their life: `pending → running → shutting-down → terminated`, with `stopping → stopped` beside it.

use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Tags, lagged::Lagged};

/// How long a terminated instance stays visible: AWS documents "a short while … usually less than an hour".
pub const TERMINATED_VISIBLE_FOR: SignedDuration = SignedDuration::from_hours(1);

/// A state as EC2 names and numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopping,
    Stopped,
}

impl InstanceState {
    pub fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Shutting down or gone: it never comes back.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::ShuttingDown | Self::Terminated)
    }

    /// Whether an instance can go from this state to `next`. Staying is not a move.
    pub fn can_become(self, next: Self) -> bool {
        use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
        matches!(
            (self, next),
            (Pending, Running | ShuttingDown | Terminated)
                | (Running, Stopping | ShuttingDown | Terminated)
                | (Stopping, Stopped | ShuttingDown | Terminated)
                | (Stopped, Pending | ShuttingDown | Terminated)
                | (ShuttingDown, Terminated)
        )
    }
}

/// Why an instance is in its state, e.g. `Client.UserInitiatedShutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    pub code: String,
    pub message: String,
}

/// How the metadata service answers an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// `HttpTokens=required`.
    pub tokens_required: bool,
    pub hop_limit: u8,
    pub enabled: bool,
    /// `InstanceMetadataTags=enabled`.
    pub instance_tags: bool,
}

/// A volume's place in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    pub device_name: String,
    pub volume_id: String,
    pub delete_on_termination: bool,
    pub attached_at: Timestamp,
}

/// The primary (and only) network interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub network_interface_id: String,
    pub mac: String,
    pub description: String,
    pub tags: Lagged<Tags>,
}

/// A server as EC2 describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    pub instance_id: String,
    pub reservation_id: String,
    /// Position within its RunInstances call.
    pub launch_index: u32,
    pub image_id: String,
    pub instance_type: String,
    pub state: InstanceState,
    pub state_reason: Option<StateReason>,
    /// Empty, or text such as `User initiated (2026-11-20 19:05:12 GMT)`.
    pub state_transition_reason: String,
    /// Also the public address: the instances are on a network that this machine routes to.
    pub private_ip: Ipv4Addr,
    pub vpc_id: String,
    pub subnet_id: String,
    pub availability_zone: String,
    /// Ids, in the order in which they were given.
    pub security_groups: Vec<String>,
    pub tags: Lagged<Tags>,
    /// When it was last started; console output lags behind this.
    pub launch_time: Timestamp,
    pub created_at: Timestamp,
    /// When it reached `terminated`.
    pub terminated_at: Option<Timestamp>,
    pub user_data: Option<Vec<u8>>,
    pub client_token: Option<String>,
    pub key_name: Option<String>,
    /// ARN of the instance profile.
    pub instance_profile: Option<String>,
    pub metadata_options: MetadataOptions,
    pub block_devices: Vec<BlockDevice>,
    pub network_interface: NetworkInterface,
    pub disable_api_termination: bool,
    /// `InstanceInitiatedShutdownBehavior`: `true` for `terminate`.
    pub terminate_on_shutdown: bool,
    pub ebs_optimized: bool,
    pub monitoring: bool,
    pub source_dest_check: bool,
    /// The engine's reference of its image's root when it was launched: the image may be deregistered since.
    pub root_reference: String,
    /// Whether a machine was made for it: then a start finds one, and a launch would be a second first boot.
    pub has_machine: bool,
}

impl Instance {
    /// The private DNS name, which is also the guest's host name. The oldest region's domain has no region in it.
    pub fn private_dns_name(&self) -> String {
        let region = self.availability_zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let domain = match region {
            "us-east-1" => "ec2.internal".to_owned(),
            other => format!("{other}.compute.internal"),
        };
        format!("ip-{}.{domain}", self.private_ip.to_string().replace('.', "-"))
    }

    /// The name of the instance profile, without its path.
    pub fn instance_profile_name(&self) -> Option<&str> {
        self.instance_profile.as_deref().and_then(|arn| arn.rsplit('/').next())
    }
}

#[cfg(test)]
mod tests {
    use super::InstanceState::{self, Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};

    #[test]
    fn a_terminated_instance_never_comes_back() {
        for next in [Pending, Running, ShuttingDown, Stopping, Stopped, Terminated] {
            assert!(!Terminated.can_become(next), "terminated became {}", next.name());
        }
    }

    #[test]
    fn codes_are_those_of_the_api_reference() {
        let codes: Vec<u8> = [Pending, Running, ShuttingDown, Terminated, Stopping, Stopped]
            .into_iter()
            .map(InstanceState::code)
            .collect();
        assert_eq!(codes, [0, 16, 32, 48, 64, 80]);
    }
}
