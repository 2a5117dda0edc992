//! The `scale` subresource of custom resources: an `autoscaling/v1` Scale over paths of the object.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{at_path, metadata_text, set_metadata, set_path};
use super::write::replace;
use super::{ApiError, BodyFormat, Core, Reply, Request, Subject, cause, convert, prepare};
use crate::deep;
use crate::patch;
use crate::registry::ScalePaths;

fn paths(request: &Request) -> Result<&ScalePaths, ApiError> {
    request.served()?.scale.as_ref().ok_or_else(ApiError::no_such_resource)
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let number = |path: &str| at_path(object, path).and_then(Value::as_i64).unwrap_or_default();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        let value = metadata_text(object, field);
        if !value.is_empty() {
            metadata[field] = value.into();
        }
    }
    let mut spec = json!({});
    if number(&paths.spec_replicas) != 0 {
        spec["replicas"] = number(&paths.spec_replicas).into();
    }
    let mut status = json!({ "replicas": number(&paths.status_replicas) });
    if let Some(selector) = paths
        .label_selector
        .as_deref()
        .and_then(|path| at_path(object, path))
        .and_then(Value::as_str)
    {
        status["selector"] = selector.into();
    }
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status })
}

/// Reads the scale of an object.
pub fn get(core: &Core, request: &Request) -> Result<Reply, ApiError> {
    let stored = core
        .store
        .get(&request.key(&request.name))
        .ok_or_else(|| ApiError::not_found(request.subject(&request.name)))?;
    let object = convert::load(&request.resource, &request.version, &stored)?;
    Ok(Reply::Value {
        code: 200,
        value: scale_of(paths(request)?, &object),
    })
}

/// Replaces or patches the scale of an object.
pub async fn change(core: &Arc<Core>, request: &Request) -> Result<Reply, ApiError> {
    let paths = paths(request)?;
    let replaced = match request.format {
        BodyFormat::Json | BodyFormat::Yaml => Some(prepare::decode(request.format, &request.body)?.0),
        _ => None,
    };
    let reply = replace(core, request, true, |live| {
        let before = scale_of(paths, live);
        let after = match (&replaced, request.format) {
            (Some(scale), _) => scale.clone(),
            (None, BodyFormat::JsonPatch) => patch::json_patch(&before, &request.body)?.object,
            (None, BodyFormat::MergePatch | BodyFormat::StrategicMergePatch) => {
                // A scale has no lists: the strategic merge of it is the plain one.
                patch::merge_patch(&before, &request.body)?.object
            }
            (None, BodyFormat::Apply) => {
                let (applied, _) = prepare::decode(request.format, &request.body)?;
                let mut merged = before.clone();
                merged["spec"]["replicas"] = applied["spec"]["replicas"].clone();
                merged
            }
            (None, _) => return Err(ApiError::unsupported_media_type("application/json")),
        };
        scaled(request, paths, live, &after)
    })
    .await?;
    let Reply::Object { bytes, .. } = &reply else {
        return Ok(reply);
    };
    let object = deep::parse(bytes).map_err(ApiError::internal)?;
    Ok(Reply::Value {
        code: 200,
        value: scale_of(paths, &object),
    })
}

fn scaled(request: &Request, paths: &ScalePaths, live: &Value, scale: &Value) -> Result<Value, ApiError> {
    let invalid = |field: &str, message: String| {
        let subject = Subject {
            group: "autoscaling",
            kind: "Scale",
            name: &request.name,
        };
        Err(ApiError::invalid(
            subject,
            &[cause("FieldValueInvalid", field, message)],
        ))
    };
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => match value.as_i64() {
            Some(replicas) => replicas,
            None => {
                return Err(ApiError::bad_request(
                    "unable to decode the scale: spec.replicas must be a whole number",
                ));
            }
        },
    };
    if replicas < 0 || replicas > i64::from(i32::MAX) {
        return invalid(
            "spec.replicas",
            format!("Invalid value: {replicas}: must be greater than or equal to 0"),
        );
    }
    let mut object = live.clone();
    if !set_path(&mut object, &paths.spec_replicas, replicas.into()) {
        return invalid(
            "spec.replicas",
            format!("Invalid value: {replicas}: {} is no number", paths.spec_replicas),
        );
    }
    // Revision and UID of the scale are conditions; without them the object's own hold.
    for field in ["resourceVersion", "uid"] {
        let wanted = metadata_text(scale, field);
        if !wanted.is_empty() {
            set_metadata(&mut object, field, Some(wanted.into()));
        }
    }
    Ok(object)
}
