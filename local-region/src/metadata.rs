//! The instance metadata service, version 2 only (IMDSv2), as instances see it at `http://169.254.169.254`.
//!
//! The service listens on the engine network's gateway; each instance's network interface rewrites 169.254.169.254:80
//! to it. An instance is known by the address it calls from.
//!
//! What is answered, and with which status, follows "Use the Instance Metadata Service" in the EC2 user guide. Temporary
//! credentials are not made here: a role is listed, but asking for its credentials is a 404.

use std::net::Ipv4Addr;

mod categories;
mod server;
mod tokens;

pub use server::{MetadataServer, serve, serve_by};

/// What an instance can learn about itself.
#[derive(Debug, Clone, Default)]
pub struct InstanceMetadata {
    pub instance_id: String,
    pub ami_id: String,
    pub instance_type: String,
    pub region: String,
    pub availability_zone: String,
    pub private_ip: String,
    pub hostname: String,
    pub mac: String,
    pub security_groups: Vec<String>,
    /// The key pair's name and its OpenSSH public key.
    pub public_key: Option<(String, String)>,
    pub user_data: Option<Vec<u8>>,
    /// Present where the instance allows tags in metadata.
    pub tags: Vec<(String, String)>,
    /// Name of the instance profile's role, where there is one.
    pub role: Option<String>,
    /// `HttpTokens=required`: a request without a token is refused (401).
    pub tokens_required: bool,
}

/// Who answers the service's questions.
pub trait MetadataSource: Send + Sync + 'static {
    fn by_address(&self, address: Ipv4Addr) -> Option<InstanceMetadata>;
}
