//! What happens on the builder between its boot and its image.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use alcedo_images::{
    base_match::{self, BaseMismatch},
    fingerprint::{self as image, ImageInputs, ImageParts},
    inspect, packages,
    provision::{self, ProvisionInput},
    scrub,
    session::Session,
};
use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    file::Bake,
    suite::Check,
    version::Version,
};
use alcedo_smoke_tests::{Target, run};
use aws_sdk_s3::presigning::PresigningConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{BUILDER, MadeBuilder, release};
use crate::{
    build::{self, Built, sink},
    cloud_error::CloudError,
    facts::BaseImage,
    parts::Parts,
    releases::{self, Manifest},
    site::Site,
    smoke,
    ssh::{self, Login},
    workshop::Workshop,
};

/// How long the builder may fetch the artifact by its presigned address.
const PRESIGNED: Duration = Duration::from_secs(900);

/// Pins, provisions, checks and scrubs the builder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvisionBuilder {
    pub bake: Bake,
    pub base: BaseImage,
    pub own_address: Ipv4Addr,
}

impl ProvisionBuilder {
    /// All of it within the stage's deadline: a script that hangs would hold the lock, and SSH open, for ever.
    pub async fn run(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let work = self.provision(site, shop, context);
        tokio::time::timeout(self.bake.timeout.duration(), work).await.unwrap_or_else(|_| {
            let message = format!("the builder was not provisioned within {}", self.bake.timeout);
            Err(StepError::new(ErrorKind::TimedOut, message)
                .hint("look at what the last step was doing, or raise bake.timeout"))
        })
    }

    async fn provision(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let made: MadeBuilder = context.output(BUILDER)?;
        let release = release(site, context).await?;
        let key = shop.key().await?;
        let login =
            Login { user: &self.bake.ssh_user, port: self.bake.ssh_port, private_address: self.bake.private_address };
        let deadline = self.bake.timeout.duration();
        let begun = Instant::now();
        // While the builder boots; and what is not to be unpacked is refused before anybody is let in.
        let archive = self.archive(site, shop, context, &release).await?;
        let session = ssh::open(&site.clients, context, &made.server, login, key, deadline).await?;
        let booted = begun.elapsed();
        let steps = provision::load(&site.folder, &self.bake.provision).map_err(failed)?;
        let steps = provision::plan(&ProvisionInput {
            app: site.pipeline.app.clone(),
            version: release.version.to_string(),
            install_path: install_path(site),
            artifact_url: self.artifact_url(site, release.version).await?,
            artifact_sha256: release.sha256.clone(),
            steps,
        })
        .map_err(failed)?;
        let sink = sink(context);
        let begun = Instant::now();
        provision::execute(&session, &steps, key, &sink, context.cancellation()).await.map_err(failed)?;
        self.match_base(&session, archive, &release).await?;
        let passed = self.check(site, context, &session).await?;
        let users_work = begun.elapsed();
        let listed = packages::ask(&session).await;
        let installed =
            listed.map_err(|error| StepError::failed("the builder did not tell its packages").because(error))?;
        if installed.manager.is_none() {
            context.warn(
                "the builder has neither dpkg nor rpm: its bill of materials names no packages",
                Some("what is on it is known to whoever made its base and its provisioning".to_owned()),
            );
        }
        let packages = installed.packages.len();
        shop.keep_installed(installed);
        scrub::scrub(&session, &scrub::steps(key.public_base64()), &sink)
            .await
            .map_err(|error| StepError::failed("the builder could not be scrubbed").because(error))?;
        // The image is taken from the builder as it stands; an orderly goodbye is worth no failure.
        let _ = session.close().await;
        Ok(json!({
            "checks": passed,
            "packages": packages,
            // Until the builder let somebody in; and what the file's own commands and checks took.
            "boot_seconds": booted.as_secs_f64(),
            "commands_seconds": users_work.as_secs_f64(),
        }))
    }

