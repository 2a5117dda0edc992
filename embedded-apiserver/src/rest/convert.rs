//! Between the version that objects are stored in and the one that a client speaks.
//!
//! Custom resources know the conversion `None` only: the `apiVersion` changes, and the fields are those of the version
//! that is stored.
//! The two kinds of event are one object under two sets of names.

use bytes::Bytes;
use serde_json::Value;

use super::ApiError;
use super::object::set_field;
use crate::registry::{Behaviour, Resource};
use crate::storage::Stored;

/// Core event fields and their names in `events.k8s.io/v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename_event_fields(object: &mut Value, to_view: bool) {
    let Some(fields) = object.as_object_mut() else { return };
    for (core, view) in EVENT_FIELDS {
        let (from, to) = if to_view { (core, view) } else { (view, core) };
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

/// Whether stored bytes are what a client of this version gets.
fn is_as_stored(resource: &Resource, version: &str, stored: &Stored) -> bool {
    match (&resource.custom, resource.behaviour) {
        (_, Behaviour::EventView) => false,
        (Some(origin), _) => version == resource.storage_version && stored.revision > origin.changed_at,
        (None, _) => true,
    }
}

/// A stored object as a client of this version sees it.
pub fn load(resource: &Resource, version: &str, stored: &Stored) -> Result<Value, ApiError> {
    let mut object = stored.value().map_err(ApiError::internal)?;
    if is_as_stored(resource, version, stored) {
        return Ok(object);
    }
    if resource.behaviour == Behaviour::EventView {
        rename_event_fields(&mut object, true);
        crate::builtin::rewrite(resource, &mut object);
    }
    if let Some(origin) = &resource.custom {
        let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let stored_as = api_version.rsplit('/').next().unwrap_or_default().to_owned();
        // Written under an older definition: what the schema of its own version now says holds for it.
        if stored.revision <= origin.changed_at {
            conform(resource, &stored_as, &mut object);
        }
        if stored_as != version {
            check_conversion(resource, &stored_as, version)?;
        }
    }
    set_field(&mut object, "apiVersion", Some(resource.api_version(version).into()));
    set_field(&mut object, "kind", Some(resource.kind.as_str().into()));
    Ok(object)
}

/// Drops what the schema of a version does not know, and fills in its defaults.
fn conform(resource: &Resource, version: &str, object: &mut Value) {
    let version = resource.versions.iter().find(|known| known.name == version);
    if let Some(schema) = version.and_then(|version| version.schema.as_ref()) {
        schema.prune(object);
        schema.default(object);
    }
}

/// Refuses to go from one version to another where only a webhook knows how.
pub fn check_conversion(resource: &Resource, from: &str, to: &str) -> Result<(), ApiError> {
    if from == to || !resource.custom.as_ref().is_some_and(|origin| origin.webhook) {
        return Ok(());
    }
    Err(ApiError::unclassified(format!(
        "conversion webhook for {}, Kind={} failed: this server calls no webhooks",
        resource.api_version(from),
        resource.kind
    )))
}

/// A stored object as JSON in this version; shared if nothing has to be changed.
pub fn bytes(resource: &Resource, version: &str, stored: &Stored) -> Result<Bytes, ApiError> {
    if is_as_stored(resource, version, stored) {
        return Ok(stored.bytes.clone());
    }
    let object = load(resource, version, stored)?;
    serde_json::to_vec(&object).map(Bytes::from).map_err(ApiError::internal)
}

/// An object of this version as it is stored.
pub fn to_storage(resource: &Resource, version: &str, mut object: Value) -> Value {
    if resource.behaviour == Behaviour::EventView {
        rename_event_fields(&mut object, false);
        set_field(&mut object, "apiVersion", Some("v1".into()));
        for (field, empty) in [("reportingComponent", ""), ("reportingInstance", "")] {
            if object.get(field).is_none() {
                set_field(&mut object, field, Some(empty.into()));
            }
        }
    } else if version != resource.storage_version {
        set_field(
            &mut object,
            "apiVersion",
            Some(resource.api_version(&resource.storage_version).into()),
        );
        // As it will be read: by the schema of the version that it is stored in.
        conform(resource, &resource.storage_version, &mut object);
    }
    object
}
