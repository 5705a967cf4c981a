//! What a caller may do: one identity's IAM policies, for the services that the region has.
//!
//! A call is a list of [`Check`]s, an action on a resource each, as AWS's *Service Authorization Reference* lists them: to
//! launch a server is allowed on the server, its volume, its interface, its subnet, its groups, its image and its key, and
//! to tag what is made is a check of its own. A call is done where some statement allows each check and none denies one.
//!
//! Order, as at AWS: the signature, then this, then whether the thing exists. So a tag condition refuses what is not there.
//! A call that is not listed here is checked on the resource `*` alone, without tags: an exact policy does not allow it.

mod objects;
mod policy;
mod query;

use std::collections::BTreeMap;

pub use objects::{Asked, checks as of_objects};
pub use policy::{Policy, PolicyError};
pub use query::{
    cloudtrail as of_cloudtrail, cloudwatch as of_cloudwatch, ec2 as of_ec2, elbv2 as of_elbv2, ssm as of_ssm,
};

/// Condition keys with their values; the names in lower case, for AWS compares them so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    fn set(&mut self, key: &str, values: impl IntoIterator<Item = impl Into<String>>) {
        self.0.insert(key.to_lowercase(), values.into_iter().map(Into::into).collect());
    }

    fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_lowercase()).map(Vec::as_slice)
    }

    /// The tags that a call brings.
    fn requests<'a>(&mut self, tags: impl IntoIterator<Item = (&'a String, &'a String)>) {
        let mut keys = Vec::new();
        for (key, value) in tags {
            self.set(&format!("aws:RequestTag/{key}"), [value]);
            keys.push(key);
        }
        self.asks_for(keys);
    }

    /// The names of the tags that a call brings or takes away; none at all are no key.
    fn asks_for<'a>(&mut self, keys: impl IntoIterator<Item = &'a String>) {
        let keys: Vec<&String> = keys.into_iter().collect();
        if !keys.is_empty() {
            self.set("aws:TagKeys", keys);
        }
    }

    /// The tags that the resource has; none where it is not there.
    fn has<'a>(&mut self, tags: impl IntoIterator<Item = (&'a String, &'a String)>) {
        for (key, value) in tags {
            self.set(&format!("aws:ResourceTag/{key}"), [value]);
        }
    }
}

/// One thing that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `ec2:RunInstances`.
    pub action: String,
    /// An ARN, or `*`.
    pub resource: String,
    pub context: Context,
}

impl Check {
    /// A check of a service that the region does not have.
    pub fn made_up(action: &str, resource: &str, keys: &[(&str, &str)]) -> Self {
        let mut context = Context::default();
        keys.iter().for_each(|(key, value)| context.set(key, [*value]));
        Self { action: action.to_owned(), resource: resource.to_owned(), context }
    }
}

/// Why a call is refused, in AWS's words.
pub fn refusal(check: &Check) -> String {
    let Check { action, resource, .. } = check;
    format!(
        "User: arn:aws:iam::000000000000:user/local is not authorized to perform: {action} on resource: {resource} because \
         no identity-based policy allows the {action} action"
    )
}
