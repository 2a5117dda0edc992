//! The columns of the built-in kinds.
//!
//! For: `kubectl get` on them. Not for: custom resources.

use super::{Column, age_at, at, integer_at, list_at, metadata_description, name_column, pod, text_at};
use crate::selector::LabelSelector;
use jiff::Timestamp;
use serde_json::{Value, json};

type Compute = fn(&Value, Timestamp) -> Value;

/// The columns of a built-in kind, as the real server prints them; `Name` and `Created At` for kinds without a printer.
pub fn default_columns(kind: &str) -> Vec<Column> {
    let mut columns = vec![name_column()];
    let rows: &[(&str, i64, &str, Compute)] = match kind {
        "Namespace" => &[("Status", 0, "The status of the namespace", |object, _| {
            json!(text_at(object, &["status", "phase"]))
        })],
        "Secret" => &[
            (
                "Type",
                0,
                "Used to facilitate programmatic handling of secret data. More info: \
                 https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
                |object, _| json!(text_at(object, &["type"])),
            ),
            (
                "Data",
                0,
                "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The \
                 serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly \
                 non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
                |object, _| json!(size(object, &["data"])),
            ),
        ],
        "ConfigMap" => &[(
            "Data",
            0,
            "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
             Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not \
             overlap with the keys in the BinaryData field, this is enforced during validation process.",
            |object, _| json!(size(object, &["data"]) + size(object, &["binaryData"])),
        )],
        "ServiceAccount" => &[(
            "Secrets",
            0,
            "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are \
             allowed to use. Pods are only limited to this list if this service account has a \
             \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \
             \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate \
             namespaces to isolate access to mounted secrets. This field should not be used to find auto-generated \
             service account token secrets for use outside of pods. Instead, tokens can be requested directly using \
             the TokenRequest API, or service account token secrets can be manually created. More info: \
             https://kubernetes.io/docs/concepts/configuration/secret",
            |object, _| json!(list_at(object, &["secrets"]).len()),
        )],
        "Lease" => &[(
            "Holder",
            0,
            "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is \
             used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
            |object, _| json!(text_at(object, &["spec", "holderIdentity"])),
        )],
        "Node" => NODE,
        "Pod" => POD,
        "PodDisruptionBudget" => DISRUPTION_BUDGET,
        "DaemonSet" => DAEMON_SET,
        "RoleBinding" => ROLE_BINDING,
        "ClusterRoleBinding" => CLUSTER_ROLE_BINDING,
        "Event" => return events(),
        _ => {
            let description = metadata_description("creationTimestamp");
            columns.push(Column::computed("Created At", "date", "", 0, description, created_at));
            return columns;
        }
    };
    // Age comes before the columns that only `-o wide` shows.
    let (narrow, wide): (Vec<_>, Vec<_>) = rows
        .iter()
        .copied()
        .partition(|(name, priority, ..)| *priority == 0 && *name != "Version");
    for (name, priority, description, compute) in narrow {
        columns.push(Column::computed(
            name,
            kind_of(kind, name),
            "",
            priority,
            description,
            compute,
        ));
    }
    columns.push(Column::computed(
        "Age",
        "string",
        "",
        0,
        metadata_description("creationTimestamp"),
        |object, now| json!(age_at(object, &["metadata", "creationTimestamp"], now)),
    ));
    for (name, priority, description, compute) in wide {
        columns.push(Column::computed(name, "string", "", priority, description, compute));
    }
    columns
}

fn kind_of(kind: &str, name: &str) -> &'static str {
    match (kind, name) {
        ("DaemonSet", "Desired" | "Current" | "Ready" | "Up-to-date" | "Available") => "integer",
        ("PodDisruptionBudget", "Allowed Disruptions") => "integer",
        _ => "string",
    }
}

fn created_at(object: &Value, _now: Timestamp) -> Value {
    json!(text_at(object, &["metadata", "creationTimestamp"]))
}

