//! The rules that all objects share: names, labels, annotations, finalizers, owner references.

use serde_json::Value;

use super::error::cause;
use super::object::{finalizers, metadata_text};
use super::{ApiError, Request};
use crate::registry::Behaviour;
use crate::schema::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// The size of all annotations together, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

fn is_label(text: &str) -> bool {
    let edge = |letter: Option<u8>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified_part(text: &str) -> bool {
    let edge = |letter: Option<u8>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.'))
}

/// What is wrong with a name of this kind of object, if anything.
fn name_problem(behaviour: Behaviour, group: &str, name: &str) -> Option<String> {
    if group == "rbac.authorization.k8s.io" {
        // Roles and bindings are only path segments.
        return match name {
            "." | ".." => Some(format!("may not be '{name}'")),
            _ if name.contains('/') => Some("may not contain '/'".to_owned()),
            _ if name.contains('%') => Some("may not contain '%'".to_owned()),
            _ => None,
        };
    }
    if behaviour == Behaviour::Namespace {
        if name.len() > 63 {
            return Some("must be no more than 63 bytes".to_owned());
        }
        return (!is_label(name)).then(|| LABEL.to_owned());
    }
    if name.len() > 253 {
        return Some("must be no more than 253 bytes".to_owned());
    }
    (!is_subdomain(name)).then(|| SUBDOMAIN.to_owned())
}

/// Refuses metadata of the wrong types, as decoding would.
pub fn metadata_types(object: &Value) -> Result<(), ApiError> {
    let refuse = |field: &str, wanted: &str| {
        Err(ApiError::bad_request(format!(
            "unable to decode the object: metadata.{field} must be {wanted}"
        )))
    };
    let metadata = match object.get("metadata") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => {
            return Err(ApiError::bad_request(
                "unable to decode the object: metadata must be an object",
            ));
        }
    };
    for (field, value) in metadata {
        let is_text_map = || {
            value
                .as_object()
                .is_some_and(|map| map.values().all(|value| value.is_string() || value.is_null()))
        };
        match field.as_str() {
            _ if value.is_null() => {}
            "name" | "generateName" | "namespace" | "uid" | "resourceVersion" | "selfLink" if !value.is_string() => {
                return refuse(field, "a text");
            }
            "labels" | "annotations" if !is_text_map() => return refuse(field, "a map of texts"),
            "finalizers" if !value.as_array().is_some_and(|list| list.iter().all(Value::is_string)) => {
                return refuse(field, "a list of texts");
            }
            "creationTimestamp" | "deletionTimestamp"
                if value
                    .as_str()
                    .is_none_or(|time| time.parse::<jiff::Timestamp>().is_err()) =>
            {
                return refuse(field, "a time");
            }
            "generation" | "deletionGracePeriodSeconds" if !value.is_i64() && !value.is_u64() => {
                return refuse(field, "a whole number");
            }
            "ownerReferences" => {
                let fits = |owner: &Value| {
                    owner.as_object().is_some_and(|owner| {
                        ["apiVersion", "kind", "name", "uid"].iter().all(|field| {
                            owner
                                .get(*field)
                                .is_none_or(|value| value.is_string() || value.is_null())
                        }) && ["controller", "blockOwnerDeletion"].iter().all(|field| {
                            owner
                                .get(*field)
                                .is_none_or(|value| value.is_boolean() || value.is_null())
                        })
                    })
                };
                if !value.as_array().is_some_and(|owners| owners.iter().all(fits)) {
                    return refuse(field, "a list of owner references");
                }
            }
            "managedFields" if !value.as_array().is_some_and(|list| list.iter().all(Value::is_object)) => {
                return refuse(field, "a list of objects");
            }
            _ => {}
        }
    }
    Ok(())
}

fn qualified_name_problem(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if !is_subdomain(prefix) || prefix.len() > 253 {
            return Some(format!("prefix part {SUBDOMAIN}"));
        }
    }
    if name.is_empty() {
        Some("name part must be non-empty".to_owned())
    } else if name.len() > 63 {
        Some("name part must be no more than 63 bytes".to_owned())
    } else {
        (!is_qualified_part(name)).then(|| NAME_PART.to_owned())
    }
}

