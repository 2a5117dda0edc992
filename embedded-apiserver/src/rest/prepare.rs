//! What an object goes through before it is stored: decoding, defaults, what the server sets, validation, ownership.
//!
//! Pure: everything here works on values.

use rand::Rng as _;
use serde_json::{Value, json};

use super::error::cause;
use super::object::{
    finalizers, generation, is_deleting, metadata_mut, metadata_text, now_text, set_field, set_metadata,
};
use super::{ApiError, BodyFormat, FieldValidation, Request, strategy, validate};
use crate::managed_fields;
use crate::registry::Behaviour;
use crate::schema::{self, Schema};

/// Decodes a body; also gives the duplicate fields.
pub fn decode(format: BodyFormat, body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let decoded = match format {
        BodyFormat::Yaml | BodyFormat::Apply => schema::decode_strict_yaml(body),
        _ => schema::decode_strict(body),
    };
    let (value, duplicates) = decoded.map_err(|error| ApiError::bad_request(error.to_string()))?;
    if !value.is_object() {
        return Err(ApiError::bad_request(
            "couldn't get version/kind; json parse error: the body must be an object",
        ));
    }
    Ok((value, duplicates))
}

/// Checks that the body is of the request's kind and version.
pub fn check_type(request: &Request, object: &mut Value) -> Result<(), ApiError> {
    let expected = request.api_version();
    for (field, expected) in [
        ("apiVersion", expected.as_str()),
        ("kind", request.resource.kind.as_str()),
    ] {
        let found = object.get(field).and_then(Value::as_str).unwrap_or_default();
        if found.is_empty() && request.resource.custom.is_none() {
            set_field(object, field, Some(expected.into()));
        } else if found.is_empty() && field == "kind" {
            let shown = object.to_string();
            let shown: String = shown.chars().take(1024).collect();
            return Err(ApiError::bad_request(format!("Object 'Kind' is missing in '{shown}'")));
        } else if found != expected {
            let what = if field == "kind" { "kind" } else { "API version" };
            return Err(ApiError::bad_request(format!(
                "the {what} in the data ({found}) does not match the expected {what} ({expected})"
            )));
        }
    }
    Ok(())
}

/// Drops unknown fields and fills in defaults; the findings are words for strict validation.
pub fn prune_and_default(request: &Request, object: &mut Value) -> Result<Vec<String>, ApiError> {
    validate::metadata_types(object)?;
    let version = request.served()?;
    let findings = match &version.schema {
        Some(schema) => {
            let unknown = schema.prune(object);
            schema.default(object);
            unknown
                .into_iter()
                .map(|path| format!("unknown field {path:?}"))
                .collect()
        }
        None => Vec::new(),
    };
    strategy::default(&request.resource, object);
    Ok(findings)
}

/// Refuses, warns or says nothing about unknown and duplicate fields.
pub fn judge_findings(
    request: &Request,
    findings: Vec<String>,
    warnings: &mut Vec<String>,
    is_patch: bool,
) -> Result<(), ApiError> {
    if findings.is_empty() {
        return Ok(());
    }
    match request.options.field_validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.extend(findings);
            Ok(())
        }
        FieldValidation::Strict => {
            let list = findings.join(", ");
            let (kind, version) = (&request.resource.kind, &request.version);
            Err(ApiError::bad_request(if is_patch {
                format!("strict decoding error: {list}")
            } else {
                format!("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {list}")
            }))
        }
    }
}

/// The namespace and name of a body must be those of the URL.
pub fn check_place(request: &Request, object: &mut Value) -> Result<(), ApiError> {
    let namespace = metadata_text(object, "namespace").to_owned();
    if request.resource.namespaced {
        if namespace.is_empty() {
            set_metadata(object, "namespace", Some(request.namespace.as_str().into()));
        } else if namespace != request.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else if !namespace.is_empty() {
        let name = metadata_text(object, "name");
        let problem = cause(
            "FieldValueForbidden",
            "metadata.namespace",
            "Forbidden: not allowed on this type",
        );
        return Err(ApiError::invalid(request.kind_subject(name), &[problem]));
    }
    let name = metadata_text(object, "name");
    if !request.name.is_empty() && request.name != name {
        if name.is_empty() {
            set_metadata(object, "name", Some(request.name.as_str().into()));
        } else {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                request.name
            )));
        }
    }
    Ok(())
}

/// Gives the object a name from its `generateName`; true if it did.
pub fn generate_name(object: &mut Value) -> bool {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base = metadata_text(object, "generateName");
    if base.is_empty() || !metadata_text(object, "name").is_empty() {
        return false;
    }
    let mut name: String = base.chars().take(58).collect();
    let mut random = rand::rng();
    for _ in 0..5 {
        let at = random.random_range(0..LETTERS.len());
        name.push(LETTERS.get(at).copied().map_or('x', char::from));
    }
    set_metadata(object, "name", Some(name.into()));
    true
}

/// Makes a decoded object ready to be created, but for validation.
pub fn create(request: &Request, object: &mut Value, manage: bool) -> Result<(), ApiError> {
    let version = request.served()?;
    strategy::clear_server_fields(object);
    set_metadata(object, "resourceVersion", None);
    if version.status && request.subresource.is_empty() {
        set_field(object, "status", None);
    }
    if manage && let Some(schema) = &version.schema {
        let manager = request.manager();
        managed_fields::update(None, object, &manager, "", &request.api_version(), schema, request.now);
    }
    strategy::prepare_create(&request.resource, object);
    set_metadata(object, "uid", Some(uuid::Uuid::new_v4().to_string().into()));
    set_metadata(object, "creationTimestamp", Some(now_text(request.now).into()));
    if request.resource.has_generation() {
        set_metadata(object, "generation", Some(1.into()));
    }
    drop_empty_metadata(object);
    Ok(())
}

