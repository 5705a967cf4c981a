//! What an image or a fleet was made with, as the text of one tag: `base=1f0c63aa checks=97e2b0d4`. Kept to say later which
//! of it has changed; nothing is decided by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use alcedo_images::fingerprint::ImageParts;
use alcedo_pipeline::file;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// AWS takes at most this many characters as a tag's value.
const TAG_LIMIT: usize = 256;

/// Between the digests of provisioning steps. Of what AWS allows in tags of every service.
const BETWEEN: char = '+';
/// Before the one digest of more provisioning steps than the tag has place for.
const TOGETHER: char = '@';

/// Values by names: short ones as they are, others as the first digits of a digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts(BTreeMap<String, String>);

impl Parts {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The provisioning steps' digests; `None` where they are only known together.
    pub fn steps(&self) -> Option<Vec<&str>> {
        let steps = self.get("steps")?;
        (!steps.starts_with(TOGETHER)).then(|| steps.split(BETWEEN).filter(|step| !step.is_empty()).collect())
    }

    /// The names of which the two do not have the same.
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        differing(&self.0, &other.0)
    }

    /// From a tag. What a later version has added is compared like everything else.
    pub fn read(tag: &str) -> Self {
        let pairs = tag.split(' ').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The servers' settings, by their keys in the file. `folder` is where the user data's template is.
    pub fn of_launch(launch: &file::Launch, folder: &Path) -> Self {
        let user_data = launch.user_data.as_ref().map(|path| std::fs::read(folder.join(path)).unwrap_or_default());
        Self(BTreeMap::from(
            [
                ("count", launch.count.to_string()),
                ("instance_type", launch.instance_type.clone()),
                ("port", launch.port.to_string()),
                ("deregistration_delay", format!("{}s", launch.deregistration_delay.as_secs())),
                ("subnets", short(&launch.subnets)),
                ("security_groups", short(&launch.security_groups)),
                ("instance_profile", short(&launch.instance_profile)),
                ("key", short(&launch.key)),
                ("user_data", short(&user_data)),
                ("health_check", short(&launch.health_check)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        ))
    }
}

/// The keys under which the two do not have the same, in order.
pub fn differing<'a>(one: &'a BTreeMap<String, String>, other: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).map(String::as_str).collect()
}

impl From<ImageParts> for Parts {
    fn from(parts: ImageParts) -> Self {
        let ImageParts { base, install_path, checks, tool, steps } = parts;
        let all = steps.join(&BETWEEN.to_string());
        let named = |steps| {
            let parts = [("alcedo", &tool), ("base", &base), ("checks", &checks), ("install_path", &install_path)];
            let parts = parts.into_iter().chain([("steps", steps)]);
            Self(parts.map(|(name, value)| (name.to_owned(), value.clone())).collect())
        };
        let whole = named(&all);
        match whole.to_string().len() {
            0..=TAG_LIMIT => whole,
            _ => named(&format!("{TOGETHER}{}", short(&steps))),
        }
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&pairs.join(" "))
    }
}

/// The first digits of a digest over a setting. Settings come from one file of one format, in one order.
fn short(value: &impl Serialize) -> String {
    let text = serde_json::to_vec(value).expect("settings are JSON");
    hex::encode(&Sha256::digest(text)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(steps: usize) -> ImageParts {
        let digit = |text: &str| text.repeat(8);
        let steps = (0..steps).map(|step| format!("{step:08x}")).collect();
        ImageParts { base: digit("a"), install_path: digit("b"), checks: digit("c"), tool: digit("d"), steps }
    }

    #[test]
    fn a_tag_is_read_back_and_no_longer_than_aws_allows() {
        for steps in [0, 1, 5, 20, 21, 200] {
            let parts = Parts::from(image(steps));
            let tag = parts.to_string();
            assert!(tag.len() <= TAG_LIMIT, "{tag}");
            assert!(tag.chars().all(|c| c.is_ascii_alphanumeric() || "+-=._:/@ ".contains(c)), "{tag}");
            assert_eq!(Parts::read(&tag), parts);
            assert_eq!(parts.steps().map(|steps| steps.len()), (steps <= 20).then_some(steps), "{tag}");
        }
        assert_ne!(Parts::from(image(200)), Parts::from(image(201)));
    }
}
