//! Deletion: preconditions, propagation, finalizers; whole collections; evictions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object::{finalizers, generation, is_deleting, metadata_text, now_text, set_finalizers, set_metadata};
use super::write::{ATTEMPTS, after_write, remove, storage_error, value_reply};
use super::{ApiError, Core, ListReply, Reply, Request, cause, convert, list, prepare, strategy};
use crate::registry::{Behaviour, Resource};
use crate::storage::{Change, Encoded, Expect, Guard, Key, Stored, Write, WriteError};

/// Waits for dependents to be orphaned.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Waits for dependents to be gone.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and stay.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go before.
    Foreground,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// What becomes of dependents; none leaves it to the finalizers that are there.
    pub propagation: Option<Propagation>,
    /// Only the object with this UID.
    pub uid: Option<String>,
    /// Only the object at this revision.
    pub resource_version: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
}

fn parse_options(request: &Request) -> Result<DeleteOptions, ApiError> {
    let mut body = Value::Null;
    if !request.body.is_empty() {
        (body, _) = prepare::decode(request.format, &request.body)?;
        let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(ApiError::bad_request(format!(
                "the body of a deletion must be DeleteOptions, not {kind:?}"
            )));
        }
    }
    let in_body = |field: &str| body[field].as_str().map(str::to_owned);
    let policy = in_body("propagationPolicy").or_else(|| request.options.propagation_policy.clone());
    let orphan = body["orphanDependents"].as_bool().or(request.options.orphan_dependents);
    let invalid = |field: &str, message: String| {
        ApiError::invalid_options("DeleteOptions", &[cause("FieldValueInvalid", field, message)])
    };
    let propagation = match (policy.as_deref(), orphan) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "propagationPolicy",
                "Invalid value: orphanDependents and deletionPropagation cannot be both set".to_owned(),
            ));
        }
        (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
        (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some(other), _) => {
            let message =
                format!("Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\"");
            return Err(ApiError::invalid_options(
                "DeleteOptions",
                &[cause("FieldValueNotSupported", "propagationPolicy", message)],
            ));
        }
        (None, None) => None,
    };
    let dry_run = match body["dryRun"].as_array().map(Vec::as_slice) {
        None | Some([]) => request.options.dry_run,
        Some([only]) if only == "All" => true,
        Some(_) => {
            let message = "Unsupported value: supported values: \"All\"";
            return Err(ApiError::invalid_options(
                "DeleteOptions",
                &[cause("FieldValueNotSupported", "dryRun", message)],
            ));
        }
    };
    let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
    Ok(DeleteOptions {
        propagation,
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
        dry_run,
    })
}

/// What a deletion did.
enum Outcome {
    /// The object is gone; its last state.
    Gone(Value),
    /// It waits; its present state.
    Waiting(Value),
}

/// Deletes one object.
pub async fn delete(core: &Arc<Core>, request: &Request) -> Result<Reply, ApiError> {
    let options = parse_options(request)?;
    let protected = matches!(request.name.as_str(), "default" | "kube-system" | "kube-public");
    if request.resource.behaviour == Behaviour::Namespace && protected {
        return Err(ApiError::forbidden(
            request.subject(&request.name),
            "this namespace may not be deleted",
        ));
    }
    match delete_named(core, request, &request.name, &options).await? {
        Outcome::Waiting(object) => value_reply(200, &object),
        Outcome::Gone(object) if request.resource.returns_deleted_object() => value_reply(200, &object),
        Outcome::Gone(object) => {
            let mut details = json!({
                "name": request.name, "kind": request.resource.plural, "uid": metadata_text(&object, "uid"),
            });
            if !request.resource.group.is_empty() {
                details["group"] = request.resource.group.as_str().into();
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(Reply::Value {
                code: 200,
                value: status,
            })
        }
    }
}

/// Deletes the selected objects of a collection.
pub async fn delete_collection(core: &Arc<Core>, request: &Request) -> Result<Reply, ApiError> {
    let options = parse_options(request)?;
    let mut items = Vec::new();
    for (name, stored) in list::selected(core, request)? {
        let mut one = request.clone();
        name.namespace.as_ref().clone_into(&mut one.namespace);
        match delete_named(core, &one, &name.name, &options).await {
            Ok(_) => items.push(convert::bytes(&request.resource, &request.version, &stored)?),
            // It went by itself.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Reply::List(ListReply {
        api_version: request.api_version(),
        kind: request.resource.list_kind.clone(),
        resource_version: core.store.revision(),
        continue_token: String::new(),
        remaining: None,
        items,
    }))
}

