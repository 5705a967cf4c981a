//! Which process holds something, so that another one on the same machine can tell at once that it has died.
//!
//! **Source.** proc(5): the boot's id, the process's start in clock ticks since boot (field 22 of `stat`), and the PID
//! namespace. Together they name a process for good: a number that is used again has another start.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// One process of one boot of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Of the PID namespace: containers of one machine number their processes by themselves.
    pub namespace: String,
    pub pid: u32,
    /// Clock ticks from boot to the process's start.
    pub started: u64,
}

impl Process {
    /// This process; `None` where the system does not tell.
    pub fn current() -> Option<Self> {
        let pid = std::process::id();
        Some(Self { boot: boot()?, namespace: namespace()?, pid, started: start_of(pid)? })
    }

    /// Whether it certainly no longer runs. `false` where it cannot be known: it is another machine's.
    pub fn has_ended(&self) -> bool {
        let here = boot().as_deref() == Some(&self.boot) && namespace().as_deref() == Some(&self.namespace);
        here && start_of(self.pid) != Some(self.started)
    }
}

fn boot() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn namespace() -> Option<String> {
    Some(std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned())
}

/// `None` where it does not run; a zombie has ended too.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may itself hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    // The state is field 3, the start field 22.
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_has_ended() {
        let me = Process::current().unwrap();
        assert!(!me.has_ended());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let there = Process { pid: child.id(), started: start_of(child.id()).unwrap(), ..me.clone() };
        assert!(!there.has_ended());
        child.kill().unwrap();
        // Not waited for yet, it is a zombie: dead all the same, once the signal has arrived.
        let begun = std::time::Instant::now();
        while !there.has_ended() && begun.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert!(there.has_ended());
        child.wait().unwrap();
        assert!(there.has_ended());
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process_and_other_machines_are_not_judged() {
        let me = Process::current().unwrap();
        assert!(Process { started: me.started + 1, ..me.clone() }.has_ended());
        assert!(!Process { boot: "another".into(), started: me.started + 1, ..me }.has_ended());
    }
}
