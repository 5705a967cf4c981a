//! `alcedo releases`

use alcedo_stages::overview::{self, Release};
use clap::Args;
use serde_json::json;

use super::status::{role, short_commit};
use crate::{
    exit_code::ExitCode,
    failure::Result,
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
  alcedo deploy --version VERSION     take one of them into service")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Show this many of the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
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
        manifest.map_or_else(|| "gone".to_owned(), |manifest| bytes(manifest.size_bytes)),
        release.image.clone().unwrap_or_else(|| "-".to_owned()),
        release.role.map_or("", role).to_owned(),
    ]
}
