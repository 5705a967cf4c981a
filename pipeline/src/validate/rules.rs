//! What the settings must obey beyond their types: which keys exclude or need each other, what AWS takes, what compiles.
//!
//! The rules read the value, not the types made from it, so that each still speaks where another part of the file is
//! wrong; where a value has the wrong type, its rule stays silent, for the schema has spoken.

mod bake;
mod build;
mod checks;
mod flip;
mod launch;
mod secrets;

use serde_json::Value;

use crate::{positions::Path, units::Span};

use super::{
    join,
    problem::{Found, Origin, Part, Problem},
    quote,
    schema::default_at,
    shape::Shape,
};

/// A value and where it is.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    pub value: &'a Value,
    pub path: Path,
}

impl<'a> At<'a> {
    pub fn top(value: &'a Value) -> Self {
        Self { value, path: Path::default() }
    }

    pub fn get(&self, key: &str) -> Option<Self> {
        Some(Self { value: self.value.get(key)?, path: self.path.key(key) })
    }

    /// The value at `keys`, joined by dots.
    pub fn find(&self, keys: &str) -> Option<Self> {
        keys.split('.').try_fold(self.clone(), |at, key| at.get(key))
    }

    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    pub fn text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    pub fn number(&self) -> Option<u64> {
        self.value.as_u64()
    }

    pub fn span(&self) -> Option<Span> {
        self.text()?.parse().ok()
    }

    /// The length of time at `key`, or the one that counts where there is none.
    pub fn span_or_default(&self, key: &str) -> Option<Span> {
        match self.get(key) {
            Some(at) => at.span(),
            None => default_at(&self.path.key(key))?.as_str()?.parse().ok(),
        }
    }

    pub fn items(&self) -> Vec<Self> {
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(|(at, value)| Self { value, path: self.path.index(at) }).collect()
    }

    /// The items of the list at `keys`; none where there is none.
    pub fn list(&self, keys: &str) -> Vec<Self> {
        self.find(keys).map(|at| at.items()).unwrap_or_default()
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let path = self.path.clone();
        super::entries(self.value).map(move |(key, value)| (key.as_str(), Self { value, path: path.key(key) }))
    }
}

type Add<'a> = &'a mut dyn FnMut(Problem);

/// Checks one environment's settings.
pub(super) fn check(settings: &Value, add: Add<'_>) {
    let top = At::top(settings);
    aws(&top, add);
    publish(&top, add);
    build::check(&top, add);
    bake::check(&top, add);
    launch::check(&top, add);
    secrets::check(&top, add);
    flip::check(&top, add);
    for test in top.list("smoke_tests") {
        checks::check(&test, add);
    }
    if top.get("smoke_tests").is_none_or(|tests| tests.value.as_array().is_some_and(Vec::is_empty)) {
        let path = top.path.key("smoke_tests");
        add(Problem::warning(
            "no-smoke-tests",
            &path,
            "nothing but the health check stands between a bad version and users",
        )
        .at(Part::Absent)
        .help("add at least one: smoke_tests: [{ http: { path: / } }]"));
    }
}

/// Checks what relates environments to each other.
pub(super) fn check_together(shape: &Shape, settings: &[Value], found: &mut Found) {
    let place =
        |at: &Value| Some((at.get("publish")?.get("bucket")?.as_str()?.to_owned(), at["publish"]["prefix"].clone()));
    for (later, one) in settings.iter().enumerate() {
        let twin = settings[..later].iter().position(|other| {
            place(other).is_some() && place(other) == place(one) && other.get("build") != one.get("build")
        });
        if let Some(twin) = twin {
            let (one, other) = (&shape.environments[later].name, &shape.environments[twin].name);
            let message = format!("`{one}` and `{other}` publish to the same place but build differently");
            let problem = Problem::warning("build-differs", &Path::default().key("build"), message)
                .at(Part::Key)
                .help("a version must be the same everywhere: build alike, or give each its own bucket or prefix");
            found.add(problem, Origin::Environment(later));
        }
    }
}

