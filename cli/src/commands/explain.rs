//! `alcedo explain ID`

use clap::Args;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    explanations,
    failure::{Failure, Result},
    session::Session,
    words::clean,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo explain                 list the ids
  alcedo explain smoke-failed
  alcedo explain unknown-key")]
pub struct Arguments {
    /// The id of an error, as it is shown with it
    id: Option<String>,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let Some(id) = &arguments.id else {
        let ids = explanations::ids();
        match session.output.is_json() {
            true => session.output.json(&json!({ "v": 1, "ids": ids })),
            false => session.output.text(&format!("{}\n", ids.join("\n"))),
        }
        return Ok(ExitCode::DONE);
    };
    let Some(text) = explanations::explain(id) else {
        return Err(Failure::usage(format!("there is no error {}", clean(id))).hint("`alcedo explain` lists the ids"));
    };
    match session.output.is_json() {
        true => session.output.json(&json!({ "v": 1, "id": id, "text": text })),
        false => session.output.text(&text),
    }
    Ok(ExitCode::DONE)
}
