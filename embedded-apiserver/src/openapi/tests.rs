//! Tests of the documents.

use super::*;
use std::collections::BTreeSet;

fn machine() -> ResourceInfo {
    ResourceInfo {
        group: "cluster.outrigger.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        kind: "Machine".to_owned(),
        list_kind: "MachineList".to_owned(),
        plural: "machines".to_owned(),
        namespaced: true,
        verbs: all_verbs(),
        status: true,
        scale: true,
        schema: Some(json!({"type": "object", "description": "A machine", "properties": {
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {
                "size": {"x-kubernetes-int-or-string": true, "default": 1},
                "maybe": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
            }},
        }})),
        selectable_fields: vec![".spec.size".to_owned()],
        ..ResourceInfo::default()
    }
}

fn all_verbs() -> Vec<String> {
    [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn built_in() -> Vec<ResourceInfo> {
    builtin::KINDS
        .iter()
        .map(|kind| {
            let (group, version) = kind.api_version.split_once('/').unwrap_or(("", kind.api_version));
            ResourceInfo {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: kind.name.to_owned(),
                list_kind: format!("{}List", kind.name),
                plural: format!("{}s", kind.name.to_lowercase()),
                namespaced: kind.name != "Namespace" && kind.name != "Node",
                verbs: all_verbs(),
                eviction: kind.name == "Pod",
                status: kind.name == "Node",
                ..ResourceInfo::default()
            }
        })
        .collect()
}

/// All references of a document must point into it.
fn check_references(document: &Value, value: &Value, seen: &mut usize) {
    match value {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                *seen += 1;
                let pointer = reference.strip_prefix('#').expect("local");
                assert!(document.pointer(pointer).is_some(), "{reference} points nowhere");
            }
            map.values().for_each(|value| check_references(document, value, seen));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(document, value, seen)),
        _ => {}
    }
}

#[test]
fn a_custom_resource_is_described_as_kubectl_expects() {
    let document = v3_document("cluster.outrigger.dev", "v1alpha1", &[machine()]);
    let paths: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
    let base = "/apis/cluster.outrigger.dev/v1alpha1";
    assert_eq!(
        paths,
        [
            &format!("{base}/machines"),
            &format!("{base}/namespaces/{{namespace}}/machines"),
            &format!("{base}/namespaces/{{namespace}}/machines/{{name}}"),
            &format!("{base}/namespaces/{{namespace}}/machines/{{name}}/scale"),
            &format!("{base}/namespaces/{{namespace}}/machines/{{name}}/status"),
        ]
    );
    let patch = &document["paths"][paths[2]]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "cluster.outrigger.dev", "kind": "Machine", "version": "v1alpha1"})
    );
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["operationId"],
        "patchClusterOutriggerDevV1alpha1NamespacedMachine"
    );
    let parameters: Vec<&str> = patch["parameters"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(parameters, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let accepted: Vec<&String> = patch["requestBody"]["content"]
        .as_object()
        .expect("content")
        .keys()
        .collect();
    assert_eq!(
        accepted,
        [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json"
        ]
    );
    let schema = &document["components"]["schemas"]["dev.outrigger.cluster.v1alpha1.Machine"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "cluster.outrigger.dev", "kind": "Machine", "version": "v1alpha1"}])
    );
    assert_eq!(
        schema["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(
        schema["x-kubernetes-selectable-fields"],
        json!([{"fieldPath": "spec.size"}])
    );
    assert_eq!(
        document["paths"][paths[3]]["get"]["x-kubernetes-group-version-kind"],
        json!({"group": "cluster.outrigger.dev", "kind": "Machine", "version": "v1alpha1"})
    );
    assert_eq!(
        document["components"]["schemas"]["dev.outrigger.cluster.v1alpha1.MachineList"]["properties"]["items"]["items"],
        json!({"$ref": "#/components/schemas/dev.outrigger.cluster.v1alpha1.Machine"})
    );
}

#[test]
fn all_documents_are_whole() {
    let mut resources = built_in();
    resources.push(machine());
    let versions: BTreeSet<(String, String)> = resources
        .iter()
        .map(|resource| (resource.group.clone(), resource.version.clone()))
        .collect();
    let mut seen = 0;
    for (group, version) in versions {
        let document = v3_document(&group, &version, &resources);
        check_references(&document, &document, &mut seen);
        let identifiers: Vec<&str> = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|item| item.as_object().expect("item").values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        assert_eq!(
            identifiers.iter().collect::<BTreeSet<_>>().len(),
            identifiers.len(),
            "{identifiers:?}"
        );
    }
    let document = v2_document(&resources);
    check_references(&document, &document, &mut seen);
    assert!(seen > 1_000, "{seen}");
    let machine =
        &document["definitions"]["dev.outrigger.cluster.v1alpha1.Machine"]["properties"]["spec"]["properties"];
    assert_eq!(machine["size"].get("default"), None);
    assert_eq!(machine["maybe"].get("properties"), None);
    assert_eq!(
        document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"],
        "int-or-string"
    );
}

#[test]
fn built_in_kinds_keep_the_names_of_the_api() {
    let document = v3_document("", "v1", &built_in());
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for name in [
        "io.k8s.api.core.v1.Secret",
        "io.k8s.api.core.v1.SecretList",
        "io.k8s.api.core.v1.PodSpec",
    ] {
        assert!(schemas.contains_key(name), "{name}");
    }
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/secrets/{name}"]["patch"];
    assert_eq!(patch["operationId"], "patchCoreV1NamespacedSecret");
    assert_eq!(patch["tags"], json!(["core_v1"]));
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_some()
    );
    let eviction = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"];
    assert_eq!(eviction["x-kubernetes-group-version-kind"]["kind"], "Eviction");
}

#[test]
fn every_line_of_the_merge_table_finds_its_list() {
    for list in merge_keys::LISTS {
        let definition = builtin::DEFINITIONS.get(list.definition);
        let property = definition.and_then(|definition| definition["properties"].get(list.property));
        let property = property.unwrap_or_else(|| panic!("{} has no {}", list.definition, list.property));
        assert_eq!(property["x-kubernetes-list-type"], list.kind);
        assert_eq!(property["type"], "array");
    }
    for name in merge_keys::ATOMIC_MAPS {
        assert!(builtin::DEFINITIONS.contains_key(*name), "{name}");
    }
    for kind in builtin::KINDS {
        assert!(
            builtin_schema(kind.api_version, kind.name).is_some(),
            "{}",
            kind.definition
        );
    }
}
