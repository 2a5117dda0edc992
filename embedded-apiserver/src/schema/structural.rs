//! Refusing schemas that are not structural.
//!
//! For: the checks at CRD creation. Not for: keywords that Kubernetes does not support (`supported`), nor objects.

use super::cause::Cause;
use regex::Regex;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is not structural about a CRD's schema; nothing if it has what makes it impossible to tell.
///
/// Fields are relative to the schema.
pub(super) fn check(schema: &Value) -> Option<Vec<Cause>> {
    if is_unreadable(schema) {
        return None;
    }
    let mut checker = Checker { causes: Vec::new() };
    checker.invariants("", schema, Level::Root);
    checker.complete("", schema, schema);
    checker.causes.sort_by_key(ToString::to_string);
    Some(checker.causes)
}

/// Whether a schema, or one below it, has a keyword that no structural schema can have.
fn is_unreadable(schema: &Value) -> bool {
    let filled = |key: &str| match schema.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    let own = [
        "id",
        "$schema",
        "$ref",
        "patternProperties",
        "dependencies",
        "additionalItems",
        "definitions",
    ];
    own.into_iter().any(filled)
        || schema.get("items").is_some_and(Value::is_array)
        || members(schema, "properties").any(|(_, property)| is_unreadable(property))
        || ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .any(|key| elements(schema, key).any(|(_, nested)| is_unreadable(nested)))
        || ["items", "additionalProperties", "not"].into_iter().any(|key| {
            schema
                .get(key)
                .is_some_and(|nested| nested.is_object() && is_unreadable(nested))
        })
}

struct Checker {
    causes: Vec<Cause>,
}

pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

pub(super) fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn text<'schema>(schema: &'schema Value, key: &str) -> &'schema str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn members<'schema>(
    schema: &'schema Value,
    key: &str,
) -> impl Iterator<Item = (&'schema String, &'schema Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn elements<'schema>(schema: &'schema Value, key: &str) -> impl Iterator<Item = (usize, &'schema Value)> {
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
            let detail = format!(
                "must be a valid regular expression, but isn't: error parsing regexp: {}",
                pattern_problem(pattern, &error.to_string())
            );
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

    /// Every field that value validations of the root speak of must also be in the structural part.
    fn complete(&mut self, path: &str, schema: &Value, outer: &Value) {
        for key in ["allOf", "anyOf", "oneOf"] {
            for (index, nested) in elements(schema, key) {
                self.complete_nested(&child("", path), &format!("{key}[{index}]"), nested, outer);
            }
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.complete_nested(path, "not", not, outer);
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

/// What is wrong with a pattern, in the words of the real server's library where they are known.
fn pattern_problem(pattern: &str, error: &str) -> String {
    let reason = error.lines().last().unwrap_or_default();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    let from = |sign: char| pattern.rfind(sign).and_then(|at| pattern.get(at..)).unwrap_or(pattern);
    match reason {
        "unclosed character class" => format!("missing closing ]: `{}`", from('[')),
        "unclosed group" => format!("missing closing ): `{pattern}`"),
        "unopened group" => format!("unexpected ): `{pattern}`"),
        "repetition operator missing expression" => {
            let operator = pattern.chars().find(|letter| "*+?".contains(*letter)).unwrap_or('*');
            format!("missing argument to repetition operator: `{operator}`")
        }
        other => other.to_owned(),
    }
}
