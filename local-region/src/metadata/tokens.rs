//! Session tokens of IMDSv2: who may ask, and until when.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};

/// The longest life of a token in seconds (six hours), as the EC2 user guide has it.
pub const LONGEST_TTL_S: u32 = 21_600;

/// A checked token life: 1 to [`LONGEST_TTL_S`] seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u32);

impl Ttl {
    /// Reads the value of the `x-aws-ec2-metadata-token-ttl-seconds` header; `None` if it is no number in range.
    pub fn from_header(value: &str) -> Option<Self> {
        value.trim().parse().ok().filter(|seconds| (1..=LONGEST_TTL_S).contains(seconds)).map(Self)
    }

    pub fn seconds(self) -> u32 {
        self.0
    }
}

#[derive(Debug)]
struct Grant {
    instance_id: String,
    expires: Timestamp,
}

/// The tokens that are in force. A token is good only for the instance that asked for it, as it is on AWS.
#[derive(Debug, Default)]
pub struct Tokens {
    grants: HashMap<String, Grant>,
}

impl Tokens {
    pub fn issue(&mut self, instance_id: &str, ttl: Ttl, now: Timestamp) -> String {
        // Done here and not by a timer, so that the map is never larger than the tokens in force at the last issue.
        self.grants.retain(|_, grant| grant.expires > now);
        // 42 random bytes are 56 characters: the length of AWS's own tokens.
        let token =
            URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()) + &URL_SAFE_NO_PAD.encode(rand::random::<[u8; 10]>());
        let expires = now.saturating_add(SignedDuration::from_secs(ttl.seconds().into())).unwrap_or(Timestamp::MAX);
        self.grants.insert(token.clone(), Grant { instance_id: instance_id.to_owned(), expires });
        token
    }

    /// The seconds left of `token`, if it is in force and was given to this instance.
    pub fn seconds_left(&self, token: &str, instance_id: &str, now: Timestamp) -> Option<i64> {
        let grant = self.grants.get(token).filter(|grant| grant.instance_id == instance_id && grant.expires > now)?;
        Some(grant.expires.duration_since(now).as_secs().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a second in range")
    }

    fn ttl(seconds: &str) -> Ttl {
        Ttl::from_header(seconds).expect("a life in range")
    }

    #[test]
    fn a_life_is_one_second_to_six_hours() {
        for refused in ["0", "21601", "-1", "", "a minute", "1.5"] {
            assert_eq!(Ttl::from_header(refused), None, "{refused:?}");
        }
        assert_eq!(ttl("1").seconds(), 1);
        assert_eq!(ttl("21600").seconds(), 21_600);
    }

    #[test]
    fn a_token_is_bound_to_its_instance_and_ends() {
        let mut tokens = Tokens::default();
        let token = tokens.issue("i-1", ttl("60"), at(1_000));
        assert_eq!(tokens.seconds_left(&token, "i-1", at(1_000)), Some(60));
        assert_eq!(tokens.seconds_left(&token, "i-1", at(1_059)), Some(1));
        assert_eq!(tokens.seconds_left(&token, "i-1", at(1_060)), None);
        assert_eq!(tokens.seconds_left(&token, "i-2", at(1_000)), None);
        assert_eq!(tokens.seconds_left("made up", "i-1", at(1_000)), None);
    }

    #[test]
    fn ended_tokens_are_forgotten() {
        let mut tokens = Tokens::default();
        tokens.issue("i-1", ttl("1"), at(1_000));
        tokens.issue("i-1", ttl("1"), at(1_001));
        assert_eq!(tokens.grants.len(), 1);
    }
}
