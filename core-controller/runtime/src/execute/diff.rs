//! The merge patch that leads from one JSON document to another, as small as can be.
//!
//! Not for: lists, which a merge patch replaces as a whole.

use serde_json::{Map, Value};

/// The merge patch from `old` to `new`; `None` when they are the same. A null in
/// `new` counts as absent, as merge patches cannot say it.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (key, value) in new {
                match (old.get(key), value) {
                    (None | Some(Value::Null), Value::Null) => {}
                    (Some(before), value) => {
                        if let Some(change) = merge_diff(before, value) {
                            patch.insert(key.clone(), change);
                        }
                    }
                    (None, value) => {
                        patch.insert(key.clone(), value.clone());
                    }
                }
            }
            for (key, value) in old {
                if !new.contains_key(key) && !value.is_null() {
                    patch.insert(key.clone(), Value::Null);
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (old, new) if old == new => None,
        (_, new) => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_gone_becomes_null_and_what_stays_is_left_out() {
        let old = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]});
        let new = json!({"a": 1, "b": {"c": 4}, "e": [2]});
        assert_eq!(
            merge_diff(&old, &new),
            Some(json!({"b": {"c": 4, "d": null}, "e": [2]}))
        );
        assert_eq!(merge_diff(&old, &old), None);
    }

    /// RFC 7396, word for word.
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        for (key, value) in patch {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                merge(&mut target[key], value);
            }
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0i64..3).prop_map(Value::from)];
        let inner = leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_patch_leads_from_old_to_new(old in document(), new in document()) {
            let mut patched = old.clone();
            if let Some(patch) = merge_diff(&old, &new) {
                merge(&mut patched, &patch);
            }
            prop_assert_eq!(patched, new);
        }
    }
}
