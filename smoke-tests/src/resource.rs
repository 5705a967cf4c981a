//! What must hold on the server itself: packages, services, files, ports, users, and commands.
//!
//! Each check is two pure functions: the command line that finds the facts ([`command_for`]) and the judgement of its
//! output ([`judge`]). Facts are read as root, so that a file only root may see is not reported missing; `command` and
//! `ssh` run as the login user, as a person would type them.

use alcedo_pipeline::suite::{Ask, CommandCheck, FileCheck, PackageCheck, PortCheck, ServiceCheck, UserCheck};
use regex::Regex;

use crate::{
    report::Failure,
    shell::{ShellCommand, ShellOutput, quote},
};

/// Bytes of a file that `contains` looks through.
const FILE_LIMIT: usize = 1 << 20;

/// Lines of a command's output shown in a failure.
const SHOWN_LINES: usize = 20;

/// The command line that finds what the check asks, or `None` for checks made from this machine.
pub fn command_for(ask: &Ask<'_>) -> Option<ShellCommand> {
    Some(match ask {
        Ask::Http(_) | Ask::Tcp(_) | Ask::Run(_) => return None,
        Ask::Ssh(check) | Ask::Command(check) => ShellCommand::new(&check.line),
        Ask::Package(check) => {
            let name = quote(&check.name);
            // A package that is not known makes dpkg-query and rpm fail; an empty output says so just as well.
            ShellCommand::as_root(format!(
                "if command -v dpkg-query >/dev/null; then \
                 dpkg-query --show --showformat='${{db:Status-Status}} ${{Version}}\\n' -- {name} 2>/dev/null || :; \
                 elif command -v rpm >/dev/null; then \
                 rpm --query --queryformat 'installed %{{VERSION}}-%{{RELEASE}}\\n' -- {name} 2>/dev/null | grep '^installed ' || :; \
                 else echo 'neither dpkg-query nor rpm is there' >&2; exit 69; fi"
            ))
        }
        Ask::Service(check) => ShellCommand::as_root(format!(
            "systemctl show --property=LoadState,ActiveState,SubState,UnitFileState -- {}",
            quote(&check.name)
        )),
        Ask::File(check) => {
            let path = quote(&check.path);
            let content =
                if check.contains.is_some() { format!(" && head -c {FILE_LIMIT} -- {path}") } else { String::new() };
            ShellCommand::as_root(format!(
                "if [ -e {path} ] || [ -L {path} ]; then stat -L -c 'present %a %U %G' -- {path}{content}; else echo absent; fi"
            ))
        }
        // The kernel's own tables: no tool has to be installed, and nothing has to be connected to.
        Ask::Port(_) => ShellCommand::new("cat /proc/net/tcp; [ ! -e /proc/net/tcp6 ] || cat /proc/net/tcp6"),
        Ask::User(check) => {
            let name = quote(&check.name);
            ShellCommand::new(format!("getent passwd -- {name} && id -G -n -- {name}"))
        }
    })
}

/// Judges what the command of [`command_for`] left.
pub fn judge(ask: &Ask<'_>, output: &ShellOutput) -> Result<(), Failure> {
    match ask {
        Ask::Http(_) | Ask::Tcp(_) | Ask::Run(_) => Ok(()),
        Ask::Ssh(check) | Ask::Command(check) => judge_command(check, output),
        Ask::Package(check) => judge_package(check, output),
        Ask::Service(check) => judge_service(check, output),
        Ask::File(check) => judge_file(check, output),
        Ask::Port(check) => judge_port(check, output),
        Ask::User(check) => judge_user(check, output),
    }
}

fn judge_command(check: &CommandCheck, output: &ShellOutput) -> Result<(), Failure> {
    let fail = |expected: String, actual: String| Err(Failure::new(expected, actual).with_detail(tail(output)));
    if output.exit_code != check.exit_code {
        return fail(format!("exit code {}", check.exit_code), format!("exit code {}", output.exit_code));
    }
    if let Some(part) = &check.stdout_contains
        && !output.stdout.contains(part.as_str())
    {
        return fail(format!("an output that contains {part:?}"), "one that does not".into());
    }
    if let Some(pattern) = &check.stdout_matches {
        match Regex::new(pattern) {
            Ok(regex) if regex.is_match(&output.stdout) => {}
            Ok(_) => return fail(format!("an output that matches {pattern:?}"), "one that does not".into()),
            Err(error) => return fail("a regular expression".into(), format!("{pattern:?}: {error}")),
        }
    }
    Ok(())
}

fn judge_package(check: &PackageCheck, output: &ShellOutput) -> Result<(), Failure> {
    ran("the list of packages", output)?;
    let version = output.stdout.lines().find_map(|line| line.strip_prefix("installed "));
    let name = &check.name;
    match (check.installed, version, &check.version) {
        (true, None, _) => Err(Failure::new(format!("package {name} installed"), "not installed")),
        (false, Some(version), _) => {
            Err(Failure::new(format!("package {name} not installed"), format!("version {version} installed")))
        }
        (true, Some(version), Some(pattern)) if !matches_pattern(pattern, version) => {
            Err(Failure::new(format!("package {name} in version {pattern}"), format!("version {version}")))
        }
        _ => Ok(()),
    }
}

