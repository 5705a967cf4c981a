//! Which of the distribution's packages a server has, as its own package manager tells.

use std::collections::BTreeSet;

use alcedo_smoke_tests::shell::{Shell, ShellCommand, ShellError};

use crate::platform::{PLATFORM_QUESTION, Platform, PlatformError};

/// The last line of a whole answer. One that was cut off would be a list that lacks packages without saying so.
const END: &str = "end-of-packages";

/// What is installed on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub platform: Platform,
    /// `None`: the server has no package manager that is known here, so nobody can tell.
    pub manager: Option<Manager>,
    /// In the order of their names.
    pub packages: BTreeSet<Package>,
}

/// Who keeps the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Dpkg,
    Rpm,
}

/// One package, as its manager names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub name: String,
    /// dpkg: with its epoch, where it has one. rpm: `version-release`.
    pub version: String,
    /// rpm's epoch; 0 is none.
    pub epoch: u32,
    /// In the distribution's word: `amd64`, `x86_64`, `all`, `noarch`.
    pub architecture: String,
    /// What it was built from, where that is called otherwise. dpkg: `name` or `name@version`; rpm: the source package's
    /// file.
    pub source: Option<String>,
}

/// Why nobody knows what is installed.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    #[error(transparent)]
    NoAnswer(#[from] ShellError),
    #[error("listing the packages ended with exit code {exit_code}: {stderr}")]
    Failed { exit_code: i32, stderr: String },
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error("the list of packages broke off")]
    CutOff,
    #[error("a line of the list of packages cannot be read: `{0}`")]
    Line(String),
}

/// Asks the server. Anybody may; nothing is changed.
///
/// # Errors
/// The answer is not a whole list.
pub async fn ask(server: &dyn Shell) -> Result<Installed, PackagesError> {
    let answer = server.run(&ShellCommand::new(question())).await?;
    if answer.exit_code != 0 {
        let stderr = answer.stderr.trim().to_owned();
        return Err(PackagesError::Failed { exit_code: answer.exit_code, stderr });
    }
    read(&answer.stdout)
}

/// A manager is asked whose list is not empty: each can be installed as a mere program on the other's distribution.
/// Formats: dpkg-query(1) and rpm's *Query formats*. Both end with an error where they cannot read their list.
fn question() -> String {
    format!(
        r#"{PLATFORM_QUESTION}
export LC_ALL=C
if [ -s /var/lib/dpkg/status ]; then
    echo manager=dpkg
    dpkg-query --show --showformat='package=${{db:Status-Status}}\t${{Package}}\t${{Version}}\t${{Architecture}}\t${{source:Package}}\t${{source:Version}}\n' || exit
elif command -v rpm >/dev/null; then
    echo manager=rpm
    rpm --query --all --queryformat 'package=%{{NAME}}\t%{{EPOCHNUM}}\t%{{VERSION}}-%{{RELEASE}}\t%{{ARCH}}\t%{{SOURCERPM}}\n' || exit
fi
echo {END}"#
    )
}

fn read(answer: &str) -> Result<Installed, PackagesError> {
    if answer.lines().next_back() != Some(END) {
        return Err(PackagesError::CutOff);
    }
    let manager = answer.lines().find_map(|line| match line {
        "manager=dpkg" => Some(Manager::Dpkg),
        "manager=rpm" => Some(Manager::Rpm),
        _ => None,
    });
    let mut packages = BTreeSet::new();
    for line in answer.lines().filter_map(|line| line.strip_prefix("package=")) {
        let fields: Vec<&str> = line.split('\t').collect();
        let package = match manager {
            Some(Manager::Dpkg) => of_dpkg(&fields),
            Some(Manager::Rpm) => of_rpm(&fields),
            None => None,
        };
        packages.extend(package.ok_or_else(|| PackagesError::Line(line.to_owned()))?);
    }
    Ok(Installed { platform: Platform::read(answer)?, manager, packages })
}

/// `None`: not a line of dpkg's. `Some(None)`: one of a package that is not there any more, but its settings are.
fn of_dpkg(fields: &[&str]) -> Option<Option<Package>> {
    let &[status, name, version, architecture, source, source_version] = fields else { return None };
    if ["not-installed", "config-files"].contains(&status) {
        return Some(None);
    }
    let source = match (source == name, source_version == version) {
        (true, true) => None,
        (_, true) => Some(source.to_owned()),
        (_, false) => Some(format!("{source}@{source_version}")),
    };
    package(name, version, 0, architecture, source)
}

/// Keys that signatures are checked with are in rpm's list like packages, and have no architecture.
fn of_rpm(fields: &[&str]) -> Option<Option<Package>> {
    let &[name, epoch, version, architecture, source] = fields else { return None };
    if architecture == "(none)" {
        return Some(None);
    }
    let source = Some(source).filter(|source| *source != "(none)").map(str::to_owned);
    package(name, version, epoch.parse().ok()?, architecture, source)
}

