//! What this machine has to have: an engine, room, programs.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use alcedo_pipeline::file::Pipeline;

use super::{Complaints, Finding};
use crate::{build, site::Site};

/// Room that is needed, and room below which somebody should look, in bytes.
struct Room {
    least: u64,
    enough: u64,
    fix: &'static str,
}

/// For the artifact: a whole small app takes some megabytes, one with a browser or a model in it hundreds.
const FOR_ARTIFACTS: Room =
    Room { least: 64 << 20, enough: 512 << 20, fix: "free some, or set TMPDIR to a folder with more" };
/// The recipe's root takes 153 MB, the root to build Go in 612 MB; every base image and every bake is another.
const FOR_IMAGES: Room = Room {
    least: 512 << 20,
    enough: 2 << 30,
    fix: "free some: `docker system prune` removes what nobody uses (`podman system prune` with Podman)",
};

/// The engine alone: for whoever could not come so far as to ask for more.
pub async fn engine() -> Finding {
    match build::connect().await {
        Ok(engine) => Finding::good("engine", format!("answers at {}", engine.address())),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Finding::bad("engine", format!("{error}: {cause}"), error.hints)
        }
    }
}

/// Room for what a deploy writes: the artifact beside the other temporary files, and roots and images in the engine.
pub(super) async fn space() -> Finding {
    let temporary = std::env::temp_dir();
    let mut complaints = Complaints::default();
    let mut free = Vec::new();
    match tempfile::tempfile_in(&temporary) {
        Ok(_) => judge(&temporary, &FOR_ARTIFACTS, &mut complaints, &mut free),
        Err(error) => complaints.bad(
            format!("nothing can be written to {}: {error}", temporary.display()),
            "set TMPDIR to a folder that can be written",
        ),
    }
    if let Some(folder) = folder_of_engine().await {
        judge(&folder, &FOR_IMAGES, &mut complaints, &mut free);
    }
    complaints.finding("space", free.join(", "))
}

/// Where the engine keeps what it makes, if that is on this machine and can be looked at.
async fn folder_of_engine() -> Option<PathBuf> {
    let engine = build::connect().await.ok()?;
    if !engine.address().starts_with("unix://") {
        return None;
    }
    let folder = PathBuf::from(engine.docker().info().await.ok()?.docker_root_dir?);
    folder.is_dir().then_some(folder)
}

fn judge(folder: &Path, room: &Room, complaints: &mut Complaints, good: &mut Vec<String>) {
    // A folder that does not tell is not complained about.
    let Ok(told) = nix::sys::statvfs::statvfs(folder) else { return };
    // The types differ from system to system.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(told.blocks_available()).saturating_mul(u64::from(told.fragment_size()));
    let detail = format!("{} MB free in {}", free >> 20, folder.display());
    match free {
        free if free < room.least => complaints.bad(detail, room.fix),
        free if free < room.enough => complaints.warning(detail, room.fix),
        _ => good.push(detail),
    }
}

/// Programs that a deploy starts, and what for.
pub(super) fn programs(site: &Site) -> Finding {
    let Pipeline { build, bake, smoke_tests, .. } = site.pipeline.as_ref();
    let mut needed =
        vec![("ssh", "openssh-client", "to reach builders"), ("ssh-keygen", "openssh-client", "for their keys")];
    if build.recipe.is_some() || bake.base.recipe.is_some() {
        needed.push(("mmdebstrap", "mmdebstrap", "to make the recipe's root where the engine has none"));
    }
    if bake.provision.iter().any(|step| step.ansible.is_some()) {
        needed.push(("ansible-playbook", "ansible-core", "for the playbook in bake.provision"));
    }
    if site.folder.ancestors().any(|folder| folder.join(".git").exists()) {
        needed.push(("git", "git", "to tell the commit"));
    }
    let mut complaints = Complaints::default();
    let missing: Vec<_> = needed.iter().filter(|(program, ..)| !is_there(program)).collect();
    if !missing.is_empty() {
        let detail: Vec<String> =
            missing.iter().map(|(program, _, why)| format!("there is no {program} ({why})")).collect();
        let packages: BTreeSet<&str> = missing.iter().map(|(_, package, _)| *package).collect();
        let packages: Vec<&str> = packages.into_iter().collect();
        complaints
            .bad(detail.join("; "), format!("on Debian and Ubuntu: `sudo apt-get install {}`", packages.join(" ")));
    }
    let mut names: Vec<String> = needed.iter().map(|(program, ..)| (*program).to_owned()).collect();
    for run in smoke_tests.iter().filter_map(|check| check.run.as_ref()) {
        let program = &run.program;
        if program.contains('/') {
            let file = site.folder.join(program);
            // That it exists is checked with the file; a script that lost its mode is not.
            if !is_program(&file) {
                complaints.bad(
                    format!("{program}, which smoke_tests runs, is no program that can be started"),
                    format!("`chmod +x {program}`, and commit that"),
                );
            }
        } else if !is_there(program) {
            complaints.bad(
                format!("there is no {program} (smoke_tests runs it)"),
                format!("install {program}, or name a program of the project: ./{program}"),
            );
        }
        names.push(program.clone());
    }
    complaints.finding("programs", names.join(", "))
}

/// Whether a shell would find the program.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
