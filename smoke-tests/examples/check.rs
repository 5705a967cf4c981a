//! Runs a suite file against a server, without anything else of Alcedo:
//!
//! ```text
//! cargo run -p alcedo-smoke-tests --example check -- suite.yaml http://localhost:8080
//! ```
//!
//! Exit code 0 where every check passed, 1 where one did not, 2 where the suite or the URL is no good.

use std::{path::Path, process::ExitCode};

use alcedo_smoke_tests::{CheckEvent, Target, run, suite};
use url::Url;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, url] = arguments.as_slice() else {
        eprintln!("usage: check SUITE.yaml URL");
        return ExitCode::from(2);
    };
    let (checks, target) = match load(Path::new(file), url) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let report = run(&checks, &target, None, &|event| {
        if let CheckEvent::Finished { result, .. } = event {
            match result.failure {
                None => println!("pass  {}  ({} ms)", result.title, result.took.as_millis()),
                Some(failure) => println!("FAIL  {}  {failure}\n      {}", result.title, failure.detail),
            }
        }
    })
    .await;
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Loaded = (Vec<alcedo_pipeline::suite::Check>, Target);

fn load(file: &Path, url: &str) -> Result<Loaded, Box<dyn std::error::Error>> {
    let checks = suite::load(&std::fs::read_to_string(file)?)?;
    let url = Url::parse(url)?;
    let (host, port) =
        (url.host_str().ok_or("the URL has no host")?, url.port_or_known_default().ok_or("the URL has no port")?);
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let mut target = Target::server(host, port)?;
    target.folder = if folder.as_os_str().is_empty() { ".".into() } else { folder };
    target.url = url;
    Ok((checks, target))
}
