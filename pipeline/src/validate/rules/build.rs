//! Rules of `build`.

use globset::Glob;

use super::{Add, At, Problem, exactly_one, inside, not_blank, not_zero, quote, stays_inside, variables};

pub(super) fn check(top: &At<'_>, add: Add<'_>) {
    let Some(build) = top.get("build") else { return };
    exactly_one(&build, &["recipe", "image"], add);
    recipe(build.get("recipe"), add);
    not_blank(build.get("image"), add);
    build.list("commands").into_iter().for_each(|command| not_blank(Some(command), add));
    inside(build.get("working_directory"), add);
    variables(build.get("environment"), add);
    for path in build.list("cache") {
        absolute(&path, add);
    }
    for key in ["pack", "exclude"] {
        build.list(key).iter().for_each(|pattern| glob(pattern, add));
    }
    not_zero(build.get("timeout"), add);
    for package in build.list("packages") {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "+-.:=~_".contains(c));
        if let Some(text) = package.text()
            && (text.is_empty() || text.starts_with('-') || text.contains(odd))
        {
            add(Problem::error("bad-name", &package.path, format!("{} is no package's name", quote(text))));
        }
    }
    if let Some(packages) = build.get("packages")
        && build.has("image")
        && !packages.items().is_empty()
    {
        add(Problem::error(
            "no-effect",
            &packages.path,
            "`build.packages` are added to a recipe's root, not to an image",
        )
        .help("install them in the image, or build in a recipe"));
    }
}

/// Reports a recipe that is neither a name nor, with a `/` in it, the path of a folder of the project.
pub(super) fn recipe(at: Option<At<'_>>, add: Add<'_>) {
    let Some(at) = at else { return };
    let Some(text) = at.text() else { return };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.contains('/') {
        inside(Some(at), add);
    } else if !(text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits)) {
        add(Problem::error("bad-name", &at.path, format!("{} is no recipe's name", quote(text)))
            .help("such as debian-bookworm; a recipe of your own is named by its folder, such as ./recipes/web"));
    }
}

/// Reports a path that does not begin at the root of the file system, or is that root.
pub(super) fn absolute(at: &At<'_>, add: Add<'_>) {
    if let Some(text) = at.text() {
        let root = text.trim_end_matches('/').is_empty();
        let odd = text.split('/').any(|part| matches!(part, "." | "..")) || text.contains('\0');
        if !text.starts_with('/') || root || odd {
            let message = format!("`{}` must be an absolute path below `/`, not {}", at.path, quote(text));
            add(Problem::error("bad-path", &at.path, message));
        }
    }
}

fn glob(at: &At<'_>, add: Add<'_>) {
    let Some(text) = at.text() else { return };
    if text.is_empty() || !stays_inside(text) {
        add(Problem::error("bad-path", &at.path, format!("{} leads out of the working directory", quote(text)))
            .help("write a path or pattern below it, such as target/release/hello or static/**"));
    } else if let Err(error) = Glob::new(text) {
        add(Problem::error("bad-pattern", &at.path, format!("{} is no pattern: {}", quote(text), error.kind()))
            .help("`*` stands for any name, `**` for any folders; write [*] for a star itself"));
    }
}
