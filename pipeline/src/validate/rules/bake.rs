//! Rules of `bake`, and of what it shares with `build`.

use super::{
    Add, At, Part, Problem,
    build::{absolute, recipe},
    checks, exactly_one, inside, instance_type, join, name, not_blank, not_zero, quote, variables,
};

pub(super) fn check(top: &At<'_>, add: Add<'_>) {
    let Some(bake) = top.get("bake") else { return };
    base(&bake, add);
    matches_build(top, add);
    instance_type(bake.get("instance_type"), add);
    not_blank(bake.get("security_group"), add);
    not_blank(bake.get("subnet"), add);
    if let Some(user) = bake.get("ssh_user")
        && let Some(text) = user.text()
        && !is_user(text)
    {
        add(Problem::error("bad-name", &user.path, format!("{} is no user's name", quote(text))));
    }
    if let Some(path) = bake.get("install_path") {
        absolute(&path, add);
    }
    for step in bake.list("provision") {
        provision(&step, add);
    }
    for image_check in bake.list("checks") {
        checks::check(&image_check, add);
        if let Some(run) = image_check.get("run") {
            add(Problem::error("not-in-an-image", &run.path, "`run` cannot check an image: there is no URL yet")
                .at(Part::Key)
                .help("move it to `smoke_tests`, or use `command` to run something on the server"));
        }
    }
    not_zero(bake.get("timeout"), add);
}

/// A user's name as `useradd` takes it.
pub(super) fn is_user(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    first && text.len() <= 32 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c))
}

fn base(bake: &At<'_>, add: Add<'_>) {
    let Some(base) = bake.get("base").filter(|base| base.value.is_object()) else { return };
    let by_name = base.has("owner") || base.has("name");
    let mut forms = Vec::new();
    forms.extend(base.has("recipe").then_some("recipe"));
    forms.extend(base.has("ami").then_some("ami"));
    forms.extend(by_name.then_some("owner with name"));
    if forms.is_empty() {
        let message = format!("{} needs one of `recipe`, `ami`, or `owner` with `name`", name(&base.path));
        add(Problem::error("none-of", &base.path, message).at(Part::Key).help("base: { recipe: debian-bookworm }"));
    } else if forms.len() > 1 {
        let second = ["ami", "owner", "name"].into_iter().find(|key| base.has(key) && *key != forms[0]);
        let message = format!("{} has {}, but can have only one of them", name(&base.path), join(&forms, "and"));
        add(Problem::error("more-than-one-of", &base.path.key(second.unwrap_or("ami")), message)
            .at(Part::Key)
            .help("remove one; an environment that replaces a form of the base sets the other's keys to null"));
    }
    for (key, partner) in [("owner", "name"), ("name", "owner")] {
        if by_name && !base.has(partner) {
            let message = format!("{} has `{key}` without `{partner}`", name(&base.path));
            add(Problem::error("missing-key", &base.path.key(key), message)
                .at(Part::Key)
                .help("with an owner's account id, the newest image whose name matches is taken"));
        }
    }
    recipe(base.get("recipe"), add);
    if let Some(ami) = base.get("ami")
        && let Some(text) = ami.text()
        && !text
            .strip_prefix("ami-")
            .is_some_and(|id| (8..=17).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        add(Problem::error("bad-name", &ami.path, format!("{} is no image's id", quote(text)))
            .help("an id looks like ami-0123456789abcdef0; for a name, use `owner` with `name`"));
    }
    if let Some(owner) = base.get("owner")
        && let Some(text) = owner.text()
        && !(matches!(text, "amazon" | "self" | "aws-marketplace")
            || text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()))
    {
        add(Problem::error("bad-name", &owner.path, format!("{} is no owner of images", quote(text)))
            .help("write an account id of 12 digits in quotes, `amazon` or `self`"));
    }
    not_blank(base.get("name"), add);
}

/// The artifact must run on what it was built for. Where the base is an AMI, bake compares them on the builder; where it
/// is a recipe, the two digests must be equal, and some files can be told beforehand that they never will be.
fn matches_build(top: &At<'_>, add: Add<'_>) {
    let Some(base) = top.find("bake.base.recipe") else { return };
    if let Some(image) = top.find("build.image") {
        add(Problem::error(
            "base-mismatch",
            &image.path,
            "the app is built in an image, but the server is made from a recipe",
        )
        .note(format!("the server's recipe is `{}`", base.text().unwrap_or_default()))
        .help("build in the same recipe: build: { recipe: … }"));
    }
    if let Some(recipe) = top.find("build.recipe")
        && let (Some(built), Some(served)) = (recipe.text(), base.text())
        && built != served
    {
        let message = format!("the app is built in {}, but the server is made from {}", quote(built), quote(served));
        add(Problem::error("base-mismatch", &base.path, message).help("name the same recipe in both"));
    }
}

fn provision(step: &At<'_>, add: Add<'_>) {
    exactly_one(step, &["script", "run", "ansible"], add);
    inside(step.get("script"), add);
    not_blank(step.get("run"), add);
    inside(step.get("ansible").and_then(|ansible| ansible.get("playbook")), add);
    variables(step.get("environment"), add);
    if let Some(environment) = step.get("environment")
        && step.has("ansible")
        && environment.entries().next().is_some()
    {
        add(Problem::error("no-effect", &environment.path, "`environment` is for `script` and `run`")
            .at(Part::Key)
            .help("give a playbook its variables in `extra_vars`"));
    }
}
