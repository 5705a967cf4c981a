//! `alcedo releases`

use alcedo_pipeline::version::Version;
use alcedo_stages::overview::{self, Release};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::status::{role, short_commit};
use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_overview,
    session::{Environment, Session},
    signals::Signals,
    words::{ago, bytes, clean, table},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo releases
  alcedo releases --limit 5 --output json
  alcedo releases pin 2026.1120.190512 --reason migration
  alcedo releases unpin 2026.1120.190512
  alcedo deploy --version VERSION     take one of them into service

A pinned version's image and artifact stay, however many newer ones there are. Of other environments those are seen that are
in the same account and region: `in staging` is a fleet that serves there or is about to, `held in staging` one that waits.")]
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
            let releases = overview::releases(&site, arguments.limit).await.map_err(|error| of_overview(&error))?;
            Ok((site, releases))
        };
        let (site, releases) = signals.or_stop(look).await?;
        if session.output.is_json() {
            session.output.json(&json!({ "v": 1, "releases": releases }));
        } else if releases.is_empty() {
            session.output.text("nothing is published yet; alcedo deploy builds and publishes\n");
        } else {
            session.output.text(&shown(&releases, &site.environment, Timestamp::now()));
        }
        Ok(ExitCode::DONE)
    })
}

fn shown(releases: &[Release], environment: &str, now: Timestamp) -> String {
    let rows: Vec<Vec<String>> = releases.iter().map(|release| row(release, environment, now)).collect();
    table(&["VERSION", "AGE", "COMMIT", "ARTIFACT", "IMAGE", "WHERE"], &rows)
}

fn row(release: &Release, environment: &str, now: Timestamp) -> Vec<String> {
    let manifest = release.manifest.as_ref();
    let mut commit = short_commit(manifest.and_then(|manifest| manifest.commit.as_deref()));
    if manifest.is_some_and(|manifest| manifest.dirty) {
        commit.push_str(" + changes");
    }
    let here = release.role.map(|it| format!("{} in {environment}", role(it)));
    let elsewhere = release.elsewhere.iter().map(|fleet| match fleet.held {
        true => format!("held in {}", clean(&fleet.environment)),
        false => format!("in {}", clean(&fleet.environment)),
    });
    let pinned = release.pinned.then(|| "pinned".to_owned());
    let places: Vec<String> = here.into_iter().chain(elsewhere).chain(pinned).collect();
    vec![
        release.version.to_string(),
        ago(manifest.map_or_else(|| release.version.time(), |manifest| manifest.built_at), now),
        commit,
        match (manifest, &release.distrusted) {
            (None, _) => "gone".to_owned(),
            (Some(manifest), None) => bytes(manifest.size_bytes),
            (Some(_), Some(_)) => "not trusted".to_owned(),
        },
        release.image.clone().unwrap_or_else(|| "-".to_owned()),
        places.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use alcedo_stages::{facts::Elsewhere, overview::Role};

    use super::*;

    #[test]
    fn a_release_says_how_old_it_is_and_where_it_serves() {
        let release = |version: &str, role, elsewhere: &[(&str, bool)], pinned| Release {
            version: version.parse().unwrap(),
            manifest: None,
            image: Some("ami-0123456789abcdef0".to_owned()),
            role,
            elsewhere: elsewhere
                .iter()
                .map(|(environment, held)| Elsewhere {
                    version: version.parse().unwrap(),
                    environment: (*environment).to_owned(),
                    held: *held,
                })
                .collect(),
            pinned,
            distrusted: None,
            sboms: Vec::new(),
        };
        let releases = [
            release("2026.1120.190512", Some(Role::InService), &[("staging", false)], false),
            release("2026.1119.190512", Some(Role::Held), &[("qa", true), ("staging", true)], true),
            release("2026.1029.190512", None, &[], false),
        ];
        insta::assert_snapshot!(shown(&releases, "production", "2026-11-20T19:10:12Z".parse().unwrap()), @"
        VERSION           AGE              COMMIT  ARTIFACT  IMAGE                  WHERE
        2026.1120.190512  5 min ago        -       gone      ami-0123456789abcdef0  in service in production, in staging
        2026.1119.190512  24 h 05 min ago  -       gone      ami-0123456789abcdef0  held in production, held in qa, held in staging, pinned
        2026.1029.190512  22 d 0 h ago     -       gone      ami-0123456789abcdef0
        ");
    }
}
