//! The four kinds of patch.

use std::sync::Arc;

use serde_json::Value;

use super::object::{metadata_text, set_field, set_metadata};
use super::write::{create_object, replace};
use super::{ApiError, BodyFormat, Core, Reply, Request, Subject, cause, decode, prepare};
use crate::managed_fields::{self, ApplyError};
use crate::patch;
use crate::schema::{NO_YAML, go_quote, settle_numbers};

/// The patches that custom resources take.
pub const FOR_CUSTOM: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Patches an object, or its status.
pub async fn patch(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    if request.format == BodyFormat::Apply {
        return apply(core, request, warnings).await;
    }
    if request.format == BodyFormat::StrategicMergePatch && request.resource.custom.is_some() {
        return Err(ApiError::unsupported_media_type(FOR_CUSTOM));
    }
    replace(core, request, true, warnings, |live, warnings| {
        let patched = apply_patch(request, live)?;
        let mut object = patched.object;
        read_back(request, &mut object, patched.strict_findings, warnings).map_err(|why| unfit(request, live, &why))?;
        if metadata_is_untold(&object) {
            return Err(ApiError::internal(
                "Object 'apiVersion' is missing in 'object has no apiVersion field'",
            ));
        }
        warnings.extend(prepare::single_owners(&mut object));
        prepare::check_place(request, &mut object)?;
        Ok(object)
    })
    .await
}

/// Whether a custom object lost its version to the patch.
fn metadata_is_untold(object: &Value) -> bool {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
}

/// Reads the patched object as one of its kind; the error says why it is none.
fn read_back(
    request: &Request,
    object: &mut Value,
    mut findings: Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    if request.resource.custom.is_none() {
        decode::built_in_type(decode::Expected::by(request), object)?;
    } else if object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
    {
        return Err(format!("Object 'Kind' is missing in '{object}'"));
    }
    findings.extend(prepare::prune_and_default(request, object)?);
    prepare::judge_findings(request, findings, warnings)
}

/// The refusal of a patch that does not lead to an object: it shows what the patch led to, or a strategic one itself.
fn unfit(request: &Request, live: &Value, why: &str) -> ApiError {
    let shown = if request.format == BodyFormat::StrategicMergePatch {
        patch::shown(&request.body).unwrap_or_default()
    } else {
        match apply_patch(request, live) {
            Ok(patched) => patched.object.to_string(),
            Err(error) => return error,
        }
    };
    let subject = Subject {
        group: "",
        kind: "",
        name: "",
    };
    let why = decode::as_written(&request.body, why);
    let message = format!("Invalid value: {}: {why}", go_quote(&shown));
    ApiError::invalid(subject, &[cause("FieldValueInvalid", "patch", message)])
}

/// Applies a patch that is no apply to an object.
pub fn apply_patch(request: &Request, live: &Value) -> Result<patch::Patched, ApiError> {
    let mut patched = match request.format {
        BodyFormat::JsonPatch => patch::json_patch(live, &request.body)?,
        BodyFormat::MergePatch => patch::merge_patch(live, &request.body)?,
        BodyFormat::StrategicMergePatch => {
            patch::strategic_merge_patch(live, &request.body, prepare::schema(request)?)?
        }
        _ => return Err(ApiError::unsupported_media_type(FOR_CUSTOM)),
    };
    if request.resource.custom.is_some() {
        settle_numbers(&mut patched.object);
    }
    Ok(patched)
}

/// Decodes an applied configuration; also gives its duplicate fields.
fn decode_applied(request: &Request) -> Result<(Value, Vec<String>), ApiError> {
    const NO_OBJECT: &str = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    let (value, duplicates) = crate::schema::decode_strict_yaml(&request.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    let found = match &value {
        Value::Object(_) => return Ok((value, duplicates)),
        // Nothing is an object of no type.
        Value::Null => return Ok((Value::Object(serde_json::Map::new()), duplicates)),
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    Err(ApiError::bad_request(format!(
        "error decoding YAML: {NO_OBJECT} {found} into Go value of type map[string]interface {{}}"
    )))
}

/// What duplicate fields of an applied configuration bring: nothing, warnings, or a refusal.
fn judge_duplicates(request: &Request, duplicates: &[String], warnings: &mut Vec<String>) -> Result<(), ApiError> {
    if prepare::judge_findings(request, duplicates.to_vec(), warnings).is_err() {
        let listed = duplicates.join("\n  ");
        return Err(ApiError::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: {NO_YAML}\n  {listed}"
        )));
    }
    Ok(())
}

