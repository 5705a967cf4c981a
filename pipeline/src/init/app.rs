//! What is known or guessed of an app.

use std::fmt;

/// What an app is made with, by the file that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Cargo.toml`
    Rust,
    /// `go.mod`
    Go,
    /// `package.json`
    Node,
    /// `pyproject.toml` or `requirements.txt`
    Python,
    /// `pom.xml`
    Maven,
    /// `build.gradle` or `build.gradle.kts`
    Gradle,
    /// `mix.exs`
    Elixir,
    /// `Dockerfile`, and none of the above
    Dockerfile,
    /// None of them.
    Generic,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "a Rust app (Cargo.toml)",
            Self::Go => "a Go app (go.mod)",
            Self::Node => "a Node.js app (package.json)",
            Self::Python => "a Python app (pyproject.toml or requirements.txt)",
            Self::Maven => "a Java app (pom.xml)",
            Self::Gradle => "a Java app (build.gradle)",
            Self::Elixir => "an Elixir app (mix.exs)",
            Self::Dockerfile => "an app with a Dockerfile",
            Self::Generic => "an app of no kind that is known here",
        })
    }
}

/// Everything that the texts are made from. Names in it hold nothing that YAML, a shell or systemd could take for more
/// than a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guess {
    pub kind: Kind,
    pub app: String,
    /// For building, by Debian bookworm's names.
    pub build_packages: Vec<&'static str>,
    /// On the server, by Debian bookworm's names.
    pub run_packages: Vec<&'static str>,
    pub environment: Vec<(&'static str, String)>,
    pub cache: Vec<&'static str>,
    /// Each with a comment, or none.
    pub commands: Vec<(String, Option<&'static str>)>,
    pub pack: Vec<String>,
    pub exclude: Vec<&'static str>,
    /// What systemd starts.
    pub start: String,
    /// The service's environment beside `PORT`.
    pub service_environment: Vec<(&'static str, String)>,
    pub port: u16,
    /// Answers 200 when the app is well.
    pub health: &'static str,
    /// Comment lines above `commands`.
    pub build_comments: Vec<String>,
    pub guesses: Vec<String>,
}

impl Guess {
    pub fn new(kind: Kind, app: String) -> Self {
        Self {
            kind,
            app,
            build_packages: Vec::new(),
            run_packages: Vec::new(),
            environment: Vec::new(),
            cache: Vec::new(),
            commands: Vec::new(),
            pack: Vec::new(),
            exclude: Vec::new(),
            start: String::new(),
            service_environment: Vec::new(),
            port: 8080,
            health: "/",
            build_comments: Vec::new(),
            guesses: Vec::new(),
        }
    }

    pub fn command(&mut self, line: impl Into<String>) {
        self.commands.push((line.into(), None));
    }

    pub fn commented(&mut self, line: impl Into<String>, comment: &'static str) {
        self.commands.push((line.into(), Some(comment)));
    }

    pub fn guess(&mut self, sentence: impl Into<String>) {
        self.guesses.push(sentence.into());
    }

    /// Where the artifact lies on a server.
    pub fn install_path(&self) -> String {
        format!("/opt/{}", self.app)
    }
}

/// `text` as an app's name: lower-case letters, digits and single hyphens, a letter first, 20 at most. A text that has
/// none of these gives `app`.
pub(super) fn app_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let name = &name[..name.len().min(20)];
    match name.trim_end_matches('-') {
        "" => "app".into(),
        name if TAKEN.contains(&name) => format!("{name}-app"),
        name => name.into(),
    }
}

/// Users and services that Debian's servers have already: an app of that name would run as that user, or in that
/// service's place.
const TAKEN: [&str; 24] = [
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "www-data",
    "backup",
    "list",
    "irc",
    "nobody",
    "admin",
    "ssh",
    "sshd",
    "dbus",
    "cron",
    "messagebus",
    "nftables",
];

/// Whether `text` can stand in a path, a command line and a pattern and mean nothing but itself.
pub(super) fn is_plain(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && text.len() <= 100
        && text.chars().all(fits)
        && !text.split('/').any(|part| matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_an_apps_name() {
        for (text, name) in [
            ("hello", "hello"),
            ("Hello World", "hello-world"),
            ("@acme/Web_Shop", "acme-web-shop"),
            ("2048-game", "game"),
            ("--x--", "x"),
            ("größe", "gr-e"),
            ("日本", "app"),
            ("", "app"),
            ("a-very-long-name-that-goes-on", "a-very-long-name-tha"),
            ("nineteen-characters--x", "nineteen-characters"),
            ("$(rm -rf /)", "rm-rf"),
            ("root", "root-app"),
        ] {
            assert_eq!(app_name(text), name, "{text}");
        }
    }

    #[test]
    fn plain_texts_mean_nothing_but_themselves() {
        for text in ["server.js", "dist/index.js", "my_app", ".venv/bin/x"] {
            assert!(is_plain(text), "{text}");
        }
        for text in ["", "/etc/passwd", "../x", "a b", "a;b", "a\nb", "$x", "a//b", "-rf", "*.js", "a: b"] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
