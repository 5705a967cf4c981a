//! The region's network in the engine: found again, or made on addresses that nothing else here uses.

use std::net::Ipv4Addr;

use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::ListNetworksOptions,
};
use ipnet::Ipv4Net;

use super::{
    engine::{Engine, Failure, QUICK, within},
    names::{Names, REGION_LABEL},
};
use crate::instances::{MachineError, Network};

/// `10.213.0.0/16` first: an address that guides do not use, so that it is rarely taken.
const FIRST_SECOND_OCTET: u8 = 213;
/// How many /16 blocks from the first on are tried.
const CANDIDATES: u8 = 32;

/// Finds the region's network, or makes it.
///
/// # Errors
/// The engine refuses; something else has the name; every candidate block is taken.
pub async fn ensure(engine: &Engine, names: &Names) -> Result<Network, MachineError> {
    let name = names.network();
    match within(QUICK, format!("cannot look at the network {name}"), engine.docker.inspect_network(&name, None)).await
    {
        Ok(found) => {
            let ours = found.labels.as_ref().and_then(|labels| labels.get(REGION_LABEL));
            if ours.map(String::as_str) != Some(names.region()) {
                return Err(MachineError {
                    what: format!("the engine has a network {name} that is not this region's"),
                    hint: Some(format!("remove it (`docker network rm {name}`), or name the region otherwise")),
                    source: None,
                });
            }
            block_of(found.ipam.as_ref()).map(network).ok_or_else(|| MachineError {
                what: format!("the network {name} has no IPv4 addresses"),
                hint: Some(format!("remove it (`docker network rm {name}`); it is made anew")),
                source: None,
            })
        }
        Err(failure) if failure.is_absent() => make(engine, names).await,
        Err(failure) => Err(failure.into()),
    }
}

/// Removes the region's network, if it is there.
///
/// # Errors
/// The engine refuses, as it does while a container is on it.
pub async fn remove(engine: &Engine, names: &Names) -> Result<(), Failure> {
    let name = names.network();
    match within(QUICK, format!("cannot remove the network {name}"), engine.docker.remove_network(&name)).await {
        Err(failure) if !failure.is_absent() => Err(failure),
        _ => Ok(()),
    }
}

async fn make(engine: &Engine, names: &Names) -> Result<Network, MachineError> {
    let name = names.network();
    let taken = taken_blocks(engine).await?;
    let mut refusal = None;
    for block in free_candidates(&taken) {
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(block.to_string()),
                    gateway: Some(network(block).gateway.to_string()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            labels: Some([(REGION_LABEL.to_owned(), names.region().to_owned())].into()),
            ..NetworkCreateRequest::default()
        };
        let what = format!("cannot make the network {name} on {block}");
        match within(QUICK, what, engine.docker.create_network(request)).await {
            Ok(_) => return Ok(network(block)),
            // An engine can know of users of a block that this machine does not show; the next one may do.
            Err(failure) => refusal = refusal.or(Some(failure)),
        }
    }
    let hint = format!("free one of 10.{FIRST_SECOND_OCTET}.0.0/16 and the {CANDIDATES} blocks from there");
    match refusal {
        Some(failure) => Err(failure.with_hint(hint)),
        None => Err(MachineError {
            what: format!("no addresses are left for the network {name}"),
            hint: Some(hint),
            source: None,
        }),
    }
}

/// The blocks of the engine's networks and of this machine's interfaces.
async fn taken_blocks(engine: &Engine) -> Result<Vec<Ipv4Net>, Failure> {
    let networks =
        within(QUICK, "cannot list the engine's networks", engine.docker.list_networks(None::<ListNetworksOptions>))
            .await?;
    let of_engine = networks.iter().filter_map(|network| block_of(network.ipam.as_ref()));
    let of_machine = nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let mask = interface.netmask?.as_sockaddr_in()?.ip();
        Ipv4Net::with_netmask(address, mask).ok()
    });
    Ok(of_engine.chain(of_machine).collect())
}

fn free_candidates(taken: &[Ipv4Net]) -> impl Iterator<Item = Ipv4Net> {
    let candidates = (FIRST_SECOND_OCTET..=u8::MAX).take(usize::from(CANDIDATES));
    let blocks = candidates.map(|second| Ipv4Net::new_assert(Ipv4Addr::new(10, second, 0, 0), 16));
    blocks.filter(move |block| !taken.iter().any(|other| overlaps(*block, *other)))
}

fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

fn block_of(ipam: Option<&Ipam>) -> Option<Ipv4Net> {
    ipam?.config.iter().flatten().find_map(|config| config.subnet.as_ref()?.parse().ok())
}

/// The first address is the gateway's, for the engine as for AWS.
pub fn network(block: Ipv4Net) -> Network {
    let gateway = block.hosts().next().unwrap_or(block.network());
    Network { block, gateway }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Ipv4Net {
        text.parse().expect("a block")
    }

    #[test]
    fn the_first_block_is_taken_if_it_is_free() {
        assert_eq!(free_candidates(&[block("172.17.0.0/16")]).next(), Some(block("10.213.0.0/16")));
    }

    #[test]
    fn blocks_in_use_are_passed_over() {
        let taken = [block("10.213.7.0/24"), block("10.214.0.0/15")];
        assert_eq!(free_candidates(&taken).next(), Some(block("10.216.0.0/16")));
        assert_eq!(free_candidates(&[block("10.0.0.0/8")]).next(), None);
    }

    #[test]
    fn the_gateway_is_the_first_address() {
        assert_eq!(network(block("10.213.0.0/16")).gateway, Ipv4Addr::new(10, 213, 0, 1));
    }
}
