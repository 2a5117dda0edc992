//! The structures that objects of built-in kinds always have.
//!
//! For: what the first owner of an object does not own, since it did not make it. Not for: defaults.

use serde_json::{Value, json};

use crate::builtin;

/// An object of the same kind before anything was set.
pub(super) fn empty(object: &Value) -> Value {
    let api_version = object.get("apiVersion").cloned().unwrap_or_default();
    let kind = object.get("kind").cloned().unwrap_or_default();
    let texts = (
        api_version.as_str().unwrap_or_default(),
        kind.as_str().unwrap_or_default(),
    );
    let mut empty = builtin::empty(texts.0, texts.1).unwrap_or_else(|| match texts {
        ("apps/v1", "Deployment") => json!({
            "metadata": {},
            "spec": {"template": {"metadata": {}, "spec": {}}, "strategy": {}},
            "status": {},
        }),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            json!({"metadata": {}, "spec": {"names": {}}, "status": {"acceptedNames": {}}})
        }
        ("authentication.k8s.io/v1", "TokenReview") => {
            json!({"metadata": {}, "spec": {}, "status": {"user": {}}})
        }
        // Go writes out a bound object that there is none of.
        ("authentication.k8s.io/v1", "TokenRequest") => {
            json!({"metadata": {}, "spec": {"boundObjectRef": {}}, "status": {}})
        }
        ("authorization.k8s.io/v1", _) => json!({"metadata": {}, "spec": {}, "status": {}}),
        ("v1" | "rbac.authorization.k8s.io/v1", _) => json!({"metadata": {}}),
        _ => json!({}),
    });
    if let Value::Object(map) = &mut empty {
        map.insert("apiVersion".to_owned(), api_version);
        map.insert("kind".to_owned(), kind);
    }
    empty
}