async fn apply(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    apply_as(core, request, warnings, |applied| {
        let mut applied = applied.clone();
        let text = |field: &str| applied.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion") != request.api_version() || text("kind") != request.resource.kind {
            let found = managed_fields::type_of(&applied);
            return Err(ApiError::bad_request(format!("invalid object type: {found}")));
        }
        if request.subresource.is_empty() && request.served()?.status {
            set_field(&mut applied, "status", None);
        }
        Ok(applied)
    })
    .await
}

/// Applies what `configure` makes of the body.
pub async fn apply_as(
    core: &Arc<Core>,
    request: &Request,
    warnings: &mut Vec<String>,
    configure: impl FnOnce(&Value) -> Result<Value, ApiError>,
) -> Result<Reply, ApiError> {
    let (applied, duplicates) = decode_applied(request)?;
    let applied = configure(&applied)?;
    let schema = prepare::schema(request)?;
    let manager = request.manager();
    let merge = |live: Option<&Value>, warnings: &mut Vec<String>| {
        if let Some(live) = live {
            check_versions(request, live)?;
        }
        let merged = managed_fields::apply(
            live,
            &applied,
            &manager,
            request.options.force == Some(true),
            &request.subresource,
            schema,
            request.now,
        );
        let mut object = merged.map_err(|error| refusal(request, error))?;
        judge_duplicates(request, &duplicates, warnings)?;
        prepare::default_applied(request, &mut object)
            .map_err(|why| decode::not_handled(request, &request.resource.kind, &request.version, &why))?;
        prepare::check_place(request, &mut object)?;
        Ok::<Value, ApiError>(object)
    };
    for _ in 0..2 {
        let exists = core.store.get(&request.key(&request.name)).is_some();
        let reply = if exists || !request.subresource.is_empty() {
            replace(core, request, false, warnings, |live, warnings| {
                let mut object = merge(Some(live), warnings)?;
                // A revision in the applied configuration is a condition, as in other writes.
                let wanted = metadata_text(&applied, "resourceVersion");
                let revision = if wanted.is_empty() {
                    metadata_text(live, "resourceVersion")
                } else {
                    wanted
                };
                set_metadata(&mut object, "resourceVersion", Some(revision.into()));
                Ok(object)
            })
            .await
        } else {
            let object = merge(None, warnings)?;
            let uid = metadata_text(&applied, "uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::conflict(request.subject(&request.name), &why));
            }
            create_object(core, request, object, false, warnings).await
        };
        match reply {
            // Someone created or removed it in between: the other way is right now.
            Err(error) if (exists && error.code == 404) || (!exists && error.reason == "AlreadyExists") => {}
            other => return other,
        }
    }
    Err(ApiError::modified(request.subject(&request.name)))
}

/// Fields that are owned in a version which the definition no longer has cannot be brought into another, and the real
/// server applies nothing then.
fn check_versions(request: &Request, live: &Value) -> Result<(), ApiError> {
    if request.resource.custom.is_none() {
        return Ok(());
    }
    let known = |owned: &str| {
        let mut versions = request.resource.versions.iter();
        versions.any(|version| request.resource.api_version(&version.name) == owned)
    };
    match managed_fields::versions(live).into_iter().find(|owned| !known(owned)) {
        Some(owned) => Err(ApiError::unclassified(format!(
            "request to convert CR to an invalid group/version: {owned}"
        ))),
        None => Ok(()),
    }
}

fn refusal(request: &Request, error: ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts.into_iter().map(|conflict| {
                serde_json::json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {}", conflict.manager),
                    "field": conflict.field,
                })
            });
            ApiError::apply_conflict(message, causes.collect())
        }
        ApplyError::Refused { code: 400, message } => ApiError::bad_request(message),
        ApplyError::Refused { code: 422, message } => {
            let mut error = ApiError::invalid(request.kind_subject(&request.name), &[]);
            error.message = message;
            error
        }
        _ => ApiError::unclassified(message),
    }
}
