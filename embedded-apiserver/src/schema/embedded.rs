//! Objects within objects (`x-kubernetes-embedded-resource`): their type and metadata are checked as those of objects are.
//!
//! For: `Schema::validate`. Not for: pruning, which keeps their metadata to what metadata is.

use super::Schema;
use super::cause::Cause;
use super::node::{Additional, NodeId};
use crate::registry::validation::label_problem;
use crate::rest::qualified_name;
use serde_json::{Map, Value};

/// All that is wrong with the embedded objects of a value.
pub(super) fn check(schema: &Schema, id: NodeId, path: &str, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, id, path, value, &mut causes);
    causes
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn walk(schema: &Schema, id: NodeId, path: &str, value: &Value, causes: &mut Vec<Cause>) {
    let node = &schema.nodes[id];
    if !node.embedded_below {
        return;
    }
    match value {
        Value::Object(map) => {
            if node.embedded_resource {
                resource(path, map, causes);
            }
            for (key, member) in map {
                if let Some(id) = node.properties.get(key) {
                    walk(schema, *id, &below(path, key), member, causes);
                } else if let Additional::Schema(id) = node.additional {
                    walk(schema, id, &format!("{path}[{key}]"), member, causes);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Some(id) = node.items {
                    walk(schema, id, &format!("{path}[{index}]"), item, causes);
                }
            }
        }
        _ => {}
    }
}

fn resource(path: &str, map: &Map<String, Value>, causes: &mut Vec<Cause>) {
    for key in ["apiVersion", "kind"] {
        if !map.contains_key(key) {
            causes.push(Cause::required(&below(path, key), ""));
        }
    }
    for key in ["apiVersion", "kind"] {
        let Some(value) = map.get(key) else { continue };
        let problem = match value.as_str() {
            None => Some("must be a string".to_owned()),
            Some("") => Some("must not be empty".to_owned()),
            Some(text) if key == "apiVersion" => {
                (text.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {text}"))
            }
            Some(text) => label_problem(&text.to_lowercase())
                .map(|problem| format!("may have mixed case, but should otherwise match: {problem}")),
        };
        if let Some(problem) = problem {
            causes.push(Cause::invalid(&below(path, key), value, &problem));
        }
    }
    let metadata = map.get("metadata").and_then(Value::as_object);
    for part in ["labels", "annotations"] {
        let texts = metadata
            .and_then(|metadata| metadata.get(part))
            .and_then(Value::as_object);
        for key in texts.into_iter().flat_map(Map::keys) {
            for problem in qualified_name(key) {
                let field = below(&below(path, "metadata"), part);
                causes.push(Cause::invalid(&field, &Value::from(key.as_str()), &problem));
            }
        }
    }
}
