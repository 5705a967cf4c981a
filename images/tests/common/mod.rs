//! What tests on a real engine share. Without an engine they fail, and say what is missing: a test that silently did
//! nothing would be worth nothing.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use alcedo_images::{
    BaseImage, Engine, bootstrap, engine,
    event::{ImageEvent, Sink},
    recipe::Recipe,
};

/// The engine, or the reason why there is none.
pub async fn engine() -> Engine {
    engine::connect()
        .await
        .unwrap_or_else(|error| panic!("this test needs a container engine: {error}; {}", error.hint()))
}

/// The recipe's root, made if the engine does not have it yet.
pub async fn base(engine: &Engine) -> BaseImage {
    let recipe = Recipe::load("debian-bookworm").unwrap();
    bootstrap::bootstrap(
        engine.docker(),
        &recipe,
        &alcedo_images::event::silent(),
        &tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap()
}

/// A sink that keeps everything, and what it kept.
pub fn recording() -> (Sink, Arc<Mutex<Vec<ImageEvent>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    (Arc::new(move |event| into.lock().unwrap().push(event)), seen)
}

/// The lines among the events.
pub fn lines(events: &Mutex<Vec<ImageEvent>>) -> Vec<String> {
    let events = events.lock().unwrap();
    let line = |event: &ImageEvent| match event {
        ImageEvent::Line { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(line).collect()
}

/// Writes these files below the folder.
#[allow(dead_code, reason = "each test file uses what it needs of this module")]
pub fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
