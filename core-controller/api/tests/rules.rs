//! Every rule of the definitions accepts what is right and refuses what is wrong with its sentence.
//!
//! The cases are in `cases.json`, so that they can be put to a real API server too. Here the schema is judged by a JSON Schema
//! validator and the rules by kube-cel, as the embedded API server does.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test says by a panic what is wrong"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    object: Value,
    old: Option<Value>,
    refused: String,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("cases.json")).unwrap()
}

fn schemas() -> BTreeMap<String, Value> {
    outrigger_api::crds()
        .into_iter()
        .map(|crd| {
            let schema = crd.spec.versions[0]
                .schema
                .as_ref()
                .unwrap()
                .open_api_v3_schema
                .as_ref()
                .unwrap();
            (crd.spec.names.kind.clone(), serde_json::to_value(schema).unwrap())
        })
        .collect()
}

/// What the schema and the rules say of an object, one line each.
fn complaints(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let object = kube_cel::apply_defaults(schema, object);
    let old = old.map(|old| kube_cel::apply_defaults(schema, old));
    let mut lines = Vec::new();
    let structure = jsonschema::validator_for(schema).unwrap();
    for error in structure.iter_errors(&object) {
        lines.push(format!("{}: {error}", error.instance_path()));
    }
    if let Err(errors) = kube_cel::Validator::new().validate(schema, &object, old.as_ref()) {
        for error in errors {
            assert_eq!(
                error.kind,
                kube_cel::ErrorKind::ValidationFailure,
                "{error} ({})",
                error.rule
            );
            lines.push(error.to_string());
        }
    }
    lines
}

/// Every case with what is said of it; judged once, as compiling regular expressions takes its time.
static JUDGED: LazyLock<Vec<(Case, Vec<String>)>> = LazyLock::new(|| {
    let schemas = schemas();
    cases()
        .into_iter()
        .map(|case| {
            let lines = complaints(&schemas[&case.kind], &case.object, case.old.as_ref());
            (case, lines)
        })
        .collect()
});

#[test]
fn every_case_is_judged_as_it_should_be() {
    for (case, lines) in JUDGED.iter() {
        if case.refused.is_empty() {
            assert!(lines.is_empty(), "{} is refused: {lines:?}", case.name);
        } else {
            assert!(
                lines.iter().any(|line| line.contains(&case.refused)),
                "{} is not refused with \"{}\": {lines:?}",
                case.name,
                case.refused
            );
        }
    }
}

#[test]
fn every_rule_refuses_something() {
    let schemas = schemas();
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (case, lines) in JUDGED.iter() {
        seen.entry(case.kind.clone()).or_default().extend(lines.iter().cloned());
    }
    for (kind, schema) in &schemas {
        let mut messages = BTreeSet::new();
        collect(schema, &mut messages);
        for message in messages {
            assert!(
                seen[kind].iter().any(|line| line.contains(&message)),
                "no case breaks this rule of {kind}: {message}"
            );
        }
    }
}

fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for rule in map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let message = rule["message"].as_str().unwrap();
                assert!(
                    !message.ends_with('.') && message.len() > 20,
                    "not a sentence: {message}"
                );
                messages.insert(message.to_owned());
            }
            map.values().for_each(|value| collect(value, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, messages)),
        _ => {}
    }
}

#[test]
fn every_rule_compiles() {
    for (kind, schema) in schemas() {
        let mut stack = vec![(kind.clone(), &schema)];
        while let Some((path, node)) = stack.pop() {
            let compiled = kube_cel::compile_schema(node);
            assert!(!compiled.has_errors(), "{path}: {:?}", compiled.compilation_errors());
            for (name, property) in node["properties"].as_object().into_iter().flatten() {
                stack.push((format!("{path}.{name}"), property));
            }
            for key in ["items", "additionalProperties"] {
                if node[key].is_object() {
                    stack.push((format!("{path}[]"), &node[key]));
                }
            }
        }
    }
}

#[test]
fn an_object_reads_into_its_type_and_back() {
    use outrigger_api::{Cluster, Machine, MachineDeployment, MachineSet, Provider};
    fn round<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    let schemas = schemas();
    for case in cases().into_iter().filter(|case| case.refused.is_empty()) {
        let defaulted = kube_cel::apply_defaults(&schemas[&case.kind], &case.object);
        let read = |object: &Value| match case.kind.as_str() {
            "Provider" => round::<Provider>(object),
            "Cluster" => round::<Cluster>(object),
            "Machine" => round::<Machine>(object),
            "MachineSet" => round::<MachineSet>(object),
            _ => round::<MachineDeployment>(object),
        };
        // The types have the defaults of the definitions: an object that never saw an API server means the same.
        assert_eq!(read(&case.object), read(&defaulted), "{}", case.name);
        // And what was read and written again is still accepted, with nothing lost.
        let lines = complaints(&schemas[&case.kind], &read(&defaulted), None);
        assert!(lines.is_empty(), "{}: {lines:?}", case.name);
        assert_eq!(
            read(&defaulted)["spec"]["providerSpec"],
            defaulted["spec"]["providerSpec"],
            "{}",
            case.name
        );
    }
}
