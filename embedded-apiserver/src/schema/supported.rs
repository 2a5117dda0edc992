//! Refusing keywords that Kubernetes does not support, and validation rules that are wrong or too expensive.
//!
//! For: the checks at CRD creation. Not for: whether a schema is structural, nor objects.

use super::cause::Cause;
use super::cel::{self, Costs, Standing};
use super::structural::{child, elements, flag, members, text};
use serde_json::{Value, json};

/// All that is wrong with a CRD's schema in this respect; fields are relative to it.
///
/// Rules are looked at only `with_rules`; the cost of single ones not if the schema is `unchanged`.
pub(super) fn check(schema: &Value, with_rules: bool, unchanged: bool) -> Vec<Cause> {
    let mut checker = Checker {
        unchanged,
        causes: Vec::new(),
        rule_causes: Vec::new(),
        costs: Costs::default(),
    };
    let within = Within {
        root: true,
        in_metadata: false,
        no_defaults: None,
        uncorrelatable: None,
        cardinality: with_rules.then_some(Some(1)),
    };
    checker.schema("", schema, &within);
    let mut causes = checker.causes;
    causes.extend(checker.rule_causes);
    checker.costs.refuse(&mut causes);
    causes
}

/// What the schemas around one mean for it.
#[derive(Clone)]
struct Within {
    root: bool,
    in_metadata: bool,
    /// Why there may be no defaults.
    no_defaults: Option<String>,
    /// The path of an enclosing list or map whose elements have no old counterpart.
    uncorrelatable: Option<String>,
    /// How often its values may occur, if that is known; nothing where rules are not looked at.
    #[allow(clippy::option_option)] // three answers: not asked, not known, so often
    cardinality: Option<Option<u64>>,
}

struct Checker {
    unchanged: bool,
    causes: Vec<Cause>,
    rule_causes: Vec<Cause>,
    costs: Costs,
}

/// By how much a schema multiplies the values below it.
fn factor(schema: &Value) -> Option<u64> {
    let count = |key: &str| {
        let count = schema.get(key).and_then(Value::as_i64);
        count.map(|count| u64::try_from(count).unwrap_or_default())
    };
    let is_map = schema
        .get("additionalProperties")
        .is_some_and(|values| !values.is_null());
    match text(schema, "type") {
        "object" if is_map => count("maxProperties"),
        "array" => count("maxItems"),
        _ => Some(1),
    }
}

impl Checker {
    fn forbidden(&mut self, key: &str, path: &str, detail: &str) {
        self.causes.push(Cause::forbidden(&child(path, key), detail));
    }

    fn required(&mut self, key: &str, path: &str, detail: &str) {
        self.causes.push(Cause::required(&child(path, key), detail));
    }

    fn invalid(&mut self, key: &str, path: &str, value: &Value, detail: &str) {
        self.causes.push(Cause::invalid(&child(path, key), value, detail));
    }

    fn schema(&mut self, path: &str, schema: &Value, within: &Within) {
        let before = self.causes.len();
        self.keywords(path, schema, within);
        let below = Within {
            root: false,
            cardinality: within
                .cardinality
                .map(|here| Some(here?.saturating_mul(factor(schema)?))),
            ..within.clone()
        };
        self.additional(path, schema, within, &below);
        for (name, property) in members(schema, "properties") {
            let mut below = below.clone();
            if text(schema, "x-kubernetes-map-type") == "atomic" {
                below.uncorrelatable.get_or_insert_with(|| path.to_owned());
            }
            let is_resource = within.root || flag(schema, "x-kubernetes-embedded-resource");
            if is_resource && ["metadata", "apiVersion", "kind"].contains(&name.as_str()) {
                below.in_metadata = true;
                if within.root {
                    below.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            self.schema(&format!("{}[{name}]", child(path, "properties")), property, &below);
        }
        let nested = Within {
            cardinality: None,
            ..below.clone()
        };
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.schema(&child(path, "not"), not, &nested);
        }
        for key in ["allOf", "oneOf", "anyOf"] {
            for (index, branch) in elements(schema, key) {
                self.schema(&format!("{}[{index}]", child(path, key)), branch, &nested);
            }
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            let mut below = below;
            if text(schema, "x-kubernetes-list-type") != "map" {
                below.uncorrelatable.get_or_insert_with(|| path.to_owned());
            }
            self.schema(&child(path, "items"), items, &below);
        }
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let detail = "must be true or undefined";
            self.invalid("x-kubernetes-preserve-unknown-fields", path, &json!(false), detail);
        }
        self.list_and_map_types(path, schema);
        cel::check_texts(path, schema, &mut self.causes);
        if let Some(cardinality) = within.cardinality
            && self.causes.len() == before
        {
            let standing = Standing {
                is_resource: within.root || flag(schema, "x-kubernetes-embedded-resource"),
                cardinality,
                uncorrelatable: within.uncorrelatable.as_deref(),
                unchanged: self.unchanged,
            };
            cel::check_rules(path, schema, standing, &mut self.costs, &mut self.rule_causes);
        }
    }

