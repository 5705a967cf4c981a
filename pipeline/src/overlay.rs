//! Laying an environment's overrides over the rest of the file.

use serde_json::Value;

/// Lays `over` over `base`: maps merge key by key at every depth, a list or a single value replaces what was there, and
/// nothing (`null`) removes it.
pub fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match value {
                    Value::Null => {
                        base.remove(key);
                    }
                    // What is new still goes through the overlay, so that no `null` of a deeper map is left over.
                    Value::Object(_) => {
                        let below = base.entry(key.clone()).or_insert_with(empty);
                        overlay(below, value);
                    }
                    _ => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (base, Value::Object(_)) => {
            *base = empty();
            overlay(base, over);
        }
        (base, over) => *base = over.clone(),
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn laid(mut base: Value, over: Value) -> Value {
        overlay(&mut base, &over);
        base
    }

    #[test]
    fn maps_merge_lists_and_scalars_replace_and_null_removes() {
        let base = json!({ "a": { "x": 1, "y": 2 }, "list": [1, 2, 3], "gone": "here", "kept": true });
        let over = json!({ "a": { "y": 3, "z": { "new": null, "deep": 4 } }, "list": [9], "gone": null });
        assert_eq!(laid(base, over), json!({ "a": { "x": 1, "y": 3, "z": { "deep": 4 } }, "list": [9], "kept": true }));
        assert_eq!(laid(json!({ "a": 1 }), json!({ "a": { "b": 2 } })), json!({ "a": { "b": 2 } }));
        assert_eq!(laid(json!({ "a": { "b": 2 } }), json!({ "a": 1 })), json!({ "a": 1 }));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("text")), Just(json!([1, null])), Just(Value::Null)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| map.into_iter().collect())
        })
    }

    proptest! {
        #[test]
        fn laying_the_same_twice_changes_nothing(base in tree(), over in tree()) {
            let once = laid(base, over.clone());
            prop_assert_eq!(laid(once.clone(), over), once);
        }

        #[test]
        fn an_empty_overlay_changes_no_map(base in tree()) {
            prop_assume!(base.is_object());
            prop_assert_eq!(laid(base.clone(), json!({})), base);
        }
    }
}