async fn delete_named(
    core: &Arc<Core>,
    request: &Request,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome, ApiError> {
    let key = request.key(name);
    for _ in 0..ATTEMPTS {
        let stored = core
            .store
            .get(&key)
            .ok_or_else(|| ApiError::not_found(request.subject(name)))?;
        let live = convert::load(&request.resource, &request.version, &stored)?;
        check_preconditions(request, name, options, &live)?;
        let marked = mark(&request.resource, &live, options.propagation, &now_text(request.now));
        let (object, written) = match marked {
            Marked::Remove => {
                if options.dry_run {
                    return Ok(Outcome::Gone(live));
                }
                let guards = match request.resource.behaviour {
                    Behaviour::Namespace => vec![Guard::NamespaceEmpty(name.to_owned())],
                    _ => Vec::new(),
                };
                (None, remove(&core.store, &key, &stored, guards).await)
            }
            Marked::Unchanged => return Ok(Outcome::Waiting(live)),
            Marked::Wait(object) => {
                if options.dry_run {
                    return Ok(Outcome::Waiting(object));
                }
                let to_store = convert::to_storage(&request.resource, &request.version, object.clone());
                let encoded = Encoded::new(&to_store).map_err(ApiError::internal)?;
                let expect = Expect::Revision(stored.revision);
                let write = Write {
                    key: key.clone(),
                    expect,
                    guards: Vec::new(),
                    change: Change::Put(encoded),
                };
                (Some(object), core.store.write(write).await)
            }
        };
        match written {
            Ok(after) => {
                after_write(core, request.resource.behaviour, name).await;
                return match object {
                    None => Ok(Outcome::Gone(live)),
                    Some(_) => Ok(Outcome::Waiting(convert::load(
                        &request.resource,
                        &request.version,
                        &after,
                    )?)),
                };
            }
            Err(WriteError::Conflict(_)) => {}
            Err(WriteError::NotFound) => return Err(ApiError::not_found(request.subject(name))),
            Err(error) => return Err(storage_error(request, name, &error)),
        }
    }
    Err(ApiError::modified(request.subject(name)))
}

fn check_preconditions(request: &Request, name: &str, options: &DeleteOptions, live: &Value) -> Result<(), ApiError> {
    let uid = metadata_text(live, "uid");
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(request.subject(name), &why));
    }
    let revision = metadata_text(live, "resourceVersion");
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != revision) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        );
        return Err(ApiError::conflict(request.subject(name), &why));
    }
    Ok(())
}

enum Marked {
    Remove,
    Wait(Value),
    Unchanged,
}

/// What a deletion makes of an object: gone, or marked and waiting for its finalizers.
fn mark(resource: &Resource, live: &Value, propagation: Option<Propagation>, now: &str) -> Marked {
    let mut object = live.clone();
    let mut names: Vec<String> = finalizers(live).into_iter().map(str::to_owned).collect();
    if let Some(propagation) = propagation {
        names.retain(|name| name != ORPHAN_FINALIZER && name != FOREGROUND_FINALIZER);
        match propagation {
            Propagation::Orphan => names.push(ORPHAN_FINALIZER.to_owned()),
            Propagation::Foreground => names.push(FOREGROUND_FINALIZER.to_owned()),
            Propagation::Background => {}
        }
    }
    if names.is_empty() && !strategy::holds_back_deletion(resource, live) {
        return Marked::Remove;
    }
    set_finalizers(&mut object, &names);
    if !is_deleting(live) {
        set_metadata(&mut object, "deletionTimestamp", Some(now.into()));
        // These two have deletions of their own, which know no grace.
        if !matches!(
            resource.behaviour,
            Behaviour::Namespace | Behaviour::CustomResourceDefinition
        ) {
            set_metadata(&mut object, "deletionGracePeriodSeconds", Some(0.into()));
        }
        if generation(live) > 0 {
            set_metadata(&mut object, "generation", Some((generation(live) + 1).into()));
        }
        strategy::prepare_delete(resource, &mut object, now);
    } else if object == *live {
        return Marked::Unchanged;
    }
    Marked::Wait(object)
}

