//! The project that a command is about: its `alcedo.yaml`, found here or in a folder above, and the environment meant.

use std::path::{Path, PathBuf};

use alcedo_pipeline::{
    file::Pipeline,
    validate::{EnvironmentError, PipelineFile},
};

use crate::{
    failure::{Failure, Result},
    output::Output,
};

/// What the file is called where nothing else is said.
pub const FILE_NAME: &str = "alcedo.yaml";

/// The file that is meant: the named one, or the nearest `alcedo.yaml` from here upwards.
///
/// # Errors
/// There is none.
pub fn find_file(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(if named.is_dir() { named.join(FILE_NAME) } else { named.to_owned() });
    }
    let here = std::env::current_dir().map_err(|error| Failure::usage("the current folder is gone").because(&error))?;
    let found = here.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file());
    match found {
        // Named as short as it can be: diagnostics begin with it.
        Some(path) => Ok(path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path)),
        None => Err(Failure::usage(format!("there is no {FILE_NAME} in {} or above it", here.display()))
            .hint("alcedo init writes one; -f names one elsewhere")),
    }
}

/// Reads the file, and says on stderr what is odd about it without being wrong.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(named: Option<&Path>, output: &Output) -> Result<PipelineFile> {
    let file = PipelineFile::read(&find_file(named)?).map_err(Failure::file)?;
    if !file.warnings().is_empty() {
        output.note(&file.warnings().to_text(output.paint_stderr.diagnostics()));
    }
    Ok(file)
}

/// One environment's name and settings.
///
/// # Errors
/// The file has no such environment, or several and none is named.
pub fn environment(file: &PipelineFile, asked: Option<&str>) -> Result<(String, Pipeline)> {
    let refused = |error: EnvironmentError| Failure::usage(error.to_string()).hint(error.hint());
    let name = file.environment_name(asked).map_err(refused)?.to_owned();
    let pipeline = file.environment(Some(&name)).map_err(refused)?;
    Ok((name, pipeline))
}