    fn keywords(&mut self, path: &str, schema: &Value, within: &Within) {
        let kind = text(schema, "type");
        let types = ["array", "boolean", "integer", "number", "object", "string"];
        if !kind.is_empty() && !types.contains(&kind) {
            let field = child(path, "type");
            self.causes
                .push(Cause::not_supported(&field, &json!(kind), &types.map(str::to_owned)));
        }
        if let Some(reason) = &within.no_defaults
            && schema.get("default").is_some_and(|default| !default.is_null())
        {
            self.forbidden("default", path, &format!("must not be set {reason}"));
        }
        for key in [
            "id",
            "additionalItems",
            "patternProperties",
            "definitions",
            "dependencies",
            "$ref",
        ] {
            if schema.get(key).is_some_and(|value| !value.is_null()) {
                self.forbidden(key, path, &format!("{key} is not supported"));
            }
        }
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            self.forbidden("type", path, detail);
        }
        if schema.get("items").is_some_and(Value::is_array) {
            self.forbidden("items", path, "items must be a schema object and not an array");
        }
        if within.in_metadata && flag(schema, "x-kubernetes-embedded-resource") {
            let detail = "must not be used inside of resource meta";
            self.forbidden("x-kubernetes-embedded-resource", path, detail);
        }
        if flag(schema, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden("uniqueItems", path, detail);
        }
    }

    fn additional(&mut self, path: &str, schema: &Value, within: &Within, below: &Within) {
        let Some(additional) = schema.get("additionalProperties").filter(|values| !values.is_null()) else {
            return;
        };
        if members(schema, "properties").next().is_some() && *additional != Value::Bool(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.forbidden("additionalProperties", path, detail);
        }
        if additional.is_object() {
            let mut below = below.clone();
            if within.in_metadata {
                below.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
            }
            self.schema(&child(path, "additionalProperties"), additional, &below);
        }
    }

    fn list_and_map_types(&mut self, path: &str, schema: &Value) {
        let kind = text(schema, "type");
        if let Some(map_type) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
            let detail = "must be object if x-kubernetes-map-type is specified";
            match kind {
                "object" => {}
                "" => self.required("type", path, detail),
                _ => self.invalid("type", path, &json!(kind), detail),
            }
            if !["atomic", "granular"].contains(&map_type) {
                let allowed = ["atomic", "granular"].map(str::to_owned);
                let field = child(path, "x-kubernetes-map-type");
                self.causes
                    .push(Cause::not_supported(&field, &json!(map_type), &allowed));
            }
        }
        let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
        let keys: Vec<&str> = elements(schema, "x-kubernetes-list-map-keys")
            .filter_map(|(_, key)| key.as_str())
            .collect();
        if let Some(list_type) = list_type {
            let detail = "must be array if x-kubernetes-list-type is specified";
            match kind {
                "array" => {}
                "" => self.required("type", path, detail),
                _ => self.invalid("type", path, &json!(kind), detail),
            }
            match list_type {
                "atomic" | "map" => {}
                "set" => self.set_items(path, schema),
                _ => {
                    let allowed = ["atomic", "set", "map"].map(str::to_owned);
                    let field = child(path, "x-kubernetes-list-type");
                    self.causes
                        .push(Cause::not_supported(&field, &json!(list_type), &allowed));
                }
            }
        }
        if !keys.is_empty() && list_type != Some("map") {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list_type {
                None => self.required("x-kubernetes-list-type", path, detail),
                Some(other) => self.invalid("x-kubernetes-list-type", path, &json!(other), detail),
            }
        }
        if list_type == Some("map") {
            self.map_keys(path, schema, &keys);
        }
    }

    fn set_items(&mut self, path: &str, schema: &Value) {
        let Some(items) = schema.get("items") else { return };
        let path = child(path, "items");
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        match text(items, "type") {
            "array" if !["", "atomic"].contains(&text(items, "x-kubernetes-list-type")) => {
                let value = items.get("x-kubernetes-list-type").cloned().unwrap_or_default();
                self.invalid("x-kubernetes-list-type", &path, &value, detail);
            }
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                let value = items.get("x-kubernetes-list-type").cloned().unwrap_or_default();
                self.invalid("x-kubernetes-map-type", &path, &value, detail);
            }
            _ => {}
        }
        if flag(items, "nullable") {
            self.forbidden(
                "nullable",
                &path,
                "cannot be nullable when x-kubernetes-list-type is set",
            );
        }
    }

    fn map_keys(&mut self, path: &str, schema: &Value, keys: &[&str]) {
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.required("x-kubernetes-list-map-keys", path, detail);
        }
        let Some(items) = schema.get("items").filter(|items| items.is_object()) else {
            self.required("items", path, "must have a schema if x-kubernetes-list-type is map");
            return;
        };
        let items_path = child(path, "items");
        if text(items, "type") != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid("type", &items_path, &json!(text(items, "type")), detail);
        }
        if flag(items, "nullable") {
            self.forbidden(
                "nullable",
                &items_path,
                "cannot be nullable when x-kubernetes-list-type is map",
            );
        }
        if text(items, "type") != "object" {
            return;
        }
        let required: Vec<&str> = elements(items, "required")
            .filter_map(|(_, name)| name.as_str())
            .collect();
        for (index, key) in keys.iter().enumerate() {
            let property = items.get("properties").and_then(|properties| properties.get(key));
            let key_path = format!("{items_path}.properties[{key}]");
            let Some(property) = property else {
                let detail = "entries must all be names of item properties";
                self.invalid("x-kubernetes-list-map-keys", path, &json!(keys), detail);
                continue;
            };
            if ["object", "array"].contains(&text(property, "type")) {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid("type", &key_path, &json!(text(items, "type")), detail);
            }
            if keys[..index].contains(key) {
                self.invalid(
                    "x-kubernetes-list-map-keys",
                    path,
                    &json!(keys),
                    "must not contain duplicate entries",
                );
            }
            if property.get("default").is_none() && !required.contains(key) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                              required property";
                self.required("default", &key_path, detail);
            }
            if flag(property, "nullable") {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbidden("nullable", &key_path, detail);
            }
        }
    }
}

