//! The tree of metadata categories of one instance: which paths exist and what they answer.

use serde_json::json;

use super::InstanceMetadata;

/// The API versions that answer. All of them answer alike: AWS adds categories with a version and takes none away.
pub const VERSIONS: [&str; 6] = ["2009-04-04", "2016-09-02", "2018-09-24", "2020-10-27", "2021-03-23", "latest"];

/// What a path answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Text(String),
    Json(String),
    Bytes(Vec<u8>),
}

/// Looks up `path` (without a leading slash, from below the version), e.g. `meta-data/ami-id`. A folder, asked for with or
/// without its trailing slash, answers the names in it, one a line. `None`: there is no such path.
pub fn look_up(instance: &InstanceMetadata, path: &str) -> Option<Answer> {
    let path = path.trim_end_matches('/');
    match path {
        "" => {
            let user_data = instance.user_data.as_ref().map(|_| "user-data");
            return Some(Answer::Text(
                ["dynamic", "meta-data"].into_iter().chain(user_data).collect::<Vec<_>>().join("\n"),
            ));
        }
        "user-data" => return instance.user_data.clone().map(Answer::Bytes),
        "dynamic/instance-identity/document" => return Some(Answer::Json(identity_document(instance))),
        // The one folder whose listing says more than names: `<index>=<key name>`.
        "meta-data/public-keys" => {
            return instance.public_key.as_ref().map(|(name, _)| Answer::Text(format!("0={name}")));
        }
        "meta-data/iam/security-credentials" => return instance.role.clone().map(Answer::Text),
        _ => {}
    }
    let leaves = leaves(instance);
    if let Some((_, value)) = leaves.iter().find(|(leaf, _)| leaf == path) {
        return Some(Answer::Text(value.clone()));
    }
    folder(leaves.iter().map(|(leaf, _)| leaf.as_str()), path).map(Answer::Text)
}

/// Every path that has a text value, without those that [`look_up`] answers itself; their folders follow from them.
fn leaves(instance: &InstanceMetadata) -> Vec<(String, String)> {
    let mut leaves: Vec<(String, String)> = Vec::new();
    let mut leaf = |path: String, value: &str| leaves.push((path, value.to_owned()));
    let interface = format!("meta-data/network/interfaces/macs/{}", instance.mac);
    let groups = instance.security_groups.join("\n");

    leaf("dynamic/instance-identity/document".into(), "");
    for (name, value) in [
        ("ami-id", instance.ami_id.as_str()),
        ("ami-launch-index", "0"),
        ("hostname", &instance.hostname),
        ("instance-id", &instance.instance_id),
        ("instance-type", &instance.instance_type),
        ("local-hostname", &instance.hostname),
        ("local-ipv4", &instance.private_ip),
        ("mac", &instance.mac),
        ("placement/availability-zone", &instance.availability_zone),
        ("placement/region", &instance.region),
        // This machine reaches an instance under its private address, so that is its public address, too.
        ("public-ipv4", &instance.private_ip),
        ("security-groups", &groups),
        ("services/domain", "amazonaws.com"),
        ("services/partition", "aws"),
    ] {
        leaf(format!("meta-data/{name}"), value);
    }
    leaf(format!("{interface}/local-ipv4s"), &instance.private_ip);
    leaf(format!("{interface}/mac"), &instance.mac);
    leaf(format!("{interface}/security-groups"), &groups);
    if let Some((_, key)) = &instance.public_key {
        leaf("meta-data/public-keys/0/openssh-key".into(), key);
    }
    if let Some(role) = &instance.role {
        leaf(format!("meta-data/iam/security-credentials/{role}/"), "");
    }
    for (key, value) in &instance.tags {
        leaf(format!("meta-data/tags/instance/{key}"), value);
    }
    leaves.sort();
    leaves
}