fn judge_service(check: &ServiceCheck, output: &ShellOutput) -> Result<(), Failure> {
    ran("systemd's word on the service", output)?;
    let property = |name: &str| {
        let value = output.stdout.lines().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name));
        value.map_or("unknown", |(_, value)| if value.is_empty() { "unknown" } else { value })
    };
    let name = &check.name;
    // A check that names neither state asks that the service exists; one that only denies states is content without it.
    let denies_only =
        check.running != Some(true) && check.enabled != Some(true) && (check.running, check.enabled) != (None, None);
    if property("LoadState") != "loaded" && !denies_only {
        return Err(Failure::new(format!("service {name}"), format!("a unit that is {}", property("LoadState"))));
    }
    if let Some(running) = check.running {
        let (active, sub) = (property("ActiveState"), property("SubState"));
        if (active == "active") != running {
            let expected = if running { "running" } else { "not running" };
            return Err(Failure::new(format!("service {name} {expected}"), format!("{active} ({sub})")));
        }
    }
    if let Some(enabled) = check.enabled {
        let state = property("UnitFileState");
        // `static` and `generated` units have no switch; they start because something else does.
        if matches!(state, "enabled" | "enabled-runtime" | "alias") != enabled {
            let expected = if enabled { "enabled" } else { "not enabled" };
            return Err(Failure::new(format!("service {name} {expected}"), state));
        }
    }
    Ok(())
}

fn judge_file(check: &FileCheck, output: &ShellOutput) -> Result<(), Failure> {
    ran("the state of the file", output)?;
    let path = &check.path;
    let (facts, content) = output.stdout.split_once('\n').unwrap_or((&output.stdout, ""));
    let Some(facts) = facts.strip_prefix("present ") else {
        return if check.exists { Err(Failure::new(format!("{path} to exist"), "nothing there")) } else { Ok(()) };
    };
    if !check.exists {
        return Err(Failure::new(format!("nothing at {path}"), "a file or folder"));
    }
    let mut facts = facts.splitn(3, ' ');
    let mut next = || facts.next().unwrap_or("unknown");
    let (mode, owner, group) = (next(), next(), next());
    if let Some(expected) = &check.mode
        && (octal(expected).is_none() || octal(expected) != octal(mode))
    {
        return Err(Failure::new(format!("{path} with mode {expected}"), format!("mode {mode:0>4}")));
    }
    for (what, expected, actual) in [("owner", &check.owner, owner), ("group", &check.group, group)] {
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(Failure::new(format!("{path} with {what} {expected}"), format!("{what} {actual}")));
        }
    }
    if let Some(part) = &check.contains
        && !content.contains(part.as_str())
    {
        let limit = if content.len() >= FILE_LIMIT { " in its first MiB" } else { "" };
        return Err(Failure::new(format!("{path} to contain {part:?}"), format!("no such text{limit}")));
    }
    Ok(())
}

fn judge_port(check: &PortCheck, output: &ShellOutput) -> Result<(), Failure> {
    ran("the kernel's table of sockets", output)?;
    let listening = listening_ports(&output.stdout).any(|port| port == check.number);
    let number = check.number;
    match (check.listening, listening) {
        (true, false) => {
            let mut ports: Vec<u16> = listening_ports(&output.stdout).collect();
            ports.sort_unstable();
            ports.dedup();
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            Err(Failure::new(format!("something listening on TCP port {number}"), "nothing")
                .with_detail(format!("listening: {}", if ports.is_empty() { "none".into() } else { ports.join(", ") })))
        }
        (false, true) => Err(Failure::new(format!("nothing listening on TCP port {number}"), "a listener")),
        _ => Ok(()),
    }
}

/// The ports of sockets in state LISTEN in `/proc/net/tcp` and `/proc/net/tcp6` (proc(5): the second column is
/// `address:port` in hexadecimal, the fourth the state, 0A for LISTEN).
fn listening_ports(table: &str) -> impl Iterator<Item = u16> + '_ {
    table.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (local, _remote, state) = (columns.next()?, columns.next()?, columns.next()?);
        if state != "0A" {
            return None;
        }
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    })
}

fn judge_user(check: &UserCheck, output: &ShellOutput) -> Result<(), Failure> {
    let name = &check.name;
    // getent(1) answers 2 where the name is unknown.
    if output.exit_code == 2 {
        return if check.exists { Err(Failure::new(format!("user {name}"), "no such user")) } else { Ok(()) };
    }
    ran("the list of users", output)?;
    if !check.exists {
        return Err(Failure::new(format!("no user {name}"), "a user of that name"));
    }
    let mut lines = output.stdout.lines();
    let shell = lines.next().and_then(|entry| entry.rsplit(':').next()).unwrap_or("");
    let groups: Vec<&str> = lines.next().unwrap_or("").split_ascii_whitespace().collect();
    if let Some(expected) = &check.shell
        && expected != shell
    {
        return Err(Failure::new(format!("user {name} with shell {expected}"), format!("shell {shell}")));
    }
    match check.groups.iter().find(|group| !groups.contains(&group.as_str())) {
        Some(missing) => {
            Err(Failure::new(format!("user {name} in group {missing}"), format!("groups {}", groups.join(", "))))
        }
        None => Ok(()),
    }
}

/// The facts could be read at all.
fn ran(what: &str, output: &ShellOutput) -> Result<(), Failure> {
    if output.exit_code == 0 {
        return Ok(());
    }
    Err(Failure::new(what, format!("exit code {} of the command that reads it", output.exit_code))
        .with_detail(tail(output)))
}

/// The last lines of both outputs.
fn tail(output: &ShellOutput) -> String {
    let lines: Vec<&str> = output.stdout.lines().chain(output.stderr.lines()).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode.trim_start_matches("0o"), 8).ok()
}

/// Whether `text` is `pattern`, where `*` stands for anything. Greedy backtracking to the last star only, so that no
/// pattern takes more than quadratic time.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
#[path = "resource_tests.rs"]
mod tests;
