//! The `scale` subresource of custom resources: an `autoscaling/v1` Scale over paths of the object.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{at_path, metadata_text, set_metadata, set_path};
use super::write::{replace, uid_mismatch};
use super::{ApiError, BodyFormat, Core, Reply, Request, Subject, cause, convert, prepare};
use crate::deep;
use crate::go::{go_print, go_type};
use crate::registry::ScalePaths;
use crate::schema::Cause;
use crate::schema::go_kind;
use crate::{managed_fields, patch};

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
    let paths = paths(request)?;
    if at_path(&object, &paths.spec_replicas).is_none() {
        return Err(ApiError::internal(format!(
            "the spec replicas field {:?} does not exist",
            paths.spec_replicas
        )));
    }
    Ok(Reply::Scale(scale_of(paths, &object)))
}

/// What the real server says to a body that is no scale.
const NO_SCALE: &str = "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:110\"";

/// Decodes the scale that replaces another.
fn decode(request: &Request) -> Result<Value, ApiError> {
    let (scale, _) = prepare::decode(request.format, &request.body)?;
    let text = |field: &str| scale.get(field).and_then(Value::as_str).unwrap_or_default();
    let is_scale = matches!(text("apiVersion"), "" | "autoscaling/v1") && matches!(text("kind"), "" | "Scale");
    let replicas = scale.pointer("/spec/replicas").unwrap_or(&Value::Null);
    if !is_scale || !(replicas.is_null() || replicas.is_i64()) {
        return Err(ApiError::bad_request(NO_SCALE));
    }
    let mut placed = scale.clone();
    prepare::check_place(request, &mut placed)?;
    Ok(scale)
}

/// Replaces or patches the scale of an object.
pub async fn change(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    let paths = paths(request)?;
    if request.format == BodyFormat::StrategicMergePatch {
        return Err(ApiError::unsupported_media_type(super::patch::FOR_CUSTOM));
    }
    if request.format == BodyFormat::Apply {
        let reply = super::patch::apply_as(core, request, warnings, |scale| configured(request, paths, scale));
        return answer(paths, reply.await?);
    }
    let replaced = match request.format {
        BodyFormat::Json | BodyFormat::Yaml => Some(decode(request)?),
        _ => None,
    };
    let reply = replace(core, request, false, warnings, |live, _| {
        let before = scale_of(paths, live);
        let after = match (&replaced, request.format) {
            (Some(scale), _) => scale.clone(),
            (None, BodyFormat::JsonPatch) => patch::json_patch(&before, &request.body)?.object,
            (None, _) => patch::merge_patch(&before, &request.body)?.object,
        };
        scaled(request, paths, live, &after)
    })
    .await?;
    answer(paths, reply)
}

/// The scale of the object that a reply holds.
fn answer(paths: &ScalePaths, reply: Reply) -> Result<Reply, ApiError> {
    let Reply::Object { bytes, .. } = &reply else {
        return Ok(reply);
    };
    let object = deep::parse(bytes).map_err(ApiError::internal)?;
    Ok(Reply::Scale(scale_of(paths, &object)))
}

/// What an applied scale says of the object itself.
fn configured(request: &Request, paths: &ScalePaths, scale: &Value) -> Result<Value, ApiError> {
    let text = |field: &str| scale.get(field).and_then(Value::as_str).unwrap_or_default();
    if (text("apiVersion"), text("kind")) != ("autoscaling/v1", "Scale") {
        let found = managed_fields::type_of(scale);
        return Err(ApiError::bad_request(format!("invalid object type: {found}")));
    }
    let mut object = json!({
        "apiVersion": request.api_version(),
        "kind": request.resource.kind,
        "metadata": scale.get("metadata").cloned().unwrap_or_else(|| json!({})),
    });
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        set_path(&mut object, &paths.spec_replicas, replicas.clone());
    }
    Ok(object)
}