    /// A recipe's digest says that builder and build have the same root; the planner has compared it. A vendor's image has
    /// no such digest, so the builder itself is asked, once provisioning may have added libraries.
    async fn match_base(&self, session: &Session, archive: PathBuf, release: &Manifest) -> Result<(), StepError> {
        if self.base.recipe_digest.is_some() {
            return Ok(());
        }
        let server = base_match::ask(session).await.map_err(mismatch)?;
        let needs = tokio::task::spawn_blocking(move || base_match::needs(&archive))
            .await
            .map_err(|error| StepError::failed("reading the artifact was cut off").because(error))?
            .map_err(mismatch)?;
        base_match::fits(&needs, &release.platform, &server).map_err(mismatch)
    }

    /// The artifact on this machine, in which nothing is that has no place there: a server unpacks it as root, and whoever can
    /// write the bucket could have put it there.
    async fn archive(
        &self,
        site: &Site,
        shop: &Workshop,
        context: &StepContext,
        release: &Manifest,
    ) -> Result<PathBuf, StepError> {
        let archive = match context.maybe_output::<Built>(build::RUN)? {
            // What is inspected has to be what the server fetches.
            Some(built) if built.sha256 != release.sha256 => {
                return Err(StepError::new(
                    ErrorKind::Changed,
                    format!("the manifest of {} is not the one that this run has published", release.version),
                )
                .hint("find out who wrote it to the bucket; build again"));
            }
            // Another machine's archive is not here.
            Some(built) if built.archive.exists() => built.archive,
            _ => self.download(site, shop, release).await?,
        };
        let looked_at = archive.clone();
        let looked = tokio::task::spawn_blocking(move || inspect::inspect(&looked_at)).await;
        let looked = looked.map_err(|error| StepError::failed("reading the artifact was cut off").because(error))?;
        looked.map_err(|refused| {
            let version = release.version;
            StepError::failed(format!("the artifact of {version} is not unpacked: {refused}"))
                .hint("alcedo has not packed this: find out who wrote it to the bucket, and build again")
                .because(refused)
        })?;
        Ok(archive)
    }

    /// Fetches the artifact of a release that was built elsewhere, and checks its digest.
    async fn download(&self, site: &Site, shop: &Workshop, release: &Manifest) -> Result<PathBuf, StepError> {
        let key = releases::artifact_key(&site.root, release.version);
        let call = site.clients.s3.get_object().bucket(site.bucket()).key(&key);
        let answer = call.send().await.map_err(|error| CloudError::of(format!("fetch {key}"), error))?;
        let path = shop.archive();
        let unwritable = |error| StepError::failed("the artifact could not be kept on this machine").because(error);
        let mut file = tokio::fs::File::create(&path).await.map_err(unwritable)?;
        tokio::io::copy(&mut answer.body.into_async_read(), &mut file).await.map_err(unwritable)?;
        file.sync_all().await.map_err(unwritable)?;
        let digest = sha256_of(path.clone()).await?;
        if digest != release.sha256 {
            return Err(StepError::failed(format!(
                "{key} has the digest {digest}; its manifest says {}",
                release.sha256
            ))
            .hint("the artifact was changed after it was published: do not deploy it; build again"));
        }
        Ok(path)
    }

    /// A short-lived address that only reads this one object. Servers cannot reach this machine's loopback, so a local
    /// region is named by its address on the engine's network.
    async fn artifact_url(&self, site: &Site, version: Version) -> Result<String, StepError> {
        let mut config = site.clients.s3.config().to_builder();
        if let Some(endpoint) = site.endpoint_for_servers(self.own_address) {
            config = config.endpoint_url(endpoint);
        }
        let client = aws_sdk_s3::Client::from_conf(config.build());
        let presigning = PresigningConfig::expires_in(PRESIGNED)
            .map_err(|error| StepError::failed("the artifact's address could not be signed").because(error))?;
        let call = client.get_object().bucket(site.bucket()).key(releases::artifact_key(&site.root, version));
        let request =
            call.presigned(presigning).await.map_err(|error| CloudError::of("sign the artifact's address", error))?;
        Ok(request.uri().to_owned())
    }

