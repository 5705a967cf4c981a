//! The VPC and its subnets. A region has one VPC, the default one, whose addresses are the engine network's.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Tags, lagged::Lagged};

/// AWS keeps the first four addresses of a subnet and the last one for itself.
const RESERVED_AT_START: u32 = 4;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vpc {
    pub vpc_id: String,
    pub block: Ipv4Net,
    pub is_default: bool,
    pub tags: Lagged<Tags>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet_id: String,
    pub vpc_id: String,
    pub block: Ipv4Net,
    pub availability_zone: String,
    pub tags: Lagged<Tags>,
    /// Where the search for a free address goes on, so that an address is not reused at once: a client that still
    /// remembers the old server's host key would refuse the new one.
    pub(super) next_address: u32,
}

impl Subnet {
    /// How many instances fit.
    pub fn capacity(&self) -> u32 {
        (1u32 << (32 - u32::from(self.block.prefix_len()))).saturating_sub(RESERVED_AT_START + 1)
    }

    /// Whether an instance may have this address.
    pub fn offers(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.block.network()));
        self.block.contains(&address) && offset >= RESERVED_AT_START && address != self.block.broadcast()
    }

    /// The next address that is not in `taken`, or `None` where the subnet is full.
    pub(super) fn take_address(&mut self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let first = u32::from(self.block.network()) + RESERVED_AT_START;
        let capacity = self.capacity();
        (0..capacity).find_map(|step| {
            let offset = (self.next_address + step) % capacity;
            let address = Ipv4Addr::from(first + offset);
            (!taken.contains(&address)).then(|| {
                self.next_address = (offset + 1) % capacity;
                address
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn subnet(block: &str) -> Subnet {
        Subnet {
            subnet_id: "subnet-1".into(),
            vpc_id: "vpc-1".into(),
            block: block.parse().unwrap(),
            availability_zone: "us-east-1a".into(),
            tags: Lagged::new(Tags::new(), Timestamp::UNIX_EPOCH),
            next_address: 0,
        }
    }

    #[test]
    fn addresses_are_not_reused_at_once_and_run_out() {
        let mut subnet = subnet("10.0.0.0/29");
        let mut taken = BTreeSet::new();
        let first = subnet.take_address(&taken).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 0, 0, 4));
        let second = subnet.take_address(&taken).unwrap();
        assert_eq!(second, Ipv4Addr::new(10, 0, 0, 5), "the first is free again but comes last");
        taken.extend([first, second, Ipv4Addr::new(10, 0, 0, 6)]);
        assert_eq!(subnet.take_address(&taken), None);
    }
}
