//! Makes, in the *local region only*, what a file expects to be there: bucket, balancer, listener, security groups. On AWS
//! these belong to whoever owns the network (Terraform, usually), and Alcedo never makes them.

use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{Filter, IpPermission, UserIdGroupPair};
use aws_sdk_elasticloadbalancingv2::types::{LoadBalancerStateEnum, ProtocolEnum};

use crate::{cloud_error::CloudError, listener::Routing, site::Site};

/// How long a new security group may stay unknown, and a new balancer be in the making; the region's `aws` profile has 2 s for the
/// former.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// What [`prepare`] has made; empty where everything was there.
pub type Made = Vec<String>;

/// Makes what is missing.
///
/// # Errors
/// The site is not on this machine ([`RehearsalError::NotLocal`]), or the local region refused.
pub async fn prepare(site: &Site) -> Result<Made, RehearsalError> {
    if !site.is_local() {
        return Err(RehearsalError::NotLocal);
    }
    let mut made = Vec::new();
    match make(site, &mut made).await {
        // Where the region has a policy in force, what the file names is somebody else's to make, as on AWS.
        Err(RehearsalError::Cloud(error)) if error.is_refused() => Ok(made),
        done => done.map(|()| made),
    }
}

async fn make(site: &Site, made: &mut Made) -> Result<(), RehearsalError> {
    bucket(site, made).await?;
    let vpc = default_vpc(site).await?;
    let balancer_group =
        security_group(site, &format!("{}-balancer", site.pipeline.flip.listener.load_balancer), &vpc, None, made)
            .await?;
    for name in &site.pipeline.launch.security_groups {
        security_group(site, name, &vpc, Some((&balancer_group, site.pipeline.launch.port)), made).await?;
    }
    security_group(site, &site.pipeline.bake.security_group, &vpc, None, made).await?;
    let balancer = balancer(site, &balancer_group, made).await?;
    Ok(listener(site, &balancer, made).await?)
}

#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    #[error("only the local region is prepared; on AWS this belongs to whoever owns the network")]
    NotLocal,
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error("the local region has no default VPC")]
    NoVpc,
}

async fn bucket(site: &Site, made: &mut Made) -> Result<(), CloudError> {
    let s3 = &site.clients.s3;
    if s3.head_bucket().bucket(site.bucket()).send().await.is_ok() {
        return Ok(());
    }
    let created = s3.create_bucket().bucket(site.bucket()).send().await;
    created.map_err(|error| CloudError::of(format!("create the bucket {}", site.bucket()), error))?;
    made.push(format!("bucket {}", site.bucket()));
    Ok(())
}

async fn default_vpc(site: &Site) -> Result<String, RehearsalError> {
    let filter = Filter::builder().name("is-default").values("true").build();
    let answer = site.clients.ec2.describe_vpcs().filters(filter).send().await;
    let answer = answer.map_err(|error| CloudError::of("find the default VPC", error))?;
    answer.vpcs().first().and_then(|vpc| vpc.vpc_id().map(str::to_owned)).ok_or(RehearsalError::NoVpc)
}

/// A security group by name; a new one lets in `from` (a group and a port), where that is given.
async fn security_group(
    site: &Site,
    name: &str,
    vpc: &str,
    from: Option<(&str, u16)>,
    made: &mut Made,
) -> Result<String, CloudError> {
    let ec2 = &site.clients.ec2;
    if name.starts_with("sg-") {
        return Ok(name.to_owned());
    }
    let filter = Filter::builder().name("group-name").values(name).build();
    let found = ec2.describe_security_groups().filters(filter).send().await;
    let found = found.map_err(|error| CloudError::of(format!("find the security group {name}"), error))?;
    let id = match found.security_groups().first().and_then(|group| group.group_id()) {
        Some(id) => id.to_owned(),
        None => {
            let create =
                ec2.create_security_group().group_name(name).vpc_id(vpc).description(format!("rehearsal: {name}"));
            let created = create
                .send()
                .await
                .map_err(|error| CloudError::of(format!("create the security group {name}"), error))?;
            made.push(format!("security group {name}"));
            let id = created.group_id().unwrap_or_default().to_owned();
            await_known(site, &id).await?;
            id
        }
    };
    if let Some((group, port)) = from {
        let permission = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(i32::from(port))
            .to_port(i32::from(port))
            .user_id_group_pairs(UserIdGroupPair::builder().group_id(group).build())
            .build();
        let_in(site, name, &id, permission).await?;
    }
    Ok(id)
}

