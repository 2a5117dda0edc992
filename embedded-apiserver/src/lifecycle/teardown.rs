//! The end of namespaces and of custom resource definitions: first their content goes, then they do.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::registry::custom::CLEANUP_FINALIZER;
use crate::rest::{Core, DeleteOptions, delete_key, now_text, rewrite};
use crate::storage::{Key, WriteError};

const REMAINING: &str = "NamespaceContentRemaining";

/// Deletes what is in a namespace; when nothing is left, lets the namespace go.
pub(super) async fn namespace(core: &Arc<Core>, key: &Key) -> Result<(), WriteError> {
    let name = &key.object.name;
    for resource in core.store.resources_in_namespace(name) {
        delete_all(core, &resource, Some(name)).await?;
    }
    let left = core.store.resources_in_namespace(name);
    if left.is_empty() {
        return rewrite(core, key, |namespace| {
            let held = namespace
                .pointer("/spec/finalizers")
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty());
            if held && let Some(namespace) = namespace.as_object_mut() {
                namespace.insert("spec".to_owned(), json!({}));
            }
            held
        })
        .await;
    }
    let counts: Vec<String> = left
        .iter()
        .map(|resource| {
            let count = core.store.list_all(resource, Some(name)).len();
            format!("{resource} has {count} resource instances")
        })
        .collect();
    let message = format!("Some resources are remaining: {}", counts.join(", "));
    let now = now_text(jiff::Timestamp::now());
    rewrite(core, key, |namespace| {
        let before = namespace.get("status").cloned();
        let known = before
            .as_ref()
            .and_then(|status| status["conditions"].as_array())
            .into_iter()
            .flatten();
        // Said once: counting down would be a write for each object that goes.
        if known
            .into_iter()
            .any(|condition| condition["type"] == REMAINING && condition["status"] == "True")
        {
            return false;
        }
        if let Some(status) = namespace.get_mut("status") {
            crate::registry::custom::set_condition(status, REMAINING, "True", "SomeResourcesRemain", &message, &now);
        }
        before.as_ref() != namespace.get("status")
    })
    .await
}

/// Deletes the objects of a definition; when none is left, lets the definition go.
pub(super) async fn definition(core: &Arc<Core>, key: &Key) -> Result<(), WriteError> {
    let resource = &key.object.name;
    delete_all(core, resource, None).await?;
    if core.store.count(resource) > 0 {
        return Ok(());
    }
    let result = rewrite(core, key, |definition| {
        let Some(list) = definition
            .pointer_mut("/metadata/finalizers")
            .and_then(Value::as_array_mut)
        else {
            return false;
        };
        let before = list.len();
        list.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
        list.len() != before
    })
    .await;
    core.registry.reload(&core.store);
    settle_others(core).await;
    result
}

/// Names that a definition gave up may be what another one waits for.
async fn settle_others(core: &Arc<Core>) {
    let waiting = core.store.list_all(crate::registry::DEFINITIONS, None);
    for (name, stored) in waiting {
        if stored
            .value()
            .is_ok_and(|definition| !crate::registry::custom::is_established(&definition))
        {
            crate::rest::settle_definition(core, &name.name).await;
        }
    }
}

async fn delete_all(core: &Arc<Core>, resource: &Arc<str>, namespace: Option<&str>) -> Result<(), WriteError> {
    let objects = core.store.list_all(resource, namespace);
    let deletions = objects
        .into_iter()
        .filter(|(_, stored)| !stored.deleting())
        .map(|(object, _)| {
            let key = Key {
                resource: Arc::clone(resource),
                object,
            };
            async move { delete_key(core, &key, &DeleteOptions::default()).await }
        });
    // In groups, so that with a file they share its transactions.
    let results: Vec<Result<(), WriteError>> = futures::StreamExt::collect(futures::StreamExt::buffer_unordered(
        futures::stream::iter(deletions),
        64,
    ))
    .await;
    results.into_iter().collect()
}
