//! Build containers that a killed run left behind.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::query_parameters::ListContainersOptions;

use crate::{
    container::{self, ContainerError},
    engine::Engine,
};

/// The label of a build container that holds the app it works for.
pub const BUILD_LABEL: &str = "io.alcedo.build";
/// Which process made it, as [`Owner`] writes it.
const OWNER_LABEL: &str = "io.alcedo.build.owner";
/// When it is abandoned at the latest, in seconds since 1970.
const EXPIRY_LABEL: &str = "io.alcedo.build.expires";

/// Beyond a container's lifetime: its own end is the ordinary one.
const MARGIN: Duration = Duration::from_secs(60);

/// A process, told apart from every other that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    /// The machine's boot and its namespace of process numbers.
    world: String,
    pid: u32,
    /// When it started, in the kernel's ticks: a number that is used again has another start.
    started: String,
}

impl Owner {
    fn this_process() -> Self {
        let pid = std::process::id();
        Self { world: world(), pid, started: started(pid).unwrap_or_default() }
    }

    fn to_label(&self) -> String {
        format!("{} {} {}", self.world, self.pid, self.started)
    }

    fn from_label(label: &str) -> Option<Self> {
        let mut parts = label.split(' ');
        let (world, pid, started) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        Some(Self { world: world.to_owned(), pid, started: started.to_owned() })
    }

    /// Whether it is certain that the process has ended. A process of another machine is never certain.
    fn has_ended(&self) -> bool {
        !self.world.is_empty() && self.world == world() && started(self.pid).as_deref() != Some(&self.started)
    }
}

fn world() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let numbers = fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    if boot.is_empty() || numbers.is_empty() { String::new() } else { format!("{}/{numbers}", boot.trim()) }
}

/// The 22nd field of `/proc/<pid>/stat` (proc(5)). The second, a name in parentheses, may contain anything.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// The labels of a build container made now, by this process.
pub(crate) fn labels(app: &str, lifetime_seconds: u64) -> HashMap<String, String> {
    let expires = now().saturating_add(lifetime_seconds).saturating_add(MARGIN.as_secs());
    HashMap::from([
        (BUILD_LABEL.to_owned(), app.to_owned()),
        (OWNER_LABEL.to_owned(), Owner::this_process().to_label()),
        (EXPIRY_LABEL.to_owned(), expires.to_string()),
    ])
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Removes the app's build containers whose process has ended or whose time is over; those of a build that is running,
/// here or on another machine that shares the engine, stay. Returns how many there were.
pub async fn sweep(engine: &Engine, app: &str) -> Result<usize, ContainerError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{BUILD_LABEL}={app}")])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
    let found = engine
        .docker()
        .list_containers(Some(options))
        .await
        .map_err(|source| ContainerError::new("list its containers", source))?;
    let mut removed = 0;
    for found in found {
        let labels = found.labels.unwrap_or_default();
        if let Some(id) = found.id
            && is_abandoned(&labels, now())
        {
            container::remove(engine, &id).await;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_abandoned(labels: &HashMap<String, String>, now: u64) -> bool {
    let ended =
        labels.get(OWNER_LABEL).and_then(|label| Owner::from_label(label)).is_some_and(|owner| owner.has_ended());
    let expired = labels.get(EXPIRY_LABEL).and_then(|at| at.parse::<u64>().ok()).is_some_and(|at| at < now);
    ended || expired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_abandoned_is_swept() {
        let live = labels("hello", 600);
        assert!(!is_abandoned(&live, now()), "this process is alive");
        assert!(is_abandoned(&live, now() + 600 + MARGIN.as_secs() + 5), "its time is over");

        let owner = Owner::this_process();
        let with = |owner: Owner| {
            let mut labels = live.clone();
            labels.insert(OWNER_LABEL.to_owned(), owner.to_label());
            is_abandoned(&labels, now())
        };
        assert!(with(Owner { started: "1".into(), ..owner.clone() }), "the number was used again");
        assert!(!with(Owner { world: "elsewhere/pid:[1]".into(), started: "1".into(), ..owner }), "another machine's");
    }
}
