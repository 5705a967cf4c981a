//! What the container engine holds of a region.

use std::collections::HashMap;

use alcedo_images::engine::{self, Engine};
use bollard::{
    exec::StartExecResults,
    models::ExecConfig,
    query_parameters::{ListContainersOptions, ListImagesOptions, ListNetworksOptions},
};
use futures::StreamExt;

/// On everything that a region makes; the value is the region's name.
const REGION_LABEL: &str = "io.alcedo.region";

/// The engine that the tests need. A test that cannot run has not passed.
pub async fn connect() -> Engine {
    engine::connect().await.unwrap_or_else(|error| {
        panic!("these tests need a container engine, and {error}\n{}\n`cargo xtask test` sets one up", error.hint())
    })
}

/// What a program says on a server.
pub async fn ask(engine: &Engine, region: &str, instance: &str, program: &[&str]) -> String {
    let docker = engine.docker();
    let config = ExecConfig {
        attach_stdout: Some(true),
        cmd: Some(program.iter().map(|&word| word.to_owned()).collect()),
        ..ExecConfig::default()
    };
    let server = format!("alcedo-{region}-{instance}");
    let exec = docker.create_exec(&server, config).await.expect("a server runs programs").id;
    let started = docker.start_exec(&exec, None).await.expect("the program is started");
    let StartExecResults::Attached { output, .. } = started else { panic!("{program:?} is not attached") };
    let chunks: Vec<_> = output.map(|chunk| chunk.expect("its output is read").to_string()).collect().await;
    chunks.concat()
}

/// The names of a region's containers, networks and images.
pub async fn of_region(engine: &Engine, region: &str) -> Vec<String> {
    let filters = || Some(HashMap::from([("label".to_owned(), vec![format!("{REGION_LABEL}={region}")])]));
    let docker = engine.docker();
    let containers = ListContainersOptions { all: true, filters: filters(), ..ListContainersOptions::default() };
    let containers = docker.list_containers(Some(containers)).await.expect("the engine lists containers");
    let networks = ListNetworksOptions { filters: filters() };
    let networks = docker.list_networks(Some(networks)).await.expect("the engine lists networks");
    let images = ListImagesOptions { all: true, filters: filters(), ..ListImagesOptions::default() };
    let images = docker.list_images(Some(images)).await.expect("the engine lists images");

    let mut found: Vec<String> =
        containers.into_iter().map(|it| format!("container {}", it.names.unwrap_or_default().join(", "))).collect();
    found.extend(networks.into_iter().map(|it| format!("network {}", it.name.unwrap_or_default())));
    found.extend(images.into_iter().map(|it| format!("image {} {}", it.id, it.repo_tags.join(", "))));
    found.sort();
    found
}