fn scaled(request: &Request, paths: &ScalePaths, live: &Value, scale: &Value) -> Result<Value, ApiError> {
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().filter(|replicas| i32::try_from(*replicas).is_ok()).ok_or_else(|| {
            let shown = crate::schema::go_quote(&scale.to_string());
            let message = format!(
                "Invalid value: {shown}: json: cannot unmarshal {} into Go struct field ScaleSpec.spec.replicas of type int32",
                go_kind(value)
            );
            let nothing = Subject { group: "", kind: "", name: "" };
            ApiError::invalid(nothing, &[cause("FieldValueInvalid", "patch", message)])
        })?,
    };
    let before = at_path(live, &paths.spec_replicas).and_then(Value::as_i64);
    if before.is_none() && scale.pointer("/spec/replicas").is_none_or(Value::is_null) && request.format.is_patch() {
        return Err(ApiError::bad_request(format!(
            "the spec replicas field {:?} cannot be empty",
            paths.spec_replicas
        )));
    }
    let mut object = live.clone();
    if !set_path(&mut object, &paths.spec_replicas, replicas.into()) {
        return Err(ApiError::unclassified(format!(
            "value cannot be set because {} is not a map[string]interface{{}}",
            paths.spec_replicas
        )));
    }
    if before != Some(replicas) {
        let path: Vec<&str> = paths.spec_replicas.split('.').filter(|part| !part.is_empty()).collect();
        // None at all is not said in a scale, and so owned by nobody.
        let gone = replicas == 0;
        let (manager, api_version) = (request.manager(), request.api_version());
        managed_fields::move_field(&mut object, &path, gone, &manager, "scale", &api_version);
    }
    // The revision of the scale is a condition; without it the object's own holds.
    let wanted = metadata_text(scale, "resourceVersion");
    if !wanted.is_empty() {
        set_metadata(&mut object, "resourceVersion", Some(wanted.into()));
    }
    let (sent, found) = (metadata_text(scale, "uid"), metadata_text(live, "uid"));
    if !sent.is_empty() && sent != found {
        return Err(uid_mismatch(request, sent, found));
    }
    Ok(object)
}

/// What is wrong with the paths of a scale in a custom object, whoever wrote them; a write of the status looks at the
/// status alone.
pub fn validate(paths: &ScalePaths, subresource: &str, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = (subresource != "status").then_some(&paths.spec_replicas);
    for path in spec.into_iter().chain([&paths.status_replicas]) {
        let found = match walk(object, path) {
            Ok(None) => continue,
            Ok(Some(found)) => found,
            Err(problem) => {
                causes.push(Cause::invalid(path, &0.into(), &problem));
                continue;
            }
        };
        let problem = match found.as_i64() {
            None => no_such_type(path, found, "int64"),
            Some(replicas) if replicas < 0 => "should be a non-negative integer".to_owned(),
            Some(replicas) if replicas > i64::from(i32::MAX) => {
                format!("should be less than or equal to {}", i32::MAX)
            }
            Some(_) => continue,
        };
        let shown = found.as_i64().unwrap_or_default();
        causes.push(Cause::invalid(path, &shown.into(), &problem));
    }
    if let Some(path) = &paths.label_selector {
        let problem = match walk(object, path) {
            Ok(Some(found)) if !found.is_string() => no_such_type(path, found, "string"),
            Ok(_) => return causes,
            Err(problem) => problem,
        };
        causes.push(Cause::invalid(path, &"".into(), &problem));
    }
    causes
}

/// The value at a path; the error says what stands in its way.
fn walk<'object>(object: &'object Value, path: &str) -> Result<Option<&'object Value>, String> {
    let mut place = object;
    let mut walked = String::new();
    for part in path.trim_start_matches('.').split('.') {
        walked.push('.');
        walked.push_str(part);
        match place {
            Value::Null => return Ok(None),
            Value::Object(fields) => match fields.get(part) {
                Some(found) => place = found,
                None => return Ok(None),
            },
            other => return Err(no_such_type(&walked, other, "map[string]interface{}")),
        }
    }
    Ok(Some(place))
}

fn no_such_type(path: &str, found: &Value, wanted: &str) -> String {
    let (shown, kind) = (go_print(found), go_type(found));
    format!("{path} accessor error: {shown} is of the type {kind}, expected {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_of_a_path_is_told() {
        let paths = ScalePaths {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            label_selector: Some(".status.selector".to_owned()),
        };
        let told = |subresource: &str, object: Value| -> Vec<String> {
            let causes = validate(&paths, subresource, &object);
            causes.iter().map(ToString::to_string).collect()
        };
        assert_eq!(told("", json!({ "spec": { "replicas": 1 }, "status": {} })), [""; 0]);
        assert_eq!(
            told(
                "",
                json!({ "spec": { "replicas": -1 }, "status": { "replicas": 1.5, "selector": 1 } })
            ),
            [
                ".spec.replicas: Invalid value: -1: should be a non-negative integer",
                ".status.replicas: Invalid value: 0: .status.replicas accessor error: 1.5 is of the type float64, \
                 expected int64",
                ".status.selector: Invalid value: \"\": .status.selector accessor error: 1 is of the type int64, \
                 expected string",
            ]
        );
        assert_eq!(
            told("status", json!({ "spec": "x", "status": ["a"] }))[0],
            ".status.replicas: Invalid value: 0: .status.replicas accessor error: [a] is of the type []interface {}, \
             expected map[string]interface{}"
        );
    }
}
