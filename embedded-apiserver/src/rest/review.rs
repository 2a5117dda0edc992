//! Questions that are answered and not stored: who am I, may I.

use serde_json::{Value, json};

use super::{ApiError, Core, Reply, Request, decode, now_text};
use crate::access::{Attributes, User, authorize};

/// Answers a review.
pub fn create(core: &Core, request: &Request) -> Result<Reply, ApiError> {
    let (mut review, _) = decode::object(request)?;
    let spec = review.get("spec").cloned().unwrap_or_else(|| json!({}));
    let status = match request.resource.kind.as_str() {
        "SelfSubjectReview" => {
            super::object::set_metadata(&mut review, "creationTimestamp", Some(now_text(request.now).into()));
            json!({ "userInfo": { "username": request.user.name, "groups": request.user.groups } })
        }
        "SelfSubjectAccessReview" => decide(core, &request.user, &spec)?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let groups = spec["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let user = User {
                name: spec["user"].as_str().unwrap_or_default().to_owned(),
                groups: groups.map(str::to_owned).collect(),
            };
            decide(core, &user, &spec)?
        }
        "SelfSubjectRulesReview" if request.user.is_master() => json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": false,
        }),
        "SelfSubjectRulesReview" => json!({ "resourceRules": [], "nonResourceRules": [], "incomplete": true }),
        // No tokens are issued, so none is good.
        "TokenReview" => json!({ "user": {}, "error": "invalid bearer token" }),
        _ => return Err(ApiError::no_such_resource()),
    };
    super::object::set_field(&mut review, "status", Some(status));
    if review.get("metadata").is_none() {
        super::object::set_field(&mut review, "metadata", Some(json!({ "creationTimestamp": null })));
    }
    Ok(Reply::Value {
        code: 201,
        value: review,
    })
}

fn decide(core: &Core, user: &User, spec: &Value) -> Result<Value, ApiError> {
    let resource = spec.get("resourceAttributes").filter(|value| value.is_object());
    let path = spec.get("nonResourceAttributes").filter(|value| value.is_object());
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let attributes = match (resource, path) {
        (Some(resource), None) => {
            let subresource = text(resource, "subresource");
            let name = text(resource, "resource");
            Attributes {
                verb: text(resource, "verb"),
                group: text(resource, "group"),
                resource: if subresource.is_empty() {
                    name
                } else {
                    format!("{name}/{subresource}")
                },
                namespace: text(resource, "namespace"),
                name: text(resource, "name"),
                path: String::new(),
            }
        }
        (None, Some(path)) => Attributes {
            verb: text(path, "verb"),
            path: text(path, "path"),
            ..Attributes::default()
        },
        _ => {
            return Err(ApiError::bad_request(
                "exactly one of spec.resourceAttributes and spec.nonResourceAttributes must be given",
            ));
        }
    };
    Ok(json!({ "allowed": authorize(&core.store, user, &attributes) }))
}
