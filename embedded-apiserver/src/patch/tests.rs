//! Tests of patches.

use super::json::MAX_OPERATIONS;
use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

fn strategic(kind: &str, live: Value, patch: Value) -> Result<Value, PatchError> {
    let schema = Schema::builtin("v1", kind).expect("known");
    strategic_merge_patch(&live, patch.to_string().as_bytes(), &schema).map(|patched| patched.object)
}

use crate::schema::Schema;

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[rstest]
#[case(json!([{"op": "replace", "path": "/a", "value": 2}]), json!({"a": 2, "l": [1, 2]}))]
#[case(json!([{"op": "add", "path": "/l/-", "value": 3}]), json!({"a": 1, "l": [1, 2, 3]}))]
#[case(json!([{"op": "test", "path": "/a", "value": 1}, {"op": "remove", "path": "/l/0"}]), json!({"a": 1, "l": [2]}))]
#[case(json!([{"op": "copy", "from": "/a", "path": "/b"}, {"op": "move", "from": "/l", "path": "/m"}]),
    json!({"a": 1, "b": 1, "m": [1, 2]}))]
fn json_patches_apply(#[case] patch: Value, #[case] expected: Value) {
    let patched = json_patch(&json!({"a": 1, "l": [1, 2]}), patch.to_string().as_bytes()).expect("applies");
    assert_eq!(patched.object, expected);
}

#[rstest]
#[case(
    r#"{"op": "add"}"#,
    400,
    "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
)]
#[case("[", 400, "error decoding patch: unexpected end of JSON input")]
#[case(
    r#"[{"op": "test", "path": "/a", "value": 2}]"#,
    422,
    "the server rejected our request due to an error in our request"
)]
#[case(
    r#"[{"op": "remove", "path": "/none"}]"#,
    422,
    "the server rejected our request due to an error in our request"
)]
#[case(
    r#"[{"op": "replace", "path": "/none/deep", "value": 1}]"#,
    422,
    "the server rejected our request due to an error in our request"
)]
#[case(
    r#"[{"op": 5, "path": "/a"}]"#,
    400,
    "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
)]
#[case(
    r#"[{"op": "hop", "path": "/a"}]"#,
    422,
    "the server rejected our request due to an error in our request"
)]
fn json_patches_that_do_not_fit_are_refused(#[case] patch: &str, #[case] code: u16, #[case] message: &str) {
    let error = json_patch(&json!({"a": 1}), patch.as_bytes()).expect_err("refused");
    assert_eq!((error.code(), error.to_string().as_str()), (code, message));
}

