//! The roles and bindings that every server has, and how they are kept up. Pure.
//!
//! They are those of the real server, read from one by `scripts/default-policy`. How they are brought up to date is as
//! in `component-helpers/auth/rbac/reconciliation`: what is missing is added, nothing is taken away.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::escalation::uncovered;
use super::policy::Rule;
use crate::rest::now_text;

const OBJECTS: &str = include_str!("default_policy.json");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// All default objects, as new ones made now.
pub fn defaults(now: Timestamp) -> Result<Vec<Value>, serde_json::Error> {
    let mut objects: Vec<Value> = serde_json::from_str(OBJECTS)?;
    let now = now_text(now);
    for metadata in objects
        .iter_mut()
        .filter_map(|object| object["metadata"].as_object_mut())
    {
        metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".to_owned(), now.as_str().into());
        let entries = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            entry["time"] = now.as_str().into();
        }
    }
    Ok(objects)
}

/// What an object that is there becomes, if anything has to change. A binding to another role is replaced as a whole.
pub fn reconciled(existing: &Value, default: &Value) -> Option<Value> {
    if existing["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return None;
    }
    let mut object = existing.clone();
    if default.get("roleRef") != existing.get("roleRef") {
        object.clone_from(default);
        return Some(object);
    }
    for field in ["labels", "annotations"] {
        let known = existing["metadata"][field].as_object();
        let missing: Map<String, Value> = default["metadata"][field]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !missing.is_empty() {
            let mut all = known.cloned().unwrap_or_default();
            all.extend(missing);
            object["metadata"][field] = all.into();
        }
    }
    let rules = |object: &Value| serde_json::from_value::<Vec<Rule>>(object["rules"].clone()).unwrap_or_default();
    extend(
        &mut object,
        "rules",
        json!(uncovered(&rules(existing), &rules(default))),
    );
    let missing = |wanted: &Value, known: &Value| {
        let known = known.as_array().map(Vec::as_slice).unwrap_or_default();
        let wanted = wanted.as_array().into_iter().flatten();
        wanted.filter(|one| !known.contains(one)).cloned().collect::<Value>()
    };
    extend(
        &mut object,
        "subjects",
        missing(&default["subjects"], &existing["subjects"]),
    );
    if default.get("aggregationRule").is_some() {
        let selectors = |object: &Value| object["aggregationRule"]["clusterRoleSelectors"].clone();
        let more = missing(&selectors(default), &selectors(existing));
        if more.as_array().is_some_and(|more| !more.is_empty()) {
            let mut aggregation = existing["aggregationRule"].clone();
            extend(&mut aggregation, "clusterRoleSelectors", more);
            object["aggregationRule"] = aggregation;
        }
    } else if let Some(fields) = object.as_object_mut() {
        fields.remove("aggregationRule");
    }
    (object != *existing).then_some(object)
}

/// Puts more elements at the end of a list.
fn extend(object: &mut Value, field: &str, more: Value) {
    let Value::Array(more) = more else { return };
    if more.is_empty() {
        return;
    }
    let mut all = object[field].as_array().cloned().unwrap_or_default();
    all.extend(more);
    object[field] = all.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(name: &str) -> Value {
        let all = defaults(Timestamp::UNIX_EPOCH).unwrap();
        all.into_iter()
            .find(|object| object["metadata"]["name"] == name)
            .unwrap()
    }

    #[test]
    fn all_are_there_and_whole() {
        let all = defaults(Timestamp::UNIX_EPOCH).unwrap();
        assert!(all.len() > 120, "{}", all.len());
        for object in &all {
            assert!(object["metadata"]["uid"].is_string(), "{object}");
            assert_eq!(object["metadata"]["managedFields"][0]["time"], "1970-01-01T00:00:00Z");
            assert_eq!(reconciled(object, object), None);
        }
        assert_eq!(
            default("view")["aggregationRule"]["clusterRoleSelectors"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let discovery = default("system:discovery");
        let mut changed = discovery.clone();
        changed["rules"] = json!([{ "nonResourceURLs": ["/own", "/api"], "verbs": ["get"] }]);
        changed["metadata"]["labels"] = json!({ "own": "label" });
        let mended = reconciled(&changed, &discovery).unwrap();
        let rules = mended["rules"].as_array().unwrap();
        assert_eq!(rules[0], changed["rules"][0]);
        assert!(rules.iter().any(|rule| rule["nonResourceURLs"] == json!(["/apis"])));
        assert!(!rules[1..].iter().any(|rule| rule["nonResourceURLs"] == json!(["/api"])));
        assert_eq!(mended["metadata"]["labels"]["own"], "label");
        assert_eq!(
            mended["metadata"]["labels"]["kubernetes.io/bootstrapping"],
            "rbac-defaults"
        );
        assert_eq!(reconciled(&mended, &discovery), None);
        changed["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(reconciled(&changed, &discovery), None);
    }

    #[test]
    fn subjects_come_back_and_another_role_is_replaced() {
        let all = defaults(Timestamp::UNIX_EPOCH).unwrap();
        let binding = all
            .into_iter()
            .find(|object| object["kind"] == "ClusterRoleBinding" && object["metadata"]["name"] == "cluster-admin")
            .unwrap();
        let mut changed = binding.clone();
        changed["subjects"] = json!([{ "kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io" }]);
        let mended = reconciled(&changed, &binding).unwrap();
        assert_eq!(mended["subjects"].as_array().unwrap().len(), 2);
        changed["roleRef"]["name"] = "view".into();
        assert_eq!(reconciled(&changed, &binding).unwrap()["roleRef"], binding["roleRef"]);
    }
}
