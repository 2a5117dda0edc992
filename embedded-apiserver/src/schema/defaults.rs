//! Defaulting: filling in what the schema has a default for.
//!
//! For: `Schema::default`. Not for: the defaults of built-in kinds, which no schema states.

use super::Schema;
use super::node::{Additional, Node, NodeId};
use serde_json::Value;

pub(super) fn default(schema: &Schema, object: &mut Value) {
    fill(schema, object, schema.root);
}

/// Drops nulls where the schema neither allows one nor has a default to put there, as the real server does on decoding.
pub(super) fn drop_nulls(schema: &Schema, value: &mut Value, id: NodeId) {
    let node = &schema.nodes[id];
    match value {
        Value::Object(map) => map.retain(|key, child| match node.child(key) {
            // In the maps of built-in kinds, a null is an empty value.
            Some(_) if schema.built_in && child.is_null() && !node.properties.contains_key(key) => true,
            Some(id) => {
                let below = &schema.nodes[id];
                if unwanted_null(child, below) && below.default.is_none() {
                    return false;
                }
                drop_nulls(schema, child, id);
                true
            }
            None => true,
        }),
        Value::Array(items) => {
            if let Some(id) = node.items {
                for item in items {
                    drop_nulls(schema, item, id);
                }
            }
        }
        _ => {}
    }
}

fn fill(schema: &Schema, value: &mut Value, id: NodeId) {
    let node = &schema.nodes[id];
    if !node.defaults_below {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, id) in &node.properties {
                let below = &schema.nodes[*id];
                if let Some(default) = &below.default
                    && map.get(name).is_none_or(|present| unwanted_null(present, below))
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (key, child) in map.iter_mut() {
                if let Some(id) = node.properties.get(key) {
                    fill(schema, child, *id);
                } else if let Additional::Schema(id) = node.additional {
                    replace_null(schema, child, id);
                    fill(schema, child, id);
                }
            }
        }
        Value::Array(items) => {
            if let Some(id) = node.items {
                for item in items {
                    replace_null(schema, item, id);
                    fill(schema, item, id);
                }
            }
        }
        _ => {}
    }
}

fn unwanted_null(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable
}

fn replace_null(schema: &Schema, value: &mut Value, id: NodeId) {
    let node = &schema.nodes[id];
    if unwanted_null(value, node)
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}
