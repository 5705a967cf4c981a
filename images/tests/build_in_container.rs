//! Builds in real containers.

mod common;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use alcedo_images::{
    Engine,
    base::BuildBase,
    build::{self, BuildError, BuildOutcome, BuildSpec},
    build_image::{self, BuildRoot, BuildRootError},
    engine,
    event::{ImageEvent, silent},
    leftover::{self, BUILD_LABEL},
};
use alcedo_pipeline::file;
use bollard::{
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, ListContainersOptions, RemoveVolumeOptions, StartContainerOptions},
};
use common::{base, lines, recording, write};
use tokio::net::{TcpListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// The recipe's root without any package added: nothing here needs the network.
async fn root(engine: &Engine) -> BuildRoot {
    let base = base(engine).await;
    build_image::of_recipe(engine, &base, &[], &silent(), &CancellationToken::new()).await.unwrap()
}

/// `build:` as a user would write it.
fn spec(app: &str, source: &Path, root: BuildRoot, build: serde_json::Value) -> BuildSpec {
    let build: file::Build = serde_json::from_value(build).unwrap();
    BuildSpec::new(app, source, &build, root)
}

async fn run(engine: &Engine, spec: &BuildSpec, out: &Path) -> Result<BuildOutcome, BuildError> {
    build::run(engine, spec, out, &silent(), &CancellationToken::new()).await
}

async fn containers(engine: &Engine, app: &str) -> Vec<String> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{BUILD_LABEL}={app}")])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
    let found = engine.docker().list_containers(Some(options)).await.unwrap();
    found.into_iter().filter_map(|container| container.id).collect()
}

