//! `alcedo region`: the local region, from its start to its reset.

use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
};

use alcedo_pipeline::file::Aws;
use alcedo_stages::clients::Clients;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    local_region::{
        folder::Folder,
        record::Record,
        serve::serve,
        settings::{PORT, Profile, Wishes},
        start::start,
        stop::{Stopped, reset, stop},
    },
    session::Session,
    words::{ago, bytes},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Its state is kept in $ALCEDO_REGION_DIR, else in $XDG_STATE_HOME/alcedo/region, else in ~/.local/state/alcedo/region.

Examples:
  alcedo region start
  alcedo region start --lag propagation=10s --lag balancer-nodes=4
  eval \"$(alcedo region env)\" && aws ec2 describe-instances
  alcedo region reset --yes")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the local region in the background and wait until it answers
    Start(Start),
    /// End the local region and its servers; its state stays
    Stop,
    /// Show whether the local region runs, and what runs in it
    Status,
    /// End the local region and remove everything it ever made
    Reset {
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
    },
    /// Print the variables that point AWS CLI, boto3 and Packer at the local region
    Env,
    /// Serve the region of a folder in the foreground
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        forget_servers: bool,
    },
}

#[derive(Debug, Args)]
struct Start {
    /// Choose its delays and limits; kept for later starts [default: quick]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Set one delay or limit, such as propagation=2s or balancer-nodes=4; kept until a --profile is named
    #[arg(long, value_name = "NAME=VALUE", value_parser = lag)]
    lag: Vec<(String, String)>,
    /// Listen on this port of 127.0.0.1; kept for later starts
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), help = port_help())]
    port: Option<u16>,
    /// Name the engine's network and containers; fixed until a reset [default: local]
    #[arg(long)]
    name: Option<String>,
    /// Go on without servers that the container engine has no more; they count as terminated
    #[arg(long)]
    forget_servers: bool,
}

fn lag(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn port_help() -> String {
    format!("Listen on this port of 127.0.0.1; kept for later starts [default: {PORT}]")
}

pub fn run(arguments: Arguments, session: &Session) -> Result {
    session.block_on(async {
        match arguments.command {
            Command::Start(wishes) => start_region(wishes, session).await,
            Command::Stop => stop_region(session).await,
            Command::Status => status(session).await,
            Command::Reset { yes } => reset_region(yes, session).await,
            Command::Env => env(session).await,
            Command::Serve { folder, forget_servers } => serve(&Folder::at(&folder), forget_servers).await,
        }
    })
}

async fn start_region(wishes: Start, session: &Session) -> Result {
    let Start { profile, lag: lags, port, name, forget_servers } = wishes;
    let started = start(&Folder::find()?, &Wishes { name, port, profile, lags, forget_servers }).await?;
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "already": started.already, "region": public(&started.record) }));
        return Ok(ExitCode::DONE);
    }
    let Record { name, endpoint, pid, profile, .. } = &started.record;
    let verb = if started.already { "runs already" } else { "runs" };
    session.output.text(&format!(
        "local region {name} {verb} at {endpoint} (profile {}, process {pid})\n\
         point other tools at it: eval \"$(alcedo region env)\"\n",
        profile.name()
    ));
    Ok(ExitCode::DONE)
}

async fn stop_region(session: &Session) -> Result {
    let stopped = stop(&Folder::find()?).await?;
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "stopped": matches!(stopped, Stopped::Ended { .. }) }));
        return Ok(ExitCode::DONE);
    }
    session.output.text(&match stopped {
        Stopped::Ended { pid } => format!("the local region (process {pid}) has ended; its state stays\n"),
        Stopped::NotRunning => "the local region does not run\n".to_owned(),
    });
    Ok(ExitCode::DONE)
}

async fn reset_region(yes: bool, session: &Session) -> Result {
    let folder = Folder::find()?;
    if !yes && folder.exists() {
        let what = format!("everything of the local region, {} in {}", bytes(folder.size()), folder.path().display());
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format!("reset removes {what}")).hint("--yes says that you mean it"));
        }
        session.output.note(&format!("Remove {what}? [y/N] "));
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_err() || !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            return Err(Failure::failed("nothing was removed"));
        }
    }
    let freed = reset(&folder).await?;
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "freed_bytes": freed }));
    } else {
        session.output.text(&format!("the local region is gone; {} are free again\n", bytes(freed)));
    }
    Ok(ExitCode::DONE)
}

/// What runs in the region, as AWS's API tells it.
struct Inventory {
    /// Id, state, image and private address of each instance that is not terminated.
    instances: Vec<[String; 4]>,
    /// Name and URL of each listener of each load balancer.
    listeners: Vec<[String; 2]>,
}

