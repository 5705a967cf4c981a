//! `cargo xtask mutants`: the checks themselves are checked. Each entry of `mutants.yaml` is a bug that a deploy tool could
//! really have. It is put into a copy of the project, and the tests that are named with it have to notice.
//!
//! **Flow.** Copy the project, and run the named tests on it as it is: they pass. Then for each mutant: change one place of
//! the copy, compile, run its tests, put the place back.
//! **Guarantees.** The project's own files stay as they are. A mutant counts as caught only where its tests compiled, and one
//! of them failed or came to no end.
//! **Assumption.** Cargo knows what it has compiled by a package's path below its workspace's root, and by the times of the
//! files. Two copies of a workspace that share a target folder would take each other's code for their own. The copy's
//! packages therefore lie one folder deeper than the project's: dependencies are shared, and nothing else is.
//! **Caveat.** Only the tests of libraries and programs below `tests/` are run. An integration test of `cli` would put a
//! mutated `alcedo` where everybody looks for the real one.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;

use crate::{
    process, project,
    terminal::{heading, say, seconds},
    test_counts::TestCounts,
};

const LIST: &str = "xtask/mutants.yaml";
/// The first time everything of ours is compiled, and whoever else uses the target folder is waited for.
const COMPILING: Duration = Duration::from_secs(30 * 60);
/// No test that the list names takes a minute. A mutant may well make it wait for what never comes.
const TESTING: Duration = Duration::from_secs(6 * 60);
/// Lines of a program's output that are shown where it went wrong.
const SHOWN_LINES: usize = 20;

/// A bug, and who has to notice it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What is wrong, in plain words.
    name: String,
    /// Below the project's folder.
    file: PathBuf,
    /// Occurs exactly once in the file.
    find: String,
    replace: String,
    caught_by: Tests,
}

/// Tests of one program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tests {
    /// The crate's folder.
    #[serde(rename = "crate")]
    of: String,
    /// A program below the crate's `tests/`; the tests beside its code, where none is named.
    #[serde(default)]
    test: Option<String>,
    /// What the names of the tests contain.
    filter: String,
    /// Everything is tried as in a soak, which takes longer, and this many random schedules.
    #[serde(default)]
    soak: Option<u32>,
}

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Caught,
    /// The tests were not done in time.
    CaughtByDeadline,
    NotCaught,
    /// It says nothing of the tests.
    DoesNotCompile,
    /// The program of the tests ended without saying how they went.
    Unclear,
}

/// Tries every mutant, or those whose name contains `only`.
///
/// # Errors
/// One is not caught, or says nothing of the tests; the list cannot be used; the tests fail without a mutant.
pub fn run(only: Option<&str>) -> Result<()> {
    let mut mutants = read_list()?;
    mutants.retain(|mutant| only.is_none_or(|text| mutant.name.contains(text)));
    ensure!(!mutants.is_empty(), "no mutant's name contains {:?}", only.unwrap_or_default());

    let began = Instant::now();
    heading("The tests without a mutant");
    let copy = Copy::of_the_project()?;
    for mutant in &mutants {
        copy.mutated(mutant)?;
    }
    copy.check_tests(&mutants)?;

    heading("Mutants");
    let mut caught = 0;
    for mutant in &mutants {
        let began = Instant::now();
        let verdict = copy.judge(mutant)?;
        println!("{}", line(mutant, verdict, began.elapsed()));
        caught += usize::from(matches!(verdict, Verdict::Caught | Verdict::CaughtByDeadline));
    }
    println!("{caught} of {} mutants caught in {}", mutants.len(), seconds(began.elapsed()));
    ensure!(caught == mutants.len(), "{} mutants are not caught", mutants.len() - caught);
    Ok(())
}

fn read_list() -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(project::folder().join(LIST)).with_context(|| format!("{LIST} cannot be read"))?;
    let mutants: Vec<Mutant> = serde_yaml::from_str(&text).with_context(|| format!("{LIST} is no list of mutants"))?;
    let mut names = BTreeSet::new();
    for mutant in &mutants {
        ensure!(names.insert(&mutant.name), "two mutants are called {:?}", mutant.name);
        ensure!(mutant.caught_by.of != "cli", "{:?}: tests of cli would leave a mutated `alcedo`", mutant.name);
    }
    Ok(mutants)
}

fn line(mutant: &Mutant, verdict: Verdict, took: Duration) -> String {
    let word = match verdict {
        Verdict::Caught => "caught",
        Verdict::CaughtByDeadline => "caught (by the deadline)",
        Verdict::NotCaught => "NOT CAUGHT",
        Verdict::DoesNotCompile => "DOES NOT COMPILE",
        Verdict::Unclear => "UNCLEAR",
    };
    let took = seconds(took);
    let line = format!("{word:<10} {took:>12}  {}", mutant.name);
    match verdict {
        Verdict::Caught | Verdict::CaughtByDeadline => line,
        _ => format!("{line} ({}; {})", mutant.file.display(), mutant.caught_by),
    }
}

