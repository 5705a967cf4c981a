//! One health check: an HTTP request, and what its answer says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::state::elbv2::{HealthCheck, health::Failure};

/// The `User-Agent` of AWS's health checks.
const USER_AGENT: &str = "ELB-HealthChecker/2.0";

/// What is checked, and how.
#[derive(Debug, Clone)]
pub struct Probe {
    pub target_id: String,
    /// Where the check is sent; its port may differ from the one that takes requests.
    pub address: SocketAddr,
    pub settings: HealthCheck,
}

/// What carries health checks out.
#[async_trait]
pub trait Prober: Send + Sync + 'static {
    async fn check(&self, probe: &Probe) -> Result<(), Failure>;
}

/// Checks by HTTP requests, as AWS does.
#[derive(Debug, Default)]
pub struct HttpProber;

#[async_trait]
impl Prober for HttpProber {
    async fn check(&self, probe: &Probe) -> Result<(), Failure> {
        let timeout: Duration = probe.settings.timeout();
        match tokio::time::timeout(timeout, status(probe)).await {
            Ok(Some(status)) if probe.settings.matcher.accepts(status) => Ok(()),
            Ok(Some(status)) => Err(Failure::CodeMismatch(status)),
            Ok(None) => Err(Failure::Broken),
            Err(_) => Err(Failure::Timeout),
        }
    }
}

/// The status of the answer; `None` where there is no connection or no HTTP on it.
async fn status(probe: &Probe) -> Option<u16> {
    let stream = TcpStream::connect(probe.address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(&probe.settings.path)
        .header(header::HOST, probe.address.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // Both end here, and with them the connection: a check keeps none open. The connection may end first, when the
    // server closes it with its answer, which is then there to be taken.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    answer.ok().map(|answer| answer.status().as_u16())
}

/// Checks instances by their records, for regions without an engine: a server that runs passes. Addresses are checked
/// by HTTP requests.
pub struct RecordsProber {
    pub runs: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

#[async_trait]
impl Prober for RecordsProber {
    async fn check(&self, probe: &Probe) -> Result<(), Failure> {
        if !probe.target_id.starts_with("i-") {
            return HttpProber.check(probe).await;
        }
        if (self.runs)(&probe.target_id) { Ok(()) } else { Err(Failure::Broken) }
    }
}
