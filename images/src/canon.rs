//! Digests of values: SHA-256 over canonical JSON.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// SHA-256 (64 hexadecimal digits) of a value's JSON with sorted keys and no blanks: the order in which a struct declares
/// its fields, or a map was filled, does not count.
pub(crate) fn digest(value: &impl Serialize) -> String {
    // Values of this crate have text keys and no number that JSON lacks, so neither step can fail; were one to, `null`
    // would be digested for every such value, which the tests of each fingerprint would show.
    let sorted = serde_json::to_value(value).unwrap_or_default();
    hex::encode(Sha256::digest(write(&sorted)))
}

fn write(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            // `serde_json` keeps insertion order where any crate of a build asks it to: sorting is done here.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let inside: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), write(value)))
                .collect();
            format!("{{{}}}", inside.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = serde_json::json!({ "b": [{ "z": 1, "a": null }], "a": "\"" });
        assert_eq!(write(&value), r#"{"a":"\"","b":[{"a":null,"z":1}]}"#);
    }
}
