//! The defaults of the built-in kinds, as a table: the real server sets them wherever a type occurs.
//!
//! From `pkg/apis/{core,apps}/v1/defaults.go`. Objects are settled (see `form`) before.

use serde_json::{Map, Value, json};

use super::quantity::Quantity;
use super::types::{Shape, Struct, Type};

enum Default {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    Empty,
    /// The pull policy that belongs to the image.
    PullPolicy,
}

use Default::{Empty, Flag, Number, PullPolicy, Text};

/// Struct, field, and what it is when nothing is said.
const DEFAULTS: &[(&str, &str, Default)] = &[
    ("core.Secret", "type", Text("Opaque")),
    ("core.PodSpec", "dnsPolicy", Text("ClusterFirst")),
    ("core.PodSpec", "restartPolicy", Text("Always")),
    ("core.PodSpec", "securityContext", Empty),
    ("core.PodSpec", "terminationGracePeriodSeconds", Number(30)),
    ("core.PodSpec", "schedulerName", Text("default-scheduler")),
    ("core.Container", "imagePullPolicy", PullPolicy),
    ("core.Container", "terminationMessagePath", Text("/dev/termination-log")),
    ("core.Container", "terminationMessagePolicy", Text("File")),
    ("core.EphemeralContainer", "imagePullPolicy", PullPolicy),
    (
        "core.EphemeralContainer",
        "terminationMessagePath",
        Text("/dev/termination-log"),
    ),
    ("core.EphemeralContainer", "terminationMessagePolicy", Text("File")),
    ("core.ContainerPort", "protocol", Text("TCP")),
    ("core.Probe", "timeoutSeconds", Number(1)),
    ("core.Probe", "periodSeconds", Number(10)),
    ("core.Probe", "successThreshold", Number(1)),
    ("core.Probe", "failureThreshold", Number(3)),
    ("core.HTTPGetAction", "path", Text("/")),
    ("core.HTTPGetAction", "scheme", Text("HTTP")),
    ("core.GRPCAction", "service", Text("")),
    ("core.ObjectFieldSelector", "apiVersion", Text("v1")),
    ("core.SecretVolumeSource", "defaultMode", Number(0o644)),
    ("core.ConfigMapVolumeSource", "defaultMode", Number(0o644)),
    ("core.DownwardAPIVolumeSource", "defaultMode", Number(0o644)),
    ("core.ProjectedVolumeSource", "defaultMode", Number(0o644)),
    ("core.ServiceAccountTokenProjection", "expirationSeconds", Number(3600)),
    ("core.HostPathVolumeSource", "type", Text("")),
    ("core.PersistentVolumeClaimSpec", "volumeMode", Text("Filesystem")),
    ("core.ISCSIVolumeSource", "iscsiInterface", Text("default")),
    ("core.RBDVolumeSource", "pool", Text("rbd")),
    ("core.RBDVolumeSource", "user", Text("admin")),
    ("core.RBDVolumeSource", "keyring", Text("/etc/ceph/keyring")),
    ("core.AzureDiskVolumeSource", "cachingMode", Text("ReadWrite")),
    ("core.AzureDiskVolumeSource", "kind", Text("Shared")),
    ("core.AzureDiskVolumeSource", "fsType", Text("ext4")),
    ("core.AzureDiskVolumeSource", "readOnly", Flag(false)),
    ("core.ScaleIOVolumeSource", "storageMode", Text("ThinProvisioned")),
    ("core.ScaleIOVolumeSource", "fsType", Text("xfs")),
    ("apps.DaemonSetSpec", "revisionHistoryLimit", Number(10)),
    ("apps.DaemonSetUpdateStrategy", "type", Text("RollingUpdate")),
    ("apps.RollingUpdateDaemonSet", "maxUnavailable", Number(1)),
    ("apps.RollingUpdateDaemonSet", "maxSurge", Number(0)),
];

/// Fills in the defaults of an object of this kind.
pub(super) fn fill(kind: &'static Struct, object: &mut Value) {
    if kind.name == "core.Pod" {
        pod(object);
    }
    structure(kind, object);
}