/// Makes a decoded object ready to replace `live`, but for validation.
pub fn update(request: &Request, live: &Value, object: &mut Value, manage: bool) -> Result<(), ApiError> {
    let version = request.served()?;
    keep_server_fields(live, object);
    let has_status = version.status;
    match request.subresource.as_str() {
        "status" => keep_all_but_status(live, object),
        "finalize" => keep_all_but_finalizers(live, object),
        _ if has_status => set_field(object, "status", live.get("status").cloned()),
        _ => {}
    }
    if manage && let Some(schema) = &version.schema {
        let manager = request.manager();
        let subresource = if request.subresource == "finalize" {
            ""
        } else {
            &request.subresource
        };
        managed_fields::update(
            Some(live),
            object,
            &manager,
            subresource,
            &request.api_version(),
            schema,
            request.now,
        );
    }
    strategy::prepare_update(&request.resource, &request.subresource, live, object);
    set_metadata(object, "generation", live.pointer("/metadata/generation").cloned());
    if request.resource.has_generation() && spec_changed(live, object, has_status, request.resource.behaviour) {
        set_metadata(object, "generation", Some((generation(live) + 1).into()));
    }
    drop_empty_metadata(object);
    Ok(())
}

fn keep_server_fields(live: &Value, object: &mut Value) {
    for field in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        set_metadata(
            object,
            field,
            live.pointer("/metadata")
                .and_then(|metadata| metadata.get(field))
                .cloned(),
        );
    }
    for field in ["uid", "namespace", "name"] {
        if metadata_text(object, field).is_empty() {
            set_metadata(
                object,
                field,
                live.pointer("/metadata")
                    .and_then(|metadata| metadata.get(field))
                    .cloned(),
            );
        }
    }
    // Absent managed fields mean "leave them"; an empty list takes them away.
    let kept = object.pointer("/metadata/managedFields").is_none_or(Value::is_null);
    if kept {
        set_metadata(
            object,
            "managedFields",
            live.pointer("/metadata/managedFields").cloned(),
        );
    }
}

fn keep_all_but_status(live: &Value, object: &mut Value) {
    let status = object.get("status").cloned();
    let managed = object.pointer("/metadata/managedFields").cloned();
    *object = live.clone();
    set_field(object, "status", status);
    set_metadata(object, "managedFields", managed);
}

fn keep_all_but_finalizers(live: &Value, object: &mut Value) {
    let finalizers = object.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    let none = finalizers.as_array().is_none_or(Vec::is_empty);
    *object = live.clone();
    set_field(
        object,
        "spec",
        Some(if none {
            json!({})
        } else {
            json!({ "finalizers": finalizers })
        }),
    );
}

/// Whether anything but metadata, and the status where it is a subresource, differs.
fn spec_changed(live: &Value, object: &Value, has_status: bool, behaviour: Behaviour) -> bool {
    let (Some(before), Some(after)) = (live.as_object(), object.as_object()) else {
        return false;
    };
    let counts = |field: &str| match field {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !has_status,
        "spec" => true,
        _ => behaviour == Behaviour::Custom,
    };
    let differs = |field: &String| counts(field) && before.get(field) != after.get(field);
    before.keys().chain(after.keys()).any(differs)
}

/// Empty maps and lists of metadata are not kept.
fn drop_empty_metadata(object: &mut Value) {
    let Some(metadata) = metadata_mut(object) else { return };
    metadata.retain(|field, value| {
        let empty = match value {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        let optional = matches!(
            field.as_str(),
            "labels"
                | "annotations"
                | "finalizers"
                | "ownerReferences"
                | "managedFields"
                | "generateName"
                | "namespace"
                | "selfLink"
                | "deletionTimestamp"
                | "deletionGracePeriodSeconds"
        );
        !(empty && optional)
    });
}

/// Validates an object that is ready to be stored.
pub fn check(request: &Request, object: &Value, live: Option<&Value>) -> Result<(), ApiError> {
    let version = request.served()?;
    let mut causes = validate::metadata(request, object, live);
    if let Some(schema) = &version.schema {
        causes.extend(schema.validate(object, live));
    }
    causes.extend(strategy::validate(&request.resource, object, live));
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        request.kind_subject(metadata_text(object, "name")),
        &causes,
    ))
}

/// Whether a write would change nothing: equal but for times of managed fields and the revision.
pub fn is_unchanged(live: &Value, object: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        set_metadata(&mut object, "resourceVersion", None);
        if let Some(entries) = object
            .pointer_mut("/metadata/managedFields")
            .and_then(Value::as_array_mut)
        {
            for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
                entry.remove("time");
            }
        }
        object
    };
    // The cheap look first: most updates do change the spec or the status.
    let differs = |field: &str| live.get(field) != object.get(field);
    !differs("spec") && !differs("status") && strip(live) == strip(object)
}

/// Whether an updated object has nothing left to wait for and is to be removed.
pub fn is_finished(request: &Request, object: &Value) -> bool {
    is_deleting(object) && finalizers(object).is_empty() && !strategy::holds_back_deletion(&request.resource, object)
}

/// The schema for managed fields and strategic merges of the request's version.
pub fn schema(request: &Request) -> Result<&Schema, ApiError> {
    let schema = request.served()?.schema.as_deref();
    schema.ok_or_else(|| ApiError::internal("the schema of this kind is missing"))
}