    /// Runs the image checks on the provisioned builder.
    async fn check(
        &self,
        site: &Site,
        context: &StepContext,
        session: &alcedo_images::session::Session,
    ) -> Result<usize, StepError> {
        if self.bake.checks.is_empty() {
            return Ok(0);
        }
        let target = Target::server(&session.target().host, site.pipeline.launch.port)
            .map_err(|error| StepError::failed("the builder's address is not one").because(error))?;
        let show = |event| smoke::show(context, "image", &event);
        let report = tokio::select! {
            report = run(&self.bake.checks, &target, Some(session), &show) => report,
            () = context.cancellation().cancelled() => return Err(StepError::interrupted()),
        };
        if report.passed() {
            return Ok(report.results.len());
        }
        let failures: Vec<String> = smoke::in_words(&report).collect();
        let step = StepError::failed(format!("{} image checks failed; no image was made", failures.len()));
        Err(smoke::because_of_all(step, failures))
    }
}

async fn sha256_of(path: PathBuf) -> Result<String, StepError> {
    let digest = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
        let mut hasher = Sha256::new();
        std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
        Ok(hex::encode(hasher.finalize()))
    });
    digest
        .await
        .map_err(|error| StepError::failed("reading the artifact was cut off").because(error))?
        .map_err(|error| StepError::failed("the artifact cannot be read back").because(error))
}

fn mismatch(error: BaseMismatch) -> StepError {
    let hint = error.hint();
    let step = StepError::failed("the artifact does not fit the server image's base").because(error);
    hint.into_iter().fold(step, StepError::hint)
}

fn failed(error: provision::ProvisionError) -> StepError {
    if matches!(error, provision::ProvisionError::Cancelled) {
        return StepError::interrupted();
    }
    let hint = error.hint();
    let last: Vec<String> = error.last_lines().to_vec();
    let mut step = StepError::failed("the builder could not be provisioned");
    if !last.is_empty() {
        step = step.hint(format!("its last lines:\n  {}", last.join("\n  ")));
    }
    hint.into_iter().fold(step, StepError::hint).because(error)
}

/// Where the artifact is unpacked on a server.
fn install_path(site: &Site) -> String {
    let path = site.pipeline.bake.install_path.as_ref();
    path.map_or_else(|| format!("/opt/{}", site.pipeline.app), |path| path.to_string_lossy().into_owned())
}

/// The fingerprint of everything that goes into an image: the same inputs need no second bake.
pub fn fingerprint(
    site: &Site,
    base: &BaseImage,
    artifact_sha256: &str,
    version: Version,
) -> Result<String, StepError> {
    with_inputs(site, base, artifact_sha256, &version.to_string(), image::fingerprint)
}

/// What goes into an image beside its version, to be compared with another's.
pub fn parts(site: &Site, base: &BaseImage) -> Result<Parts, StepError> {
    with_inputs(site, base, "", "", |inputs| ImageParts::of(inputs).into())
}

fn with_inputs<T>(
    site: &Site,
    base: &BaseImage,
    artifact_sha256: &str,
    version: &str,
    make: impl FnOnce(&ImageInputs<'_>) -> T,
) -> Result<T, StepError> {
    let bake = &site.pipeline.bake;
    let steps = provision::load(&site.folder, &bake.provision).map_err(failed)?;
    let checks: &[Check] = &bake.checks;
    Ok(make(&ImageInputs {
        base: base.recipe_digest.as_deref().unwrap_or(&base.ami),
        artifact_sha256,
        app: &site.pipeline.app,
        version,
        install_path: &install_path(site),
        steps: &steps,
        checks,
    }))
}