/// The status's schema is taken from the root's properties: nothing that would be lost then may stand at the root.
pub(super) fn check_root_with_status(schema: &Value) -> Option<Cause> {
    const ALLOWED: [(&str, &str); 22] = [
        ("description", "Description"),
        ("type", "Type"),
        ("format", "Format"),
        ("title", "Title"),
        ("maximum", "Maximum"),
        ("exclusiveMaximum", "ExclusiveMaximum"),
        ("minimum", "Minimum"),
        ("exclusiveMinimum", "ExclusiveMinimum"),
        ("maxLength", "MaxLength"),
        ("minLength", "MinLength"),
        ("pattern", "Pattern"),
        ("maxItems", "MaxItems"),
        ("minItems", "MinItems"),
        ("uniqueItems", "UniqueItems"),
        ("multipleOf", "MultipleOf"),
        ("required", "Required"),
        ("items", "Items"),
        ("properties", "Properties"),
        ("externalDocs", "ExternalDocs"),
        ("example", "Example"),
        ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
        ("x-kubernetes-validations", "XValidations"),
    ];
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is \
                      enabled";
        return Some(Cause::invalid("type", &json!(kind), detail));
    }
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && *value != json!("");
    let lost = schema
        .as_object()?
        .iter()
        .any(|(key, value)| is_set(value) && !ALLOWED.iter().any(|(known, _)| known == key));
    lost.then(|| {
        let names: Vec<&str> = ALLOWED.iter().map(|(_, name)| *name).collect();
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        Cause::invalid("", schema, &detail)
    })
}
