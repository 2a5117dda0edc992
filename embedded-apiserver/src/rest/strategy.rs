//! What is particular to the built-in kinds: their defaults, what the server fills in, and rules beyond their schemas.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::error::cause;
use super::object::{finalizers, is_deleting, metadata_text, set_field, set_metadata};
use super::role;
use crate::registry::{Behaviour, Resource, custom, validation};
use crate::schema::Cause;

fn fields<'object>(object: &'object mut Value, field: &str) -> Option<&'object mut Map<String, Value>> {
    let place = object.as_object_mut()?.entry(field).or_insert_with(|| json!({}));
    if place.is_null() {
        *place = json!({});
    }
    place.as_object_mut()
}

fn fill(fields: &mut Map<String, Value>, name: &str, value: Value) {
    let empty = fields
        .get(name)
        .is_none_or(|value| value.is_null() || value.as_str() == Some(""));
    if empty {
        fields.insert(name.to_owned(), value);
    }
}

/// Fills in what clients may leave out, at each decoding.
pub fn default(resource: &Resource, object: &mut Value) {
    match resource.behaviour {
        Behaviour::Secret => {
            merge_string_data(object);
            if let Some(secret) = object.as_object_mut() {
                fill(secret, "type", "Opaque".into());
            }
        }
        Behaviour::CustomResourceDefinition => custom::default(object),
        Behaviour::Pod => {
            if let Some(spec) = fields(object, "spec") {
                pod_spec(spec);
            }
        }
        Behaviour::DaemonSet => {
            if let Some(spec) = fields(object, "spec") {
                fill(spec, "revisionHistoryLimit", 10.into());
                fill(
                    spec,
                    "updateStrategy",
                    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } }),
                );
                if let Some(spec) = spec
                    .get_mut("template")
                    .and_then(|template| template.get_mut("spec"))
                    .and_then(Value::as_object_mut)
                {
                    pod_spec(spec);
                }
            }
        }
        Behaviour::Namespace => {
            let name = metadata_text(object, "name").to_owned();
            if !name.is_empty()
                && let Some(metadata) = fields(object, "metadata")
            {
                let labels = metadata.entry("labels").or_insert_with(|| json!({}));
                if labels.is_null() {
                    *labels = json!({});
                }
                if let Some(labels) = labels.as_object_mut() {
                    labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
                }
            }
        }
        Behaviour::Policy => role::default(&resource.kind, object),
        _ => {}
    }
}

fn pod_spec(spec: &mut Map<String, Value>) {
    fill(spec, "restartPolicy", "Always".into());
    fill(spec, "terminationGracePeriodSeconds", 30.into());
    fill(spec, "dnsPolicy", "ClusterFirst".into());
    fill(spec, "schedulerName", "default-scheduler".into());
    fill(spec, "securityContext", json!({}));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let latest =
                image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
            let policy = if latest { "Always" } else { "IfNotPresent" };
            fill(container, "imagePullPolicy", policy.into());
            fill(container, "resources", json!({}));
            fill(container, "terminationMessagePath", "/dev/termination-log".into());
            fill(container, "terminationMessagePolicy", "File".into());
        }
    }
}

fn merge_string_data(object: &mut Value) {
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|secret| secret.remove("stringData")) else {
        return;
    };
    if plain.is_empty() {
        return;
    }
    if let Some(data) = fields(object, "data") {
        for (key, value) in plain {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }
}

/// What the server fills in when an object is created.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    match resource.behaviour {
        Behaviour::Policy => role::complete(&resource.kind, object),
        Behaviour::Namespace => {
            // The label with a generated name has no owner: it was not there when ownership was recorded.
            default(resource, object);
            let mut finalizers = object
                .pointer("/spec/finalizers")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
                finalizers.push("kubernetes".into());
            }
            set_field(object, "spec", Some(json!({ "finalizers": finalizers })));
            set_field(object, "status", Some(json!({ "phase": "Active" })));
        }
        Behaviour::Pod => set_field(
            object,
            "status",
            Some(json!({ "phase": "Pending", "qosClass": "BestEffort" })),
        ),
        Behaviour::CustomResourceDefinition => {
            let stored = custom::first_stored(object);
            let status = json!({
                "conditions": null, "acceptedNames": { "plural": "", "kind": "" }, "storedVersions": stored,
            });
            set_field(object, "status", Some(status));
        }
        Behaviour::DaemonSet => {
            let status = json!({
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            });
            set_field(object, "status", Some(status));
        }
        Behaviour::PodDisruptionBudget => {
            let status =
                json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });
            set_field(object, "status", Some(status));
        }
        _ => {}
    }
}

/// What the server keeps or fills in when an object is replaced; `subresource` as in the request.
pub fn prepare_update(resource: &Resource, subresource: &str, old: &Value, object: &mut Value) {
    if resource.behaviour == Behaviour::CustomResourceDefinition && subresource.is_empty() {
        custom::keep_storage_version(object);
    }
    // The finalizers of a namespace's spec change through its own subresource only.
    if resource.behaviour == Behaviour::Namespace && subresource.is_empty() {
        set_field(object, "spec", old.get("spec").cloned());
    }
    if resource.behaviour == Behaviour::Policy {
        role::complete(&resource.kind, object);
    }
}

/// What a client is told of an object that is accepted all the same.
pub fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    if resource.behaviour != Behaviour::CustomResourceDefinition {
        return Vec::new();
    }
    let before = old.map(validation::unknown_formats).unwrap_or_default();
    validation::unknown_formats(object)
        .into_iter()
        .filter(|format| !before.contains(format))
        .map(|format| format!("unrecognized format {format:?}"))
        .collect()
}

