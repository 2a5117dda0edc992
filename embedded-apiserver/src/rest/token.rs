//! Tokens for service accounts, on request.
//!
//! Rules and words are those of `pkg/registry/core/serviceaccount/storage/token.go` of the real server.

use serde_json::{Value, json};

use super::decode::{self, Expected};
use super::error::cause;
use super::object::{metadata_text, set_field, set_metadata};
use super::{ApiError, Core, Reply, Request, Subject, now_text};
use crate::access::{Bound, Claims, ISSUER, Reference};
use crate::managed_fields;
use crate::schema::{Cause, Schema};
use crate::storage::Key;

const GROUP: &str = "authentication.k8s.io";
const API_VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenRequest";
/// How long a token lasts if nothing is said, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// Signs a token.
pub fn create(core: &Core, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    let schema = Schema::builtin(API_VERSION, KIND).ok_or_else(ApiError::no_such_resource)?;
    let mut wanted = decode(request, warnings)?;
    set_field(&mut wanted, "status", None);
    manage(request, &schema, &mut wanted);
    let namespace = metadata_text(&wanted, "namespace");
    if !namespace.is_empty() && namespace != request.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = metadata_text(&wanted, "name");
    if !name.is_empty() && name != request.name {
        let detail = "must match the service account name if specified";
        let problem = invalid("metadata.name", &format!("{name:?}"), detail);
        return Err(ApiError::invalid(subject(&request.name), &[problem]));
    }
    let account = look_up(core, &request.resource.storage, &request.namespace, &request.name)
        .ok_or_else(|| ApiError::not_found(request.subject(&request.name)))?;
    let account = reference(&account);
    let uid = metadata_text(&wanted, "uid");
    if !uid.is_empty() && uid != account.uid {
        let why = format!(
            "the UID in the token request ({uid}) does not match the UID of the service account ({})",
            account.uid
        );
        return Err(ApiError::conflict(subject(&request.name), &why));
    }
    let audiences = audiences(&wanted);
    set_metadata(&mut wanted, "name", Some(request.name.as_str().into()));
    set_metadata(&mut wanted, "namespace", Some(request.namespace.as_str().into()));
    set_metadata(&mut wanted, "uid", Some(account.uid.as_str().into()));
    set_metadata(&mut wanted, "creationTimestamp", Some(now_text(request.now).into()));
    let seconds = wanted["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    if let Some(problem) = duration_problem(seconds) {
        return Err(ApiError::invalid(subject(""), &[problem]));
    }
    let bound = bind(core, request, &wanted["spec"]["boundObjectRef"])?;
    let claims = Claims::new(
        &request.namespace,
        account,
        bound,
        audiences.clone(),
        request.now,
        seconds,
    );
    let token = core.access.keys.sign(&claims).map_err(ApiError::internal)?;
    if let Some(spec) = wanted["spec"].as_object_mut() {
        spec.insert("audiences".to_owned(), json!(audiences));
        spec.insert("expirationSeconds".to_owned(), seconds.into());
        spec.entry("boundObjectRef").or_insert(Value::Null);
    }
    let end = request.now + jiff::SignedDuration::from_secs(seconds);
    let status = json!({ "token": token, "expirationTimestamp": now_text(end) });
    set_field(&mut wanted, "status", Some(status));
    Ok(Reply::Value {
        code: 201,
        value: wanted,
    })
}

fn subject(name: &str) -> Subject<'_> {
    Subject {
        group: GROUP,
        kind: KIND,
        name,
    }
}

fn invalid(field: &str, value: &str, detail: &str) -> Cause {
    cause("FieldValueInvalid", field, format!("Invalid value: {value}: {detail}"))
}

fn decode(request: &Request, warnings: &mut Vec<String>) -> Result<Value, ApiError> {
    let expected = Expected {
        group: GROUP,
        version: "v1",
        kind: KIND,
        custom: false,
    };
    let mut wanted = decode::subresource(request, expected, warnings)?;
    if !wanted["spec"].is_object() {
        set_field(&mut wanted, "spec", Some(json!({})));
    }
    if let Some(spec) = wanted["spec"].as_object_mut()
        && spec.get("expirationSeconds").is_none_or(Value::is_null)
    {
        spec.insert("expirationSeconds".to_owned(), DEFAULT_SECONDS.into());
    }
    Ok(wanted)
}

/// Records who asked, as for objects that stay.
fn manage(request: &Request, schema: &Schema, wanted: &mut Value) {
    set_metadata(wanted, "managedFields", None);
    let manager = request.manager();
    managed_fields::update(None, wanted, &manager, "token", API_VERSION, schema, request.now);
}

fn audiences(wanted: &Value) -> Vec<String> {
    let list = wanted["spec"]["audiences"].as_array().into_iter().flatten();
    let list: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    if list.is_empty() { vec![ISSUER.to_owned()] } else { list }
}

fn duration_problem(seconds: i64) -> Option<Cause> {
    let detail = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return None;
    };
    Some(invalid("spec.expirationSeconds", &seconds.to_string(), detail))
}

fn look_up(core: &Core, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    core.store
        .get(&Key::new(&resource.into(), namespace, name))?
        .value()
        .ok()
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: metadata_text(object, "name").to_owned(),
        uid: metadata_text(object, "uid").to_owned(),
    }
}

/// What the token is to be bound to: with that object it ends.
fn bind(core: &Core, request: &Request, wanted: &Value) -> Result<Bound, ApiError> {
    let mut bound = Bound::default();
    if !wanted.is_object() {
        return Ok(bound);
    }
    let text = |field: &str| wanted[field].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let (resource, namespace) = match (group, kind) {
        ("", "Pod") => ("pods", request.namespace.as_str()),
        ("", "Secret") => ("secrets", request.namespace.as_str()),
        ("", "Node") => ("nodes", ""),
        _ => {
            let place = if group.is_empty() {
                format!("/{version}")
            } else {
                format!("{group}/{version}")
            };
            let message = format!("cannot bind token to object of type {place}, Kind={kind}");
            return Err(ApiError::bad_request(message));
        }
    };
    let about = |kind| Subject { group: "", kind, name };
    let object = look_up(core, resource, namespace, name).ok_or_else(|| ApiError::not_found(about(resource)))?;
    let found = reference(&object);
    if kind == "Pod" {
        let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if account != request.name {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                request.name
            )));
        }
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
        if !node.is_empty() {
            // The node may not be there yet; its name says something all the same.
            bound.node = Some(look_up(core, "nodes", "", node).as_ref().map_or_else(
                || Reference {
                    name: node.to_owned(),
                    uid: String::new(),
                },
                reference,
            ));
        }
    }
    let uid = text("uid");
    if !uid.is_empty() && uid != found.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(about(kind), &why));
    }
    match kind {
        "Pod" => bound.pod = Some(found),
        "Secret" => bound.secret = Some(found),
        _ => bound.node = Some(found),
    }
    Ok(bound)
}
