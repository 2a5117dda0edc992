//! What is particular to the built-in kinds: their defaults, what the server fills in, and rules beyond their schemas.

use serde_json::{Map, Value, json};

use super::object::{finalizers, is_deleting, metadata_text, set_field, set_metadata};
use super::role;
use crate::builtin;
use crate::registry::{Behaviour, Resource, custom, validation};
use crate::schema::Cause;

fn fields<'object>(object: &'object mut Value, field: &str) -> Option<&'object mut Map<String, Value>> {
    let place = object.as_object_mut()?.entry(field).or_insert_with(|| json!({}));
    if place.is_null() {
        *place = json!({});
    }
    place.as_object_mut()
}

/// Fills in what clients may leave out, at each decoding.
pub fn default(resource: &Resource, object: &mut Value) {
    match resource.behaviour {
        Behaviour::CustomResourceDefinition => custom::default(object),
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
        Behaviour::CustomResourceDefinition => {
            let stored = custom::first_stored(object);
            let status = json!({
                "conditions": null, "acceptedNames": { "plural": "", "kind": "" }, "storedVersions": stored,
            });
            set_field(object, "status", Some(status));
        }
        _ => builtin::prepare_create(resource, object),
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
    builtin::prepare_update(resource, subresource, old, object);
}

/// What a client is told of an object that is accepted all the same.
pub fn warnings(resource: &Resource, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    if !subresource.is_empty() {
        return Vec::new();
    }
    if resource.behaviour != Behaviour::CustomResourceDefinition {
        return builtin::warnings(resource, object);
    }
    let before = old.map(validation::unknown_formats).unwrap_or_default();
    validation::unknown_formats(object)
        .into_iter()
        .filter(|format| !before.contains(format))
        .map(|format| format!("unrecognized format {format:?}"))
        .collect()
}

/// Rules beyond the schema; `subresource` as in the request.
pub fn validate(resource: &Resource, subresource: &str, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match resource.behaviour {
        Behaviour::CustomResourceDefinition => validation::validate(object, old, subresource),
        Behaviour::Namespace => validate_namespace(object),
        Behaviour::Policy => role::validate(&resource.kind, object, old),
        _ => builtin::validate(resource, subresource, object, old),
    }
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
