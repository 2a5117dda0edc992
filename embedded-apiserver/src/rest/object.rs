//! Small readers and writers for objects as JSON values.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Text of a metadata field, or the empty text.
pub fn metadata_text<'object>(object: &'object Value, field: &str) -> &'object str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A time as Kubernetes writes it, in whole seconds.
pub fn now_text(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The metadata, made if missing; none if the object is none.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object
        .as_object_mut()?
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// Sets a metadata field, or removes it with `None`.
pub fn set_metadata(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(metadata) = metadata_mut(object) {
        match value {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
}

/// Sets a top-level field, or removes it with `None`.
pub fn set_field(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    }
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Replaces the finalizers; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let value = (!finalizers.is_empty()).then(|| finalizers.iter().map(|name| Value::from(name.as_str())).collect());
    set_metadata(object, "finalizers", value);
}

/// Whether the object has a deletion timestamp.
pub fn is_deleting(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
}

/// Whether a deletion waits for someone to end what the object stands for, as a kubelet does with a pod.
pub fn has_grace(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|seconds| seconds > 0)
}

/// The generation, 0 if there is none.
pub fn generation(object: &Value) -> i64 {
    object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The value at a simple JSON path such as `.spec.replicas`.
pub fn at_path<'object>(object: &'object Value, path: &str) -> Option<&'object Value> {
    path.split('.')
        .filter(|part| !part.is_empty())
        .try_fold(object, |value, part| value.get(part))
}

/// Sets the value at a simple JSON path, making the objects on the way; false if something else is in the way.
pub fn set_path(object: &mut Value, path: &str, value: Value) -> bool {
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    let Some((last, parents)) = parts.split_last() else {
        return false;
    };
    let mut place = object;
    for part in parents {
        let Some(fields) = place.as_object_mut() else {
            return false;
        };
        place = fields.entry(*part).or_insert_with(|| Value::Object(Map::new()));
    }
    match place.as_object_mut() {
        Some(fields) => {
            fields.insert((*last).to_owned(), value);
            true
        }
        None => false,
    }
}
