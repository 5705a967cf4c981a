//! `alcedo releases`

use alcedo_pipeline::version::Version;
use alcedo_stages::overview::{self, Release};
use clap::{Args, Subcommand};
use serde_json::json;

use super::status::{role, short_commit};
use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_overview,
    session::{Environment, Session},
    signals::Signals,
    words::{bytes, moment, table},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo releases
  alcedo releases --limit 5 --output json
  alcedo releases pin 2026.1120.190512 --reason migration
  alcedo releases unpin 2026.1120.190512
  alcedo deploy --version VERSION     take one of them into service

A pinned version's image and artifact stay, however many newer ones there are.")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    environment: Environment,
    /// Show this many of the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep a version's image and artifact beyond the retention
    Pin {
        version: Version,
        /// Why, for whoever meets the pin later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        environment: Environment,
    },
    /// Leave a version to the retention again
    Unpin {
        version: Version,
        #[command(flatten)]
        environment: Environment,
    },
}

async fn pin(session: &Session, environment: &Environment, version: Version, reason: Option<String>) -> Result {
    let site = session.swept_site(environment).await?;
    let failed =
        |error: &(dyn std::error::Error + 'static)| Failure::failed("the pin could not be kept").because(error);
    let there = site.manifest(version).await.map_err(|error| failed(&error))?;
    if there.is_none() {
        return Err(Failure::usage(format!("no version {version} is published")).hint("alcedo releases lists what is"));
    }
    site.pin(version, reason).await.map_err(|error| failed(&error))?;
    session.output.text(&format!("{version} is kept until `alcedo releases unpin {version}`\n"));
    Ok(ExitCode::DONE)
}

async fn unpin(session: &Session, environment: &Environment, version: Version) -> Result {
    let site = session.swept_site(environment).await?;
    let gone = site.unpin(version).await.map_err(|error| Failure::failed("the pin stays").because(&error))?;
    session.output.text(&match gone {
        true => format!("{version} is left to the retention\n"),
        false => format!("{version} was not pinned\n"),
    });
    Ok(ExitCode::DONE)
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        match &arguments.command {
            Some(Command::Pin { version, reason, environment }) => {
                return signals.or_stop(pin(session, environment, *version, reason.clone())).await;
            }
            Some(Command::Unpin { version, environment }) => {
                return signals.or_stop(unpin(session, environment, *version)).await;
            }
            None => {}
        }
        let look = async {
            let site = session.swept_site(&arguments.environment).await?;
            overview::releases(&site, arguments.limit).await.map_err(|error| of_overview(&error))
        };
        let releases = signals.or_stop(look).await?;
        if session.output.is_json() {
            session.output.json(&json!({ "v": 1, "releases": releases }));
        } else if releases.is_empty() {
            session.output.text("nothing is published yet; alcedo deploy builds and publishes\n");
        } else {
            let rows: Vec<Vec<String>> = releases.iter().map(row).collect();
            session.output.text(&table(&["VERSION", "BUILT", "COMMIT", "ARTIFACT", "IMAGE", "ROLE"], &rows));
        }
        Ok(ExitCode::DONE)
    })
}

fn row(release: &Release) -> Vec<String> {
    let manifest = release.manifest.as_ref();
    let mut commit = short_commit(manifest.and_then(|manifest| manifest.commit.as_deref()));
    if manifest.is_some_and(|manifest| manifest.dirty) {
        commit.push_str(" + changes");
    }
    vec![
        release.version.to_string(),
        moment(manifest.map_or_else(|| release.version.time(), |manifest| manifest.built_at)),
        commit,
        match (manifest, &release.distrusted) {
            (None, _) => "gone".to_owned(),
            (Some(manifest), None) => bytes(manifest.size_bytes),
            (Some(_), Some(_)) => "not trusted".to_owned(),
        },
        release.image.clone().unwrap_or_else(|| "-".to_owned()),
        match (release.role, release.pinned) {
            (None, true) => "pinned".to_owned(),
            (Some(there), true) => format!("{}, pinned", role(there)),
            (there, false) => there.map_or("", role).to_owned(),
        },
    ]
}
