//! Structural schemas: what a CRD's `openAPIV3Schema` (or a built-in kind's schema) means for an object.
//!
//! For: compiling a schema once, then pruning, defaulting and validating objects with it, in the words of the real
//! kube-apiserver. Not for: storing schemas, knowing resources, or answering requests.

mod cause;
mod cel;
mod compile;
mod decode;
mod defaults;
mod embedded;
mod format;
mod list_types;
mod node;
mod path;
mod prune;
mod structural;
mod supported;
#[cfg(test)]
mod tests;
mod validate;

pub use crate::deep::MAX_DEPTH;
pub use cause::{Cause, aggregate};
pub(crate) use cause::{go_json, go_kind, go_quote};
pub use decode::{DecodeError, decode_strict, decode_strict_yaml, decode_typed};
pub(crate) use decode::{NO_YAML, decode_exact, in_document_order, literal, settle_numbers};
pub(crate) use node::{Additional, ListType, Node, NodeId, Types};
pub(crate) use path::field_path;

use crate::openapi;
use compile::{Compiler, Origin};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A compiled schema. Cheap to share behind an `Arc`; all operations are synchronous and free of I/O.
#[derive(Debug)]
pub struct Schema {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
    /// The schema of `metadata` at the root and of embedded resources.
    pub(crate) metadata: NodeId,
    /// Whether it describes a built-in kind.
    built_in: bool,
}

impl Schema {
    /// Compiles a CRD version's `openAPIV3Schema`.
    ///
    /// Refuses what [`Schema::check`] finds fault with; fields of the causes are relative to the
    /// schema (`properties[spec].type`), so that the caller may put
    /// `spec.validation.openAPIV3Schema` or `spec.versions[0].schema.openAPIV3Schema` before them ([`Cause::under`]).
    pub fn compile(open_api_v3_schema: &Value) -> Result<Self, Vec<Cause>> {
        let causes = Self::check(open_api_v3_schema, false, false);
        if causes.is_empty() {
            Ok(Self::accepted(open_api_v3_schema))
        } else {
            Err(causes)
        }
    }

    /// Compiles a schema that was accepted before.
    pub fn accepted(open_api_v3_schema: &Value) -> Self {
        Self::assemble(open_api_v3_schema, Origin::CustomResource)
    }

    /// All that is wrong with a CRD version's `openAPIV3Schema`, in the order of the real server.
    ///
    /// With a status subresource the root is limited; the costs of an `unchanged` schema's rules are not looked at.
    pub fn check(open_api_v3_schema: &Value, has_status: bool, unchanged: bool) -> Vec<Cause> {
        let schema = open_api_v3_schema;
        let mut causes = Vec::new();
        if has_status {
            causes.extend(supported::check_root_with_status(schema));
        }
        if schema.get("nullable") == Some(&json!(true)) {
            causes.push(Cause::forbidden("nullable", "nullable cannot be true at the root"));
        }
        let mut with_rules = false;
        if let Some(found) = structural::check(schema) {
            if found.is_empty() {
                let compiled = Self::accepted(schema);
                let found = compiled.check_defaults(compiled.root, "");
                with_rules = found.is_empty();
                causes.extend(found);
            } else {
                causes.extend(found);
            }
        }
        causes.extend(supported::check(schema, with_rules, unchanged));
        causes
    }

    /// The schema of a resource that has none: everything is kept.
    pub fn preserving() -> Self {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        Self::assemble(&schema, Origin::CustomResource)
    }

    /// The compiled schema of a built-in kind, compiled once per process.
    pub fn builtin(api_version: &str, kind: &str) -> Option<Arc<Self>> {
        static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Schema>>>> = LazyLock::new(Mutex::default);
        let name = format!("{api_version}/{kind}");
        if let Some(schema) = COMPILED.lock().get(&name) {
            return Some(Arc::clone(schema));
        }
        let schema = Arc::new(Self::assemble(
            &openapi::builtin_schema(api_version, kind)?,
            Origin::BuiltIn,
        ));
        // Only kinds that exist get here, so that the map is bounded by them.
        COMPILED.lock().insert(name, Arc::clone(&schema));
        Some(schema)
    }

    fn assemble(schema: &Value, origin: Origin) -> Self {
        let definitions = schema.get("definitions").and_then(Value::as_object);
        let mut compiler = Compiler::new(origin, definitions);
        let root = compiler.node(schema);
        let mut nodes = compiler.nodes;
        let mut compiler = Compiler::new(Origin::BuiltIn, None);
        compiler.nodes = nodes;
        let metadata = compiler.node(openapi::object_meta_schema());
        nodes = compiler.nodes;
        Self {
            nodes,
            root,
            metadata,
            built_in: origin == Origin::BuiltIn,
        }
    }

