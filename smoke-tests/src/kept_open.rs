//! `http.kept_open`: does the server keep an idle connection for longer than a balancer does?
//!
//! A balancer keeps connections to its targets for as long as its idle timeout says (60 s by default), and may send a request
//! in the last moment of it. A server that closes first makes the balancer answer that request with 502.

use std::time::Duration;

use alcedo_pipeline::{suite::HttpCheck, units::Span};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use crate::{http::chain, report::Failure, target::Target};

/// Asks, waits, and asks again over the same connection. The caller sets the deadline.
pub async fn check(check: &HttpCheck, target: &Target, idle: Span) -> Result<(), Failure> {
    let expected = || format!("a connection that still answers after {idle} without a request");
    let failed = |actual: String| Failure::new(expected(), actual);
    if target.url.scheme() != "http" {
        return Err(failed(format!("{}: only plain HTTP is looked at, as balancers speak it to servers", target.url)));
    }
    let port = target.url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((target.host.as_str(), port)).await.map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| failed(chain(&error)))?;
    let mut connection = tokio::spawn(connection);
    let host = format!("{}:{port}", target.host);
    for turn in ["first", "second"] {
        let request = Request::get(check.path.as_str()).header("host", &host).body(Empty::new());
        let request = request.map_err(|error| failed(format!("no request can be made of {}: {error}", check.path)))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| failed(format!("no answer to the {turn} request: {}", chain(&error))))?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|error| failed(format!("half an answer: {}", chain(&error))))?;
        if status.as_u16() != check.status {
            return Err(failed(format!("status {status} to the {turn} request")));
        }
        if turn == "second" {
            break;
        }
        let begun = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(idle.duration()) => {}
            _ = &mut connection => {
                let after = Span::from(Duration::from_secs(begun.elapsed().as_secs()));
                return Err(failed(format!("the server closed it after {after}"))
                    .with_detail("its keep-alive timeout must be longer than the balancer's idle timeout, 60 s by default"));
            }
        }
    }
    connection.abort();
    Ok(())
}
