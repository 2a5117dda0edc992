//! The four kinds of patch.

use std::sync::Arc;

use serde_json::Value;

use super::object::{metadata_text, set_field, set_metadata};
use super::write::{create_object, replace};
use super::{ApiError, BodyFormat, Core, Reply, Request, cause, prepare};
use crate::managed_fields::{self, ApplyError};
use crate::patch;

const FOR_CUSTOM: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Patches an object, or its status.
pub async fn patch(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    if request.format == BodyFormat::Apply {
        return apply(core, request, warnings).await;
    }
    if request.options.force {
        let problem = cause(
            "FieldValueForbidden",
            "force",
            "Forbidden: may not be specified for non-apply patch",
        );
        return Err(ApiError::invalid_options("PatchOptions", &[problem]));
    }
    if request.format == BodyFormat::StrategicMergePatch && request.resource.custom.is_some() {
        return Err(ApiError::unsupported_media_type(FOR_CUSTOM));
    }
    let mut found = Vec::new();
    let reply = replace(core, request, true, |live| {
        let patched = apply_patch(request, live)?;
        let mut findings = patched.strict_findings;
        let mut object = patched.object;
        prepare::check_type(request, &mut object)?;
        findings.extend(prepare::prune_and_default(request, &mut object)?);
        found.clear();
        prepare::judge_findings(request, findings, &mut found, true)?;
        prepare::check_place(request, &mut object)?;
        Ok(object)
    })
    .await;
    warnings.append(&mut found);
    reply
}

/// Applies a patch that is no apply to an object.
pub fn apply_patch(request: &Request, live: &Value) -> Result<patch::Patched, ApiError> {
    Ok(match request.format {
        BodyFormat::JsonPatch => patch::json_patch(live, &request.body)?,
        BodyFormat::MergePatch => patch::merge_patch(live, &request.body)?,
        BodyFormat::StrategicMergePatch => {
            patch::strategic_merge_patch(live, &request.body, prepare::schema(request)?)?
        }
        _ => return Err(ApiError::unsupported_media_type(FOR_CUSTOM)),
    })
}

async fn apply(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    if request.options.field_manager.as_deref().unwrap_or_default().is_empty() {
        let problem = cause(
            "FieldValueRequired",
            "fieldManager",
            "Required value: is required for apply patch",
        );
        return Err(ApiError::invalid_options("PatchOptions", &[problem]));
    }
    let (mut applied, duplicates) = prepare::decode(request.format, &request.body)?;
    prepare::check_type(request, &mut applied)?;
    super::validate::metadata_types(&applied)?;
    let mut found = Vec::new();
    prepare::judge_findings(request, duplicates, &mut found, true)?;
    warnings.append(&mut found);
    prepare::check_place(request, &mut applied)?;
    let schema = prepare::schema(request)?;
    let served = request.served()?;
    if request.subresource.is_empty() && served.status {
        set_field(&mut applied, "status", None);
    }
    let manager = request.manager();
    let merge = |live: Option<&Value>| {
        let merged = managed_fields::apply(
            live,
            &applied,
            &manager,
            request.options.force,
            &request.subresource,
            schema,
            request.now,
        );
        let mut object = merged.map_err(|error| refusal(request, error))?;
        prepare::prune_and_default(request, &mut object)?;
        Ok::<Value, ApiError>(object)
    };
    for _ in 0..2 {
        let exists = core.store.get(&request.key(&request.name)).is_some();
        let reply = if exists || !request.subresource.is_empty() {
            replace(core, request, false, |live| {
                let mut object = merge(Some(live))?;
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
            if !metadata_text(&applied, "uid").is_empty() {
                let why = "uid mismatch: the provided object specified uid, and no existing object was found";
                return Err(ApiError::conflict(request.subject(&request.name), why));
            }
            create_object(core, request, merge(None)?, false).await
        };
        match reply {
            // Someone created or removed it in between: the other way is right now.
            Err(error) if (exists && error.code == 404) || (!exists && error.reason == "AlreadyExists") => {}
            other => return other,
        }
    }
    Err(ApiError::modified(request.subject(&request.name)))
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
