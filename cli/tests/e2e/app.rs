//! A copy of `examples/hello` in a git repository of its own, to be changed and deployed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the example's pipeline file sends its traffic.
const EXAMPLE_LISTENER: &str = "load_balancer: hello, port: 8600";

/// The app's folder.
#[derive(Debug)]
pub struct App {
    pub folder: PathBuf,
}

impl App {
    /// Copies the example, lets its listener have `port`, and commits that.
    pub fn copy_to(folder: PathBuf, port: u16) -> Self {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello"), &folder);
        let app = Self { folder };
        app.git(&["init", "--quiet", "--initial-branch=main"]);
        app.replace("alcedo.yaml", EXAMPLE_LISTENER, &format!("load_balancer: hello, port: {port}"));
        // Requests of these tests take milliseconds.
        app.replace("alcedo.yaml", "deregistration_delay: 10s", "deregistration_delay: 2s");
        app.commit("Greet");
        app
    }

    pub fn read(&self, file: &str) -> String {
        let path = self.folder.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Replaces a text that must be there.
    pub fn replace(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} does not contain {old:?}");
        self.write(file, &text.replace(old, new));
    }

    /// Replaces a text until the answer is dropped, without a commit.
    pub fn with(&self, file: &str, old: &str, new: &str) -> Changed<'_> {
        let before = self.read(file);
        self.replace(file, old, new);
        Changed { app: self, file: file.to_owned(), before }
    }

    /// Lets the program greet otherwise, and commits that: a change that needs a new version.
    pub fn greet(&self, greeting: &str) {
        let program = self.read("main.go");
        let line = program.lines().find(|line| line.starts_with("const greeting")).expect("the program greets");
        self.replace("main.go", line, &format!("const greeting = {greeting:?}"));
        self.commit(greeting);
    }

    pub fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        for inherited in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(inherited);
        }
        // Whoever runs the tests may sign commits, run hooks, or not be known to git at all.
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=Alcedo's tests", "-c", "user.email=tests@localhost", "-C"]).arg(&self.folder);
        let status = git.args(arguments).status().expect("git can be started");
        assert!(status.success(), "git {arguments:?}: {status}");
    }
}

/// A file that is put back when this is dropped.
#[derive(Debug)]
pub struct Changed<'a> {
    app: &'a App,
    file: String,
    before: String,
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        // Where this fails in a test that has failed already, its folder is gone next anyway.
        let _ = fs::write(self.app.folder.join(&self.file), &self.before);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            // A program that somebody has built in the example is no part of it.
            false if entry.file_name() == "hello" => {}
            // Keeps the mode, which makes scripts executable.
            false => drop(fs::copy(entry.path(), &target).unwrap()),
        }
    }
}