impl std::fmt::Display for Tests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let test = self.test.as_deref().unwrap_or("lib");
        write!(f, "{} of {}/{test}", self.filter, self.of)
    }
}

/// The project as it stands, changes that are not committed included, below the target folder.
struct Copy {
    /// The workspace's root.
    folder: PathBuf,
}

impl Copy {
    /// Files that are the same already are not written again: Cargo goes by their times, and compiles what has changed.
    fn of_the_project() -> Result<Self> {
        let copy = Self { folder: project::target().join("mutants") };
        let files = files_of_the_project()?;
        for file in &files {
            copy.take_over(file)?;
        }
        remove_others(&copy.project(), &copy.project(), &files)?;
        Ok(copy)
    }

    fn project(&self) -> PathBuf {
        self.folder.join("project")
    }

    fn take_over(&self, file: &Path) -> Result<()> {
        let from = project::folder().join(file);
        let content = fs::read(&from).with_context(|| format!("{} cannot be read", from.display()))?;
        match file.to_str() {
            Some("Cargo.toml") => write(&self.folder.join(file), deeper(&String::from_utf8(content)?).as_bytes()),
            Some("Cargo.lock") => write(&self.folder.join(file), &content),
            _ => {
                let to = self.project().join(file);
                write(&to, &content)?;
                Ok(fs::set_permissions(&to, fs::metadata(&from)?.permissions())?)
            }
        }
    }

    /// The mutated content of the mutant's file.
    fn mutated(&self, mutant: &Mutant) -> Result<String> {
        let file = self.project().join(&mutant.file);
        let name = &mutant.name;
        let text = fs::read_to_string(file).with_context(|| format!("{name:?}: {} is gone", mutant.file.display()))?;
        let count = text.matches(&mutant.find).count();
        ensure!(count == 1, "{name:?}: its text occurs {count} times in {}, not once", mutant.file.display());
        ensure!(mutant.find != mutant.replace, "{name:?} changes nothing");
        Ok(text.replacen(&mutant.find, &mutant.replace, 1))
    }

    /// Runs the tests that any mutant names, once each. They have to pass, or their failing would say nothing.
    fn check_tests(&self, mutants: &[Mutant]) -> Result<()> {
        let mut checked: Vec<&Tests> = Vec::new();
        for mutant in mutants {
            let tests = &mutant.caught_by;
            if checked.contains(&tests) {
                continue;
            }
            let began = Instant::now();
            let Some(program) = self.compile(tests)? else {
                self.show_end("compile.txt")?;
                bail!("the copy of the project does not compile");
            };
            let verdict = self.try_tests(tests, &program)?;
            if verdict != Verdict::NotCaught {
                self.show_end("tests.txt")?;
                bail!("{tests}: they do not pass without a mutant");
            }
            say(&format!("{tests}: they pass ({})", seconds(began.elapsed())));
            checked.push(tests);
        }
        Ok(())
    }

    fn judge(&self, mutant: &Mutant) -> Result<Verdict> {
        let mutated = self.mutated(mutant)?;
        let file = self.project().join(&mutant.file);
        let original = fs::read(&file)?;
        write(&file, mutated.as_bytes())?;
        let verdict = self.judge_mutated(&mutant.caught_by);
        // Also where it could not be judged.
        write(&file, &original)?;
        verdict
    }

    fn judge_mutated(&self, tests: &Tests) -> Result<Verdict> {
        let verdict = match self.compile(tests)? {
            Some(program) => self.try_tests(tests, &program)?,
            None => {
                self.show_end("compile.txt")?;
                Verdict::DoesNotCompile
            }
        };
        if verdict == Verdict::Unclear {
            self.show_end("tests.txt")?;
        }
        Ok(verdict)
    }

