//! Rules of `secrets`.

use super::{Add, At, Part, Problem, exactly_one, inside, not_blank, quote, variables};

/// A parameter's name at most (AWS Systems Manager, PutParameter: 1,011 characters of 2,048 with the ARN around it).
const LONGEST_PARAMETER: usize = 1011;
/// Servers get them in one go.
const MOST: usize = 200;

pub(super) fn check(top: &At<'_>, add: Add<'_>) {
    let Some(secrets) = top.get("secrets") else { return };
    variables(Some(secrets.clone()), add);
    let mut count = 0;
    for (_, secret) in secrets.entries() {
        count += 1;
        // `NAME: value` is the mistake that must not be repeated on a screen.
        if !secret.value.is_object() {
            continue;
        }
        exactly_one(&secret, &["environment", "file", "ssm", "age"], add);
        inside(secret.get("age"), add);
        not_blank(secret.get("file"), add);
        if let Some(at) = secret.get("environment")
            && let Some(text) = at.text()
            && (text.is_empty() || text.contains(['=', '\0']) || text.chars().any(char::is_whitespace))
        {
            add(Problem::error("bad-name", &at.path, format!("{} cannot be a variable's name", quote(text))));
        }
        if let Some(at) = secret.get("ssm")
            && let Some(text) = at.text()
            && !is_parameter(text)
        {
            add(Problem::error("bad-name", &at.path, format!("{} is no parameter's name", quote(text)))
                .help("letters, digits and _.-, in parts that begin with /: /hello/production/database-url"));
        }
    }
    if count > MOST {
        let message = format!("{count} secrets are more than the {MOST} that a server is given");
        add(Problem::error("out-of-range", &secrets.path, message).at(Part::Key));
    }
}

/// As PutParameter takes them.
fn is_parameter(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
    let has_parts = text.trim_start_matches('/').split('/').all(|part| !part.is_empty());
    let qualified = text.starts_with('/') || !text.contains('/');
    !text.is_empty() && text.len() <= LONGEST_PARAMETER && has_parts && qualified && text.chars().all(fits)
}
