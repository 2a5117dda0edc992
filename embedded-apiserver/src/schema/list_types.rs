//! Uniqueness of the elements of lists of type set and map.
//!
//! For: `Duplicate value` causes. Not for: other validations.

use super::Schema;
use super::cause::Cause;
use super::node::{Additional, ListType, Node, NodeId};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The causes of all repeated elements.
pub(super) fn check(schema: &Schema, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    value(&schema.nodes, schema.root, "", object, &mut causes);
    causes
}

fn value(nodes: &[Node], id: NodeId, path: &str, object: &Value, causes: &mut Vec<Cause>) {
    let node = &nodes[id];
    if !node.list_types_below {
        return;
    }
    match object {
        Value::Array(items) => {
            match node.list_type {
                ListType::Atomic => {}
                ListType::Set => repeated(path, items, causes),
                ListType::Map => {
                    if let Some(index) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
                        let detail = "must be an object for an array of list-type map";
                        causes.push(Cause::invalid(&format!("{path}[{index}]"), &items[index], detail));
                    } else {
                        let keys: Vec<Value> = items.iter().map(|item| keys_of(node, item)).collect();
                        repeated(path, &keys, causes);
                    }
                }
            }
            if let Some(item) = node.items {
                for (index, element) in items.iter().enumerate() {
                    value(nodes, item, &format!("{path}[{index}]"), element, causes);
                }
            }
        }
        Value::Object(map) => {
            for (key, member) in map {
                if let Some(child) = node.properties.get(key) {
                    let below = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    value(nodes, *child, &below, member, causes);
                } else if let Additional::Schema(child) = node.additional {
                    value(nodes, child, &format!("{path}[{key}]"), member, causes);
                }
            }
        }
        _ => {}
    }
}

/// The keys by which an element of a list of type map is known.
fn keys_of(node: &Node, item: &Value) -> Value {
    let mut keys = Map::new();
    for key in &node.list_map_keys {
        if let Some(value) = item.get(key) {
            keys.insert(key.clone(), value.clone());
        }
    }
    Value::Object(keys)
}

/// Each repeated element is reported once, at its second appearance.
fn repeated(path: &str, items: &[Value], causes: &mut Vec<Cause>) {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            causes.push(Cause::duplicate(&format!("{path}[{index}]"), item));
        }
    }
}
