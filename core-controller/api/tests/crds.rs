//! The files in `deploy/crds` are what the types give, and every definition keeps the promises that hold for all of them.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test says by a panic what is wrong"
)]

use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

const UPDATE: &str = "UPDATE_CRDS=1 cargo test -p outrigger-api --test crds";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds")
}

fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

fn render(crd: &CustomResourceDefinition) -> String {
    let yaml = serde_saphyr::to_string(crd).unwrap();
    format!("# Written by: {UPDATE}\n# From the types in core-controller/api; change those instead.\n{yaml}")
}

fn schema(crd: &CustomResourceDefinition) -> Value {
    serde_json::to_value(
        crd.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap(),
    )
    .unwrap()
}

/// Calls `visit` with the path and the schema of every field.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            walk(&format!("{path}.{name}"), property, visit);
        }
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(&format!("{path}[]"), &schema[key], visit);
        }
    }
}

#[test]
fn the_files_are_what_the_types_give() {
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    let mut stale = Vec::new();
    for crd in outrigger_api::crds() {
        let (path, wanted) = (folder().join(file_name(&crd)), render(&crd));
        if update {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &wanted).unwrap();
        }
        if std::fs::read_to_string(&path).ok().as_deref() != Some(wanted.as_str()) {
            stale.push(file_name(&crd));
        }
    }
    assert!(
        stale.is_empty(),
        "deploy/crds does not say what the types say ({}): run {UPDATE}",
        stale.join(", ")
    );

    let known: Vec<String> = outrigger_api::crds().iter().map(file_name).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.ends_with(".yaml") || known.contains(&name),
            "deploy/crds/{name} belongs to no kind: delete it"
        );
    }
}

#[test]
fn a_rendered_file_reads_back_as_the_same_definition() {
    for crd in outrigger_api::crds() {
        let read: CustomResourceDefinition = serde_saphyr::from_str(&render(&crd)).unwrap();
        assert_eq!(read, crd);
    }
}

#[test]
fn every_field_is_described_typed_and_bounded() {
    for crd in outrigger_api::crds() {
        let kind = crd.spec.names.kind.clone();
        walk(&kind, &schema(&crd), &mut |path, field| {
            let named = !path.ends_with("[]");
            assert!(
                !named || field["description"].as_str().is_some_and(|words| !words.is_empty()),
                "{path} has no description"
            );
            assert!(field.get("nullable").is_none(), "{path} may be null");
            assert!(
                field["type"].is_string() || field["x-kubernetes-int-or-string"] == true,
                "{path} has no type: {field}"
            );
            assert!(
                field.get("$ref").is_none() && field.get("oneOf").is_none(),
                "{path} is not structural"
            );
            match field["type"].as_str() {
                Some("string") => assert!(
                    field["maxLength"].is_u64() || field["enum"].is_array() || field["format"] == "date-time",
                    "{path} has no maxLength"
                ),
                Some("array") => assert!(field["maxItems"].is_u64(), "{path} has no maxItems"),
                Some("object") if field["additionalProperties"].is_object() => {
                    assert!(field["maxProperties"].is_u64(), "{path} has no maxProperties");
                }
                Some("integer") => {
                    assert!(field["minimum"].is_number(), "{path} has no minimum");
                }
                _ => {}
            }
        });
    }
}

#[test]
fn the_names_are_those_that_people_type() {
    let names: Vec<(String, Vec<String>, Vec<String>, String)> = outrigger_api::crds()
        .into_iter()
        .map(|crd| {
            let names = crd.spec.names;
            (
                names.plural,
                names.short_names.unwrap(),
                names.categories.unwrap(),
                crd.spec.scope,
            )
        })
        .collect();
    let expected = [
        ("providers", "prov", "Cluster"),
        ("clusters", "cl", "Namespaced"),
        ("machines", "ma", "Namespaced"),
        ("machinesets", "ms", "Namespaced"),
        ("machinedeployments", "md", "Namespaced"),
    ]
    .map(|(plural, short, scope)| {
        (
            plural.to_owned(),
            vec![short.to_owned()],
            vec!["cluster-api".to_owned()],
            scope.to_owned(),
        )
    });
    assert_eq!(names, expected);
}

#[test]
fn sets_and_deployments_scale_and_every_kind_has_a_status() {
    for crd in outrigger_api::crds() {
        let version = &crd.spec.versions[0];
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some(), "{}", crd.spec.names.kind);
        let scales = ["MachineSet", "MachineDeployment"].contains(&crd.spec.names.kind.as_str());
        match &subresources.scale {
            Some(scale) => {
                assert!(scales);
                assert_eq!(scale.spec_replicas_path, ".spec.replicas");
                assert_eq!(scale.status_replicas_path, ".status.replicas");
                assert_eq!(scale.label_selector_path.as_deref(), Some(".status.selector"));
            }
            None => assert!(!scales, "{}", crd.spec.names.kind),
        }
        assert!(crd.spec.versions[0].selectable_fields.iter().flatten().count() <= 8);
    }
}
