//! Which groups, versions and resources there are: plain and aggregated discovery.

use serde_json::{Value, json};

use crate::registry::{Behaviour, Resource, Snapshot, Version};

fn qualified(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// `/api`.
pub fn core_versions() -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443" }],
    })
}

fn group_json(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": qualified(group, version), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

/// `/apis`.
pub fn groups(snapshot: &Snapshot) -> Value {
    let groups: Vec<Value> = snapshot
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_json(group, versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub fn group(snapshot: &Snapshot, name: &str) -> Option<Value> {
    let (group, versions) = snapshot
        .groups()
        .into_iter()
        .find(|(group, _)| group == name && !group.is_empty())?;
    let mut json = group_json(&group, &versions);
    json["kind"] = "APIGroup".into();
    json["apiVersion"] = "v1".into();
    Some(json)
}

struct Subresource {
    name: &'static str,
    kind: (&'static str, &'static str, String),
    verbs: &'static [&'static str],
}

fn subresources(resource: &Resource, version: &Version) -> Vec<Subresource> {
    const CHANGING: &[&str] = &["get", "patch", "update"];
    let mut found = Vec::new();
    if resource.behaviour == Behaviour::Pod {
        found.push(Subresource {
            name: "eviction",
            kind: ("policy", "v1", "Eviction".to_owned()),
            verbs: &["create"],
        });
    }
    if resource.behaviour == Behaviour::Namespace {
        found.push(Subresource {
            name: "finalize",
            kind: ("", "", resource.kind.clone()),
            verbs: &["update"],
        });
    }
    if version.scale.is_some() {
        found.push(Subresource {
            name: "scale",
            kind: ("autoscaling", "v1", "Scale".to_owned()),
            verbs: CHANGING,
        });
    }
    if version.status {
        found.push(Subresource {
            name: "status",
            kind: ("", "", resource.kind.clone()),
            verbs: CHANGING,
        });
    }
    found
}

fn in_version<'a>(
    snapshot: &'a Snapshot,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Resource, &'a Version)> {
    snapshot
        .resources
        .iter()
        .filter(move |resource| resource.group == group)
        .filter_map(move |resource| Some((resource.as_ref(), resource.served(version)?)))
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub fn resources(snapshot: &Snapshot, group: &str, version: &str) -> Option<Value> {
    if !snapshot.has_version(group, version) {
        return None;
    }
    let mut list = Vec::new();
    for (resource, definition) in in_version(snapshot, group, version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs(),
            "storageVersionHash": hash(&format!("{}/{}/{}", resource.group, resource.storage_version, resource.kind)),
        });
        if resource.behaviour == Behaviour::Review
            && let Some(entry) = entry.as_object_mut()
        {
            entry.remove("storageVersionHash");
        }
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for subresource in subresources(resource, definition) {
            let (group, version, kind) = &subresource.kind;
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": subresource.verbs,
            });
            if !version.is_empty() {
                entry["group"] = (*group).into();
                entry["version"] = (*version).into();
            }
            list.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": qualified(group, version),
        "resources": list,
    }))
}

/// `/api` and `/apis` for clients that take everything at once.
pub fn aggregated(snapshot: &Snapshot, core: bool, version: &str) -> Value {
    let items: Vec<Value> = snapshot
        .groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = in_version(snapshot, &group, version)
                        .map(|(resource, definition)| aggregated_resource(resource, definition))
                        .collect();
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let mut metadata = json!({ "creationTimestamp": null });
            if !group.is_empty() {
                metadata["name"] = group.as_str().into();
            }
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource, version: &Version) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": version.name, "kind": resource.kind },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = subresources(resource, version)
        .into_iter()
        .map(|subresource| {
            let (group, named, kind) = &subresource.kind;
            let (group, named) = if named.is_empty() {
                (resource.group.as_str(), version.name.as_str())
            } else {
                (*group, *named)
            };
            json!({
                "subresource": subresource.name,
                "responseKind": { "group": group, "version": named, "kind": kind },
                "verbs": subresource.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn hash(text: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}