    /// Compiles the program of these tests, with the features that the whole workspace has: with others, dependencies would
    /// be compiled again. `None` where it does not compile.
    fn compile(&self, tests: &Tests) -> Result<Option<PathBuf>> {
        let artifacts = self.folder.join("artifacts.json");
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.folder)
            .args(["test", "--workspace", "--locked", "--no-run", "--message-format", "json-render-diagnostics"])
            .env("CARGO_TARGET_DIR", project::target())
            .stdout(File::create(&artifacts)?)
            .stderr(File::create(self.folder.join("compile.txt"))?);
        match &tests.test {
            Some(test) => cargo.args(["--test", test]),
            None => cargo.arg("--lib"),
        };
        match end_within(&mut cargo, COMPILING)? {
            None => bail!("the tests were not compiled within {}", seconds(COMPILING)),
            Some(status) if !status.success() => Ok(None),
            Some(_) => self.program(tests, &artifacts).map(Some),
        }
    }

    /// Finds the program among what Cargo says that it has made.
    fn program(&self, tests: &Tests, artifacts: &Path) -> Result<PathBuf> {
        let manifest = self.project().join(&tests.of).join("Cargo.toml");
        let text = fs::read_to_string(artifacts)?;
        let artifacts = text.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
        let mut of_crate = artifacts.filter(|it| Path::new(&it.manifest_path) == manifest);
        let found = of_crate.find_map(|it| it.executable);
        found.with_context(|| format!("Cargo makes no program for {tests}"))
    }

    /// Runs the tests. To pass is not to catch anything.
    fn try_tests(&self, tests: &Tests, program: &Path) -> Result<Verdict> {
        let output = self.folder.join("tests.txt");
        let file = File::create(&output)?;
        let mut command = Command::new(program);
        command
            .current_dir(self.project().join(&tests.of))
            .arg(&tests.filter)
            .env("INSTA_UPDATE", "no")
            .env_remove("ALCEDO_SOAK")
            .env_remove("ALCEDO_SEED")
            .stdout(file.try_clone()?)
            .stderr(file);
        if let Some(schedules) = tests.soak {
            command.env("ALCEDO_SOAK", schedules.to_string());
        }
        let Some(status) = end_within(&mut command, TESTING)? else { return Ok(Verdict::CaughtByDeadline) };
        let mut counts = TestCounts::default();
        String::from_utf8_lossy(&fs::read(&output)?).lines().for_each(|line| counts.line(line));
        Ok(match (status.success(), counts.failed, counts.passed) {
            (false, 1.., _) => Verdict::Caught,
            (true, 0, 1..) => Verdict::NotCaught,
            _ => Verdict::Unclear,
        })
    }

    fn show_end(&self, of: &str) -> Result<()> {
        let text = fs::read(self.folder.join(of))?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).for_each(|line| say(line));
        Ok(())
    }
}

/// What Cargo says of something that it has compiled.
#[derive(Debug, Deserialize)]
struct Artifact {
    manifest_path: String,
    /// Of libraries, `null`.
    executable: Option<PathBuf>,
}

/// Everything but what Git ignores, whether committed or not.
fn files_of_the_project() -> Result<BTreeSet<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(project::folder());
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = process::output_of(&mut git)?;
    let files = listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    // What was deleted is listed until that is committed.
    Ok(files.filter(|file| project::folder().join(file).is_file()).collect())
}

/// The workspace's manifest, for packages that lie one folder deeper.
fn deeper(manifest: &str) -> String {
    let mut text = String::new();
    for line in manifest.lines() {
        let line = match line.starts_with("members = [") {
            true => line.replace("[\"", "[\"project/").replace(", \"", ", \"project/"),
            false => line.replace("{ path = \"", "{ path = \"project/"),
        };
        text += &line;
        text.push('\n');
    }
    text
}

/// Writes the file where it does not hold this already.
fn write(file: &Path, content: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let folder = file.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(file, content).with_context(|| format!("{} cannot be written", file.display()))
}

/// Removes what the project no longer has.
fn remove_others(folder: &Path, root: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, root, files)?;
        } else if !files.contains(path.strip_prefix(root)?) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Waits for the program's end; `None` where the deadline came first. Then it is killed, with everything that it has started.
fn end_within(command: &mut Command, deadline: Duration) -> Result<Option<ExitStatus>> {
    let name = process::shown(command);
    let mut child =
        command.stdin(Stdio::null()).process_group(0).spawn().with_context(|| format!("{name} does not start"))?;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > deadline {
            killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read_and_every_mutant_has_its_place() {
        let mutants = read_list().unwrap();
        assert!(mutants.len() >= 34, "{}", mutants.len());
        for mutant in mutants {
            let text = fs::read_to_string(project::folder().join(&mutant.file)).unwrap();
            assert_eq!(text.matches(&mutant.find).count(), 1, "{}", mutant.name);
        }
    }

    #[test]
    fn packages_lie_one_folder_deeper() {
        let manifest = "members = [\"one\", \"two\"]\n[x]\none = { path = \"one\" }\nother = { version = \"1\" }\n";
        let wanted = "members = [\"project/one\", \"project/two\"]\n[x]\none = { path = \"project/one\" }\nother = { version = \"1\" }\n";
        assert_eq!(deeper(manifest), wanted);
    }
}
