//! The cookies that bind a client to a target group (`AWSALBTG`) or to a target (`AWSALB`), named as AWS names them.
//! AWS encrypts what they hold; here it is a digest, which tells a client as little.

use sha2::{Digest, Sha256};

use crate::state::elbv2::TargetKey;

pub const GROUP_COOKIE: &str = "AWSALBTG";
pub const TARGET_COOKIE: &str = "AWSALB";

/// What the group cookie holds.
pub fn token(group_arn: &str) -> String {
    digest(&[group_arn])
}

/// What the target cookie holds.
pub fn target_token(key: &TargetKey) -> String {
    digest(&[&key.group_arn, &key.id, &key.port.to_string()])
}

fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hex::encode(hasher.finalize())
}

/// The values of `Set-Cookie` that bind a client: the cookie, and its twin that browsers also send with requests from
/// other sites.
pub fn set_cookies(name: &str, token: &str, seconds: u32) -> [String; 2] {
    [
        format!("{name}={token}; Max-Age={seconds}; Path=/"),
        format!("{name}CORS={token}; Max-Age={seconds}; Path=/; SameSite=None; Secure"),
    ]
}

/// A cookie's value in the `Cookie` headers of a request, its own or its twin's.
pub fn cookie<'a>(headers: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let twin = format!("{name}CORS");
    headers
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name || *key == twin)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = ["a=1; AWSALBCORS=two", "AWSALBTG=group"];
        assert_eq!(cookie(headers.into_iter(), TARGET_COOKIE), Some("two"));
        assert_eq!(cookie(headers.into_iter(), GROUP_COOKIE), Some("group"));
        assert_eq!(cookie(["xAWSALB=no"].into_iter(), TARGET_COOKIE), None);
    }

    #[test]
    fn targets_on_two_ports_have_two_tokens() {
        let key = |port| TargetKey { group_arn: "g".into(), id: "i-1".into(), port };
        assert_ne!(target_token(&key(80)), target_token(&key(81)));
    }
}
