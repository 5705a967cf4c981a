//! Rules of a single check, in `smoke_tests` or `bake.checks`.

use http::{HeaderName, HeaderValue, Method};

use super::{
    Add, At, Part, Problem, bake::is_user, build::absolute, exactly_one, inside, json_path, not_blank, not_zero, quote,
    url_path,
};

/// What a check can ask, in the order of [`crate::suite::Check`].
const ASKS: [&str; 10] = ["http", "tcp", "ssh", "run", "package", "service", "file", "port", "user", "command"];

pub(super) fn check(check: &At<'_>, add: Add<'_>) {
    exactly_one(check, &ASKS, add);
    not_blank(check.get("name"), add);
    not_zero(check.get("timeout"), add);
    if let Some(http) = check.get("http") {
        ask_http(check, &http, add);
    }
    for key in ["ssh", "command"] {
        if let Some(command) = check.get(key) {
            not_blank(command.get("line"), add);
            pattern(command.get("stdout_matches"), add);
        }
    }
    if let Some(program) = check.find("run.program") {
        not_blank(Some(program.clone()), add);
        // An absolute path names a program of this machine, as a bare name does.
        inside(
            Some(program).filter(|it| it.text().is_some_and(|text| text.contains('/') && !text.starts_with('/'))),
            add,
        );
    }
    for key in ["package.name", "service.name"] {
        not_blank(check.find(key), add);
    }
    if let Some(file) = check.get("file") {
        ask_file(&file, add);
    }
    if let Some(user) = check.get("user") {
        if let Some(name) = user.get("name")
            && let Some(text) = name.text()
            && !is_user(text)
        {
            add(Problem::error("bad-name", &name.path, format!("{} is no user's name", quote(text))));
        }
        contradiction(&user, "exists", &["shell", "groups"], add);
    }
}

fn ask_http(check: &At<'_>, http: &At<'_>, add: Add<'_>) {
    url_path(http.get("path"), add);
    if let Some(method) = http.get("method")
        && let Some(text) = method.text()
        && (Method::from_bytes(text.as_bytes()).is_err() || text.to_uppercase() != text)
    {
        add(Problem::error("wrong-value", &method.path, format!("{} is no HTTP method", quote(text)))
            .help("methods are written in capitals: GET, HEAD, POST"));
    }
    for key in ["headers", "expect_headers"] {
        for (name, at) in http.get(key).iter().flat_map(At::entries) {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                add(Problem::error("bad-header", &at.path, format!("{} cannot be a header's name", quote(name)))
                    .at(Part::Key));
            }
            if at.text().is_some_and(|text| HeaderValue::from_str(text).is_err()) {
                add(Problem::error(
                    "bad-header",
                    &at.path,
                    format!("the value of `{name}` cannot be sent in a header"),
                )
                .help("write it on one line, without control characters"));
            }
        }
    }
    pattern(http.get("body_matches"), add);
    for (path, at) in http.get("json").iter().flat_map(At::entries) {
        json_path(path, &at.path, Part::Key, add);
    }
    not_zero(http.get("within"), add);
    if let Some(within) = http.get("within")
        && let (Some(bound), Some(deadline)) = (within.span(), check.span_or_default("timeout"))
        && bound > deadline
    {
        let message = format!("`within` ({bound}) is longer than the check's timeout ({deadline}), which comes first");
        add(Problem::error("out-of-range", &within.path, message));
    }
}

fn ask_file(file: &At<'_>, add: Add<'_>) {
    if let Some(path) = file.get("path") {
        absolute(&path, add);
    }
    if let Some(mode) = file.get("mode")
        && let Some(text) = mode.text()
        && !((3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))
    {
        add(Problem::error("wrong-value", &mode.path, format!("{} is no file mode", quote(text)))
            .help("write three or four octal digits in quotes: \"0644\""));
    }
    contradiction(file, "exists", &["mode", "owner", "group", "contains"], add);
}

/// Reports properties asked of something that must not be there.
fn contradiction(at: &At<'_>, presence: &str, properties: &[&str], add: Add<'_>) {
    if at.value[presence] == false
        && let Some(property) = properties.iter().find_map(|key| at.get(key))
    {
        let message = format!("`{presence}: false` says that it must not be there, so it has no such property");
        add(Problem::error("contradiction", &property.path, message).at(Part::Key));
    }
}

fn pattern(at: Option<At<'_>>, add: Add<'_>) {
    if let Some(at) = at
        && let Some(text) = at.text()
        && let Err(error) = regex::Regex::new(text)
    {
        let why = match &error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The last line of the library's text is the reason; the lines before draw the pattern.
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        add(Problem::error("bad-pattern", &at.path, format!("{} is no regular expression: {why}", quote(text)))
            .help("in YAML, write patterns in single quotes: a backslash then stands for itself"));
    }
}
