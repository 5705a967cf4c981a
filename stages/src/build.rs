//! Build: the app's commands in a container whose root is the server's, packed into a deterministic archive.

use std::{path::PathBuf, sync::Arc};

use alcedo_images::{
    base::BuildBase,
    bootstrap::{self, BootstrapError},
    build::{self, BuildError, BuildSpec},
    build_image::{self, BuildRoot, BuildRootError},
    commit,
    engine::{self, Engine},
    event::{ImageEvent, Sink, silent},
    inputs, inspect,
    platform::Platform,
    recipe::Recipe,
};
use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    file,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{site::Site, workshop::Workshop};

/// The step that builds; others read what it made.
pub const RUN: &str = "build/run";

/// What there is to build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Fingerprint of everything that decides the result.
    pub inputs: String,
    /// The same part by part.
    #[serde(skip)]
    pub parts: inputs::Parts,
    pub base: BuildBase,
    pub commit: Option<String>,
    /// Whether the working tree has changes that no commit holds.
    pub dirty: bool,
}

/// What the build left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Built {
    pub archive: PathBuf,
    /// In hex.
    pub sha256: String,
    pub size_bytes: u64,
    pub base: BuildBase,
    pub platform: Platform,
    /// Seconds the app's own commands took: the rest is Alcedo's share.
    pub commands_seconds: f64,
}

/// Looks at the source without building it.
pub async fn source(site: &Site) -> Result<Source, StepError> {
    let settings = &site.pipeline.build;
    let base = base(site, settings).await?;
    // Only what the build runs in counts for its inputs, not what the engine calls it.
    let root = BuildRoot { reference: String::new(), base: base.clone(), packages: settings.packages.clone() };
    let spec = BuildSpec::new(&site.pipeline.app, &site.folder, settings, root);
    let (inputs, parts) = tokio::task::spawn_blocking(move || inputs::fingerprint(&spec))
        .await
        .map_err(|error| StepError::failed("reading the source was cut off").because(error))?
        .map_err(|error| StepError::failed("the source cannot be read").because(error))?;
    let commit = commit::of(&site.folder).await;
    Ok(Source {
        inputs,
        parts,
        base,
        commit: commit.as_ref().map(|commit| commit.id.clone()),
        dirty: commit.is_some_and(|commit| commit.dirty),
    })
}

/// The root that the build would run in. A recipe is known without an engine.
async fn base(site: &Site, settings: &file::Build) -> Result<BuildBase, StepError> {
    match (&settings.recipe, &settings.image) {
        (Some(name), _) => {
            let recipe = recipe(site, name)?;
            Ok(BuildBase::Recipe { name: name.clone(), digest: recipe.digest() })
        }
        (None, Some(reference)) => {
            let engine = connect().await?;
            let root = build_image::of_image(&engine, reference, &[], &silent(), &CancellationToken::new()).await;
            Ok(root.map_err(no_root)?.base)
        }
        (None, None) => Err(StepError::failed("build needs a recipe or an image")),
    }
}

/// A recipe that the file names: a built-in one, or a folder of the project.
pub fn recipe(site: &Site, name: &str) -> Result<Recipe, StepError> {
    let place = match name.contains('/') {
        true => site.folder.join(name).to_string_lossy().into_owned(),
        false => name.to_owned(),
    };
    Recipe::load(&place).map_err(|error| {
        let hint = error.hint();
        let error = StepError::failed(format!("recipe {name} cannot be used")).because(error);
        hint.into_iter().fold(error, StepError::hint)
    })
}

pub async fn connect() -> Result<Engine, StepError> {
    engine::connect().await.map_err(|error| {
        let hint = error.hint();
        StepError::new(ErrorKind::Service, "no container engine can be used").hint(hint).because(error)
    })
}

/// Runs the build in its container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunBuild {
    pub build: file::Build,
    pub inputs: String,
}

