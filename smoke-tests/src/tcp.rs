//! `tcp`: does the server accept a connection?

use alcedo_pipeline::suite::TcpCheck;
use tokio::net::TcpStream;

use crate::{report::Failure, target::Target};

/// Connects once and closes. The caller sets the deadline.
pub async fn check(check: &TcpCheck, target: &Target) -> Result<(), Failure> {
    let port = check.port.unwrap_or(target.app_port);
    match TcpStream::connect((target.host.as_str(), port)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(format!("a TCP connection to {}:{port}", target.host), error.to_string())),
    }
}
