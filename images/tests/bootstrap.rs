//! The built-in recipe becomes a root in the engine. Needs an engine, mmdebstrap and a Debian mirror, as
//! `cargo xtask test` sets them up; without them the test fails and says what is missing.

use std::{sync::Arc, time::Duration};

use alcedo_images::{
    bootstrap::{bootstrap, find},
    engine,
    event::{ImageEvent, Sink},
    recipe::{DIGEST_LABEL, PACKAGES_LABEL, RECIPE_LABEL, Recipe},
};
use tokio_util::sync::CancellationToken;

/// What the base image may take in the engine; more packages than a server needs would show here.
const SIZE_LIMIT_BYTES: u64 = 200_000_000;

#[tokio::test]
async fn the_recipe_becomes_an_image_once() {
    let engine = engine::connect().await.unwrap_or_else(|error| panic!("{error}; {}", error.hint()));
    let recipe = Recipe::load("debian-bookworm").expect("it is built in");
    let told: Sink = Arc::new(|event| match event {
        ImageEvent::Started { what } => println!("{what}"),
        ImageEvent::Line { text, .. } => println!("  {text}"),
        ImageEvent::Skipped { lines } => println!("  … {lines} lines"),
    });
    let made = bootstrap(engine.docker(), &recipe, &told, &CancellationToken::new())
        .await
        .unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    println!("{} MB in {:?} (reused: {})", made.size_bytes / 1_000_000, made.took, made.reused);
    assert_eq!(made.digest, recipe.digest());
    assert_eq!(made.reference, recipe.reference());
    assert!(made.size_bytes < SIZE_LIMIT_BYTES, "{} bytes", made.size_bytes);

    let quiet: Sink = Arc::new(|event| panic!("nothing is left to do, but: {event:?}"));
    let again = bootstrap(engine.docker(), &recipe, &quiet, &CancellationToken::new()).await.expect("it is there");
    assert!(again.reused && again.took == Duration::ZERO);

    let image = engine.docker().inspect_image(&made.reference).await.expect("the engine has it");
    let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
    assert_eq!(labels.get(RECIPE_LABEL).map(String::as_str), Some("debian-bookworm"));
    assert_eq!(labels.get(DIGEST_LABEL), Some(&made.digest));
    assert!(labels.get(PACKAGES_LABEL).is_some_and(|hash| hash.starts_with("sha256:")));
}

#[tokio::test]
async fn a_recipe_that_was_never_made_is_not_found() {
    let engine = engine::connect().await.unwrap_or_else(|error| panic!("{error}; {}", error.hint()));
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = "version: 1\nname: never-made\nsuite: bookworm\ncomponents: [main]\nmirror: http://mirror.invalid\n\
                    security_mirror: http://mirror.invalid\npackages: [systemd]\n";
    std::fs::write(folder.path().join("recipe.yaml"), manifest).expect("written");
    let recipe = Recipe::load(&format!("{}/", folder.path().display())).expect("it loads");
    assert_eq!(find(engine.docker(), &recipe).await.expect("an answer"), None);
}
