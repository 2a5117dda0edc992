//! Garbage collection by owner references: background, foreground, orphan.

use std::sync::Arc;

use serde_json::Value;

use crate::rest::{Core, DeleteOptions, Propagation, delete_key, metadata_text, tend};
use crate::storage::{Key, Stored, WriteError};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

fn has_finalizer(object: &Value, name: &str) -> bool {
    array(object.pointer("/metadata/finalizers")).any(|finalizer| finalizer == name)
}

fn array(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    array(object.pointer("/metadata/ownerReferences"))
}

fn remove_finalizer(object: &mut Value, name: &str) -> bool {
    let Some(list) = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|finalizer| finalizer != name);
    list.len() != before
}

fn remove_owners(object: &mut Value, gone: impl Fn(&Value) -> bool) -> bool {
    let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) else {
        return false;
    };
    let Some(list) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|owner| !gone(owner));
    let (empty, changed) = (list.is_empty(), list.len() != before);
    if empty {
        metadata.remove("ownerReferences");
    }
    changed
}

/// What holds of one owner of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It is there, or nothing can be said.
    Solid,
    /// It is there and waits for its dependents to go.
    Waiting,
    /// It is not there.
    Absent,
}

fn judge(core: &Core, key: &Key, owner: &Value) -> Owner {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let api_version = text("apiVersion");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let registry = core.registry.snapshot();
    // Owners of kinds that are not served here cannot be judged.
    let Some(resource) = registry.by_kind(group, text("kind")) else {
        return Owner::Solid;
    };
    let in_namespace = !key.object.namespace.is_empty();
    if resource.namespaced && !in_namespace {
        return Owner::Solid;
    }
    let Some(found) = core.store.key_of(text("uid")) else {
        return Owner::Absent;
    };
    let same_place = found.object.namespace.is_empty() || found.object.namespace == key.object.namespace;
    if found.resource != resource.storage || found.object.name.as_ref() != text("name") || !same_place {
        return Owner::Absent;
    }
    match core.store.get(&found) {
        Some(stored) if stored.deleting() => {
            let waits = stored.value().is_ok_and(|object| has_finalizer(&object, FOREGROUND));
            if waits { Owner::Waiting } else { Owner::Solid }
        }
        Some(_) => Owner::Solid,
        None => Owner::Absent,
    }
}

/// Whether an object waits for its dependents to go.
fn waits(core: &Core, key: &Key) -> bool {
    core.store.get(key).is_some_and(|stored| {
        stored.deleting() && stored.value().is_ok_and(|object| has_finalizer(&object, FOREGROUND))
    })
}

/// Lets the owners of an object go before it.
fn unblock_owners(object: &mut Value) -> bool {
    let owners = object
        .pointer_mut("/metadata/ownerReferences")
        .and_then(Value::as_array_mut);
    let mut changed = false;
    for owner in owners.into_iter().flatten().filter_map(Value::as_object_mut) {
        if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
            owner.insert("blockOwnerDeletion".to_owned(), false.into());
            changed = true;
        }
    }
    changed
}

/// Deletes an object whose owners are all gone; takes away references to owners that are gone while others stay.
pub(super) async fn dependent(core: &Arc<Core>, key: &Key) -> Result<(), WriteError> {
    let Some(stored) = core.store.get(key) else {
        return Ok(());
    };
    let Ok(object) = stored.value() else { return Ok(()) };
    let judged: Vec<Owner> = owners(&object).map(|owner| judge(core, key, owner)).collect();
    if !judged.iter().any(|owner| *owner != Owner::Solid) {
        return Ok(());
    }
    if judged.contains(&Owner::Solid) {
        return tend(core, key, "", |object| {
            remove_owners(object, |owner| judge(core, key, owner) != Owner::Solid)
        })
        .await;
    }
    if stored.deleting() {
        return Ok(());
    }
    let dependents = core.store.dependents(stored.uid());
    let foreground = judged.contains(&Owner::Waiting) && !dependents.is_empty();
    // Owners that own each other would wait for each other for ever.
    if foreground && dependents.iter().any(|dependent| waits(core, dependent)) {
        tend(core, key, "", unblock_owners).await?;
        for owner in stored.owners() {
            core.queue.push(super::Work::DependentGone(*owner));
        }
    }
    let options = DeleteOptions {
        propagation: foreground.then_some(Propagation::Foreground),
        uid: Some(metadata_text(&object, "uid").to_owned()),
        ..DeleteOptions::default()
    };
    delete_key(core, key, &options).await
}

/// Does what the deletion of an owner waits for: orphans its dependents, or deletes them and waits.
pub(super) async fn deleting_owner(core: &Arc<Core>, key: &Key, stored: &Stored) -> Result<(), WriteError> {
    let Ok(object) = stored.value() else { return Ok(()) };
    let uid = metadata_text(&object, "uid").to_owned();
    let dependents = core.store.dependents(stored.uid());
    if has_finalizer(&object, ORPHAN) {
        for dependent in &dependents {
            tend(core, dependent, "", |object| {
                remove_owners(object, |owner| owner["uid"] == uid.as_str())
            })
            .await?;
        }
        return tend(core, key, "", |object| remove_finalizer(object, ORPHAN)).await;
    }
    if has_finalizer(&object, FOREGROUND) {
        let mut blocked = false;
        for dependent in dependents {
            let Some(object) = core.store.get(&dependent).and_then(|stored| stored.value().ok()) else {
                continue;
            };
            blocked |= owners(&object).any(|owner| owner["uid"] == uid.as_str() && owner["blockOwnerDeletion"] == true);
            core.queue.push(super::Work::Object(dependent));
        }
        if !blocked {
            return tend(core, key, "", |object| remove_finalizer(object, FOREGROUND)).await;
        }
    }
    Ok(())
}
