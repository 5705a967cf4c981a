//! Runs a region by hand, for trying clients on it:
//!
//! ```text
//! cargo run -p alcedo-local-region --example serve -- <folder> [records-only]
//! ```
//!
//! It prints the variables that point AWS CLI and boto3 at it, and stops on Ctrl-C. A second run on the same folder goes
//! on from the first one's records.

use std::{path::PathBuf, sync::Arc};

use alcedo_local_region::{
    clock::SystemClock,
    config::{Backing, Capacity, Config, Lags},
    server,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or_else(|| anyhow::anyhow!("name a folder for the region"))?);
    let backing = match arguments.next().as_deref() {
        None => Backing::Containers,
        Some("records-only") => Backing::RecordsOnly,
        Some(other) => anyhow::bail!("there is no backing {other}"),
    };
    let folder = std::path::absolute(folder)?;
    let config = match Config::load(&folder)? {
        Some(config) => config,
        None => Config {
            name: "serve".to_owned(),
            folder,
            listen: "127.0.0.1:0".parse()?,
            region: "us-east-1".to_owned(),
            access_key: "AKIALOCALREGION".to_owned(),
            secret_key: "local-region-secret".to_owned(),
            backing,
            lags: Lags::quick(),
            capacity: Capacity::default(),
            forget_servers: false,
        },
    };
    let running = server::start(config.clone(), Arc::new(SystemClock)).await?;
    println!("export AWS_ENDPOINT_URL={}", running.endpoint);
    println!("export AWS_REGION={} AWS_DEFAULT_REGION={}", config.region, config.region);
    println!("export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}", config.access_key, config.secret_key);
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}