fn size(object: &Value, path: &[&str]) -> usize {
    at(object, path)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

const POD: &[(&str, i64, &str, Compute)] = &[
    (
        "Ready",
        0,
        "The aggregate readiness state of this pod for accepting traffic.",
        pod::ready,
    ),
    (
        "Status",
        0,
        "The aggregate status of the containers in this pod.",
        pod::status,
    ),
    (
        "Restarts",
        0,
        "The number of times the containers in this pod have been restarted and when the last container in this pod \
         has restarted.",
        pod::restarts,
    ),
    (
        "IP",
        1,
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        pod::address,
    ),
    (
        "Node",
        1,
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by \
         the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible \
         for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled \
         on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        |pod, _| or_none(text_at(pod, &["spec", "nodeName"])),
    ),
    (
        "Nominated Node",
        1,
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right \
         away as preemption victims receive their graceful termination periods. This field does not guarantee that the \
         pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become \
         available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that \
         is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is \
         scheduled.",
        |pod, _| or_none(text_at(pod, &["status", "nominatedNodeName"])),
    ),
    (
        "Readiness Gates",
        1,
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers \
         are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: \
         https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        pod::readiness_gates,
    ),
];

fn node_address(node: &Value, kind: &str) -> Value {
    let address = list_at(node, &["status", "addresses"])
        .iter()
        .find(|address| text_at(address, &["type"]) == kind)
        .map(|address| text_at(address, &["address"]));
    or_none(address.unwrap_or_default())
}

fn node_information(node: &Value, field: &str) -> Value {
    let text = text_at(node, &["status", "nodeInfo", field]);
    json!(if text.is_empty() { "<unknown>" } else { text })
}

fn node_status(node: &Value, _now: Timestamp) -> Value {
    let ready = list_at(node, &["status", "conditions"])
        .iter()
        .find(|condition| text_at(condition, &["type"]) == "Ready")
        .map(|condition| text_at(condition, &["status"]));
    let mut status = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    json!(status)
}

fn node_roles(node: &Value, _now: Timestamp) -> Value {
    let mut roles: Vec<&str> = at(node, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    or_none(&roles.join(","))
}

const NODE_ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: \
    https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as \
    mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is \
    merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an \
    example. Consumers should assume that addresses can change during the lifetime of a Node. However, \
    there are some exceptions where this may not be possible, such as Pods that inherit a Node's \
    address in its own status or consumers of the downward API (status.hostIP).";

const NODE: &[(&str, i64, &str, Compute)] = &[
    ("Status", 0, "The status of the node", node_status),
    ("Roles", 0, "The roles of the node", node_roles),
    ("Version", 0, "Kubelet Version reported by the node.", |node, _| {
        json!(text_at(node, &["status", "nodeInfo", "kubeletVersion"]))
    }),
    ("Internal-IP", 1, NODE_ADDRESSES, |node, _| {
        node_address(node, "InternalIP")
    }),
    ("External-IP", 1, NODE_ADDRESSES, |node, _| {
        node_address(node, "ExternalIP")
    }),
    (
        "OS-Image",
        1,
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
        |node, _| node_information(node, "osImage"),
    ),
    (
        "Kernel-Version",
        1,
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
        |node, _| node_information(node, "kernelVersion"),
    ),
    (
        "Container-Runtime",
        1,
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
        |node, _| node_information(node, "containerRuntimeVersion"),
    ),
];

fn int_or_string(object: &Value, path: &[&str]) -> Value {
    match at(object, path) {
        None => json!("N/A"),
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
    }
}

const DISRUPTION_BUDGET: &[(&str, i64, &str, Compute)] = &[
    (
        "Min Available",
        0,
        "The minimum number of pods that must be available.",
        |object, _| int_or_string(object, &["spec", "minAvailable"]),
    ),
    (
        "Max Unavailable",
        0,
        "The maximum number of pods that may be unavailable.",
        |object, _| int_or_string(object, &["spec", "maxUnavailable"]),
    ),
    (
        "Allowed Disruptions",
        0,
        "Calculated number of pods that may be disrupted at this time.",
        |object, _| json!(integer_at(object, &["status", "disruptionsAllowed"])),
    ),
];

fn containers(object: &Value, field: &str) -> Value {
    let names: Vec<&str> = list_at(object, &["spec", "template", "spec", "containers"])
        .iter()
        .map(|container| text_at(container, &[field]))
        .collect();
    json!(names.join(","))
}

const DAEMON_SET: &[(&str, i64, &str, Compute)] = &[
    (
        "Desired",
        0,
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon \
         pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        |object, _| json!(integer_at(object, &["status", "desiredNumberScheduled"])),
    ),
    (
        "Current",
        0,
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        |object, _| json!(integer_at(object, &["status", "currentNumberScheduled"])),
    ),
    (
        "Ready",
        0,
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and \
         ready.",
        |object, _| json!(integer_at(object, &["status", "numberReady"])),
    ),
    (
        "Up-to-date",
        0,
        "The total number of nodes that are running updated daemon pod",
        |object, _| json!(integer_at(object, &["status", "updatedNumberScheduled"])),
    ),
    (
        "Available",
        0,
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and \
         available (ready for at least spec.minReadySeconds)",
        |object, _| json!(integer_at(object, &["status", "numberAvailable"])),
    ),
    (
        "Node Selector",
        0,
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a \
         node's labels for the pod to be scheduled on that node. More info: \
         https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
        |object, _| {
            let labels: Vec<String> = at(object, &["spec", "template", "spec", "nodeSelector"])
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            or_none(&labels.join(","))
        },
    ),
    (
        "Containers",
        1,
        "Names of each container in the template.",
        |object, _| containers(object, "name"),
    ),
    (
        "Images",
        1,
        "Images referenced by each container in the template.",
        |object, _| containers(object, "image"),
    ),
    (
        "Selector",
        1,
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. If empty, \
         defaulted to labels on Pod template. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        |object, _| {
            let selector =
                at(object, &["spec", "selector"]).and_then(|selector| LabelSelector::from_object(selector).ok());
            or_none(&selector.map(|selector| selector.to_string()).unwrap_or_default())
        },
    ),
];

fn subjects(object: &Value, kind: &str) -> Value {
    let names: Vec<String> = list_at(object, &["subjects"])
        .iter()
        .filter(|subject| text_at(subject, &["kind"]) == kind)
        .map(|subject| match (kind, text_at(subject, &["namespace"])) {
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text_at(subject, &["name"])),
            _ => text_at(subject, &["name"]).to_owned(),
        })
        .collect();
    json!(names.join(", "))
}

fn role(object: &Value, _now: Timestamp) -> Value {
    json!(format!(
        "{}/{}",
        text_at(object, &["roleRef", "kind"]),
        text_at(object, &["roleRef", "name"])
    ))
}

const ROLE_BINDING: &[(&str, i64, &str, Compute)] = &[
    (
        "Role",
        0,
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the \
         RoleRef cannot be resolved, the Authorizer must return an error.",
        role,
    ),
    ("Users", 1, "Users in the roleBinding", |object, _| {
        subjects(object, "User")
    }),
    ("Groups", 1, "Groups in the roleBinding", |object, _| {
        subjects(object, "Group")
    }),
    (
        "ServiceAccounts",
        1,
        "ServiceAccounts in the roleBinding",
        |object, _| subjects(object, "ServiceAccount"),
    ),
];

const CLUSTER_ROLE_BINDING: &[(&str, i64, &str, Compute)] = &[
    (
        "Role",
        0,
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the \
         Authorizer must return an error.",
        role,
    ),
    ("Users", 1, "Users in the clusterRoleBinding", |object, _| {
        subjects(object, "User")
    }),
    ("Groups", 1, "Groups in the clusterRoleBinding", |object, _| {
        subjects(object, "Group")
    }),
    (
        "ServiceAccounts",
        1,
        "ServiceAccounts in the clusterRoleBinding",
        |object, _| subjects(object, "ServiceAccount"),
    ),
];

/// Both groups' events; the field names differ, the columns do not.
fn events() -> Vec<Column> {
    fn either<'event>(event: &'event Value, new: &[&str], old: &[&str]) -> &'event str {
        match text_at(event, new) {
            "" => text_at(event, old),
            text => text,
        }
    }
    fn reference(event: &Value) -> &Value {
        at(event, &["involvedObject"])
            .or_else(|| at(event, &["regarding"]))
            .unwrap_or(&Value::Null)
    }
    fn first_seen(event: &Value, now: Timestamp) -> String {
        for path in [
            &["firstTimestamp"][..],
            &["deprecatedFirstTimestamp"][..],
            &["eventTime"][..],
        ] {
            if !text_at(event, path).is_empty() {
                return age_at(event, path, now);
            }
        }
        "<unknown>".to_owned()
    }
    fn last_seen(event: &Value, now: Timestamp) -> String {
        for path in [
            &["series", "lastObservedTime"][..],
            &["lastTimestamp"][..],
            &["deprecatedLastTimestamp"][..],
        ] {
            if !text_at(event, path).is_empty() {
                return age_at(event, path, now);
            }
        }
        first_seen(event, now)
    }
    fn count(event: &Value) -> i64 {
        let counts = [
            integer_at(event, &["series", "count"]),
            integer_at(event, &["count"]),
            integer_at(event, &["deprecatedCount"]),
        ];
        counts.into_iter().find(|count| *count > 0).unwrap_or(1)
    }
    let rows: &[(&str, &str, i64, &str, Compute)] = &[
        (
            "Last Seen",
            "string",
            0,
            "The time at which the most recent occurrence of this event was recorded.",
            |event, now| json!(last_seen(event, now)),
        ),
        (
            "Type",
            "string",
            0,
            "Type of this event (Normal, Warning), new types could be added in the future",
            |event, _| json!(text_at(event, &["type"])),
        ),
        (
            "Reason",
            "string",
            0,
            "This should be a short, machine understandable string that gives the reason for the transition into the \
             object's current status.",
            |event, _| json!(text_at(event, &["reason"])),
        ),
        (
            "Object",
            "string",
            0,
            "The object that this event is about.",
            |event, _| {
                let object = reference(event);
                let kind = text_at(object, &["kind"]).to_lowercase();
                let name = text_at(object, &["name"]);
                json!(if name.is_empty() {
                    kind
                } else {
                    format!("{kind}/{name}")
                })
            },
        ),
        (
            "Subobject",
            "string",
            1,
            "If referring to a piece of an object instead of an entire object, this string should contain a valid \
             JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object \
             reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" \
             (where \"name\" refers to the name of the container that triggered the event) or if no container name is \
             specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have \
             some well-defined way of referencing a part of an object.",
            |event, _| json!(text_at(reference(event), &["fieldPath"])),
        ),
        (
            "Source",
            "string",
            1,
            "The component reporting this event. Should be a short machine understandable string.",
            |event, _| {
                let component = match either(event, &["source", "component"], &["deprecatedSource", "component"]) {
                    "" => either(event, &["reportingComponent"], &["reportingController"]),
                    component => component,
                };
                let host = match either(event, &["source", "host"], &["deprecatedSource", "host"]) {
                    "" => text_at(event, &["reportingInstance"]),
                    host => host,
                };
                json!(if host.is_empty() {
                    component.to_owned()
                } else {
                    format!("{component}, {host}")
                })
            },
        ),
        (
            "Message",
            "string",
            0,
            "A human-readable description of the status of this operation.",
            |event, _| json!(either(event, &["message"], &["note"]).trim()),
        ),
        (
            "First Seen",
            "string",
            1,
            "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
            |event, now| json!(first_seen(event, now)),
        ),
        (
            "Count",
            "string",
            1,
            "The number of times this event has occurred.",
            |event, _| json!(count(event)),
        ),
        ("Name", "string", 1, metadata_description("name"), |event, _| {
            json!(text_at(event, &["metadata", "name"]))
        }),
    ];
    rows.iter()
        .map(|(name, kind, priority, description, compute)| {
            let format = if *name == "Name" { "name" } else { "" };
            Column::computed(name, kind, format, *priority, description, *compute)
        })
        .collect()
}
