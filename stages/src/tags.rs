//! The tags that every resource carries from the call that creates it: who it belongs to and who made it.

use std::collections::BTreeMap;

use alcedo_pipeline::{
    ids::{RunId, StepId},
    version::Version,
};
use jiff::Timestamp;

pub const APP: &str = "alcedo:app";
pub const ENVIRONMENT: &str = "alcedo:environment";
pub const VERSION: &str = "alcedo:version";
pub const COMMIT: &str = "alcedo:commit";
pub const RUN: &str = "alcedo:run";
pub const STEP: &str = "alcedo:step";
/// RFC 3339; what carries it ends then, whether or not anybody is left to end it.
pub const EXPIRES: &str = "alcedo:expires";
/// On an image: the fingerprint of everything that went into it.
pub const FINGERPRINT: &str = "alcedo:fingerprint";
/// On an image: the digest of the artifact that is in it.
pub const ARTIFACT: &str = "alcedo:artifact";
/// On an image: what else than its version went into it, part by part; see [`crate::parts`].
pub const INPUTS: &str = "alcedo:inputs";
/// On a fleet's target group: the settings that its servers were launched with; see [`crate::parts`].
pub const LAUNCHED_WITH: &str = "alcedo:launched-with";
/// On an image: the digest of the base root it was made from.
pub const BASE: &str = "alcedo:base";
/// On a fleet's target group: the version that was in service before it.
pub const REPLACES: &str = "alcedo:replaces";
/// On a fleet's target group, from the flip on: until when it is held as the reserve for a rollback.
pub const HELD_UNTIL: &str = "alcedo:held-until";
/// Beside it: since when the fleet has no traffic.
pub const HELD_SINCE: &str = "alcedo:held-since";

/// On a fleet's target group: the port and the ARN of the listener at which it was launched.
pub const LISTENER: &str = "alcedo:listener";
/// Beside it: the balancer's own URL there.
pub const URL: &str = "alcedo:url";

/// On a security group rule: one for each run that uses it, with the moment in which its lease ends. The rule goes with
/// the last of them.
const USER: &str = "alcedo:user:";

/// The name of the tag by which a run says that it uses something.
pub fn user(run: &RunId) -> String {
    format!("{USER}{run}")
}

/// Tags as plain pairs; turned into each SDK's own type where they are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// What is the same for everything a step makes.
    pub fn of(app: &str, environment: &str, version: Version, run: &RunId, step: &StepId) -> Self {
        Self::default()
            .with(APP, app)
            .with(ENVIRONMENT, environment)
            .with(VERSION, version)
            .with(RUN, run)
            .with(STEP, step)
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    #[must_use]
    pub fn expiring(self, at: Timestamp) -> Self {
        self.with(EXPIRES, at)
    }

    #[must_use]
    pub fn used_by(self, run: &RunId, until: Timestamp) -> Self {
        self.with(&user(run), until)
    }

    /// The runs that use it, each with the end of its lease; an end that cannot be read has passed.
    pub fn users(&self) -> Vec<(RunId, Timestamp)> {
        let named = self.0.iter().filter_map(|(name, until)| Some((name.strip_prefix(USER)?.parse().ok()?, until)));
        named.map(|(run, until)| (run, until.parse().unwrap_or(Timestamp::UNIX_EPOCH))).collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn ec2(&self) -> Vec<aws_sdk_ec2::types::Tag> {
        self.0.iter().map(|(key, value)| aws_sdk_ec2::types::Tag::builder().key(key).value(value).build()).collect()
    }

    /// The tags as the specification of one resource type in a creating call.
    pub fn specification(&self, kind: aws_sdk_ec2::types::ResourceType) -> aws_sdk_ec2::types::TagSpecification {
        aws_sdk_ec2::types::TagSpecification::builder().resource_type(kind).set_tags(Some(self.ec2())).build()
    }

    pub fn elb(&self) -> Vec<aws_sdk_elasticloadbalancingv2::types::Tag> {
        self.0
            .iter()
            .map(|(key, value)| aws_sdk_elasticloadbalancingv2::types::Tag::builder().key(key).value(value).build())
            .collect()
    }

    pub fn from_ec2(tags: &[aws_sdk_ec2::types::Tag]) -> Self {
        Self(tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()))).collect())
    }

    pub fn from_elb(tags: &[aws_sdk_elasticloadbalancingv2::types::Tag]) -> Self {
        Self(
            tags.iter()
                .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
                .collect(),
        )
    }
}
