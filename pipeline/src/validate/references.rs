//! Files that the pipeline file refers to: they must exist before a run counts on them.

use std::path::Path as FilePath;

use serde_json::Value;

use super::{
    problem::Problem,
    rules::{At, stays_inside},
};

/// Largest user data that EC2 takes, before it is encoded (EC2 User Guide, "Run commands when you launch an instance").
const MAX_USER_DATA: u64 = 16 * 1024;

/// How the base64 of an Ed25519 public key's DER begins (RFC 8410, 4).
const ED25519_IN_BASE64: &str = "MCowBQYDK2VwAyEA";

pub(super) fn check(settings: &Value, folder: &FilePath, add: &mut impl FnMut(Problem)) {
    let top = At::top(settings);
    recipe(top.find("build.recipe"), folder, add);
    recipe(top.find("bake.base.recipe"), folder, add);
    for item in top.list("bake.provision") {
        file(item.get("script"), folder, "script", add);
        file(item.get("ansible").and_then(|ansible| ansible.get("playbook")), folder, "playbook", add);
    }
    for item in top.list("smoke_tests") {
        let program = item.get("run").and_then(|run| run.get("program"));
        // A bare name is looked up on PATH, as a shell does.
        file(program.filter(|it| it.text().is_some_and(|text| text.contains('/'))), folder, "program", add);
    }
    for key in top.list("publish.signed_by") {
        // A key itself, in place of its file's path.
        let is_path = |text: &str| !text.starts_with("-----BEGIN") && !text.starts_with(ED25519_IN_BASE64);
        file(Some(key).filter(|it| it.text().is_some_and(is_path)), folder, "public key", add);
    }
    let user_data = top.find("launch.user_data");
    file(user_data.clone(), folder, "template", add);
    if let Some(at) = user_data
        && let Some(size) = at.text().and_then(|text| folder.join(text).metadata().ok()).map(|it| it.len())
        && size > MAX_USER_DATA
    {
        add(Problem::error(
            "too-large",
            &at.path,
            format!("the user data has {size} bytes; EC2 takes {MAX_USER_DATA}"),
        ));
    }
    if let Some(at) = top.find("build.working_directory")
        && let Some(text) = at.text().filter(|text| stays_inside(text))
        && !folder.join(text).is_dir()
    {
        let message = format!("there is no folder `{text}` beside the pipeline file");
        add(Problem::error("no-such-file", &at.path, message));
    }
}

/// A recipe of the project is a folder with a `recipe.yaml`; a name without `/` is a built-in one.
fn recipe(at: Option<At<'_>>, folder: &FilePath, add: &mut impl FnMut(Problem)) {
    let Some(at) = at else { return };
    let Some(text) = at.text().filter(|text| text.contains('/') && stays_inside(text)) else { return };
    if !folder.join(text).join("recipe.yaml").is_file() {
        add(Problem::error("no-such-file", &at.path, format!("there is no recipe in `{text}`"))
            .help("a recipe is a folder with a recipe.yaml; paths start at the folder of the pipeline file"));
    }
}

fn file(at: Option<At<'_>>, folder: &FilePath, what: &str, add: &mut impl FnMut(Problem)) {
    let Some(at) = at else { return };
    // A path that leaves the folder has its own message.
    let Some(text) = at.text().filter(|text| FilePath::new(text).is_absolute() || stays_inside(text)) else { return };
    let path = folder.join(text);
    if path.is_dir() {
        add(Problem::error("no-such-file", &at.path, format!("the {what} `{text}` is a folder")));
    } else if !path.exists() {
        add(Problem::error("no-such-file", &at.path, format!("there is no {what} `{text}`"))
            .help("paths start at the folder of the pipeline file"));
    }
}
