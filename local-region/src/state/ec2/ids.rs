//! Ids such as `i-0f3a…`: unlike in two regions, the same in two simulations with one seed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Hexadecimal digits after the prefix, as in AWS's long ids.
const DIGITS: usize = 17;

/// Makes ids: the digest of a seed and a counter, which is saved with the records.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ids {
    seed: String,
    made: u64,
}

impl Ids {
    pub fn new(seed: impl Into<String>) -> Self {
        Self { seed: seed.into(), made: 0 }
    }

    /// The next id: `prefix`, a hyphen and 17 hexadecimal digits.
    pub fn next(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}-{}", digits(format!("{}/{}", self.seed, self.made).as_bytes()))
    }
}

/// The id that this content always has.
pub fn id_of(prefix: &str, content: &[u8]) -> String {
    format!("{prefix}-{}", digits(content))
}

fn digits(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))[..DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_long_form_and_never_repeat() {
        let mut ids = Ids::new("seed");
        let (first, second) = (ids.next("i"), ids.next("i"));
        assert_eq!(first.len(), "i-".len() + DIGITS);
        assert_ne!(first, second);
        assert_eq!(Ids::new("seed").next("i"), first, "one seed, one sequence");
    }
}
