//! Between the version that objects are stored in and the one that a client speaks.
//!
//! Custom resources know the conversion `None` only: the `apiVersion` changes, and the fields are those of the version.
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
    }
    set_field(&mut object, "apiVersion", Some(resource.api_version(version).into()));
    set_field(&mut object, "kind", Some(resource.kind.as_str().into()));
    if resource.custom.is_some()
        && let Some(schema) = resource.served(version).and_then(|version| version.schema.as_ref())
    {
        schema.prune(&mut object);
        schema.default(&mut object);
    }
    Ok(object)
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
    } else if version != resource.storage_version {
        set_field(
            &mut object,
            "apiVersion",
            Some(resource.api_version(&resource.storage_version).into()),
        );
    }
    object
}