    /// Whether it describes a built-in kind.
    pub(crate) fn is_built_in(&self) -> bool {
        self.built_in
    }

    /// Drops the fields that the schema does not know and returns their sorted paths (`spec.foo`, `spec.list[0].bar`),
    /// to be used in `unknown field "spec.foo"`. Also drops nulls where the schema allows none and has no default.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(self, object)
    }

    /// Fills in the schema's defaults. Idempotent.
    pub fn default(&self, object: &mut Value) {
        defaults::default(self, object);
    }

    /// Validates an object against the schema: types, values, list types and CEL rules. With `old`, also transition
    /// rules, and what was invalid before and has not changed is let through.
    ///
    /// Returns an empty list when the object is valid.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        self.validate_with(Vec::new(), new, old)
    }

    /// As [`Schema::validate`], with what else was found in the object: it comes after what is wrong with the values,
    /// and rules may not be looked at because of it.
    pub(crate) fn validate_with(&self, found: Vec<Cause>, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate::validate(self, self.root, "", new, old);
        causes.extend(found);
        if !self.built_in {
            causes.extend(embedded::check(self, self.root, "", new));
        }
        self.validate_rest(causes, new, old)
    }

    /// As [`Schema::validate_with`], for a write to the `status` subresource: only the status's values, but all rules.
    pub(crate) fn validate_status(&self, found: Vec<Cause>, new: &Value, old: &Value) -> Vec<Cause> {
        let mut causes = match (new.get("status"), self.nodes[self.root].properties.get("status")) {
            (Some(status), Some(id)) => validate::validate(self, *id, "status", status, old.get("status")),
            _ => Vec::new(),
        };
        causes.extend(found);
        self.validate_rest(causes, new, Some(old))
    }

    fn validate_rest(&self, mut causes: Vec<Cause>, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        if !self.built_in {
            if self.nodes[self.root].list_types_below && old.is_none_or(|old| list_types::check(self, old).is_empty()) {
                causes.extend(list_types::check(self, new));
            }
            if self.nodes[self.root].rules_below {
                if causes.iter().any(Cause::blocks_rules) {
                    causes.push(Cause::invalid(
                        "",
                        &Value::Null,
                        "some validation rules were not checked because the object was invalid; correct the existing \
                         errors to complete validation",
                    ));
                } else {
                    causes.extend(cel::validate(self, self.root, "", new, old));
                }
            }
        }
        causes
    }

    /// Defaults must themselves be valid and free of unknown fields.
    fn check_defaults(&self, id: NodeId, path: &str) -> Vec<Cause> {
        let mut causes = Vec::new();
        let node = &self.nodes[id];
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        if let Some(default) = &node.default {
            if prune::has_unknown(self, id, default) {
                causes.push(Cause::invalid(
                    &below("default"),
                    default,
                    "must not have unknown fields",
                ));
            }
            let here = below("default");
            let mut found = embedded::check(self, id, &here, default);
            if found.is_empty() {
                found = validate::validate(self, id, &here, default, None);
            }
            if found.is_empty() {
                found = cel::validate(self, id, &here, default, None);
            }
            causes.extend(found);
        }
        for (name, child) in &node.properties {
            causes.extend(self.check_defaults(*child, &format!("{}[{name}]", below("properties"))));
        }
        if let Some(items) = node.items {
            causes.extend(self.check_defaults(items, &below("items")));
        }
        if let Additional::Schema(child) = node.additional {
            causes.extend(self.check_defaults(child, &below("additionalProperties")));
        }
        causes
    }
}

/// The old element with the same keys as `element`, in a list of type map.
fn correlate<'old>(old: &'old [Value], element: &Value, keys: &[String]) -> Option<&'old Value> {
    old.iter()
        .find(|candidate| candidate.is_object() && keys.iter().all(|key| candidate.get(key) == element.get(key)))
}

/// Adds the formats of texts that are not known, and therefore not checked.
pub(crate) fn unknown_formats(schema: &Value, found: &mut Vec<String>) {
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let format = text("format");
    if text("type") == "string" && !format.is_empty() && format::Format::named(format).is_none() {
        found.push(format.to_owned());
    }
    let lists = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_array());
    let maps = schema.get("properties").and_then(Value::as_object);
    let single = ["items", "not", "additionalProperties"]
        .into_iter()
        .filter_map(|key| schema.get(key));
    for nested in single
        .chain(lists.flatten())
        .chain(maps.into_iter().flat_map(|map| map.values()))
    {
        unknown_formats(nested, found);
    }
}
