//! The names and labels under which a region's things are found in the engine again.

use sha2::{Digest, Sha256};

/// On everything a region makes; the value is the region's name.
pub const REGION_LABEL: &str = "io.alcedo.region";
/// On an instance's two containers; the value is the instance id.
pub const INSTANCE_LABEL: &str = "io.alcedo.instance";
/// On a captured image; the value is the name it was captured under.
pub const CAPTURED_LABEL: &str = "io.alcedo.captured";
/// On a recipe's root; the value is the recipe's name.
pub const RECIPE_LABEL: &str = "io.alcedo.recipe";
/// On a recipe's root; the value is `sha256:…` over all that the recipe says.
pub const DIGEST_LABEL: &str = "io.alcedo.recipe.digest";

/// How many hexadecimal digits of a digest name an image: short enough to read, long enough never to meet twice.
const TAG_DIGITS: usize = 12;

/// The names of one region's things.
#[derive(Debug, Clone)]
pub struct Names {
    region: String,
}

impl Names {
    pub fn of(region: &str) -> Self {
        Self { region: region.to_owned() }
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    pub fn network(&self) -> String {
        format!("alcedo-{}", self.region)
    }

    /// The container that is the server.
    pub fn server(&self, instance_id: &str) -> String {
        format!("alcedo-{}-{instance_id}", self.region)
    }

    /// The container that is the server's network interface.
    pub fn interface(&self, instance_id: &str) -> String {
        format!("alcedo-{}-{instance_id}-eni", self.region)
    }

    /// Repository and tag of a captured image. Image names allow what references do not (capitals, spaces, brackets), so
    /// the repository is the readable part and the tag, taken from the whole name, what tells two names apart.
    pub fn captured(&self, name: &str) -> (String, String) {
        (format!("alcedo-{}/{}", self.region, path_component(name)), short_hash(name.as_bytes()))
    }

    /// `label=value` as the engine's filters take it.
    pub fn region_filter(&self) -> String {
        format!("{REGION_LABEL}={}", self.region)
    }
}

/// The reference of a recipe's root, `alcedo/<recipe>:<12 hex>`; `None` if the digest is no `sha256:…`. Only the root
/// itself carries it: images made from the root inherit its labels, but not its name.
pub fn recipe_reference(recipe: &str, digest: &str) -> Option<String> {
    let short = digest.strip_prefix("sha256:")?.get(..TAG_DIGITS)?;
    Some(format!("alcedo/{recipe}:{short}"))
}

/// Lower-case letters, digits and single separators, as a component of an image reference must be.
fn path_component(name: &str) -> String {
    let mut component = String::with_capacity(name.len());
    for letter in name.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' | '0'..='9' => component.push(letter),
            _ if component.is_empty() || component.ends_with('-') => {}
            _ => component.push('-'),
        }
    }
    let trimmed = component.trim_end_matches('-');
    if trimmed.is_empty() { "image".to_owned() } else { trimmed.to_owned() }
}

fn short_hash(bytes: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(bytes));
    digits.truncate(TAG_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_image_name_becomes_a_reference() {
        let names = Names::of("demo");
        let (repository, tag) = names.captured("Hello (2026.1120.1) / blue");
        assert_eq!(repository, "alcedo-demo/hello-2026-1120-1-blue");
        assert_eq!(tag.len(), TAG_DIGITS);
        assert_eq!(names.captured("[]").0, "alcedo-demo/image");
    }

    #[test]
    fn names_that_look_alike_stay_apart() {
        let names = Names::of("demo");
        assert_ne!(names.captured("web 1"), names.captured("web-1"));
        assert_eq!(names.captured("web 1"), names.captured("web 1"));
    }

    #[test]
    fn a_recipe_reference_is_read_off_its_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(
            recipe_reference("debian-bookworm", &digest).as_deref(),
            Some("alcedo/debian-bookworm:abababababab")
        );
        assert_eq!(recipe_reference("debian-bookworm", "sha256:ab"), None);
        assert_eq!(recipe_reference("debian-bookworm", "abababababababab"), None);
    }
}
