//! What this process does for the secrets that it may hold: the programs that it starts do not inherit them, and what it
//! had in memory is written nowhere when it crashes.

use alcedo_pipeline::{file::Pipeline, secret};
use alcedo_stages::{secrets::IDENTITY, signature};
use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};

/// To be called before any of them is looked for, and before any program is started.
///
/// # Errors
/// A crash could still write them to a core dump.
pub fn guard(pipeline: &Pipeline) -> nix::Result<()> {
    // Whether or not this file has a use for it.
    secret::hide_variables([signature::VARIABLE]);
    if pipeline.secrets.is_empty() && !pipeline.publish.signs() {
        return Ok(());
    }
    let variables = pipeline.secrets.values().filter_map(|source| source.environment.clone());
    secret::hide_variables(variables.chain([IDENTITY.to_owned()]));
    // No limit keeps a system's crash collector from the memory of a process that may be dumped.
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}