/// Deletes a stored object for the server's own purposes, if it still is the one with this UID.
pub async fn delete_key(core: &Arc<Core>, key: &Key, options: &DeleteOptions) -> Result<(), WriteError> {
    let registry = core.registry.snapshot();
    for _ in 0..ATTEMPTS {
        let Some(stored) = core.store.get(key) else {
            return Ok(());
        };
        let unreadable = |error: &dyn std::fmt::Display| WriteError::Unavailable(error.to_string().into());
        let live = stored.value().map_err(|error| unreadable(&error))?;
        if options
            .uid
            .as_deref()
            .is_some_and(|uid| uid != metadata_text(&live, "uid"))
        {
            return Ok(());
        }
        let marked = match registry.by_storage(&key.resource) {
            Some(resource) => mark(resource, &live, options.propagation, &now_text(jiff::Timestamp::now())),
            // Objects of a definition that is gone.
            None => Marked::Remove,
        };
        let written = match marked {
            Marked::Remove => remove(&core.store, key, &stored, Vec::new()).await,
            Marked::Unchanged => return Ok(()),
            Marked::Wait(object) => {
                let encoded = Encoded::new(&object).map_err(|error| unreadable(&error))?;
                let expect = Expect::Revision(stored.revision);
                core.store
                    .write(Write {
                        key: key.clone(),
                        expect,
                        guards: Vec::new(),
                        change: Change::Put(encoded),
                    })
                    .await
            }
        };
        match written {
            Ok(_) => return Ok(()),
            Err(WriteError::Conflict(_) | WriteError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Evicts a pod: deletes it unless a disruption budget forbids that now.
pub async fn evict(core: &Arc<Core>, request: &Request) -> Result<Reply, ApiError> {
    let (eviction, _) = prepare::decode(request.format, &request.body)?;
    let stored: Arc<Stored> = core
        .store
        .get(&request.key(&request.name))
        .ok_or_else(|| ApiError::not_found(request.subject(&request.name)))?;
    let budgets = core
        .store
        .list_all("poddisruptionbudgets.policy", Some(&request.namespace));
    for (_, budget) in budgets {
        let Ok(budget) = budget.value() else { continue };
        let selector = crate::selector::LabelSelector::from_object(&budget["spec"]["selector"]);
        let guarded = selector.is_ok_and(|selector| selector.matches(|key| stored.label(key)));
        if guarded && budget["status"]["disruptionsAllowed"].as_i64().unwrap_or_default() <= 0 {
            let name = metadata_text(&budget, "name");
            return Err(ApiError {
                code: 429,
                reason: "TooManyRequests",
                message: "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
                details: json!({
                    "causes": [{
                        "reason": "DisruptionBudget",
                        "message": format!("The disruption budget {name} does not allow evicting pods now"),
                    }],
                }),
                continue_token: None,
            });
        }
    }
    let mut deletion = request.clone();
    deletion.subresource.clear();
    deletion.body = match eviction.get("deleteOptions") {
        Some(options) if options.is_object() => serde_json::to_vec(options).map_err(ApiError::internal)?.into(),
        _ => bytes::Bytes::new(),
    };
    deletion.format = super::BodyFormat::Json;
    delete(core, &deletion).await?;
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(Reply::Value {
        code: 201,
        value: status,
    })
}