/// The names right below `path`, folders with a trailing slash; `None` if no path lies below it.
fn folder<'a>(paths: impl Iterator<Item = &'a str>, path: &str) -> Option<String> {
    let prefix = format!("{path}/");
    let mut names: Vec<String> = paths
        .filter_map(|leaf| leaf.strip_prefix(&prefix))
        .filter(|rest| !rest.is_empty())
        .map(|rest| match rest.split_once('/') {
            Some((name, _)) => format!("{name}/"),
            None => rest.to_owned(),
        })
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join("\n"))
}

/// What an instance can show to prove who it is. AWS signs it; nothing here can, so no signature path exists.
fn identity_document(instance: &InstanceMetadata) -> String {
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    let document = json!({
        "architecture": architecture,
        "availabilityZone": instance.availability_zone,
        "imageId": instance.ami_id,
        "instanceId": instance.instance_id,
        "instanceType": instance.instance_type,
        "privateIp": instance.private_ip,
        "region": instance.region,
        "version": "2017-09-30",
    });
    format!("{document:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceMetadata {
        InstanceMetadata {
            instance_id: "i-0a1".into(),
            ami_id: "ami-1".into(),
            region: "us-east-1".into(),
            availability_zone: "us-east-1a".into(),
            private_ip: "10.213.0.4".into(),
            mac: "02:42:0a:d5:00:04".into(),
            public_key: Some(("builder".into(), "ssh-ed25519 AAAA builder".into())),
            tags: vec![("Name".into(), "web 1".into()), ("alcedo:run".into(), "01J".into())],
            ..InstanceMetadata::default()
        }
    }

    fn text(path: &str) -> Option<String> {
        match look_up(&instance(), path)? {
            Answer::Text(text) => Some(text),
            other => panic!("{path} is no text: {other:?}"),
        }
    }

    #[test]
    fn a_folder_lists_its_names_with_or_without_the_slash() {
        let placement = Some("availability-zone\nregion".to_owned());
        assert_eq!(text("meta-data/placement"), placement);
        assert_eq!(text("meta-data/placement/"), placement);
        assert_eq!(text("meta-data/tags/instance"), Some("Name\nalcedo:run".into()));
        assert_eq!(text(""), Some("dynamic\nmeta-data".into()));
        let all = text("meta-data/").expect("the categories");
        assert!(all.contains("ami-id\n") && all.contains("placement/\n") && all.contains("public-keys/\n"), "{all}");
    }

    #[test]
    fn a_leaf_answers_its_value() {
        assert_eq!(text("meta-data/placement/region"), Some("us-east-1".into()));
        assert_eq!(text("meta-data/tags/instance/Name"), Some("web 1".into()));
        assert_eq!(text("meta-data/public-keys/"), Some("0=builder".into()));
        assert_eq!(text("meta-data/public-keys/0"), Some("openssh-key".into()));
        assert_eq!(text("meta-data/public-keys/0/openssh-key"), Some("ssh-ed25519 AAAA builder".into()));
    }

    #[test]
    fn what_the_instance_lacks_is_not_there() {
        for path in ["user-data", "meta-data/iam", "meta-data/no-such", "meta-data/ami-id/x", "meta-dat"] {
            assert_eq!(text(path), None, "{path}");
        }
        let bare = InstanceMetadata::default();
        assert_eq!(look_up(&bare, "meta-data/public-keys/"), None);
        assert_eq!(look_up(&bare, "meta-data/tags/instance"), None);
    }

    #[test]
    fn a_role_is_listed_but_has_no_credentials() {
        let with_role = InstanceMetadata { role: Some("web".into()), ..instance() };
        assert_eq!(look_up(&with_role, "meta-data/iam/"), Some(Answer::Text("security-credentials/".into())));
        assert_eq!(look_up(&with_role, "meta-data/iam/security-credentials/"), Some(Answer::Text("web".into())));
        assert_eq!(look_up(&with_role, "meta-data/iam/security-credentials/web"), None);
    }
}
