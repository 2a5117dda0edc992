//! Deletion: of one object, of whole collections, and for the server's own purposes.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::deletion::{DeleteOptions, Marked, mark};
use super::object::metadata_text;
use super::write::{ATTEMPTS, after_write, remove, storage_error, value_reply};
use super::{ApiError, Core, ListReply, Reply, Request, convert, list};
use crate::registry::Behaviour;
use crate::storage::{Change, Encoded, Expect, Guard, Key, Stored, Write, WriteError};

/// What a deletion did.
enum Outcome {
    /// The object is gone; its last state.
    Gone(Value),
    /// It waits; its present state.
    Waiting(Value),
}

/// Deletes one object.
pub async fn delete(core: &Arc<Core>, request: &Request) -> Result<Reply, ApiError> {
    let options = DeleteOptions::parse(request)?;
    delete_one(core, request, &options).await
}

/// Deletes one object, with options that are known.
pub async fn delete_one(core: &Arc<Core>, request: &Request, options: &DeleteOptions) -> Result<Reply, ApiError> {
    let protected = matches!(request.name.as_str(), "default" | "kube-system" | "kube-public");
    if request.resource.behaviour == Behaviour::Namespace && protected {
        return Err(ApiError::forbidden(
            request.subject(&request.name),
            "this namespace may not be deleted",
        ));
    }
    match delete_named(core, request, &request.name, options).await? {
        Outcome::Waiting(object) => {
            // Whoever asked in the old way for dependents to go is told that this takes time.
            let code = if options.orphan_dependents == Some(false) {
                202
            } else {
                200
            };
            value_reply(code, &object)
        }
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

/// Where a listed object is.
#[derive(Deserialize)]
struct Listed {
    metadata: Place,
}

#[derive(Deserialize)]
struct Place {
    name: String,
    #[serde(default)]
    namespace: String,
}

/// Deletes the selected objects of a collection: those that a list of it shows.
pub async fn delete_collection(core: &Arc<Core>, request: &Request) -> Result<Reply, ApiError> {
    let options = DeleteOptions::parse(request)?;
    let listed = list::list(core, request)?;
    let mut items = Vec::with_capacity(listed.items.len());
    for item in listed.items {
        let Listed { metadata: place } = serde_json::from_slice(&item).map_err(ApiError::internal)?;
        let mut one = request.clone();
        one.namespace = place.namespace;
        match delete_named(core, &one, &place.name, &options).await {
            Ok(_) => items.push(item),
            // It went by itself.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Reply::List(ListReply { items, ..listed }))
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
        let (object, last) = match mark(&request.resource, &live, options, request.now) {
            Marked::Unchanged => return Ok(Outcome::Waiting(live)),
            Marked::Remove => (None, true),
            Marked::Wait(object) => (Some(object), false),
            Marked::Last(object) => (Some(object), true),
        };
        if options.dry_run {
            let object = object.unwrap_or(live);
            return Ok(if last {
                Outcome::Gone(object)
            } else {
                Outcome::Waiting(object)
            });
        }
        let written = match &object {
            Some(object) => {
                let to_store = convert::to_storage(&request.resource, &request.version, object.clone());
                let encoded = Encoded::new(&to_store).map_err(ApiError::internal)?;
                put(core, &key, &stored, encoded).await
            }
            None => Ok(Arc::clone(&stored)),
        };
        let removed = match written {
            Ok(stored) if last => {
                let guards = match request.resource.behaviour {
                    Behaviour::Namespace => vec![Guard::NamespaceEmpty(name.to_owned())],
                    _ => Vec::new(),
                };
                remove(&core.store, &key, &stored, guards).await
            }
            other => other,
        };
        match removed {
            Ok(after) => {
                after_write(core, request.resource.behaviour, name).await;
                return Ok(match (object, last) {
                    (None, _) => Outcome::Gone(live),
                    (Some(object), true) => Outcome::Gone(object),
                    (Some(_), false) => Outcome::Waiting(convert::load(&request.resource, &request.version, &after)?),
                });
            }
            Err(WriteError::Conflict(_)) => {}
            Err(WriteError::NotFound) => return Err(ApiError::not_found(request.subject(name))),
            Err(error) => return Err(storage_error(request, name, &error)),
        }
    }
    Err(ApiError::modified(request.subject(name)))
}

/// Writes a state of an object before it goes.
async fn put(core: &Core, key: &Key, stored: &Stored, encoded: Encoded) -> Result<Arc<Stored>, WriteError> {
    core.store
        .write(Write {
            key: key.clone(),
            expect: Expect::Revision(stored.revision),
            guards: Vec::new(),
            change: Change::Put(encoded),
        })
        .await
}

fn check_preconditions(request: &Request, name: &str, options: &DeleteOptions, live: &Value) -> Result<(), ApiError> {
    let own_words = request.resource.behaviour == Behaviour::Namespace;
    let checks = [
        ("UID", "uid", &options.uid, "deleted and then recreated"),
        (
            "ResourceVersion",
            "resourceVersion",
            &options.resource_version,
            "modified",
        ),
    ];
    for (shown, field, wanted, perhaps) in checks {
        let found = metadata_text(live, field);
        let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) else {
            continue;
        };
        return Err(if own_words {
            let why =
                format!("Precondition failed: {shown} in precondition: {wanted}, {shown} in object meta: {found}");
            ApiError::conflict(request.subject(name), &why)
        } else {
            let why = format!(
                "the {shown} in the precondition ({wanted}) does not match the {shown} in record ({found}). The object might have been {perhaps}"
            );
            ApiError::conflict(request.kind_subject(name), &why)
        });
    }
    Ok(())
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
            Some(resource) => mark(resource, &live, options, jiff::Timestamp::now()),
            // Objects of a definition that is gone.
            None => Marked::Remove,
        };
        let (object, last) = match marked {
            Marked::Unchanged => return Ok(()),
            Marked::Remove => (None, true),
            Marked::Wait(object) => (Some(object), false),
            Marked::Last(object) => (Some(object), true),
        };
        let written = match object {
            Some(object) => {
                let encoded = Encoded::new(&object).map_err(|error| unreadable(&error))?;
                put(core, key, &stored, encoded).await
            }
            None => Ok(stored),
        };
        let removed = match written {
            Ok(stored) if last => remove(&core.store, key, &stored, Vec::new()).await,
            other => other,
        };
        match removed {
            Ok(_) => return Ok(()),
            Err(WriteError::Conflict(_) | WriteError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