/// Waits until the engine has no container of the app, for what is removed in the background.
async fn until_none(engine: &Engine, app: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !containers(engine, app).await.is_empty() {
        assert!(Instant::now() < deadline, "a container of {app} is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn paths(outcome: &BuildOutcome) -> Vec<&str> {
    outcome.artifact.entries.iter().map(|entry| &*entry.path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_gives_an_artifact_that_follows_from_its_content() {
    let (engine, app) = (common::engine().await, "it-digest");
    let root = root(&engine).await;
    let build = serde_json::json!({
        "recipe": "debian-bookworm",
        "commands": [
            "mkdir -p dist/bin dist/empty",
            "sed s/WHAT/world/ hello.in >dist/bin/hello && chmod 700 dist/bin/hello",
            "ln -s bin/hello dist/alias && ln dist/bin/hello dist/bin/same",
            "touch dist/app.js.map && date +%s%N >stamp",
        ],
        "pack": ["dist/", "conf/*.conf"],
        "exclude": ["**/*.map"],
    });
    let mut digests = Vec::new();
    for stamp in ["one", "two"] {
        let source = tempfile::tempdir().unwrap();
        write(
            source.path(),
            &[
                ("hello.in", "#!/bin/sh\necho hello WHAT\n"),
                ("conf/a.conf", "a"),
                ("conf/b.txt", "b"),
                (".gitignore", "ignored\n"),
                ("ignored", stamp),
            ],
        );
        let out = source.path().join("artifact.tar.zst");
        let outcome = run(&engine, &spec(app, source.path(), root.clone(), build.clone()), &out).await.unwrap();
        assert_eq!(paths(&outcome), ["alias", "bin/hello", "bin/same", "conf/a.conf", "empty"]);
        assert_eq!(outcome.artifact.size, fs::metadata(&out).unwrap().len());
        assert_eq!((&*outcome.platform.os, &*outcome.platform.os_version), ("debian", "12"));
        assert!(outcome.platform.libc.starts_with("glibc "), "{:?}", outcome.platform);
        assert!(matches!(&outcome.base, BuildBase::Recipe { name, .. } if name == "debian-bookworm"));
        assert_eq!(outcome.commit, None, "no repository");
        digests.push(outcome.artifact.sha256);

        let unpacked = source.path().join("unpacked");
        let mut tar = tar::Archive::new(zstd::Decoder::new(fs::File::open(&out).unwrap()).unwrap());
        tar.unpack(&unpacked).unwrap();
        assert_eq!(fs::read_to_string(unpacked.join("alias")).unwrap(), "#!/bin/sh\necho hello world\n");
        let mode = fs::metadata(unpacked.join("bin/hello")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "modes are normal, whatever the build left");
    }
    assert_eq!(digests[0], digests[1], "another checkout, another time, the same artifact");
    assert!(containers(&engine, app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_keep_their_order() {
    let engine = common::engine().await;
    let source = tempfile::tempdir().unwrap();
    let build = serde_json::json!({
        "recipe": "debian-bookworm",
        "working_directory": "app",
        "environment": { "GREETING": "it's $HOME" },
        "commands": ["echo \"$GREETING\"; pwd; echo oops >&2; printf unfinished", "touch out"],
        "pack": ["out"],
    });
    write(source.path(), &[("app/file", "x")]);
    let (sink, seen) = recording();
    let spec = spec("it-lines", source.path(), root(&engine).await, build);
    build::run(&engine, &spec, &source.path().join("out"), &sink, &CancellationToken::new()).await.unwrap();
    assert_eq!(lines(&seen), ["it's $HOME", "/src/app", "oops", "unfinished"]);
    let events = seen.lock().unwrap();
    let started: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            ImageEvent::Started { what } => Some(what.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(started.len(), 3, "{started:?}");
    let at = |wanted: &dyn Fn(&ImageEvent) -> bool| events.iter().position(wanted).unwrap();
    assert!(
        at(&|event| matches!(event, ImageEvent::Line { text, .. } if text == "unfinished"))
            < at(&|event| matches!(event, ImageEvent::Started { what } if what == "touch out")),
        "a command's lines come before the next command"
    );
}

/// An engine on another machine is reached over TCP and shares no files with this one. Here it is the same engine behind
/// a relay, so anything mounted would still be seen: what shows that nothing is, is that the container has no mounts.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_behind_tcp_builds_as_well() {
    let (near, app) = (common::engine().await, "it-tcp");
    let far = match near.address().strip_prefix("unix://") {
        None => near.clone(),
        Some(socket) => {
            let (listener, socket) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), socket.to_owned());
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((mut client, _)) = listener.accept().await {
                    let mut engine = UnixStream::connect(&socket).await.unwrap();
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut engine).await });
                }
            });
            engine::connect_to(&format!("tcp://{address}")).await.unwrap()
        }
    };
    let source = tempfile::tempdir().unwrap();
    write(source.path(), &[("in", "brought over")]);
    let build = serde_json::json!({
        "recipe": "debian-bookworm", "commands": ["grep ' /src' /proc/self/mounts || cp in out"], "pack": ["out"]
    });
    let spec = spec(app, source.path(), root(&far).await, build);
    let outcome = run(&far, &spec, &source.path().join("artifact")).await.unwrap();
    assert_eq!(paths(&outcome), ["out"]);
    assert!(containers(&far, app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_told_with_its_last_words() {
    let (engine, app) = (common::engine().await, "it-fails");
    let source = tempfile::tempdir().unwrap();
    let build = serde_json::json!({
        "recipe": "debian-bookworm",
        "commands": ["seq 100; echo the reason >&2; exit 7", "echo unreached"],
        "pack": ["out"],
    });
    let (sink, seen) = recording();
    let spec = spec(app, source.path(), root(&engine).await, build);
    let out = source.path().join("out");
    let error = build::run(&engine, &spec, &out, &sink, &CancellationToken::new()).await.unwrap_err();
    let BuildError::Command { exit_code, last_lines, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*exit_code, 7);
    assert!(last_lines.contains(&"the reason".to_owned()) && last_lines.contains(&"100".to_owned()), "{last_lines:?}");
    assert_eq!(last_lines.len(), 30);
    assert!(!lines(&seen).contains(&"unreached".to_owned()));
    assert!(!out.exists());
    assert!(containers(&engine, app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_are_kept_between_builds() {
    let (engine, app) = (common::engine().await, "it-cache");
    let source = tempfile::tempdir().unwrap();
    let root = root(&engine).await;
    let build = serde_json::json!({
        "recipe": "debian-bookworm",
        // The second is inside the source, as compilers' folders are, and what is packed lies in it.
        "cache": ["/var/cache/count", "/src/target"],
        "commands": [
            "echo x >>/var/cache/count/runs; echo x >>/elsewhere; echo x >>target/runs",
            "cat /var/cache/count/runs /elsewhere target/runs | wc -l >target/out",
        ],
        "pack": ["target/out"],
    });
    let volumes = ["/var/cache/count", "/src/target"].map(|path| build::cache_volume(app, path, &root.base));
    for volume in &volumes {
        let _ = engine.docker().remove_volume(volume, None::<RemoveVolumeOptions>).await;
    }
    let mut counts = Vec::new();
    for _ in 0..2 {
        let out = source.path().join("artifact");
        run(&engine, &spec(app, source.path(), root.clone(), build.clone()), &out).await.unwrap();
        let mut tar = tar::Archive::new(zstd::Decoder::new(fs::File::open(&out).unwrap()).unwrap());
        counts.push(std::io::read_to_string(tar.entries().unwrap().next().unwrap().unwrap()).unwrap());
    }
    for volume in &volumes {
        engine.docker().remove_volume(volume, None::<RemoveVolumeOptions>).await.unwrap();
    }
    assert_eq!(counts, ["3\n", "5\n"], "the caches are kept, the rest is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_removes_the_container() {
    let (engine, app) = (common::engine().await, "it-cancel");
    let source = tempfile::tempdir().unwrap();
    let build =
        serde_json::json!({ "recipe": "debian-bookworm", "commands": ["echo begun; sleep 600"], "pack": ["out"] });
    let spec = spec(app, source.path(), root(&engine).await, build);
    let cancel = CancellationToken::new();
    // The first line of output cancels, which shows as well that output comes while the command runs.
    let sink: alcedo_images::event::Sink = {
        let cancel = cancel.clone();
        std::sync::Arc::new(move |event| {
            if matches!(event, ImageEvent::Line { .. }) {
                cancel.cancel();
            }
        })
    };
    let out = source.path().join("out");
    let error = build::run(&engine, &spec, &out, &sink, &cancel).await.unwrap_err();
    assert!(matches!(error, BuildError::Cancelled), "{error:?}");
    assert!(containers(&engine, app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_build_and_one_over_its_deadline_leave_nothing() {
    let (engine, app) = (common::engine().await, "it-late");
    let source = tempfile::tempdir().unwrap();
    let build = serde_json::json!({
        "recipe": "debian-bookworm", "commands": ["sleep 600"], "pack": ["out"], "timeout": "1s"
    });
    let spec = spec(app, source.path(), root(&engine).await, build);
    let out = source.path().join("out");
    let error = run(&engine, &spec, &out).await.unwrap_err();
    assert!(matches!(error, BuildError::TimedOut { after } if after == Duration::from_secs(1)), "{error:?}");
    assert!(containers(&engine, app).await.is_empty());

    let patient = BuildSpec { timeout: Duration::from_secs(600), ..spec };
    let dropped = tokio::time::timeout(Duration::from_secs(2), run(&engine, &patient, &out)).await;
    assert!(dropped.is_err(), "it was dropped while it ran");
    until_none(&engine, app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_is_swept_by_the_next_build() {
    let (engine, app) = (common::engine().await, "it-sweep");
    let root = root(&engine).await;
    // As a killed run leaves it: a container of the app, whose owner is a process that is no more.
    let dead = {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    };
    let world = format!(
        "{}/{}",
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim(),
        fs::read_link("/proc/self/ns/pid").unwrap().display()
    );
    let body = ContainerCreateBody {
        image: Some(root.reference.clone()),
        entrypoint: Some(vec!["sleep".into()]),
        cmd: Some(vec!["600".into()]),
        labels: Some(HashMap::from([
            (BUILD_LABEL.to_owned(), app.to_owned()),
            ("io.alcedo.build.owner".to_owned(), format!("{world} {dead} 1")),
        ])),
        ..Default::default()
    };
    let left = engine.docker().create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    engine.docker().start_container(&left, None::<StartContainerOptions>).await.unwrap();

    assert_eq!(leftover::sweep(&engine, "it-another-app").await.unwrap(), 0, "another app's are not touched");
    assert_eq!(containers(&engine, app).await, [left]);
    let source = tempfile::tempdir().unwrap();
    let build = serde_json::json!({ "recipe": "debian-bookworm", "commands": ["touch out"], "pack": ["out"] });
    run(&engine, &spec(app, source.path(), root, build), &source.path().join("artifact")).await.unwrap();
    assert!(containers(&engine, app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_built_is_said_in_the_files_words() {
    let engine = common::engine().await;
    let root = root(&engine).await;
    let source = tempfile::tempdir().unwrap();
    let out = source.path().join("out");
    let build = |changes: serde_json::Value| {
        let mut build = serde_json::json!({ "recipe": "debian-bookworm", "commands": ["true"], "pack": ["out"] });
        build.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        spec("it-wrong", source.path(), root.clone(), build)
    };
    let error = run(&engine, &build(serde_json::json!({})), &out).await.unwrap_err();
    assert_eq!(error.to_string(), "nothing to pack: `out` matches no file that the build left");
    let error = run(&engine, &build(serde_json::json!({ "working_directory": "gone" })), &out).await.unwrap_err();
    assert_eq!(error.to_string(), "the working directory `gone` is not in the source");
    let error = run(&engine, &build(serde_json::json!({ "commands": ["mkfifo out"] })), &out).await.unwrap_err();
    assert_eq!(error.to_string(), "`out` cannot be packed: it is a device, a socket or a pipe");
    let escape = build(serde_json::json!({ "commands": ["ln -s /etc/shadow out"] }));
    let error = run(&engine, &escape, &out).await.unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    assert!(containers(&engine, "it-wrong").await.is_empty());

    let none = CancellationToken::new();
    let error = build_image::of_image(&engine, "alcedo/no-such-image:none", &[], &silent(), &none).await.unwrap_err();
    assert!(matches!(&error, BuildRootError::NoImage { .. }), "{error:?}");
    assert_eq!(error.to_string(), "there is no image `alcedo/no-such-image:none`, and the engine cannot pull it");
}

#[tokio::test(flavor = "multi_thread")]
async fn build_packages_are_installed_once() {
    let engine = common::engine().await;
    let base = base(&engine).await;
    let cancel = CancellationToken::new();
    // One small package without dependencies. The image stays on the engine, which is what is tested.
    let packages = ["hello".to_owned()];
    build_image::of_recipe(&engine, &base, &packages, &silent(), &cancel).await.unwrap();
    let (sink, seen) = recording();
    let root = build_image::of_recipe(&engine, &base, &packages, &sink, &cancel).await.unwrap();
    assert!(seen.lock().unwrap().is_empty(), "nothing is done the second time");
    let labels = engine.docker().inspect_image(&root.reference).await.unwrap().config.unwrap().labels.unwrap();
    assert_eq!(labels["io.alcedo.build-root.base"], base.digest);
    assert_eq!(labels["io.alcedo.build-root.packages"], "hello");

    let source = tempfile::tempdir().unwrap();
    let build =
        serde_json::json!({ "recipe": "debian-bookworm", "commands": ["/usr/bin/hello >out"], "pack": ["out"] });
    run(&engine, &spec("it-packages", source.path(), root, build), &source.path().join("artifact")).await.unwrap();

    let wrong = ["no-such-package-anywhere".to_owned()];
    let error = build_image::of_recipe(&engine, &base, &wrong, &silent(), &cancel).await.unwrap_err();
    assert!(matches!(&error, BuildRootError::Install { exit_code: 100, .. }), "{error:?}");
    assert!(error.last_lines().iter().any(|line| line.contains("no-such-package-anywhere")), "{error:?}");
}