fn aws(top: &At<'_>, add: Add<'_>) {
    if let Some(at) = top.find("aws.region")
        && let Some(text) = at.text()
        && (text.is_empty() || !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
    {
        add(Problem::error("bad-name", &at.path, format!("{} is no region's name", quote(text)))
            .help("such as eu-west-1"));
    }
    if let Some(at) = top.find("aws.endpoint")
        && at.text() != Some("local")
    {
        http_url(at, "write `local` for the local region, or a URL such as http://127.0.0.1:8500", add);
    }
}

/// Reports what is no URL of a web server.
fn http_url(at: At<'_>, help: &str, add: Add<'_>) {
    if let Some(text) = at.text()
        && !url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    {
        add(Problem::error("bad-url", &at.path, format!("{} is no URL of a web server", quote(text))).help(help));
    }
}

fn publish(top: &At<'_>, add: Add<'_>) {
    if let Some(at) = top.find("publish.bucket")
        && let Some(text) = at.text()
        && let Some(why) = bucket_fault(text)
    {
        add(Problem::error("bad-name", &at.path, format!("{} cannot be a bucket's name: {why}", quote(text))));
    }
    if let Some(at) = top.find("publish.prefix")
        && let Some(text) = at.text()
    {
        let odd = text.split('/').any(|part| matches!(part, "." | ".."));
        if text.starts_with('/') || odd || text.chars().any(char::is_control) {
            add(Problem::error("bad-path", &at.path, format!("{} cannot be a prefix", quote(text)))
                .help("write the names of folders with `/` between them, such as team/apps"));
        }
    }
}

/// What keeps `name` from being a bucket's (S3 User Guide, "General purpose bucket naming rules"). Lengths are the
/// schema's.
fn bucket_fault(name: &str) -> Option<&'static str> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !(3..=63).contains(&name.len()) {
        None
    } else if !name.chars().all(|c| alphanumeric(c) || c == '-' || c == '.') {
        Some("only lower-case letters, digits, hyphens and dots are allowed")
    } else if !(name.starts_with(alphanumeric) && name.ends_with(alphanumeric)) {
        Some("it must begin and end with a letter or digit")
    } else if name.contains("..") {
        Some("two dots cannot stand together")
    } else if name.parse::<std::net::Ipv4Addr>().is_ok() {
        Some("it looks like an IP address")
    } else if ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|start| name.starts_with(start)) {
        Some("AWS keeps names that begin like this for itself")
    } else if ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|end| name.ends_with(end)) {
        Some("AWS keeps names that end like this for itself")
    } else {
        None
    }
}

/// Reports a map that does not have exactly one of `keys`.
fn exactly_one(at: &At<'_>, keys: &[&str], add: Add<'_>) {
    if !at.value.is_object() {
        return;
    }
    let given: Vec<&str> = keys.iter().copied().filter(|key| at.has(key)).collect();
    match given.as_slice() {
        [_] => {}
        [] => add(Problem::error("none-of", &at.path, format!("{} needs one of {}", name(&at.path), join(keys, "or")))
            .at(Part::Key)),
        [first, second, ..] => {
            let message = format!("{} has {}, but can have only one of them", name(&at.path), join(&given, "and"));
            let problem = Problem::error("more-than-one-of", &at.path.key(second), message).at(Part::Key);
            add(match at.path.enters_a_list() {
                true => problem.help("remove the others"),
                false => problem.help(format!(
                    "remove the others; an environment that replaces `{first}` by `{second}` also says `{first}: null`"
                )),
            });
        }
    }
}

fn name(path: &Path) -> String {
    format!("`{path}`")
}

/// Reports a length of time that is none at all where something must take time.
fn not_zero(at: Option<At<'_>>, add: Add<'_>) {
    if let Some(at) = at
        && at.span().is_some_and(Span::is_zero)
    {
        add(Problem::error("out-of-range", &at.path, format!("{} must be longer than 0", name(&at.path))));
    }
}

/// Reports a length of time that is not a whole number of seconds within `range`.
fn whole_seconds(at: Option<At<'_>>, range: std::ops::RangeInclusive<u64>, add: Add<'_>) {
    let Some(at) = at else { return };
    let Some(span) = at.span() else { return };
    let (least, most) = (Span::seconds(*range.start()), Span::seconds(*range.end()));
    if span < least || span > most {
        let message = format!("{} must be from {}s to {}s, not {span}", name(&at.path), range.start(), range.end());
        add(Problem::error("out-of-range", &at.path, message));
    } else if span.duration().subsec_nanos() != 0 {
        add(Problem::error("out-of-range", &at.path, format!("{} must be whole seconds, not {span}", name(&at.path))));
    }
}