#[test]
fn json_patches_are_bounded() {
    let many = vec![json!({"op": "test", "path": "/a", "value": 1}); MAX_OPERATIONS + 1];
    let error = json_patch(&json!({"a": 1}), json!(many).to_string().as_bytes()).expect_err("too many");
    assert_eq!((error.code(), error.reason()), (413, "RequestEntityTooLarge"));
    assert_eq!(
        error.to_string(),
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    // Forty doublings would need a thousand gigabytes.
    let doubling: Vec<Value> = (0..40)
        .flat_map(|_| {
            [
                json!({"op": "copy", "from": "/a", "path": "/b"}),
                json!({"op": "move", "from": "/b", "path": "/a/-"}),
            ]
        })
        .collect();
    let live = json!({"a": ["x".repeat(100)]});
    let error = json_patch(&live, json!(doubling).to_string().as_bytes()).expect_err("bounded");
    assert_eq!(error.code(), 422);
    let mut path = String::new();
    let deepening: Vec<Value> = (0..105)
        .map(|_| {
            path.push_str("/a");
            json!({"op": "add", "path": path, "value": {}})
        })
        .collect();
    let error = json_patch(&json!({}), json!(deepening).to_string().as_bytes()).expect_err("too deep");
    assert_eq!(error, PatchError::invalid("exceeded max depth"));
}

#[rstest]
#[case(json!({"a": null, "b": {"c": 1, "d": null}}), json!({"b": {"c": 1}, "k": 1}))]
#[case(json!({"k": {"x": {"y": null}}}), json!({"a": 1, "k": {"x": {}}}))]
#[case(json!({"a": [1, null]}), json!({"a": [1, null], "k": 1}))]
fn merge_patches_apply(#[case] patch: Value, #[case] expected: Value) {
    let patched = merge_patch(&json!({"a": 1, "k": 1}), patch.to_string().as_bytes()).expect("applies");
    assert_eq!(patched.object, expected);
}

#[rstest]
#[case(json!([{"op": "remove", "path": "/l/-1"}]), json!({"l": [1, 2]}))]
#[case(json!([{"op": "replace", "path": "/l/-1", "value": 9}]), json!({"l": [1, 2, 9]}))]
#[case(json!([{"op": "add", "path": "/l/-1", "value": 9}]), json!({"l": [1, 2, 3, 9]}))]
#[case(json!([{"op": "replace", "path": "/l/01", "value": 9}]), json!({"l": [1, 9, 3]}))]
#[case(json!([{"op": "replace", "path": "/m", "value": 9}]), json!({"l": [1, 2, 3], "m": 9}))]
#[case(json!([{"op": "add", "path": "/m"}]), json!({"l": [1, 2, 3], "m": null}))]
#[case(json!([{"op": "add", "path": "x/m", "value": 9}]), json!({"l": [1, 2, 3], "m": 9}))]
#[case(json!([{"op": "copy", "from": "/n", "path": "/m"}]), json!({"l": [1, 2, 3], "m": null}))]
#[case(json!([{"op": "test", "path": "/n", "value": null}]), json!({"l": [1, 2, 3]}))]
#[case(json!(null), json!({"l": [1, 2, 3]}))]
fn json_patches_take_the_liberties_of_the_real_one(#[case] patch: Value, #[case] expected: Value) {
    let patched = json_patch(&json!({"l": [1, 2, 3]}), patch.to_string().as_bytes()).expect("applies");
    assert_eq!(patched.object, expected);
}

#[test]
fn merge_patches_report_duplicates_and_refuse_lists() {
    let patched = merge_patch(&json!({}), br#"{"spec": {"a": 1, "a": 2}}"#).expect("applies");
    assert_eq!(patched.strict_findings, ["duplicate field \"spec.a\""]);
    assert_eq!(
        merge_patch(&json!({}), b"[]"),
        Err(PatchError::BadRequest(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
                .to_owned()
        ))
    );
}

#[rstest]
// Lists with a merge key are merged by it.
#[case(
    pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
    pod(json!([{"name": "b", "image": "2"}])),
    pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]))
)]
// Elements are deleted by their key.
#[case(
    pod(json!([{"name": "a"}, {"name": "b"}])),
    pod(json!([{"name": "a", "$patch": "delete"}])),
    pod(json!([{"name": "b"}]))
)]
// A whole list is replaced.
#[case(
    pod(json!([{"name": "a"}, {"name": "b"}])),
    pod(json!([{"name": "c"}, {"$patch": "replace"}])),
    pod(json!([{"name": "c"}]))
)]
// Lists within elements merge too, by their own keys.
#[case(
    pod(json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]}])),
    pod(json!([{"name": "a", "env": [{"name": "Y", "value": null, "valueFrom": {}}]}])),
    pod(json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {}}]}]))
)]
// Atomic lists are replaced.
#[case(
    pod(json!([{"name": "a", "command": ["x", "y"]}])),
    pod(json!([{"name": "a", "command": ["z"]}])),
    pod(json!([{"name": "a", "command": ["z"]}]))
)]
// The declared order is established.
#[case(
    pod(json!([{"name": "a"}, {"name": "b"}, {"name": "server"}])),
    json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "2"}]}}),
    pod(json!([{"name": "b"}, {"name": "a", "image": "2"}, {"name": "server"}]))
)]
// Values leave a list of scalars; new ones come first, as the real server puts them.
#[case(
    json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
    json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}}),
    json!({"metadata": {"finalizers": ["d", "a", "c"]}})
)]
// Only the retained keys stay.
#[case(
    json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
    json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
    json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}})
)]
// A map is replaced or emptied.
#[case(
    json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"a": "1"}}}),
    json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}, "annotations": {"$patch": "delete"}}}),
    json!({"metadata": {"labels": {"c": "3"}, "annotations": {}}})
)]
// Nulls delete, and are never added.
#[case(
    json!({"metadata": {"labels": {"a": "1"}}}),
    json!({"metadata": {"labels": {"a": null, "b": null}, "annotations": {"x": null}}}),
    json!({"metadata": {"labels": {}, "annotations": {}}})
)]
fn strategic_merge_patches_apply(#[case] live: Value, #[case] patch: Value, #[case] expected: Value) {
    assert_eq!(strategic("Pod", live, patch), Ok(expected));
}

#[test]
fn strategic_merge_patches_that_do_not_fit_are_refused() {
    let error = strategic("Pod", pod(json!([{"name": "a"}])), pod(json!([{"image": "x"}]))).expect_err("refused");
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (500, "map: map[image:x] does not contain declared merge key: name")
    );
    let order = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}});
    assert_eq!(
        strategic("Pod", pod(json!([])), order)
            .expect_err("refused")
            .to_string(),
        "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n"
    );
    let mixed = json!({"spec": {"containers": ["a"]}});
    assert_eq!(
        strategic("Pod", pod(json!([{"name": "a"}])), mixed)
            .expect_err("refused")
            .to_string(),
        "list element types are not identical: [[map[name:a]] [a]]"
    );
    let directive = json!({"metadata": {"labels": {"$patch": "hop"}}});
    assert_eq!(
        strategic("Secret", json!({"metadata": {"labels": {}}}), directive)
            .expect_err("refused")
            .code(),
        500
    );
    let retain = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/x"}}]}});
    let live = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    assert_eq!(strategic("Pod", live, retain).expect_err("refused").code(), 400);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i8>().prop_map(Value::from),
        "[a-z]".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[abc]", any_json(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #[test]
    fn merging_agrees_with_the_library(live in any_object(), patch in any_object()) {
        let mut ours = merge_patch(&live, patch.to_string().as_bytes()).expect("applies").object;
        let mut theirs = live;
        json_patch::merge(&mut theirs, &patch);
        // It keeps the nulls of maps in lists, which the real server drops.
        prune(&mut ours);
        prune(&mut theirs);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_difference_as_json_patch_leads_to_the_other(one in any_object(), other in any_object()) {
        let patch = serde_json::to_vec(&json_patch::diff(&one, &other)).expect("JSON");
        prop_assert_eq!(json_patch(&one, &patch).expect("applies").object, other);
    }

    #[test]
    fn patches_never_panic(live in any_object(), patch in any_json(), text in "[\\[\\]{}:,\"a-z0-9]{0,40}") {
        let schema = Schema::builtin("v1", "Pod").expect("known");
        for bytes in [patch.to_string().into_bytes(), text.into_bytes()] {
            let _ = json_patch(&live, &bytes);
            let _ = merge_patch(&live, &bytes);
            let _ = strategic_merge_patch(&live, &bytes, &schema);
        }
    }
}
