//! `alcedo validate`

use clap::Args;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    project,
    session::Session,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo validate
  alcedo validate -f services/api/alcedo.yaml --output json")]
pub struct Arguments {
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let path = project::find_file(session.file())?;
    let file = project::read(Some(&path), &session.output)?;
    let warnings = file.warnings();
    if arguments.strict && !warnings.is_empty() {
        // They have been shown already.
        return Err(Failure::usage(format!("{} (--strict)", warnings.summary().unwrap_or_default())));
    }
    let environments: Vec<&str> = file.environments().collect();
    if session.output.is_json() {
        session.output.json(&json!({
            "v": 1,
            "file": path,
            "app": file.app,
            "environments": environments,
            "default_environment": file.default_environment,
            "warnings": warnings,
        }));
    } else {
        let path = path.display();
        session.output.text(&format!("{path} is fine: {} with {}\n", file.app, environments.join(", ")));
    }
    Ok(ExitCode::DONE)
}
