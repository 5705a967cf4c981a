//! The load balancer and its listener.

use alcedo_pipeline::file::Pipeline;
use aws_sdk_elasticloadbalancingv2::types::{LoadBalancer, LoadBalancerStateEnum, LoadBalancerTypeEnum};

use super::{Complaints, Finding};
use crate::{
    cloud_error::CloudError,
    facts::{self, Balancer},
    site::Site,
};

/// The balancer and its listener, where they can be used at all.
pub(super) async fn listener(site: &Site) -> (Finding, Option<(Balancer, LoadBalancer)>) {
    let shape = match shape(site).await {
        Ok(shape) => shape,
        Err(error) => return (Finding::of_cloud("listener", site, &error), None),
    };
    let name = &site.pipeline.flip.listener.load_balancer;
    // Asked first: a balancer of another type has neither the rules nor the target groups that are looked for next.
    if let Some(kind) = shape.as_ref().and_then(|shape| shape.r#type())
        && *kind != LoadBalancerTypeEnum::Application
    {
        let fix = "name an application load balancer under flip.listener.load_balancer".to_owned();
        return (Finding::bad("listener", format!("{name} is a {} load balancer", kind.as_str()), vec![fix]), None);
    }
    let balancer = match facts::balancer(site).await {
        Ok(balancer) => balancer,
        Err(error) => return (Finding::of_facts("listener", site, &error), None),
    };
    let mut complaints = Complaints::default();
    if let Some(shape) = &shape {
        of_state(name, shape, &mut complaints);
    }
    of_url(site, &balancer, &mut complaints).await;
    let good = format!("{} port {}: {}", balancer.name, balancer.port, balancer.routing);
    (complaints.finding("listener", good), shape.map(|shape| (balancer, shape)))
}

/// The balancer as AWS tells of it; `None` where there is none, which whoever looks for its listener says.
async fn shape(site: &Site) -> Result<Option<LoadBalancer>, CloudError> {
    let name = &site.pipeline.flip.listener.load_balancer;
    let call = site.clients.elb.describe_load_balancers();
    let call = if name.starts_with("arn:") { call.load_balancer_arns(name) } else { call.names(name) };
    match call.send().await {
        Ok(answer) => Ok(answer.load_balancers().first().cloned()),
        Err(error) => {
            let error = CloudError::of(format!("find the load balancer {name}"), error);
            if error.is("LoadBalancerNotFound") { Ok(None) } else { Err(error) }
        }
    }
}

fn of_state(name: &str, shape: &LoadBalancer, complaints: &mut Complaints) {
    let Some(state) = shape.state() else { return };
    let reason = state.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    match state.code() {
        None | Some(LoadBalancerStateEnum::Active) => {}
        Some(LoadBalancerStateEnum::Provisioning) => {
            complaints.bad(format!("{name} is still being made"), "wait until it is active: a few minutes");
        }
        Some(LoadBalancerStateEnum::ActiveImpaired) => complaints.warning(
            format!("{name} works, but cannot grow as it should{reason}"),
            "look at it in the EC2 console; its subnets may be out of addresses",
        ),
        Some(other) => complaints.bad(
            format!("{name} is in the state {}{reason}", other.as_str()),
            "make the load balancer anew, or name another under flip.listener.load_balancer",
        ),
    }
}

/// Whether the file's address fits the listener, and leads anywhere.
async fn of_url(site: &Site, balancer: &Balancer, complaints: &mut Complaints) {
    let Pipeline { flip, smoke_tests, .. } = site.pipeline.as_ref();
    let is_secure = balancer.protocol == "HTTPS";
    let Some(text) = &flip.url else {
        let asks = flip.version.is_some() || smoke_tests.iter().any(|check| check.http.is_some());
        if is_secure && asks {
            complaints.bad(
                format!(
                    "the listener on port {} speaks HTTPS, and its certificate is not for the balancer's own name",
                    balancer.port
                ),
                "set flip.url to the https address that the certificate is for",
            );
        }
        return of_name(balancer, &balancer.dns_name, balancer.port, complaints).await;
    };
    let Ok(url) = url::Url::parse(text) else { return };
    let port = url.port_or_known_default().unwrap_or(balancer.port);
    let scheme = if is_secure { "https" } else { "http" };
    if url.scheme() != scheme {
        complaints.warning(
            format!("flip.url is {text}, and the listener on port {} speaks {}", balancer.port, balancer.protocol),
            format!("set flip.url to the {scheme} address, or flip.listener.port to the listener that it leads to"),
        );
    } else if port != balancer.port {
        complaints.warning(
            format!("flip.url leads to port {port}, and the listener is on port {}", balancer.port),
            "set flip.url to the listener's port, or flip.listener.port to the one that people use",
        );
    }
    of_name(balancer, url.host_str().unwrap_or_default(), port, complaints).await;
}

/// Nodes whose addresses AWS does not tell are found by the name.
async fn of_name(balancer: &Balancer, host: &str, port: u16, complaints: &mut Complaints) {
    if !balancer.addresses.is_empty() {
        return;
    }
    if let Err(error) = tokio::net::lookup_host((host, port)).await {
        complaints.bad(
            format!("the name {host} cannot be resolved here: {error}"),
            format!(
                "point its DNS record to {}, or set flip.url to a name that leads to the balancer",
                balancer.dns_name
            ),
        );
    }
}
