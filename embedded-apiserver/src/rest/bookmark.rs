//! Bookmarks: objects of the watched kind with a revision and nothing else.
//!
//! The real server sends an empty object of its Go type; what such a type always writes is there, empty.

use serde_json::{Value, json};

use super::Request;

/// The annotation of the bookmark after the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The fields that an empty object of a built-in kind has besides its metadata.
fn always_written(api_version: &str, kind: &str) -> Value {
    let reference = json!({ "apiGroup": "", "kind": "", "name": "" });
    match (api_version, kind) {
        ("v1", "Pod") => json!({ "spec": { "containers": null }, "status": {} }),
        ("v1", "Event") => json!({
            "involvedObject": {}, "source": {}, "firstTimestamp": null, "lastTimestamp": null, "eventTime": null,
            "reportingComponent": "", "reportingInstance": "",
        }),
        (_, "Event") => json!({
            "regarding": {}, "deprecatedSource": {}, "deprecatedFirstTimestamp": null,
            "deprecatedLastTimestamp": null, "eventTime": null,
        }),
        (_, "PodDisruptionBudget") => json!({
            "spec": {},
            "status": { "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 },
        }),
        (_, "DaemonSet") => json!({
            "spec": {
                "selector": null,
                "template": { "metadata": {}, "spec": { "containers": null } },
                "updateStrategy": {},
            },
            "status": {
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            },
        }),
        (_, "Role" | "ClusterRole") => json!({ "rules": null }),
        (_, "RoleBinding" | "ClusterRoleBinding") => json!({ "roleRef": reference }),
        (_, "Lease") => json!({ "spec": {} }),
        ("v1", "Node") => json!({
            "spec": {},
            "status": {
                "daemonEndpoints": { "kubeletEndpoint": { "Port": 0 } },
                "nodeInfo": {
                    "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                    "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "",
                    "osImage": "", "systemUUID": "",
                },
            },
        }),
        ("v1", "Namespace") => json!({ "spec": {}, "status": {} }),
        (_, "CustomResourceDefinition") => json!({
            "spec": { "group": "", "names": { "kind": "", "plural": "" }, "scope": "", "versions": null },
            "status": {
                "acceptedNames": { "kind": "", "plural": "" }, "conditions": null, "storedVersions": null,
            },
        }),
        _ => json!({}),
    }
}

/// The bookmark of a revision; at the end of the initial events, it says so.
pub fn bookmark(request: &Request, revision: u64, end_of_initial: bool) -> Value {
    let resource = &request.resource;
    let api_version = request.api_version();
    let mut object = match resource.custom {
        Some(_) => json!({}),
        None => always_written(&api_version, &resource.kind),
    };
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if end_of_initial {
        metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
    }
    if resource.custom.is_none() && resource.kind == "DaemonSet" {
        // The conversion from the internal type writes it.
        metadata["annotations"]["deprecated.daemonset.template.generation"] = "0".into();
    }
    object["kind"] = resource.kind.as_str().into();
    object["apiVersion"] = api_version.into();
    object["metadata"] = metadata;
    object
}
