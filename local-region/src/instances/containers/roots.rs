//! Images in the engine: recipes' roots, and roots captured from servers.

use bollard::{
    models::{ContainerConfig, ImageSummary},
    query_parameters::{CommitContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder},
};

use super::{
    engine::{Engine, Failure, QUICK, SLOW, filter, within},
    names::{CAPTURED_LABEL, DIGEST_LABEL, INSTANCE_LABEL, Names, RECIPE_LABEL, recipe_reference},
};
use crate::instances::{BaseImage, CapturedImage};

/// The recipes' roots that the engine holds, newest first.
///
/// # Errors
/// The engine refuses.
pub async fn bases(engine: &Engine) -> Result<Vec<BaseImage>, Failure> {
    let mut images = labelled(engine, DIGEST_LABEL).await?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    Ok(images.into_iter().filter_map(base).collect())
}

/// An image is a recipe's root if it has the name that only the root has; what is made from a root inherits its labels.
fn base(image: ImageSummary) -> Option<BaseImage> {
    let (recipe, digest) = (image.labels.get(RECIPE_LABEL)?, image.labels.get(DIGEST_LABEL)?);
    let reference = recipe_reference(recipe, digest)?;
    // Podman puts a registry before names that have none.
    let plain = |tag: &'_ String| {
        let registries = ["localhost/", "docker.io/"];
        registries.iter().find_map(|registry| tag.strip_prefix(registry)).unwrap_or(tag).to_owned()
    };
    let is_named = image.repo_tags.iter().map(plain).any(|tag| tag == reference);
    is_named.then(|| BaseImage {
        recipe: recipe.clone(),
        digest: digest.clone(),
        reference,
        size_bytes: image.size.try_into().unwrap_or(0),
    })
}

/// Commits a server's file system as an image under `name`. The server stands still meanwhile, so the files are of one
/// moment; what it only has in memory or on /run is not captured.
///
/// # Errors
/// The engine refuses, or has no such server.
pub async fn capture(engine: &Engine, names: &Names, instance_id: &str, name: &str) -> Result<CapturedImage, Failure> {
    let (repository, tag) = names.captured(name);
    let reference = format!("{repository}:{tag}");
    // A commit inherits what the container was started with, its labels included: the region's label is how the image is
    // found again. For the rest the image says what *it* is: no server, no recipe's root. (Podman does not listen; there,
    // only the name tells the image from a root, as in `base`.)
    let labels = [(CAPTURED_LABEL, name), (INSTANCE_LABEL, ""), (RECIPE_LABEL, ""), (DIGEST_LABEL, "")];
    let config = ContainerConfig {
        entrypoint: Some(vec!["/sbin/init".to_owned()]),
        labels: Some(labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()),
        ..ContainerConfig::default()
    };
    let options = CommitContainerOptionsBuilder::new()
        .container(&names.server(instance_id))
        .repo(&repository)
        .tag(&tag)
        .pause(true)
        .build();
    let commit = async {
        engine.docker.commit_container(options, config).await?;
        engine.docker.inspect_image(&reference).await
    };
    let image = within(SLOW, format!("cannot capture {instance_id} as {name}"), commit).await?;
    Ok(CapturedImage { reference, size_bytes: image.size.and_then(|size| size.try_into().ok()).unwrap_or(0) })
}

/// Removes an image. A conflict says that a container is made from it.
///
/// # Errors
/// The engine refuses.
pub async fn remove(engine: &Engine, reference: &str) -> Result<(), Failure> {
    let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
    let call = engine.docker.remove_image(reference, Some(options), None);
    match within(SLOW, format!("cannot remove the image {reference}"), call).await {
        Err(failure) if !failure.is_absent() => Err(failure),
        _ => Ok(()),
    }
}

/// Removes every image captured by this region.
///
/// # Errors
/// The engine refuses.
pub async fn remove_captured(engine: &Engine, names: &Names) -> Result<(), Failure> {
    for image in labelled(engine, &names.region_filter()).await? {
        // By id, forced: whatever names it has, all are this region's.
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        let call = engine.docker.remove_image(&image.id, Some(options), None);
        match within(SLOW, format!("cannot remove the image {}", image.id), call).await {
            Err(failure) if !failure.is_absent() => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

async fn labelled(engine: &Engine, label: &str) -> Result<Vec<ImageSummary>, Failure> {
    let options = ListImagesOptionsBuilder::new().filters(&filter("label", label)).build();
    within(QUICK, "cannot list the engine's images", engine.docker.list_images(Some(options))).await
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn only_the_root_itself_is_a_base() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let labels: HashMap<_, _> =
            [(RECIPE_LABEL.to_owned(), "debian-bookworm".to_owned()), (DIGEST_LABEL.to_owned(), digest.clone())].into();
        let image = |tag: &str| ImageSummary {
            repo_tags: vec![tag.to_owned()],
            labels: labels.clone(),
            ..ImageSummary::default()
        };
        let found = base(image("alcedo/debian-bookworm:abababababab")).expect("the root");
        assert_eq!((found.recipe.as_str(), found.digest), ("debian-bookworm", digest));
        assert!(base(image("docker.io/alcedo/debian-bookworm:abababababab")).is_some());
        assert!(base(image("alcedo/hello-build:abababababab")).is_none(), "made from the root");
        assert!(
            base(ImageSummary { labels: HashMap::new(), ..image("alcedo/debian-bookworm:abababababab") }).is_none()
        );
    }
}
