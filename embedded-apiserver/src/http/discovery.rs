//! Which groups, versions and resources there are: plain and aggregated discovery.

use serde_json::{Value, json};

use super::health;
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
    if version.status {
        found.push(Subresource {
            name: "status",
            kind: ("", "", resource.kind.clone()),
            verbs: CHANGING,
        });
    }
    if version.scale.is_some() {
        found.push(Subresource {
            name: "scale",
            kind: ("autoscaling", "v1", "Scale".to_owned()),
            verbs: CHANGING,
        });
    }
    if resource.custom.is_none() {
        found.sort_by_key(|subresource| subresource.name);
    }
    if resource.behaviour == Behaviour::ServiceAccount {
        found.push(Subresource {
            name: "token",
            kind: ("authentication.k8s.io", "v1", "TokenRequest".to_owned()),
            verbs: &["create"],
        });
    }
    found
}

fn in_version<'a>(
    snapshot: &'a Snapshot,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Resource, &'a Version)> {
    let mut found: Vec<(&Resource, &Version)> = snapshot
        .resources
        .iter()
        .filter(|resource| resource.group == group)
        .filter_map(|resource| Some((resource.as_ref(), resource.served(version)?)))
        .collect();
    found.sort_by_key(|(resource, _)| resource.plural.as_str());
    found.into_iter()
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
            "storageVersionHash": storage_version_hash(resource),
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
    let mut answer = json!({
        "kind": "APIResourceList",
        "groupVersion": qualified(group, version),
        "resources": list,
    });
    // The core group is older than this field.
    if !group.is_empty() {
        answer["apiVersion"] = "v1".into();
    }
    Some(answer)
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
            let mut metadata = json!({});
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

/// Built-in resources leave out that their kind is of the group and version that it is listed in.
fn response_kind(resource: &Resource, version: &Version, kind: &str) -> Value {
    let (group, version) = match resource.custom {
        Some(_) => (resource.group.as_str(), version.name.as_str()),
        None => ("", ""),
    };
    json!({ "group": group, "version": version, "kind": kind })
}

fn aggregated_resource(resource: &Resource, version: &Version) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": response_kind(resource, version, &resource.kind),
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
            let response = if named.is_empty() {
                response_kind(resource, version, kind)
            } else {
                json!({ "group": group, "version": named, "kind": kind })
            };
            json!({
                "subresource": subresource.name,
                "responseKind": response,
                "verbs": subresource.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

/// `/`: everything that is no object.
pub fn paths(snapshot: &Snapshot) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.map(str::to_owned).to_vec();
    for (group, versions) in snapshot.groups().into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    for root in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{root}"));
        paths.extend(health::CHECKS.iter().map(|check| format!("/{root}/{check}")));
    }
    paths.sort();
    paths
}

/// Tells in which group, version and kind objects are stored.
fn storage_version_hash(resource: &Resource) -> String {
    let kind = match resource.behaviour {
        Behaviour::EventView => "/v1/Event".to_owned(),
        // The real server still stores them so.
        Behaviour::CustomResourceDefinition => format!("{}/v1beta1/{}", resource.group, resource.kind),
        _ => format!("{}/{}/{}", resource.group, resource.storage_version, resource.kind),
    };
    hash(&kind)
}

fn hash(text: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}