/// The rules of metadata.
pub fn metadata(request: &Request, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = metadata_text(object, "name");
    if name.is_empty() {
        causes.push(cause(
            "FieldValueRequired",
            "metadata.name",
            "Required value: name or generateName is required",
        ));
    } else if old.is_none()
        && let Some(problem) = name_problem(request.resource.behaviour, &request.resource.group, name)
    {
        causes.push(cause(
            "FieldValueInvalid",
            "metadata.name",
            format!("Invalid value: {name:?}: {problem}"),
        ));
    }
    let invalid = |field: &str, value: &str, problem: String| {
        cause(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {value:?}: {problem}"),
        )
    };
    for (key, value) in texts(object, "labels") {
        if let Some(problem) = qualified_name_problem(key) {
            causes.push(invalid("metadata.labels", key, problem));
        }
        if value.len() > 63 {
            causes.push(invalid(
                "metadata.labels",
                value,
                "must be no more than 63 bytes".to_owned(),
            ));
        } else if !value.is_empty() && !is_qualified_part(value) {
            causes.push(invalid("metadata.labels", value, LABEL_VALUE.to_owned()));
        }
    }
    let mut size = 0;
    for (key, value) in texts(object, "annotations") {
        size += key.len() + value.len();
        if let Some(problem) = qualified_name_problem(&key.to_lowercase()) {
            causes.push(invalid("metadata.annotations", key, problem));
        }
    }
    if size > ANNOTATIONS_LIMIT {
        let message = format!("Too long: may not be more than {ANNOTATIONS_LIMIT} bytes");
        causes.push(cause("FieldValueTooLong", "metadata.annotations", message));
    }
    for (at, finalizer) in finalizers(object).iter().enumerate() {
        let known = matches!(*finalizer, "orphan" | "foregroundDeletion" | "kubernetes");
        if let Some(problem) = qualified_name_problem(finalizer) {
            causes.push(invalid("metadata.finalizers", finalizer, problem));
        } else if !known && !finalizer.contains('/') && request.resource.custom.is_none() && old.is_none() {
            let problem = "name is neither a standard finalizer name nor is it fully qualified".to_owned();
            causes.push(invalid(&format!("metadata.finalizers[{at}]"), finalizer, problem));
        }
    }
    owner_references(object, &mut causes);
    if let Some(old) = old {
        immutable(object, old, &mut causes);
    }
    causes
}

fn owner_references(object: &Value, causes: &mut Vec<Cause>) {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let mut controllers: Vec<String> = Vec::new();
    for (at, owner) in owners.enumerate() {
        let field = format!("metadata.ownerReferences[{at}]");
        for part in ["apiVersion", "kind", "name", "uid"] {
            let value = owner[part].as_str().unwrap_or_default();
            if value.is_empty() {
                let what = if part == "apiVersion" { "version" } else { part };
                let message = format!("Invalid value: \"\": {what} must not be empty");
                causes.push(cause("FieldValueInvalid", &format!("{field}.{part}"), message));
            }
        }
        if owner["controller"] == true {
            controllers.push(format!(
                "{}/{}",
                owner["kind"].as_str().unwrap_or_default(),
                owner["name"].as_str().unwrap_or_default()
            ));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let message = format!(
            "Invalid value: \"{first}\": Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        causes.push(cause("FieldValueInvalid", "metadata.ownerReferences", message));
    }
}

fn immutable(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    for field in ["name", "namespace", "uid"] {
        let value = metadata_text(object, field);
        if value != metadata_text(old, field) {
            let message = format!("Invalid value: {value:?}: field is immutable");
            causes.push(cause("FieldValueInvalid", &format!("metadata.{field}"), message));
        }
    }
    if super::object::is_deleting(old) {
        let before = finalizers(old);
        let new: Vec<String> = finalizers(object)
            .into_iter()
            .filter(|finalizer| !before.contains(finalizer))
            .map(|finalizer| format!("{finalizer:?}"))
            .collect();
        if !new.is_empty() {
            let message = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.join(", ")
            );
            causes.push(cause("FieldValueForbidden", "metadata.finalizers", message));
        }
    }
}

fn texts<'object>(object: &'object Value, field: &str) -> impl Iterator<Item = (&'object String, &'object str)> {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}