/// Waits until a group that was just made is known to all calls, so that whatever comes next finds it.
async fn await_known(site: &Site, id: &str) -> Result<(), CloudError> {
    let deadline = Instant::now() + KNOWN_WITHIN;
    loop {
        let Err(error) = site.clients.ec2.describe_security_groups().group_ids(id).send().await else { return Ok(()) };
        let error = CloudError::of(format!("find the security group {id}"), error);
        if !error.is("InvalidGroup.NotFound") || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Adds a rule where it is not there yet. A group that was just made can still be unknown to the next call.
async fn let_in(site: &Site, name: &str, id: &str, permission: IpPermission) -> Result<(), CloudError> {
    let deadline = Instant::now() + KNOWN_WITHIN;
    loop {
        let call = site.clients.ec2.authorize_security_group_ingress().group_id(id).ip_permissions(permission.clone());
        let Err(error) = call.send().await else { return Ok(()) };
        let error = CloudError::of(format!("let the balancer into {name}"), error);
        if error.is("InvalidPermission.Duplicate") {
            return Ok(());
        }
        if !error.is("InvalidGroup.NotFound") || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn balancer(site: &Site, group: &str, made: &mut Made) -> Result<String, CloudError> {
    let name = &site.pipeline.flip.listener.load_balancer;
    let elb = &site.clients.elb;
    if let Ok(found) = elb.describe_load_balancers().names(name).send().await
        && let Some(arn) = found.load_balancers().first().and_then(|it| it.load_balancer_arn())
    {
        return Ok(arn.to_owned());
    }
    let subnets = site.clients.ec2.describe_subnets().send().await;
    let subnets = subnets.map_err(|error| CloudError::of("list the subnets", error))?;
    let ids = subnets.subnets().iter().filter_map(|subnet| subnet.subnet_id().map(str::to_owned)).collect();
    let create = elb.create_load_balancer().name(name).set_subnets(Some(ids)).security_groups(group);
    let created =
        create.send().await.map_err(|error| CloudError::of(format!("create the load balancer {name}"), error))?;
    made.push(format!("load balancer {name}"));
    let arn = created.load_balancers().first().and_then(|it| it.load_balancer_arn()).unwrap_or_default().to_owned();
    await_active(site, &arn).await?;
    Ok(arn)
}

/// Whoever looks next would be told that it is still being made. With AWS's own delays that takes minutes: nobody waits so long.
async fn await_active(site: &Site, arn: &str) -> Result<(), CloudError> {
    let begun = Instant::now();
    while begun.elapsed() < KNOWN_WITHIN {
        let found = site.clients.elb.describe_load_balancers().load_balancer_arns(arn).send().await;
        let found = found.map_err(|error| CloudError::of("look at the load balancer", error))?;
        let state = found.load_balancers().first().and_then(|it| it.state()?.code());
        if state == Some(&LoadBalancerStateEnum::Active) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn listener(site: &Site, balancer: &str, made: &mut Made) -> Result<(), CloudError> {
    let elb = &site.clients.elb;
    let port = site.pipeline.flip.listener.port;
    let found = elb.describe_listeners().load_balancer_arn(balancer).send().await;
    let found = found.map_err(|error| CloudError::of("read the balancer's listeners", error))?;
    if found.listeners().iter().any(|listener| listener.port() == Some(i32::from(port))) {
        return Ok(());
    }
    let nothing_yet = Routing::FixedResponse {
        status: "503".into(),
        content_type: Some("text/plain".into()),
        body: Some("nothing is deployed yet\n".into()),
    };
    let create = elb
        .create_listener()
        .load_balancer_arn(balancer)
        .protocol(ProtocolEnum::Http)
        .port(i32::from(port))
        .default_actions(nothing_yet.action());
    create.send().await.map_err(|error| CloudError::of(format!("create the listener on port {port}"), error))?;
    made.push(format!("listener on port {port}"));
    Ok(())
}
