//! Server images: the base to start from, and those of this app.

use alcedo_images::recipe::Recipe;
use alcedo_pipeline::file::Base;
use aws_sdk_ec2::types::{Filter, Image as Ami, ImageState};

use super::{BaseImage, FactsError, Image, base_in_words};
use crate::{
    cloud_error::CloudError,
    parts::Parts,
    site::Site,
    tags::{self, Tags},
};

/// On a recipe's image: the recipe's name and digest.
const RECIPE: &str = "alcedo:recipe";
const RECIPE_DIGEST: &str = "alcedo:recipe-digest";

pub(super) async fn base(site: &Site, base: &Base) -> Result<BaseImage, FactsError> {
    let call = site.clients.ec2.describe_images();
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let (call, hint) = match base {
        Base { recipe: Some(place), .. } => {
            let recipe = recipe(site, place)?;
            // A recipe of the project is named by its folder in the file, and by its own name everywhere else.
            let (name, digest) = (recipe.name(), recipe.digest());
            let call = call
                .filters(filter(&format!("tag:{RECIPE}"), name))
                .filters(filter(&format!("tag:{RECIPE_DIGEST}"), &digest));
            let hint = match site.is_local() {
                true => format!("run `alcedo image build {place}`"),
                false => format!(
                    "no image in this account carries the tags {RECIPE}={name} and {RECIPE_DIGEST}={digest}; import the recipe's root \
                     there, or start from a vendor's image with bake.base.ami or bake.base.owner and name"
                ),
            };
            (call, hint)
        }
        Base { ami: Some(ami), .. } => (call.image_ids(ami), "check bake.base.ami and the region".to_owned()),
        Base { owner, name, .. } => (
            call.owners(owner.as_deref().unwrap_or("self"))
                .filters(filter("name", name.as_deref().unwrap_or("*")))
                .filters(filter("state", "available")),
            "check bake.base.owner and bake.base.name".to_owned(),
        ),
    };
    let absent = || FactsError::missing(format!("there is no base image: {}", base_in_words(base)), hint.clone());
    let found = match call.send().await {
        Ok(answer) => answer.images().to_vec(),
        Err(error) => {
            let error = CloudError::of("find the base image", error);
            if error.is("InvalidAMIID.NotFound") || error.is("InvalidAMIID.Malformed") {
                return Err(absent());
            }
            return Err(error.into());
        }
    };
    let newest = found.into_iter().max_by(|a, b| a.creation_date().cmp(&b.creation_date())).ok_or_else(absent)?;
    Ok(BaseImage {
        ami: newest.image_id().unwrap_or_default().to_owned(),
        name: newest.name().unwrap_or_default().to_owned(),
        recipe_digest: Tags::from_ec2(newest.tags()).get(RECIPE_DIGEST).map(str::to_owned),
    })
}

/// A recipe that the file names: built in, or a folder of the project.
fn recipe(site: &Site, place: &str) -> Result<Recipe, FactsError> {
    crate::build::recipe(site, place).map_err(|error| {
        FactsError::missing(
            format!("recipe {place} cannot be used: {error}"),
            "`alcedo image list` shows the built-in recipes",
        )
    })
}

/// Server images of the site's app, newest version first.
pub async fn of_app(site: &Site) -> Result<Vec<Image>, FactsError> {
    let call = site
        .clients
        .ec2
        .describe_images()
        .owners("self")
        .filters(Filter::builder().name(format!("tag:{}", tags::APP)).values(&site.pipeline.app).build());
    let answer = call.send().await.map_err(|error| CloudError::of("list the app's images", error))?;
    let mut images: Vec<Image> = answer.images().iter().filter_map(image).collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.version));
    Ok(images)
}

fn image(ami: &Ami) -> Option<Image> {
    let tags = Tags::from_ec2(ami.tags());
    Some(Image {
        ami: ami.image_id()?.to_owned(),
        name: ami.name().unwrap_or_default().to_owned(),
        version: tags.get(tags::VERSION)?.parse().ok()?,
        fingerprint: tags.get(tags::FINGERPRINT)?.to_owned(),
        artifact: tags.get(tags::ARTIFACT).map(str::to_owned),
        snapshots: ami
            .block_device_mappings()
            .iter()
            .filter_map(|mapping| mapping.ebs()?.snapshot_id().map(str::to_owned))
            .collect(),
        available: ami.state() == Some(&ImageState::Available),
        parts: tags.get(tags::INPUTS).map(Parts::read),
    })
}