/// Rules beyond the schema.
pub fn validate(resource: &Resource, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match resource.behaviour {
        Behaviour::CustomResourceDefinition => validation::validate(object, old, subresource),
        Behaviour::Secret => validate_secret(object, old),
        Behaviour::Namespace => validate_namespace(object),
        Behaviour::ConfigMap => validate_data(object, old, &["data", "binaryData"]),
        Behaviour::EventView if old.is_none() => validate_event_view(object),
        Behaviour::Policy => role::validate(&resource.kind, object, old),
        _ => Vec::new(),
    }
}

fn validate_data(object: &Value, old: Option<&Value>, parts: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size = 0;
    for part in parts {
        for (key, value) in object.get(*part).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            let fits = !key.is_empty()
                && key.len() <= 253
                && !matches!(key.as_str(), "." | "..")
                && key
                    .bytes()
                    .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.'));
            if !fits {
                causes.push(cause(
                    "FieldValueInvalid",
                    &format!("{part}[{key}]"),
                    format!("Invalid value: {key:?}: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"),
                ));
            }
        }
    }
    const LIMIT: usize = 1 << 20;
    if size > LIMIT {
        causes.push(cause(
            "FieldValueTooLong",
            "",
            format!("Too long: may not be more than {LIMIT} bytes"),
        ));
    }
    if let Some(old) = old.filter(|old| old["immutable"] == true) {
        let forbidden =
            |field: &str, message: &str| cause("FieldValueForbidden", field, format!("Forbidden: {message}"));
        if object["immutable"] != true {
            causes.push(forbidden("immutable", "field is immutable when `immutable` is set"));
        }
        for part in parts {
            if object.get(*part) != old.get(*part) {
                causes.push(forbidden(part, "field is immutable when `immutable` is set"));
            }
        }
    }
    causes
}

fn validate_secret(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = validate_data(object, old, &["data"]);
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        let fits = value.is_null() || value.as_str().is_some_and(|value| STANDARD.decode(value).is_ok());
        if !fits {
            causes.push(cause(
                "FieldValueInvalid",
                &format!("data[{key}]"),
                "Invalid value: must be base64",
            ));
        }
    }
    if old.is_some_and(|old| old.get("type") != object.get("type")) {
        let shown = object["type"].as_str().unwrap_or_default();
        causes.push(cause(
            "FieldValueInvalid",
            "type",
            format!("Invalid value: {shown:?}: field is immutable"),
        ));
    }
    let required: &[&str] = match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if object.pointer("/data").and_then(|data| data.get(*key)).is_none() {
            causes.push(cause("FieldValueRequired", &format!("data[{key}]"), "Required value"));
        }
    }
    causes
}

fn validate_namespace(object: &Value) -> Vec<Cause> {
    let finalizers = object.pointer("/spec/finalizers").and_then(Value::as_array);
    let names = finalizers.into_iter().flatten().filter_map(Value::as_str).enumerate();
    names
        .filter(|(_, name)| *name != "kubernetes" && !name.contains('/'))
        .map(|(at, name)| {
            Cause::invalid(
                &format!("spec.finalizers[{at}]"),
                &name.into(),
                "name is neither a standard finalizer name nor is it fully qualified",
            )
        })
        .collect()
}

fn validate_event_view(object: &Value) -> Vec<Cause> {
    let missing = |field: &str| object.get(field).and_then(Value::as_str).is_none_or(str::is_empty);
    let mut causes = Vec::new();
    for field in [
        "eventTime",
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        if missing(field) {
            causes.push(cause("FieldValueRequired", field, "Required value"));
        }
    }
    if !matches!(object["type"].as_str(), Some("Normal" | "Warning")) {
        let shown = object["type"].as_str().unwrap_or_default();
        causes.push(cause(
            "FieldValueInvalid",
            "type",
            format!("Invalid value: {shown:?}: has invalid value: "),
        ));
    }
    causes
}

/// What a deletion does to the object besides its timestamp.
pub fn prepare_delete(resource: &Resource, object: &mut Value, now: &str) {
    match resource.behaviour {
        Behaviour::Namespace => {
            if let Some(status) = fields(object, "status") {
                status.insert("phase".to_owned(), "Terminating".into());
            }
        }
        Behaviour::CustomResourceDefinition => {
            if !finalizers(object).contains(&custom::CLEANUP_FINALIZER) {
                let mut all: Vec<String> = finalizers(object).into_iter().map(str::to_owned).collect();
                all.push(custom::CLEANUP_FINALIZER.to_owned());
                super::object::set_finalizers(object, &all);
            }
            if let Some(status) = object.get_mut("status") {
                let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
                custom::set_condition(status, "Terminating", "True", "InstanceDeletionPending", message, now);
            }
        }
        _ => {}
    }
}

/// Whether the object must wait for the server's own work before it can go.
pub fn holds_back_deletion(resource: &Resource, object: &Value) -> bool {
    match resource.behaviour {
        Behaviour::Namespace => object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty()),
        Behaviour::CustomResourceDefinition => !is_deleting(object) && custom::is_established(object),
        _ => false,
    }
}

/// Removes what only the server sets, so that no client can.
pub fn clear_server_fields(object: &mut Value) {
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "uid",
        "creationTimestamp",
    ] {
        set_metadata(object, field, None);
    }
}
