//! Refusing schemas that are not structural, or that use what Kubernetes does not support.
//!
//! For: the checks at CRD creation. Not for: CEL rules, which `cel` compiles, nor objects.

use super::cause::Cause;
use super::cel;
use regex::Regex;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All that is wrong with a CRD's schema; fields are relative to it.
pub(super) fn check(schema: &Value) -> Vec<Cause> {
    let mut checker = Checker { causes: Vec::new() };
    if schema.get("nullable") == Some(&json!(true)) {
        checker.forbidden("nullable", "", "nullable cannot be true at the root");
    }
    checker.supported("", schema, true, None);
    if checker.causes.is_empty() {
        checker.invariants("", schema, Level::Root);
        checker.complete("", schema, schema);
        checker.causes.sort_by_key(ToString::to_string);
    }
    checker.causes
}

struct Checker {
    causes: Vec<Cause>,
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'schema>(schema: &'schema Value, key: &str) -> &'schema str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn members<'schema>(schema: &'schema Value, key: &str) -> impl Iterator<Item = (&'schema String, &'schema Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn elements<'schema>(schema: &'schema Value, key: &str) -> impl Iterator<Item = (usize, &'schema Value)> {
    schema
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
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

    /// What is not supported at all, wherever it stands.
    fn supported(&mut self, path: &str, schema: &Value, root: bool, uncorrelatable: Option<&str>) {
        let kind = text(schema, "type");
        if !kind.is_empty() && !["string", "number", "integer", "boolean", "array", "object"].contains(&kind) {
            if kind == "null" {
                self.forbidden(
                    "type",
                    path,
                    "type cannot be set to null, use nullable as an alternative",
                );
            } else {
                let allowed = ["array", "boolean", "integer", "number", "object", "string"].map(str::to_owned);
                self.causes
                    .push(Cause::not_supported(&child(path, "type"), &json!(kind), &allowed));
            }
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
        if schema.get("items").is_some_and(Value::is_array) {
            self.forbidden("items", path, "items must be a schema object and not an array");
        }
        if flag(schema, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden("uniqueItems", path, detail);
        }
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let detail = "must be true or undefined";
            self.invalid("x-kubernetes-preserve-unknown-fields", path, &json!(false), detail);
        }
        if let Some(additional) = schema.get("additionalProperties") {
            let has_properties = members(schema, "properties").next().is_some();
            if has_properties && *additional != Value::Bool(true) {
                let detail = "additionalProperties and properties are mutual exclusive";
                self.forbidden("additionalProperties", path, detail);
            }
            if additional.is_object() {
                self.supported(&child(path, "additionalProperties"), additional, false, uncorrelatable);
            }
        }
        for (name, property) in members(schema, "properties") {
            if root && ["metadata", "apiVersion", "kind"].contains(&name.as_str()) && property.get("default").is_some()
            {
                let path = format!("{}[{name}]", child(path, "properties"));
                self.forbidden("default", &path, &format!("must not be set in top-level {name}"));
            }
            self.supported(
                &format!("{}[{name}]", child(path, "properties")),
                property,
                false,
                uncorrelatable,
            );
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for (index, nested) in elements(schema, key) {
                self.supported(&format!("{}[{index}]", child(path, key)), nested, false, uncorrelatable);
            }
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.supported(&child(path, "not"), not, false, uncorrelatable);
        }
        self.list_and_map_types(path, schema);
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            let own = child("", path);
            let below = if text(schema, "x-kubernetes-list-type") == "map" {
                uncorrelatable
            } else {
                Some(own.as_str())
            };
            self.supported(&child(path, "items"), items, false, uncorrelatable.or(below));
        }
        cel::check_rules(path, schema, root, uncorrelatable, &mut self.causes);
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

    /// The invariants of the structural part.
    fn invariants(&mut self, path: &str, schema: &Value, level: Level) {
        let kind = text(schema, "type");
        let embedded = flag(schema, "x-kubernetes-embedded-resource");
        let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
        let int_or_string = flag(schema, "x-kubernetes-int-or-string");
        let properties = schema.get("properties").and_then(Value::as_object);

        match schema.get("items") {
            Some(items) => self.invariants(&child(path, "items"), items, Level::Item),
            None if kind == "array" => self.required("items", path, "must be specified"),
            None => {}
        }
        for (name, property) in properties.into_iter().flatten() {
            self.invariants(
                &format!("{}[{name}]", child(path, "properties")),
                property,
                Level::Field,
            );
        }
        if let Some(additional) = schema.get("additionalProperties") {
            if level == Level::Root {
                self.forbidden("additionalProperties", path, "must not be used at the root");
            }
            if additional.is_object() {
                self.invariants(&child(path, "additionalProperties"), additional, Level::Field);
            }
            if embedded {
                let detail = "must not be used if x-kubernetes-embedded-resource is set";
                self.forbidden("additionalProperties", path, detail);
            }
        }
        if int_or_string && preserve {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            self.invalid("x-kubernetes-preserve-unknown-fields", path, &json!(true), detail);
        }
        if int_or_string && embedded {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            self.invalid("x-kubernetes-embedded-resource", path, &json!(true), detail);
        }
        self.value_validation(
            path,
            schema,
            is_int_or_string_any_of(schema),
            is_int_or_string_all_of(schema),
        );

        if embedded && kind != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            if kind.is_empty() {
                self.required("type", path, detail);
            } else {
                self.invalid("type", path, &json!(kind), detail);
            }
        } else if kind.is_empty() && !int_or_string && !preserve {
            let detail = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            self.required("type", path, detail);
        }
        if level == Level::Root && !kind.is_empty() && kind != "object" {
            self.invalid("type", path, &json!(kind), "must be object at the root");
        }
        if let Some(properties) = properties {
            self.meta_fields(path, properties, level, level == Level::Root || embedded);
        }
        if embedded && !preserve && properties.is_none_or(Map::is_empty) {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            self.required("properties", path, detail);
        }
    }

    fn meta_fields(&mut self, path: &str, properties: &Map<String, Value>, level: Level, check: bool) {
        if !check {
            return;
        }
        for name in ["kind", "apiVersion"] {
            if let Some(property) = properties.get(name)
                && text(property, "type") != "string"
            {
                let path = format!("{}[{name}]", child(path, "properties"));
                self.invalid("type", &path, &json!(text(property, "type")), "must be string");
            }
        }
        let Some(metadata) = properties.get("metadata") else {
            return;
        };
        let path = format!("{}[metadata]", child(path, "properties"));
        if text(metadata, "type") != "object" {
            self.invalid("type", &path, &json!(text(metadata, "type")), "must be object");
        }
        if level == Level::Root {
            let only_names =
                members(metadata, "properties").all(|(name, _)| ["name", "generateName"].contains(&name.as_str()));
            let only_known = metadata
                .as_object()
                .into_iter()
                .flatten()
                .all(|(key, _)| ["type", "properties", "default", "description"].contains(&key.as_str()));
            if !only_names || !only_known {
                let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                              specified";
                self.causes.push(Cause::forbidden(&path, detail));
            }
        }
    }

    fn value_validation(&mut self, path: &str, schema: &Value, skip_any_of: bool, skip_first_all_of: bool) {
        if !skip_any_of {
            for (index, nested) in elements(schema, "anyOf") {
                self.nested(&format!("{}[{index}]", child(path, "anyOf")), nested, false);
            }
        }
        for (index, nested) in elements(schema, "allOf") {
            self.nested(
                &format!("{}[{index}]", child(path, "allOf")),
                nested,
                skip_first_all_of && index == 0,
            );
        }
        for (index, nested) in elements(schema, "oneOf") {
            self.nested(&format!("{}[{index}]", child(path, "oneOf")), nested, false);
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.nested(&child(path, "not"), not, false);
        }
        let pattern = text(schema, "pattern");
        if let Err(error) = Regex::new(pattern) {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default();
            let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {reason}");
            self.invalid("pattern", path, &json!(pattern), &detail);
        }
    }

    fn nested(&mut self, path: &str, schema: &Value, skip_any_of: bool) {
        self.value_validation(path, schema, skip_any_of, false);
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            self.nested(&child(path, "items"), items, false);
        }
        for (name, property) in members(schema, "properties") {
            self.nested(&format!("{}[{name}]", child(path, "properties")), property, false);
        }
        const EMPTY: &str = "must be empty to be structural";
        const UNDEFINED: &str = "must be undefined to be structural";
        const FALSE: &str = "must be false to be structural";
        for (key, detail) in [
            ("type", EMPTY),
            ("additionalProperties", UNDEFINED),
            ("default", UNDEFINED),
            ("title", EMPTY),
            ("description", EMPTY),
            ("nullable", FALSE),
            ("x-kubernetes-preserve-unknown-fields", FALSE),
            ("x-kubernetes-embedded-resource", FALSE),
            ("x-kubernetes-int-or-string", FALSE),
            ("x-kubernetes-list-map-keys", EMPTY),
            ("x-kubernetes-list-type", UNDEFINED),
            ("x-kubernetes-map-type", UNDEFINED),
            ("x-kubernetes-validations", EMPTY),
        ] {
            let set = match schema.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => false,
                Some(Value::String(text)) => !text.is_empty(),
                Some(Value::Array(items)) => !items.is_empty(),
                Some(_) => true,
            };
            if set {
                self.forbidden(key, path, detail);
            }
        }
        if schema
            .get("properties")
            .is_some_and(|properties| properties.get("metadata").is_some())
        {
            let path = format!("{}[metadata]", child(path, "properties"));
            self.causes
                .push(Cause::forbidden(&path, "must not be specified in a nested context"));
        }
    }

    /// Every field that value validations speak of must also be in the structural part.
    fn complete(&mut self, path: &str, schema: &Value, outer: &Value) {
        for key in ["allOf", "anyOf", "oneOf"] {
            for (index, nested) in elements(schema, key) {
                self.complete_nested(&child("", path), &format!("{key}[{index}]"), nested, outer);
            }
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.complete_nested(path, "not", not, outer);
        }
        for (name, property) in members(outer, "properties") {
            self.complete(&format!("{}[{name}]", child(path, "properties")), property, property);
        }
        if let Some(items) = outer.get("items").filter(|items| items.is_object()) {
            self.complete(&child(path, "items"), items, items);
        }
        if let Some(additional) = outer.get("additionalProperties").filter(|schema| schema.is_object()) {
            self.complete(&child(path, "additionalProperties"), additional, additional);
        }
    }

    fn complete_nested(&mut self, path: &str, position: &str, nested: &Value, outer: &Value) {
        // Where the structural part lists no properties at all, nothing is said of them.
        let listed = outer.get("properties").is_some();
        for (name, property) in members(nested, "properties").filter(|_| listed) {
            let field = format!("{}[{name}]", child(path, "properties"));
            match outer.get("properties").and_then(|properties| properties.get(name)) {
                Some(known) => self.complete_nested(&field, position, property, known),
                None => self.causes.push(Cause::required(
                    &field,
                    &format!("because it is defined in {}.properties[{name}]", child(path, position)),
                )),
            }
        }
        if let Some(items) = nested.get("items").filter(|items| items.is_object()) {
            let field = child(path, "items");
            match outer.get("items").filter(|items| items.is_object()) {
                Some(known) => self.complete_nested(&field, position, items, known),
                None => self.causes.push(Cause::required(
                    &field,
                    &format!("because it is defined in {}.items", child(path, position)),
                )),
            }
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for (index, deeper) in elements(nested, key) {
                self.complete_nested(path, &format!("{position}.{key}[{index}]"), deeper, outer);
            }
        }
    }
}

fn is_int_or_string_any_of(schema: &Value) -> bool {
    schema.get("anyOf") == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

fn is_int_or_string_all_of(schema: &Value) -> bool {
    schema
        .get("allOf")
        .and_then(|all_of| all_of.get(0))
        .is_some_and(is_int_or_string_any_of)
}
