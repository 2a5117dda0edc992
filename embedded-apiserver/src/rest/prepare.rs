//! What an object goes through before it is stored: decoding, defaults, what the server sets, validation, ownership.
//!
//! Pure: everything here works on values.

use std::collections::BTreeSet;

use rand::Rng as _;
use serde_json::{Value, json};

use super::error::cause;
use super::object::{
    finalizers, generation, has_grace, is_deleting, metadata_mut, metadata_text, now_text, set_field, set_metadata,
};
use super::{ApiError, BodyFormat, FieldValidation, Request, Subject, metadata, role, strategy, validate};
use crate::builtin;
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

/// Drops unknown fields and fills in defaults; the findings are words for strict validation, the error says why the
/// object cannot be read as one of its kind.
pub fn prune_and_default(request: &Request, object: &mut Value) -> Result<Vec<String>, String> {
    settle(request, object, true)
}

/// As [`prune_and_default`], of what an apply made: custom objects keep what their schema allows nowhere, and are
/// refused for it.
pub fn default_applied(request: &Request, object: &mut Value) -> Result<(), String> {
    settle(request, object, request.resource.custom.is_none()).map(|_| ())
}

fn settle(request: &Request, object: &mut Value, prunes: bool) -> Result<Vec<String>, String> {
    if !builtin::is_checked(&request.resource) {
        validate::metadata_types(object).map_err(|error| error.message)?;
    }
    let version = request.served().map_err(|error| error.message)?;
    let mut findings = Vec::new();
    if let Some(schema) = &version.schema {
        if prunes {
            let unknown = schema.prune(object).into_iter();
            findings.extend(unknown.map(|path| format!("unknown field {path:?}")));
        }
        schema.default(object);
    }
    let source = match request.format {
        BodyFormat::StrategicMergePatch => builtin::Source::Values,
        _ => builtin::Source::Text,
    };
    builtin::decode(&request.resource, source, object)?;
    strategy::default(&request.resource, object);
    Ok(findings)
}

/// Warns of unknown and duplicate fields, says nothing, or gives the error that refuses them.
pub fn judge_findings(request: &Request, findings: Vec<String>, warnings: &mut Vec<String>) -> Result<(), String> {
    if findings.is_empty() {
        return Ok(());
    }
    match FieldValidation::named(&request.options.field_validation) {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.extend(findings);
            Ok(())
        }
        FieldValidation::Strict => Err(format!("strict decoding error: {}", together(&findings))),
    }
}

/// Findings as one text. What the reader of YAML found is an error of its own, with a line for each.
fn together(findings: &[String]) -> String {
    let of_yaml = findings
        .iter()
        .take_while(|finding| finding.starts_with("line "))
        .count();
    let (yaml, others) = findings.split_at(of_yaml);
    let yaml = (!yaml.is_empty()).then(|| format!("{}\n  {}", schema::NO_YAML, yaml.join("\n  ")));
    let texts: Vec<String> = yaml.into_iter().chain(others.iter().cloned()).collect();
    texts.join(", ")
}

/// The namespace and name of an object must be those of the URL.
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
        set_metadata(object, "namespace", None);
    }
    let name = metadata_text(object, "name");
    if request.name.is_empty() || request.name == name {
        Ok(())
    } else if name.is_empty() {
        Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            request.name
        )))
    } else {
        Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.name
        )))
    }
}

/// Drops owner references that are there twice; the warning is for those who sent them.
pub fn single_owners(object: &mut Value) -> Option<String> {
    let owners = object
        .pointer_mut("/metadata/ownerReferences")
        .and_then(Value::as_array_mut)?;
    let mut single: Vec<Value> = Vec::with_capacity(owners.len());
    let mut twice: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if !single.contains(&owner) {
            single.push(owner);
            continue;
        }
        let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
        if !twice.contains(&uid) {
            twice.push(uid);
        }
    }
    *owners = single;
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        )
    })
}

/// What a client is told of an object that is valid all the same.
pub fn warnings(request: &Request, object: &Value, live: Option<&Value>) -> Vec<String> {
    if request.resource.custom.is_none() {
        return strategy::warnings(&request.resource, &request.subresource, object, live);
    }
    if request.subresource.is_empty() {
        finalizer_warnings(object, live)
    } else {
        Vec::new()
    }
}