fn structure(kind: &'static Struct, value: &mut Value) {
    let Some(map) = value.as_object_mut() else {
        return;
    };
    match kind.name {
        // A volume of no kind is an empty directory.
        "core.Volume" if map.keys().all(|key| key == "name") => {
            map.insert("emptyDir".to_owned(), json!({}));
        }
        "apps.DaemonSetUpdateStrategy" => {
            let rolls = map.get("type").is_none_or(|name| name == "RollingUpdate");
            if rolls && !map.contains_key("rollingUpdate") {
                map.insert("rollingUpdate".to_owned(), json!({}));
            }
        }
        "core.NodeStatus" if !map.contains_key("allocatable") => {
            if let Some(capacity) = map.get("capacity").cloned() {
                map.insert("allocatable".to_owned(), capacity);
            }
        }
        _ => {}
    }
    for (_, field, default) in DEFAULTS.iter().filter(|(owner, _, _)| *owner == kind.name) {
        if map.get(*field).is_some_and(|value| !value.is_null()) {
            continue;
        }
        let value = match default {
            Text(text) => json!(text),
            Number(number) => json!(number),
            Flag(flag) => json!(flag),
            Empty => json!({}),
            PullPolicy => {
                let image = map.get("image").and_then(Value::as_str).unwrap_or_default();
                json!(if is_latest(image) { "Always" } else { "IfNotPresent" })
            }
        };
        map.insert((*field).to_owned(), value);
    }
    for (key, child) in map.iter_mut() {
        if let Some(field) = kind.field(key) {
            below(&field.kind, child);
        }
    }
}

fn below(kind: &Type, value: &mut Value) {
    match &kind.shape {
        Shape::Pointer(inner) => below(inner, value),
        Shape::Struct(_) => {
            if let Some(target) = kind.target() {
                structure(target, value);
            }
        }
        Shape::List(inner) => value
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(|item| below(inner, item)),
        Shape::Map(_) if kind.name == "v1.ResourceList" => {
            for amount in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
                if let Some(Ok(rounded)) = amount.as_str().map(Quantity::canonical_in_thousandths) {
                    *amount = rounded.into();
                }
            }
        }
        _ => {}
    }
}

/// Whether an image is always pulled: its tag is `latest`, or it has neither tag nor digest.
fn is_latest(image: &str) -> bool {
    let (name, has_digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let start = name.rfind('/').map_or(0, |at| at + 1);
    let (last, tag) = match name[start..].split_once(':') {
        Some((last, tag)) => (last, Some(tag)),
        None => (&name[start..], None),
    };
    // What is no reference has no tag.
    let is_reference = !last.is_empty()
        && last.bytes().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, b'.' | b'_' | b'-')
        });
    is_reference && tag.map_or(!has_digest, |tag| tag == "latest")
}

/// What holds for pods but not for templates of pods.
fn pod(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let host_network = spec.get("hostNetwork").is_some_and(|flag| flag == true);
    if !spec.contains_key("enableServiceLinks") {
        spec.insert("enableServiceLinks".to_owned(), json!(true));
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut)
                && let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned()
                && let Some(requests) = resources.entry("requests").or_insert_with(|| json!({})).as_object_mut()
            {
                for (name, limit) in limits {
                    requests.entry(name).or_insert(limit);
                }
            }
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
            {
                if host_network && !port.contains_key("hostPort") {
                    let number = port.get("containerPort").cloned().unwrap_or(json!(0));
                    if number != 0 {
                        port.insert("hostPort".to_owned(), number);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{form, types};
    use super::*;

    #[test]
    fn the_table_names_fields_that_exist() {
        for (owner, field, _) in DEFAULTS {
            let owner = types::named(owner).unwrap_or_else(|| panic!("{owner} is unknown"));
            assert!(owner.field(field).is_some(), "{}.{field} is unknown", owner.name);
        }
    }

    #[test]
    fn images_are_pulled_always_only_when_latest() {
        for image in ["a", "a:latest", "r.example.com:5000/a/b", "a:latest@sha256:00"] {
            assert!(is_latest(image), "{image}");
        }
        for image in ["a:1", "a@sha256:00", "r.example.com:5000/a:1", "", "Upper"] {
            assert!(!is_latest(image), "{image}");
        }
    }

    #[test]
    fn a_pod_is_filled_at_all_depths() {
        let mut pod = json!({ "spec": {
            "hostNetwork": true,
            "containers": [{
                "name": "a", "image": "a:1", "ports": [{ "containerPort": 80 }],
                "resources": { "limits": { "cpu": "1500u" } },
                "livenessProbe": { "httpGet": { "port": 80 } },
            }],
            "volumes": [{ "name": "v" }, { "name": "w", "secret": { "secretName": "s" } }],
        } });
        let kind = types::named("core.Pod").expect("known");
        form::settle(kind, form::Source::Text, &mut pod).expect("settles");
        fill(kind, &mut pod);
        let at = |pointer: &str| pod.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/spec/containers/0/imagePullPolicy"), "IfNotPresent");
        assert_eq!(
            at("/spec/containers/0/ports/0"),
            json!({ "containerPort": 80, "hostPort": 80, "protocol": "TCP" })
        );
        assert_eq!(at("/spec/containers/0/resources/requests/cpu"), "2m");
        assert_eq!(at("/spec/containers/0/livenessProbe/httpGet/scheme"), "HTTP");
        assert_eq!(at("/spec/volumes/0/emptyDir"), json!({}));
        assert_eq!(at("/spec/volumes/1/secret/defaultMode"), 420);
        assert_eq!(at("/spec/enableServiceLinks"), true);
    }
}