fn package(
    name: &str,
    version: &str,
    epoch: u32,
    architecture: &str,
    source: Option<String>,
) -> Option<Option<Package>> {
    let is_there = ![name, version, architecture].contains(&"");
    let (name, version, architecture) = (name.to_owned(), version.to_owned(), architecture.to_owned());
    is_there.then_some(Some(Package { name, version, epoch, architecture, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "os=debian\nversion=12\narchitecture=x86_64\nlibc=glibc 2.36\n";

    fn refused(answer: &str) -> String {
        read(answer).unwrap_err().to_string()
    }

    #[test]
    fn what_dpkg_says_is_read() {
        let answer = format!(
            "{DEBIAN}manager=dpkg\n\
             package=installed\tlibc6\t2.36-9+deb12u9\tamd64\tglibc\t2.36-9+deb12u9\n\
             package=installed\tzlib1g\t1:1.2.13.dfsg-1\tamd64\tzlib\t1:1.2.13.dfsg-1\n\
             package=installed\tgcc-12-base\t12.2.0-14\tamd64\tgcc-12\t12.2.0-14\n\
             package=config-files\tgone\t1\tamd64\tgone\t1\n\
             package=half-configured\tbash\t5.2.15-2+b7\tamd64\tbash\t5.2.15-2\n\
             package=installed\tadduser\t3.134\tall\tadduser\t3.134\nend-of-packages\n"
        );
        let installed = read(&answer).unwrap();
        assert_eq!((installed.manager, installed.platform.os.as_str()), (Some(Manager::Dpkg), "debian"));
        let found: Vec<(&str, &str, &str, Option<&str>)> = installed
            .packages
            .iter()
            .map(|it| (it.name.as_str(), it.version.as_str(), it.architecture.as_str(), it.source.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("adduser", "3.134", "all", None),
                ("bash", "5.2.15-2+b7", "amd64", Some("bash@5.2.15-2")),
                ("gcc-12-base", "12.2.0-14", "amd64", Some("gcc-12")),
                ("libc6", "2.36-9+deb12u9", "amd64", Some("glibc")),
                ("zlib1g", "1:1.2.13.dfsg-1", "amd64", Some("zlib")),
            ]
        );
    }

    #[test]
    fn what_rpm_says_is_read() {
        let answer = "os=rocky\nversion=9.4\narchitecture=x86_64\nlibc=glibc 2.34\nmanager=rpm\n\
                      package=bash\t0\t5.1.8-9.el9\tx86_64\tbash-5.1.8-9.el9.src.rpm\n\
                      package=gpg-pubkey\t0\t350d275d-6279464b\t(none)\t(none)\n\
                      package=shadow-utils\t2\t4.9-8.el9\tx86_64\tshadow-utils-4.9-8.el9.src.rpm\nend-of-packages\n";
        let installed = read(answer).unwrap();
        let found: Vec<(&str, u32, &str)> =
            installed.packages.iter().map(|it| (it.name.as_str(), it.epoch, it.version.as_str())).collect();
        assert_eq!(found, [("bash", 0, "5.1.8-9.el9"), ("shadow-utils", 2, "4.9-8.el9")]);
    }

    #[test]
    fn half_a_list_is_none() {
        let line = "package=installed\tbash\t1\tamd64\tbash\t1\n";
        assert_eq!(refused(&format!("{DEBIAN}manager=dpkg\n{line}")), "the list of packages broke off");
        assert_eq!(refused(""), "the list of packages broke off");
        let end = "end-of-packages\n";
        assert!(refused(&format!("{DEBIAN}manager=dpkg\npackage=installed\tbash\n{end}")).contains("cannot be read"));
        assert!(refused(&format!("{DEBIAN}manager=dpkg\npackage=installed\t\t1\ta\ts\t1\n{end}")).contains("cannot"));
        assert!(refused(&format!("{DEBIAN}{line}{end}")).contains("cannot be read"), "nobody has said it");
        assert!(refused(&format!("manager=dpkg\n{line}{end}")).contains("platform"));
        let nobody = read(&format!("{DEBIAN}{end}")).unwrap();
        assert_eq!((nobody.manager, nobody.packages.len()), (None, 0));
    }

    /// Both tools for real, as far as this machine has them.
    #[test]
    fn the_question_is_answered_by_this_machine() {
        let out = std::process::Command::new("sh").arg("-c").arg(question()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let installed = read(&String::from_utf8(out.stdout).unwrap()).unwrap();
        let Some(manager) = installed.manager else { return };
        let shell = installed.packages.iter().find(|package| package.name == "bash").expect("this machine has a bash");
        let asked = match manager {
            Manager::Dpkg => ["dpkg-query", "-W", "-f=${Version}", "bash"],
            Manager::Rpm => ["rpm", "-q", "--qf=%{VERSION}-%{RELEASE}", "bash"],
        };
        let out = std::process::Command::new(asked[0]).args(&asked[1..]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), shell.version);
    }
}