impl RunBuild {
    pub async fn run(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let here = source(site).await?;
        if here.inputs != self.inputs {
            return Err(StepError::new(
                ErrorKind::Changed,
                "the source here is not the one that this run was planned for",
            )
            .hint("deploy anew, or go on with the run where that source is checked out"));
        }
        shop.keep_inputs(here.parts);
        let engine = connect().await?;
        let root = self.root(site, &engine, context).await?;
        let spec = BuildSpec::new(&site.pipeline.app, &site.folder, &self.build, root);
        let out = shop.archive();
        let outcome = build::run(&engine, &spec, &out, &sink(context), context.cancellation()).await.map_err(failed)?;
        // A server would refuse it, after everything else.
        let packed = outcome.artifact.file.clone();
        let looked = tokio::task::spawn_blocking(move || inspect::inspect(&packed)).await;
        let looked = looked.map_err(|error| StepError::failed("reading the artifact was cut off").because(error))?;
        looked.map_err(|refused| {
            StepError::failed(format!("what build.pack names is no artifact: {refused}"))
                .hint("leave it out with build.exclude, or have the build make it otherwise")
                .because(refused)
        })?;
        let built = Built {
            archive: outcome.artifact.file,
            sha256: outcome.artifact.sha256,
            size_bytes: outcome.artifact.size,
            base: outcome.base,
            platform: outcome.platform,
            commands_seconds: outcome.commands_took.as_secs_f64(),
        };
        shop.keep_built(&built.sha256);
        Ok(serde_json::to_value(built).expect("plain data is JSON"))
    }

    async fn root(&self, site: &Site, engine: &Engine, context: &StepContext) -> Result<BuildRoot, StepError> {
        let (sink, cancel, packages) = (sink(context), context.cancellation(), &self.build.packages);
        let root = match (&self.build.recipe, &self.build.image) {
            (Some(name), _) => {
                let recipe = recipe(site, name)?;
                let base = bootstrap::bootstrap(engine.docker(), &recipe, &sink, cancel).await.map_err(|error| {
                    if matches!(error, BootstrapError::Cancelled) {
                        return StepError::interrupted();
                    }
                    let hint = error.hint();
                    let error =
                        StepError::failed(format!("the root of recipe {name} could not be made")).because(error);
                    hint.into_iter().fold(error, StepError::hint)
                })?;
                build_image::of_recipe(engine, &base, packages, &sink, cancel).await
            }
            (None, Some(reference)) => build_image::of_image(engine, reference, packages, &sink, cancel).await,
            (None, None) => return Err(StepError::failed("build needs a recipe or an image")),
        };
        root.map_err(no_root)
    }
}

fn no_root(error: BuildRootError) -> StepError {
    if matches!(error, BuildRootError::Cancelled) {
        return StepError::interrupted();
    }
    let last: Vec<String> = error.last_lines().to_vec();
    let mut hints = Vec::new();
    if !last.is_empty() {
        hints.push(format!("its last lines:\n  {}", last.join("\n  ")));
    }
    hints.extend(error.hint().map(str::to_owned));
    let error = StepError::failed("the root to build in could not be made").because(error);
    hints.into_iter().fold(error, StepError::hint)
}

fn failed(error: BuildError) -> StepError {
    if matches!(error, BuildError::Cancelled) {
        return StepError::interrupted();
    }
    let hint = error.hint();
    let last: Vec<String> = error.last_lines().to_vec();
    let mut step = match &error {
        BuildError::Command { command, exit_code, .. } => {
            StepError::failed(format!("the build failed: `{command}` ended with exit code {exit_code}"))
        }
        _ => StepError::failed("the build failed"),
    };
    if !last.is_empty() {
        step = step.hint(format!("its last lines:\n  {}", last.join("\n  ")));
    }
    let step = hint.into_iter().fold(step, StepError::hint);
    match error {
        // The message has said it.
        BuildError::Command { .. } => step,
        error => step.because(error),
    }
}

/// What the engine tells, as events of the step.
pub fn sink(context: &StepContext) -> Sink {
    let line = context.line_sink();
    Arc::new(move |event| match event {
        ImageEvent::Started { what } => line(what),
        ImageEvent::Line { text, .. } => line(text),
        ImageEvent::Skipped { lines } => line(format!("… {lines} lines left out")),
    })
}