async fn status(session: &Session) -> Result {
    let folder = Folder::find()?;
    let Some(record) = Record::running(&folder).await? else {
        let size = folder.size();
        if session.output.is_json() {
            session.output.json(&json!({ "v": 1, "running": false, "folder": folder.path(), "bytes": size }));
        } else {
            let path = folder.path().display();
            session.output.text(&format!("the local region does not run; its state in {path} takes {}\n", bytes(size)));
        }
        return Ok(ExitCode::DONE);
    };
    let inventory = inventory(&record).await?;
    if session.output.is_json() {
        let Inventory { instances, listeners } = inventory;
        session.output.json(&json!({
            "v": 1,
            "running": true,
            "region": public(&record),
            "folder": folder.path(),
            "bytes": folder.size(),
            "instances": instances.iter().map(|[id, state, image, address]| {
                json!({ "id": id, "state": state, "image": image, "private_address": address })
            }).collect::<Vec<_>>(),
            "listeners": listeners.iter().map(|[name, url]| json!({ "load_balancer": name, "url": url }))
                .collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::DONE);
    }
    session.output.text(&describe(&record, &folder, &inventory));
    Ok(ExitCode::DONE)
}

fn describe(record: &Record, folder: &Folder, inventory: &Inventory) -> String {
    let Record { name, endpoint, pid, profile, started, .. } = record;
    let mut text = format!(
        "local region {name} at {endpoint}\n  process    {pid}, started {}\n  profile    {}\n  state      {} in {}\n  \
         log        {}\n  servers    {}\n",
        ago(*started, Timestamp::now()),
        profile.name(),
        bytes(folder.size()),
        folder.path().display(),
        folder.log().display(),
        inventory.instances.len(),
    );
    for [id, state, image, address] in &inventory.instances {
        text.push_str(&format!("    {id}  {state:<13}  {address:<15}  {image}\n"));
    }
    text.push_str(&format!("  listeners  {}\n", inventory.listeners.len()));
    for [name, url] in &inventory.listeners {
        text.push_str(&format!("    {name}  {url}\n"));
    }
    text
}

async fn inventory(record: &Record) -> Result<Inventory> {
    let failed = |what: &str| format!("the local region does not list its {what}");
    let clients = Clients::connect(&Aws::default(), Some(&record.local_endpoint())).await;
    let mut instances = Vec::new();
    let mut pages = clients.ec2.describe_instances().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| Failure::failed(failed("instances")).because(&error))?;
        for instance in page.reservations().iter().flat_map(|reservation| reservation.instances()) {
            let state = instance.state().and_then(|state| state.name()).map_or("unknown", |name| name.as_str());
            if state != "terminated" {
                let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
                instances.push([
                    text(instance.instance_id()),
                    state.to_owned(),
                    text(instance.image_id()),
                    text(instance.private_ip_address()),
                ]);
            }
        }
    }
    let mut listeners = Vec::new();
    let balancers = clients.elb.describe_load_balancers().send().await;
    for balancer in
        balancers.map_err(|error| Failure::failed(failed("load balancers")).because(&error))?.load_balancers()
    {
        let name = balancer.load_balancer_name().unwrap_or_default();
        let host = balancer.dns_name().unwrap_or_default();
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        let answer = clients.elb.describe_listeners().load_balancer_arn(arn).send().await;
        for listener in answer.map_err(|error| Failure::failed(failed("listeners")).because(&error))?.listeners() {
            let port = listener.port().unwrap_or_default();
            listeners.push([name.to_owned(), format!("http://{host}:{port}")]);
        }
    }
    Ok(Inventory { instances, listeners })
}

async fn env(session: &Session) -> Result {
    let Some(record) = Record::running(&Folder::find()?).await? else {
        return Err(Failure::failed("the local region does not run").hint("alcedo region start"));
    };
    let check_ip = format!("{}/checkip", record.endpoint);
    let variables = [
        ("AWS_ENDPOINT_URL", record.endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", &record.access_key),
        ("AWS_SECRET_ACCESS_KEY", &record.secret_key),
        ("AWS_REGION", &record.region),
        ("AWS_DEFAULT_REGION", &record.region),
        ("ALCEDO_CHECK_IP_URL", &check_ip),
    ];
    if session.output.is_json() {
        let map: serde_json::Map<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        session.output.json(&map);
        return Ok(ExitCode::DONE);
    }
    let mut text = String::new();
    for (name, value) in variables {
        text.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    // Packer's plugin reads no endpoint from the environment; its builder takes one in the template.
    text.push_str("# Packer: custom_endpoint_ec2 = var.custom_endpoint_ec2 in the amazon-ebs source, and\n");
    text.push_str(&format!("export PKR_VAR_custom_endpoint_ec2={}\n", quoted(&record.endpoint)));
    session.output.text(&text);
    Ok(ExitCode::DONE)
}

/// A word for a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A record without its secret, which is asked for with `region env` alone.
fn public(record: &Record) -> serde_json::Value {
    json!({
        "name": record.name,
        "endpoint": record.endpoint,
        "region": record.region,
        "profile": record.profile,
        "pid": record.pid,
        "started": record.started,
    })
}