/// Warnings about finalizers of custom objects that are new and might be others' too.
fn finalizer_warnings(object: &Value, live: Option<&Value>) -> Vec<String> {
    let before = live.map(finalizers).unwrap_or_default();
    let new: BTreeSet<&str> = finalizers(object)
        .into_iter()
        .filter(|finalizer| !before.contains(finalizer))
        .collect();
    new.into_iter()
        .filter(|finalizer| !finalizer.contains('/') && !metadata::STANDARD_FINALIZERS.contains(finalizer))
        .map(|finalizer| {
            let path = if finalizer.contains('.') {
                " including a path (/)"
            } else {
                ""
            };
            format!(
                "metadata.finalizers: {}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts \
                 with other finalizer writers",
                schema::go_quote(finalizer)
            )
        })
        .collect()
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
    if version.status && request.subresource.is_empty() && !builtin::keeps_status(&request.resource) {
        set_field(object, "status", None);
    }
    // A status that comes with a new object is nobody's.
    let status = builtin::keeps_status(&request.resource)
        .then(|| object.as_object_mut().and_then(|fields| fields.remove("status")))
        .flatten();
    // What is empty is not there, and nobody's.
    drop_empty_metadata(object);
    if manage && let Some(schema) = &version.schema {
        let manager = request.manager();
        managed_fields::update(None, object, &manager, "", &request.api_version(), schema, request.now);
    }
    if status.is_some() {
        set_field(object, "status", status);
    }
    set_metadata(object, "uid", Some(uuid::Uuid::new_v4().to_string().into()));
    set_metadata(object, "creationTimestamp", Some(now_text(request.now).into()));
    strategy::prepare_create(&request.resource, object);
    if request.resource.has_generation() {
        set_metadata(object, "generation", Some(1.into()));
    }
    drop_empty_metadata(object);
    Ok(())
}

/// Makes a decoded object ready to replace `live`, but for validation.
pub fn update(request: &Request, live: &Value, object: &mut Value, manage: bool) -> Result<(), ApiError> {
    let version = request.served()?;
    keep_server_fields(live, object, manage);
    let has_status = version.status;
    // Who writes the status of a custom object owns the metadata that came along, though it is not kept.
    let status_metadata = (request.subresource == "status" && request.resource.custom.is_some())
        .then(|| live.get("metadata").cloned())
        .flatten();
    // What is not kept is looked at all the same: if it has no type, nobody owns anything any more.
    let fits = match &version.schema {
        Some(schema) if status_metadata.is_some() && manage => managed_fields::fits(object, schema),
        _ => true,
    };
    match request.subresource.as_str() {
        "status" => keep_all_but_status(live, object),
        "finalize" => keep_all_but_finalizers(live, object),
        _ if has_status => set_field(object, "status", live.get("status").cloned()),
        _ => {}
    }
    // What is empty is not there, and nobody's; but an empty list of managed fields takes them away.
    let managed = object.pointer("/metadata/managedFields").cloned();
    drop_empty_metadata(object);
    set_metadata(object, "managedFields", managed);
    if request.resource.behaviour == Behaviour::Policy {
        // A list that is missing is the null that stands there already: no field changes by it.
        role::complete(&request.resource.kind, object);
    }
    if manage && let Some(schema) = &version.schema {
        let manager = request.manager();
        managed_fields::update(
            Some(live),
            object,
            &manager,
            &request.subresource,
            &request.api_version(),
            schema,
            request.now,
        );
    }
    if let Some(metadata) = status_metadata {
        let managed = object.pointer("/metadata/managedFields").filter(|_| fits).cloned();
        set_field(object, "metadata", Some(metadata));
        set_metadata(object, "managedFields", managed);
    }
    keep_deletion(live, object);
    strategy::prepare_update(&request.resource, &request.subresource, live, object);
    set_metadata(object, "generation", live.pointer("/metadata/generation").cloned());
    if request.resource.has_generation() && spec_changed(live, object, has_status, request.resource.behaviour) {
        set_metadata(object, "generation", Some((generation(live) + 1).into()));
    }
    drop_empty_metadata(object);
    Ok(())
}

