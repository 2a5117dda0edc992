//! Pruning: dropping what the schema does not know.
//!
//! For: `Schema::prune`. Not for: deciding whether that is an error; `fieldValidation` does.

use super::Schema;
use super::node::{Additional, NodeId};
use serde_json::Value;
use std::fmt::Write as _;

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

pub(super) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner {
        schema,
        path: String::new(),
        unknown: Vec::new(),
    };
    pruner.value(object, Some(schema.root), true);
    super::defaults::drop_nulls(schema, object, schema.root);
    if let Some(metadata) = object.get_mut("metadata") {
        super::defaults::drop_nulls(schema, metadata, schema.metadata);
    }
    pruner.unknown.sort();
    pruner.unknown
}

/// Whether a value of some node in the schema has fields that its node does not know.
pub(super) fn has_unknown(schema: &Schema, id: NodeId, value: &Value) -> bool {
    let mut pruner = Pruner {
        schema,
        path: String::new(),
        unknown: Vec::new(),
    };
    pruner.value(&mut value.clone(), Some(id), false);
    !pruner.unknown.is_empty()
}

struct Pruner<'schema> {
    schema: &'schema Schema,
    path: String,
    unknown: Vec<String>,
}

impl Pruner<'_> {
    fn value(&mut self, value: &mut Value, id: Option<NodeId>, root: bool) {
        if !matches!(value, Value::Object(_) | Value::Array(_)) {
            return;
        }
        let schema = self.schema;
        let node = id.map(|id| &schema.nodes[id]);
        let preserve = node.is_some_and(|node| node.preserve_unknown);
        match value {
            Value::Object(map) => {
                let embedded = root || node.is_some_and(|node| node.embedded_resource);
                let mut dropped = Vec::new();
                for (key, child) in map.iter_mut() {
                    if embedded && META_FIELDS.contains(&key.as_str()) {
                        if key == "metadata" {
                            self.member(key, child, Some(schema.metadata));
                        }
                        continue;
                    }
                    let known = node.and_then(|node| node.properties.get(key).copied());
                    let additional = node.map_or(Additional::Absent, |node| node.additional);
                    match (known, additional) {
                        (Some(id), _) | (None, Additional::Schema(id)) => self.member(key, child, Some(id)),
                        // As the real one: the value is kept, what is in it has no schema.
                        (None, Additional::Any) => self.member(key, child, None),
                        _ if preserve => {}
                        _ => dropped.push(key.clone()),
                    }
                }
                for key in dropped {
                    map.remove(&key);
                    let length = self.enter(&key);
                    self.unknown.push(self.path.clone());
                    self.path.truncate(length);
                }
            }
            Value::Array(items) => {
                let item = node.and_then(|node| node.items);
                if preserve && item.is_none() {
                    return;
                }
                for (index, child) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    let _ = write!(self.path, "[{index}]");
                    self.value(child, item, false);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn member(&mut self, key: &str, child: &mut Value, id: Option<NodeId>) {
        if matches!(child, Value::Object(_) | Value::Array(_)) {
            let length = self.enter(key);
            self.value(child, id, false);
            self.path.truncate(length);
        }
    }

    fn enter(&mut self, key: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        length
    }
}
