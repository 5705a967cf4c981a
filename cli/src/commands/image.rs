//! `alcedo image`: base images, the roots that builds and servers share.

use std::{collections::BTreeSet, sync::Arc};

use alcedo_images::{
    bootstrap::{self, BaseImage, BootstrapError, bootstrap},
    engine::{self, Engine},
    event::{ImageEvent, Sink},
    recipe::{self, Recipe},
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    output::{Form, Output},
    project,
    session::Session,
    signals::Signals,
    words::{bytes, clean, seconds, table},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the base images of recipes, where the engine does not hold them yet
    #[command(after_help = "\
Examples:
  alcedo image build                    the recipes that alcedo.yaml names
  alcedo image build debian-bookworm
  alcedo image build ./recipes/web      a recipe of your own, by its folder")]
    Build {
        /// Recipes, by name or by folder [default: those that the pipeline file names]
        #[arg(value_name = "RECIPE")]
        recipes: Vec<String>,
    },
    /// List recipes and the base images that the engine holds of them
    List,
}

pub fn run(arguments: Arguments, session: &Session) -> Result {
    session.block_on(async {
        match arguments.command {
            Command::Build { recipes } => build(recipes, session, &Signals::listen()?).await,
            Command::List => list(session).await,
        }
    })
}

async fn build(named: Vec<String>, session: &Session, signals: &Signals) -> Result {
    let named = if named.is_empty() { recipes_of_the_file(session)? } else { named };
    let recipes = named.iter().map(|name| load(name)).collect::<Result<Vec<_>>>()?;
    let engine = connect().await?;
    for recipe in recipes {
        let made = bootstrap(engine.docker(), &recipe, &sink(session.output), signals.stop()).await;
        let image = made.map_err(|error| {
            if let (BootstrapError::Cancelled, Some(signal)) = (&error, signals.first()) {
                return Failure::new(
                    ExitCode::of_signal(signal),
                    format!("stopped by {signal}; nothing is left of it"),
                );
            }
            let failure = Failure::of(ExitCode::FAILED, &error);
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        show(&image, session.output);
    }
    Ok(ExitCode::DONE)
}

/// What the environments' builds and bakes start from.
fn recipes_of_the_file(session: &Session) -> Result<Vec<String>> {
    let file = session.pipeline_file()?;
    let mut names = BTreeSet::new();
    for environment in file.environments() {
        let (_, pipeline) = project::environment(&file, Some(environment))?;
        for name in [pipeline.build.recipe, pipeline.bake.base.recipe].into_iter().flatten() {
            // A recipe's folder is relative to the file, not to where the command is typed.
            names.insert(if name.contains('/') { file.folder.join(&name).display().to_string() } else { name });
        }
    }
    if names.is_empty() {
        return Err(
            Failure::usage("the pipeline file names no recipe").hint("alcedo image list shows the built-in ones")
        );
    }
    Ok(names.into_iter().collect())
}

fn load(name: &str) -> Result<Recipe> {
    Recipe::load(name).map_err(|error| {
        let mut failure = Failure::of(ExitCode::USAGE, &error);
        failure.hints.extend(error.hint());
        failure
    })
}

async fn connect() -> Result<Engine> {
    engine::connect().await.map_err(|error| Failure::of(ExitCode::FAILED, &error).hint(error.hint()))
}

/// The bootstrap's words go to stderr: what it comes to is the result.
fn sink(output: Output) -> Sink {
    Arc::new(move |event| {
        let line = match event {
            _ if output.form == Form::Json => return,
            ImageEvent::Started { what } => format!("{}\n", output.paint_stderr.bold(&clean(&what))),
            ImageEvent::Line { text, .. } => format!("  {}\n", clean(&text)),
            ImageEvent::Skipped { lines } => format!("  … {lines} lines that came too fast\n"),
        };
        output.note(&line);
    })
}

fn show(image: &BaseImage, output: Output) {
    let BaseImage { recipe, digest, reference, size_bytes, reused, took } = image;
    if output.is_json() {
        output.json(&json!({
            "v": 1,
            "recipe": recipe,
            "digest": digest,
            "reference": reference,
            "size_bytes": size_bytes,
            "reused": reused,
            "seconds": took.as_secs_f64(),
        }));
        return;
    }
    let how = if *reused { "there already".to_owned() } else { format!("made in {}", seconds(took.as_secs_f64())) };
    output.text(&format!("{recipe}: {reference} ({}, {how})\n", bytes(*size_bytes)));
}

async fn list(session: &Session) -> Result {
    let engine = connect().await?;
    let mut rows = Vec::new();
    let mut images = Vec::new();
    for name in recipe::names() {
        let recipe = load(name)?;
        let image =
            bootstrap::find(engine.docker(), &recipe).await.map_err(|error| Failure::of(ExitCode::FAILED, &error))?;
        rows.push(match &image {
            Some(image) => vec![name.to_owned(), image.reference.clone(), bytes(image.size_bytes)],
            None => vec![name.to_owned(), format!("not made yet: alcedo image build {name}"), String::new()],
        });
        images.push(json!({
            "recipe": name,
            "digest": recipe.digest(),
            "reference": image.as_ref().map(|image| &image.reference),
            "size_bytes": image.as_ref().map(|image| image.size_bytes),
        }));
    }
    if session.output.is_json() {
        session.output.json(&json!({ "v": 1, "images": images }));
    } else {
        session.output.text(&table(&["RECIPE", "IMAGE", "SIZE"], &rows));
    }
    Ok(ExitCode::DONE)
}