fn keep_server_fields(live: &Value, object: &mut Value, manage: bool) {
    for field in ["creationTimestamp", "selfLink"] {
        set_metadata(object, field, metadata_field(live, field).cloned());
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
    if kept && manage {
        set_metadata(
            object,
            "managedFields",
            live.pointer("/metadata/managedFields").cloned(),
        );
    }
}

/// A field of the metadata that says something.
fn metadata_field<'object>(object: &'object Value, field: &str) -> Option<&'object Value> {
    let metadata = object.get("metadata")?;
    metadata.get(field).filter(|value| !value.is_null())
}

/// When an object goes is not changed by a write, whatever it says; how long it has may only be left out.
fn keep_deletion(live: &Value, object: &mut Value) {
    if let Some(time) = metadata_field(live, "deletionTimestamp") {
        set_metadata(object, "deletionTimestamp", Some(time.clone()));
    }
    if metadata_field(object, "deletionGracePeriodSeconds").is_none() {
        let seconds = metadata_field(live, "deletionGracePeriodSeconds").cloned();
        set_metadata(object, "deletionGracePeriodSeconds", seconds);
    }
}

fn keep_all_but_status(live: &Value, object: &mut Value) {
    let status = object.get("status").cloned();
    let metadata = object.get("metadata").cloned();
    *object = live.clone();
    set_field(object, "status", status);
    // Of built-in kinds, labels and annotations change with the status too.
    set_field(object, "metadata", metadata);
}

fn keep_all_but_finalizers(live: &Value, object: &mut Value) {
    let finalizers = object.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    let none = finalizers.as_array().is_none_or(Vec::is_empty);
    let metadata = object.get("metadata").cloned();
    *object = live.clone();
    set_field(object, "metadata", metadata);
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

/// Refuses custom objects of another kind or version than the path's, as their validation does first of all.
fn check_custom_type(request: &Request, object: &Value) -> Result<(), ApiError> {
    if request.resource.custom.is_none() {
        return Ok(());
    }
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let version = request.api_version();
    let wanted = [
        ("kind", request.resource.kind.as_str()),
        ("apiVersion", version.as_str()),
    ];
    let causes: Vec<_> = wanted
        .into_iter()
        .filter(|(field, wanted)| text(field) != *wanted)
        .map(|(field, wanted)| {
            let message = format!("Invalid value: {}: must be {wanted}", schema::go_quote(text(field)));
            cause("FieldValueInvalid", field, message)
        })
        .collect();
    if causes.is_empty() {
        return Ok(());
    }
    let subject = Subject {
        group: text("apiVersion").split_once('/').map_or("", |(group, _)| group),
        kind: text("kind"),
        name: metadata_text(object, "name"),
    };
    Err(ApiError::invalid(subject, &causes))
}

/// Validates an object that is ready to be stored.
pub fn check(request: &Request, object: &Value, live: Option<&Value>) -> Result<(), ApiError> {
    check_custom_type(request, object)?;
    let version = request.served()?;
    let mut causes = metadata::problems(request, object, live);
    // Objects of built-in kinds have been decoded into their types: their schema says no more.
    if let Some(schema) = version
        .schema
        .as_ref()
        .filter(|_| !builtin::is_typed(&request.resource))
    {
        let scale = match &version.scale {
            Some(paths) => super::scale::validate(paths, &request.subresource, object),
            None => Vec::new(),
        };
        let custom = request.resource.custom.is_some();
        causes.extend(match live {
            _ if request.resource.behaviour == Behaviour::Policy => role::validate_schema(schema, object, live),
            Some(live) if custom && request.subresource == "status" => schema.validate_status(scale, object, live),
            _ => schema.validate_with(scale, object, live),
        });
    }
    causes.extend(strategy::validate(
        &request.resource,
        &request.subresource,
        object,
        live,
    ));
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
    is_deleting(object)
        && finalizers(object).is_empty()
        && !has_grace(object)
        && !strategy::holds_back_deletion(&request.resource, object)
}

/// The schema for managed fields and strategic merges of the request's version.
pub fn schema(request: &Request) -> Result<&Schema, ApiError> {
    let schema = request.served()?.schema.as_deref();
    schema.ok_or_else(|| ApiError::internal("the schema of this kind is missing"))
}
