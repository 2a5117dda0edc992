//! From the text of a schema to nodes.
//!
//! For: reading every keyword once. Not for: refusing non-structural schemas, which `structural` has done before.

use super::cel;
use super::format::Format;
use super::node::{Additional, ListType, Node, NodeId, Types};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Where the schema comes from, which decides what an object without properties means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A CRD: what is not listed is pruned.
    CustomResource,
    /// A built-in kind: an object that lists nothing holds anything.
    BuiltIn,
}

pub(super) struct Compiler<'schema> {
    pub(super) nodes: Vec<Node>,
    origin: Origin,
    definitions: Option<&'schema Map<String, Value>>,
    references: HashMap<&'schema str, NodeId>,
}

impl<'schema> Compiler<'schema> {
    pub(super) fn new(origin: Origin, definitions: Option<&'schema Map<String, Value>>) -> Self {
        Self {
            nodes: Vec::new(),
            origin,
            definitions,
            references: HashMap::new(),
        }
    }

    /// Compiles one schema and all below it.
    pub(super) fn node(&mut self, schema: &'schema Value) -> NodeId {
        if let Some(reference) = reference_of(schema) {
            let name = reference.rsplit('/').next().unwrap_or(reference);
            if let Some(known) = self.references.get(name) {
                return *known;
            }
            if let Some(definition) = self.definitions.and_then(|definitions| definitions.get(name)) {
                let id = self.reserve();
                self.references.insert(name, id);
                self.fill(id, definition);
                return id;
            }
        }
        let id = self.reserve();
        self.fill(id, schema);
        id
    }

    fn reserve(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    fn fill(&mut self, id: NodeId, schema: &'schema Value) {
        let mut node = Node::default();
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let float = |key: &str| schema.get(key).and_then(Value::as_f64);

        match schema.get("type") {
            Some(Value::String(name)) => {
                node.types = Types::named(name);
                node.type_text.clone_from(name);
            }
            Some(Value::Array(names)) => {
                for name in names.iter().filter_map(Value::as_str) {
                    if name == "null" {
                        node.nullable = true;
                    } else {
                        node.types = node.types.union(Types::named(name));
                        node.type_text = if node.type_text.is_empty() {
                            name.to_owned()
                        } else {
                            format!("{},{name}", node.type_text)
                        };
                    }
                }
            }
            _ => {}
        }
        node.declared_type.clone_from(&node.type_text);
        node.int_or_string = flag("x-kubernetes-int-or-string") || text("format") == Some("int-or-string");
        if node.int_or_string {
            node.types = Types::INTEGER.union(Types::STRING);
            "integer,string".clone_into(&mut node.type_text);
        }
        node.nullable |= flag("nullable");
        node.format = text("format").and_then(Format::named);
        node.default = schema.get("default").filter(|default| !default.is_null()).cloned();
        node.preserve_unknown = flag("x-kubernetes-preserve-unknown-fields");
        node.embedded_resource = flag("x-kubernetes-embedded-resource");

        node.minimum = float("minimum");
        node.maximum = float("maximum");
        node.exclusive_minimum = flag("exclusiveMinimum");
        node.exclusive_maximum = flag("exclusiveMaximum");
        node.multiple_of = float("multipleOf");
        node.minimum_length = count("minLength");
        node.maximum_length = count("maxLength");
        node.minimum_items = count("minItems");
        node.maximum_items = count("maxItems");
        node.minimum_properties = count("minProperties");
        node.maximum_properties = count("maxProperties");
        node.unique_items = flag("uniqueItems");
        node.pattern = text("pattern")
            .filter(|pattern| !pattern.is_empty())
            .and_then(|text| Regex::new(text).ok());
        node.allowed = schema
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        // A built-in kind's required fields are checked by its own validation with its own words.
        if self.origin == Origin::CustomResource {
            node.required = strings(schema.get("required"));
        }

        node.list_type = match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        };
        node.list_map_keys = strings(schema.get("x-kubernetes-list-map-keys"));
        node.map_atomic = text("x-kubernetes-map-type") == Some("atomic");
        node.patch_merge_key = text("x-kubernetes-patch-merge-key").map(str::to_owned);
        node.patch_merge = text("x-kubernetes-patch-strategy").is_some_and(|strategy| strategy.contains("merge"));

        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let child = self.node(property);
                node.properties.insert(name.clone(), child);
            }
        }
        node.additional = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Bool(false)) => Additional::Forbidden,
            Some(schema @ Value::Object(_)) => Additional::Schema(self.node(schema)),
            _ => Additional::Absent,
        };
        node.items = schema
            .get("items")
            .filter(|items| items.is_object())
            .map(|items| self.node(items));
        node.any_of = self.nodes_of(schema.get("anyOf"));
        node.one_of = self.nodes_of(schema.get("oneOf"));
        node.all_of = self.nodes_of(schema.get("allOf"));
        node.not = schema
            .get("not")
            .filter(|not| not.is_object())
            .map(|not| self.node(not));

        if self.origin == Origin::BuiltIn {
            // `allOf: [$ref]` is only how a description is put beside a reference.
            if let [only] = node.all_of.as_slice()
                && node.types.is_empty()
            {
                let only = *only;
                self.nodes[id] = self.shallow_copy(only);
                return;
            }
            if node.properties.is_empty()
                && node.additional == Additional::Absent
                && (node.types.is_empty() || node.types == Types::OBJECT)
            {
                node.preserve_unknown = true;
            }
        } else {
            node.rules = cel::rules(schema);
        }

        let below: Vec<NodeId> = node
            .properties
            .values()
            .copied()
            .chain(node.items)
            .chain(match node.additional {
                Additional::Schema(child) => Some(child),
                _ => None,
            })
            .chain(node.all_of.iter().copied())
            .collect();
        let any = |test: fn(&Node) -> bool| below.iter().any(|child| test(&self.nodes[*child]));
        node.rules_below = !node.rules.is_empty() || any(|child| child.rules_below);
        node.list_types_below = node.list_type != ListType::Atomic || any(|child| child.list_types_below);
        node.embedded_below = node.embedded_resource || any(|child| child.embedded_below);
        node.defaults_below = any(|child| child.defaults_below || child.default.is_some());
        self.nodes[id] = node;
    }

    /// The node behind a lone reference, for a second place in the arena: its children stay shared.
    fn shallow_copy(&self, id: NodeId) -> Node {
        let node = &self.nodes[id];
        Node {
            types: node.types,
            type_text: node.type_text.clone(),
            declared_type: node.declared_type.clone(),
            nullable: node.nullable,
            format: node.format,
            properties: node.properties.clone(),
            additional: node.additional,
            items: node.items,
            preserve_unknown: node.preserve_unknown,
            int_or_string: node.int_or_string,
            list_type: node.list_type,
            list_map_keys: node.list_map_keys.clone(),
            map_atomic: node.map_atomic,
            patch_merge_key: node.patch_merge_key.clone(),
            patch_merge: node.patch_merge,
            list_types_below: node.list_types_below,
            ..Node::default()
        }
    }

    fn nodes_of(&mut self, schemas: Option<&'schema Value>) -> Vec<NodeId> {
        schemas
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|schema| self.node(schema))
            .collect()
    }
}

fn reference_of(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)
}

fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
