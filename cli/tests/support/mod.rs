//! What the tests of the command line share.

use std::path::Path;

use assert_cmd::Command;

/// `alcedo` with an environment of its own: no variable of the machine that runs the tests has a say.
pub fn alcedo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alcedo"));
    command.current_dir(folder).env_clear();
    for kept in ["PATH", "DOCKER_HOST"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.env("HOME", folder).env("ALCEDO_REGION_DIR", folder.join("region"));
    command
}

/// Everything a command says on stdout, as text.
pub fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("alcedo can be started").stdout).expect("alcedo writes UTF-8")
}

/// Everything a command says on stderr, as text.
pub fn stderr(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("alcedo can be started").stderr).expect("alcedo writes UTF-8")
}
