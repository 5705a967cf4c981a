//! An instance's network interface: made with its rules, and given new ones while it runs.

use bollard::{
    body_full,
    container::AttachContainerResults,
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions,
        UploadToContainerOptionsBuilder,
    },
};
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt as _;

use super::{
    bodies::{self, LOADED, REFUSED, RULESETS},
    console,
    engine::{Engine, Failure, QUICK, within},
    names::Names,
};
use crate::instances::{MachineError, MachineSpec};

/// A ruleset as a file of the interface's [`RULESETS`] folder.
pub struct Ruleset {
    pub file: &'static str,
    pub text: String,
}

/// The file of the inbound rules.
pub const INBOUND: &str = "inbound.nft";
/// The file of the rules that lead to the metadata service.
pub const METADATA: &str = "metadata.nft";

/// Makes the interface's container if it is not there, and gives it its rules before it ever starts.
///
/// # Errors
/// The engine refuses; the address is taken or outside the network.
pub async fn create(
    engine: &Engine,
    names: &Names,
    spec: &MachineSpec,
    image: &str,
    rulesets: &[Ruleset],
) -> Result<(), MachineError> {
    let container = names.interface(&spec.instance_id);
    let what = format!("cannot make the network interface of {} at {}", spec.instance_id, spec.private_ip);
    let options = CreateContainerOptionsBuilder::new().name(&container).build();
    let body = bodies::interface(engine, names, spec, image);
    match within(QUICK, what, engine.docker.create_container(Some(options), body)).await {
        Err(failure) if failure.is_absent() => {
            return Err(failure.with_hint(format!("the engine has no image {image}: build it, `alcedo image build`")));
        }
        Err(failure) => engine.adopt(names, &container, failure).await?,
        Ok(_) => {}
    }
    write(engine, &container, rulesets).await?;
    Ok(())
}

/// Starts the interface, if it does not run, and returns when the rules it holds are in force.
///
/// # Errors
/// The engine or nft refuses.
pub async fn start(engine: &Engine, names: &Names, instance_id: &str) -> Result<(), MachineError> {
    let container = names.interface(instance_id);
    let what = format!("cannot start the network interface of {instance_id}");
    within(QUICK, what, engine.docker.start_container(&container, None::<StartContainerOptions>)).await?;
    load(engine, &container).await
}

/// Replaces rulesets; on an interface that runs, they are in force on return, and otherwise when it starts.
///
/// # Errors
/// There is no such interface; the engine or nft refuses.
pub async fn change(
    engine: &Engine,
    names: &Names,
    instance_id: &str,
    rulesets: &[Ruleset],
) -> Result<(), MachineError> {
    let container = names.interface(instance_id);
    write(engine, &container, rulesets).await?;
    let inspected = engine.inspect(&container).await?;
    if inspected.state.and_then(|state| state.running) == Some(true) {
        load(engine, &container).await?;
    }
    Ok(())
}

/// Puts rulesets into the interface's file system. That works whether or not it runs.
async fn write(engine: &Engine, container: &str, rulesets: &[Ruleset]) -> Result<(), Failure> {
    let mut archive = tar::Builder::new(Vec::new());
    for ruleset in rulesets {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(ruleset.text.len() as u64);
        let path = format!("{}/{}", RULESETS.trim_start_matches('/'), ruleset.file);
        archive.append_data(&mut header, path, ruleset.text.as_bytes()).expect("a vector takes all that is written");
    }
    let archive = archive.into_inner().expect("a vector takes all that is written");
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    let what = format!("cannot give {container} its firewall rules");
    within(QUICK, what, engine.docker.upload_to_container(container, Some(options), body_full(archive.into()))).await
}

/// Has nft read all rulesets, as one transaction.
async fn load(engine: &Engine, container: &str) -> Result<(), MachineError> {
    let order = format!("{:016x}", rand::random::<u64>());
    let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
    let asked = async {
        let AttachContainerResults { mut output, mut input } =
            engine.docker.attach_container(container, Some(options)).await?;
        input.write_all(format!("{order}\n").as_bytes()).await?;
        let mut said = String::new();
        // Whoever else is attached reads the same lines: only those about this order are meant.
        while let Some(part) = output.try_next().await? {
            said.push_str(&String::from_utf8_lossy(&part.into_bytes()));
            if said.contains(&format!("{LOADED} {order}\n")) {
                return Ok((true, said));
            }
            if said.contains(&format!("{REFUSED} {order}\n")) {
                break;
            }
        }
        Ok((false, said))
    };
    match within(QUICK, format!("cannot load the firewall rules of {container}"), asked).await? {
        (true, _) => Ok(()),
        (false, mut said) => {
            // An interface whose rules failed at its start has ended, and said why before.
            said.push_str(&String::from_utf8_lossy(&console::read(engine, container).await.unwrap_or_default()));
            Err(MachineError {
                what: format!("nft refused the rules of {container}: {}", said.trim()),
                hint: Some("the machine needs the kernel modules nf_tables, nf_conntrack and nf_nat".to_owned()),
                source: None,
            })
        }
    }
}
