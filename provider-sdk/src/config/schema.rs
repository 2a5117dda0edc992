//! The JSON Schema of a config type, closed: what a type does not know is refused by
//! the schema itself, so that whoever validates with it says what the provider says.
//!
//! Not for: judging documents (see `reader`).

use serde_json::{Map, Value, json};

/// How deep references are followed when a schema is put into another: recursive types
/// stay references beyond it.
const MAX_INLINE_DEPTH: usize = 8;

/// Closes every object of the schema that lists its properties and says nothing about
/// others.
pub(crate) fn close(schema: schemars::Schema) -> Value {
    let mut root = Value::from(schema);
    let definitions = root.get("$defs").cloned().unwrap_or_else(|| json!({}));
    let closer = Closer { definitions };
    closer.visit(&mut root, Position::Own);
    root
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// It describes a value by itself.
    Own,
    /// It describes a value together with the schema around it, which knows properties
    /// that this one does not: the one around closes for both.
    Shared,
}

struct Closer {
    definitions: Value,
}

impl Closer {
    fn visit(&self, schema: &mut Value, position: Position) {
        let Value::Object(object) = schema else { return };
        if position == Position::Shared || object.contains_key("properties") {
            self.inline(object, 0);
        }
        let applicators = ["allOf", "anyOf", "oneOf"]
            .iter()
            .any(|keyword| object.get(*keyword).is_some_and(Value::is_array));
        let lists_properties = object.contains_key("properties")
            || (object.get("type") == Some(&json!("object")) && !applicators && !object.contains_key("$ref"));
        let says = object.contains_key("additionalProperties") || object.contains_key("unevaluatedProperties");
        let inner = if position == Position::Shared || (applicators && lists_properties && !says) {
            Position::Shared
        } else {
            Position::Own
        };
        if position == Position::Own && lists_properties && !says {
            let keyword = if applicators {
                "unevaluatedProperties"
            } else {
                "additionalProperties"
            };
            object.insert(keyword.to_owned(), json!(false));
        } else if position == Position::Shared {
            // A type that closes itself would refuse what the one around it knows.
            if object.get("additionalProperties") == Some(&json!(false)) {
                object.remove("additionalProperties");
            }
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            if let Some(Value::Array(schemas)) = object.get_mut(keyword) {
                for schema in schemas {
                    self.visit(schema, inner);
                }
            }
        }
        for keyword in ["properties", "patternProperties", "$defs"] {
            if let Some(Value::Object(schemas)) = object.get_mut(keyword) {
                for schema in schemas.values_mut() {
                    self.visit(schema, Position::Own);
                }
            }
        }
        if let Some(Value::Array(schemas)) = object.get_mut("prefixItems") {
            for schema in schemas {
                self.visit(schema, Position::Own);
            }
        }
        for keyword in ["items", "additionalProperties", "contains"] {
            if let Some(schema) = object.get_mut(keyword) {
                self.visit(schema, Position::Own);
            }
        }
    }

    /// Puts what the schema refers to into it, so that it can be closed as one.
    fn inline(&self, object: &mut Map<String, Value>, depth: usize) {
        if depth >= MAX_INLINE_DEPTH {
            return;
        }
        let Some(target) = object
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix("#/$defs/"))
            .and_then(|name| self.definitions.get(name))
            .and_then(Value::as_object)
            .cloned()
        else {
            return;
        };
        object.remove("$ref");
        for (keyword, value) in target {
            match (object.get_mut(&keyword), value) {
                (Some(Value::Object(own)), Value::Object(theirs)) if keyword == "properties" => {
                    for (name, schema) in theirs {
                        own.entry(name).or_insert(schema);
                    }
                }
                (Some(Value::Array(own)), Value::Array(theirs)) if keyword == "required" => {
                    for name in theirs {
                        if !own.contains(&name) {
                            own.push(name);
                        }
                    }
                }
                (Some(_), _) => {}
                (None, value) => {
                    object.insert(keyword, value);
                }
            }
        }
        self.inline(object, depth + 1);
    }
}