/// Whether a path is relative and leads nowhere outside of where it starts.
pub(super) fn stays_inside(path: &str) -> bool {
    let mut depth = 0_usize;
    if path.starts_with('/') || path.contains('\0') {
        return false;
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// Reports a path that is empty, absolute or leads out of the folder of the file.
fn inside(at: Option<At<'_>>, add: Add<'_>) {
    let Some(at) = at else { return };
    let Some(text) = at.text() else { return };
    if text.is_empty() {
        add(Problem::error("bad-path", &at.path, format!("{} is empty", name(&at.path))));
    } else if !stays_inside(text) {
        add(Problem::error(
            "bad-path",
            &at.path,
            format!("{} leads out of the project: {}", name(&at.path), quote(text)),
        )
        .help("write a path below the folder of the pipeline file"));
    }
}

/// Reports names that cannot be a variable's, or that Alcedo sets itself.
fn variables(at: Option<At<'_>>, add: Add<'_>) {
    let Some(at) = at else { return };
    for (name, at) in at.entries() {
        let mut characters = name.chars();
        let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !(first && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            add(Problem::error("bad-name", &at.path, format!("{} cannot be a variable's name", quote(name)))
                .at(Part::Key));
        } else if name.starts_with("ALCEDO_") {
            let message = format!("{} is one of the variables that Alcedo sets itself", quote(name));
            add(Problem::error("bad-name", &at.path, message).at(Part::Key));
        }
    }
}

/// Reports a URL's path that does not begin with `/`.
fn url_path(at: Option<At<'_>>, add: Add<'_>) {
    if let Some(at) = at
        && let Some(text) = at.text()
        && (!text.starts_with('/') || text.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        add(Problem::error("bad-path", &at.path, format!("{} cannot be a URL's path", quote(text)))
            .help("begin it with `/` and write no spaces"));
    }
}

/// Reports a JSON path that does not compile.
fn json_path(text: &str, path: &Path, part: Part, add: Add<'_>) {
    if let Err(error) = serde_json_path::JsonPath::parse(text) {
        let message =
            format!("{} is no JSON path: it cannot be read from character {} on", quote(text), error.position() + 1);
        add(Problem::error("bad-json-path", path, message)
            .at(part)
            .help("a path begins with `$`, such as $.status or $.items[0].name (RFC 9535)"));
    }
}

/// Reports an instance type that has not the form of one.
fn instance_type(at: Option<At<'_>>, add: Add<'_>) {
    let part =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if let Some(at) = at
        && let Some(text) = at.text()
        && !text.split_once('.').is_some_and(|(family, size)| part(family) && part(size))
    {
        add(Problem::error("bad-name", &at.path, format!("{} is no instance type", quote(text)))
            .help("such as t3.small"));
    }
}

/// Reports a text that is empty or white space.
fn not_blank(at: Option<At<'_>>, add: Add<'_>) {
    if let Some(at) = at
        && at.text().is_some_and(|text| text.trim().is_empty())
    {
        add(Problem::error("empty-text", &at.path, format!("{} is empty", name(&at.path))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_named_as_s3_demands() {
        for name in ["acme-artifacts", "a.b.c", "123", "alcedo-local"] {
            assert_eq!(bucket_fault(name), None, "{name}");
        }
        for name in ["Acme", "a_b", "-ab", "ab-", "a..b", "10.0.0.1", "xn--abc", "name-s3alias", "é-bucket"] {
            assert!(bucket_fault(name).is_some(), "{name}");
        }
    }

    #[test]
    fn paths_stay_inside_or_do_not() {
        for path in [".", "a", "a/b", "a/../b", "./a/./b", "a/.."] {
            assert!(stays_inside(path), "{path}");
        }
        for path in ["/a", "..", "a/../..", "../a", "a/../../b", "a\0b"] {
            assert!(!stays_inside(path), "{path}");
        }
    }
}
