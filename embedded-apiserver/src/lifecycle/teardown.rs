//! The end of namespaces and of custom resource definitions: first their content goes, then they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::registry::custom::CLEANUP_FINALIZER;
use crate::rest::{Core, DeleteOptions, Propagation, delete_key, now_text, rewrite, tend};
use crate::storage::{Key, WriteError};

/// What the real server lets go before anything else of a namespace.
const PODS: &str = "pods";
/// The finalizer of a namespace's spec that stands for its content.
const KUBERNETES: &str = "kubernetes";

/// Deletes what is in a namespace; when nothing is left, lets the namespace go.
pub(super) async fn namespace(core: &Arc<Core>, key: &Key) -> Result<(), WriteError> {
    let name = &key.object.name;
    let options = DeleteOptions {
        propagation: Some(Propagation::Background),
        ..DeleteOptions::default()
    };
    let pods: Arc<str> = PODS.into();
    delete_all(core, &pods, Some(name), &options).await?;
    let mut remaining = Remaining::default();
    if core.store.list_all(&pods, Some(name)).is_empty() {
        for resource in core.store.resources_in_namespace(name) {
            delete_all(core, &resource, Some(name), &options).await?;
        }
        for resource in core.store.resources_in_namespace(name) {
            for (_, stored) in core.store.list_all(&resource, Some(name)) {
                remaining.add(&resource, &stored.value().unwrap_or_default());
            }
        }
    } else {
        // The rest is not looked at, nor counted, while there are pods.
        remaining.pods = true;
    }
    let Some(namespace) = core.store.get(key).and_then(|stored| stored.value().ok()) else {
        return Ok(());
    };
    let waits = !remaining.is_empty();
    if waits || stays(&namespace) {
        let now = now_text(jiff::Timestamp::now());
        tend(core, key, "status", |namespace| remaining.tell(namespace, &now)).await?;
    }
    if waits {
        return Ok(());
    }
    tend(core, key, "finalize", remove_finalizer).await
}

/// Whether others hold a namespace too.
fn stays(namespace: &Value) -> bool {
    let list = |pointer: &str| namespace.pointer(pointer).and_then(Value::as_array);
    list("/metadata/finalizers").is_some_and(|list| !list.is_empty())
        || list("/spec/finalizers").is_some_and(|list| list.iter().any(|finalizer| finalizer != KUBERNETES))
}

fn remove_finalizer(namespace: &mut Value) -> bool {
    let Some(list) = namespace.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|finalizer| finalizer != KUBERNETES);
    let (empty, changed) = (list.is_empty(), list.len() != before);
    if empty && let Some(namespace) = namespace.as_object_mut() {
        namespace.insert("spec".to_owned(), json!({}));
    }
    changed
}

/// What is left in a namespace, and what holds it there.
#[derive(Debug, Default)]
struct Remaining {
    /// How many objects of each resource, as `configmaps.` or `leases.coordination.k8s.io`.
    resources: BTreeMap<String, usize>,
    /// How many objects wait for each finalizer.
    finalizers: BTreeMap<String, usize>,
    pods: bool,
}

impl Remaining {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && !self.pods
    }

    fn add(&mut self, resource: &str, object: &Value) {
        // Events are served in two groups, and counted in both.
        let names = match resource {
            "events" => vec!["events.".to_owned(), "events.events.k8s.io".to_owned()],
            core if !core.contains('.') => vec![format!("{core}.")],
            other => vec![other.to_owned()],
        };
        let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
        for name in names {
            *self.resources.entry(name).or_default() += 1;
            for finalizer in finalizers.into_iter().flatten().filter_map(Value::as_str) {
                *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
            }
        }
    }

    /// Puts it into the status of the namespace; false if it stood there.
    fn tell(&self, namespace: &mut Value, now: &str) -> bool {
        let Some(status) = namespace.get_mut("status") else {
            return false;
        };
        let before = status.clone();
        let mut set = |kind: &str, fine: (&str, &str), problem: Option<(&str, String)>| {
            let (state, reason, message) = match &problem {
                Some((reason, message)) => ("True", *reason, message.as_str()),
                None => ("False", fine.0, fine.1),
            };
            crate::registry::custom::set_condition(status, kind, state, reason, message, now);
        };
        let listed = |counts: &BTreeMap<String, usize>, word: &str| {
            // Sorted as texts are, counts included.
            let mut texts: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("{name} {word} {count} resource instances"))
                .collect();
            texts.sort();
            texts.join(", ")
        };
        set(
            "NamespaceDeletionDiscoveryFailure",
            ("ResourcesDiscovered", "All resources successfully discovered"),
            None,
        );
        set(
            "NamespaceDeletionGroupVersionParsingFailure",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            None,
        );
        set(
            "NamespaceDeletionContentFailure",
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            None,
        );
        set(
            "NamespaceContentRemaining",
            ("ContentRemoved", "All content successfully removed"),
            (!self.resources.is_empty()).then(|| {
                let resources = listed(&self.resources, "has");
                (
                    "SomeResourcesRemain",
                    format!("Some resources are remaining: {resources}"),
                )
            }),
        );
        set(
            "NamespaceFinalizersRemaining",
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            (!self.finalizers.is_empty()).then(|| {
                let finalizers = listed(&self.finalizers, "in");
                let message = format!("Some content in the namespace has finalizers remaining: {finalizers}");
                ("SomeFinalizersRemain", message)
            }),
        );
        before != *status
    }
}

/// Deletes the objects of a definition; when none is left, lets the definition go.
pub(super) async fn definition(core: &Arc<Core>, key: &Key) -> Result<(), WriteError> {
    let resource = &key.object.name;
    let now = now_text(jiff::Timestamp::now());
    rewrite(core, key, |definition| {
        let before = definition.get("status").cloned();
        if let Some(status) = definition.get_mut("status").filter(|status| status.is_object()) {
            let message = "CustomResource deletion is in progress";
            crate::registry::custom::set_condition(
                status,
                "Terminating",
                "True",
                "InstanceDeletionInProgress",
                message,
                &now,
            );
        }
        before.as_ref() != definition.get("status")
    })
    .await?;
    delete_all(core, resource, None, &DeleteOptions::default()).await?;
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

async fn delete_all(
    core: &Arc<Core>,
    resource: &Arc<str>,
    namespace: Option<&str>,
    options: &DeleteOptions,
) -> Result<(), WriteError> {
    let objects = core.store.list_all(resource, namespace);
    let deletions = objects
        .into_iter()
        .filter(|(_, stored)| !stored.deleting())
        .map(|(object, _)| {
            let key = Key {
                resource: Arc::clone(resource),
                object,
            };
            async move { delete_key(core, &key, options).await }
        });
    // In groups, so that with a file they share its transactions.
    let results: Vec<Result<(), WriteError>> = futures::StreamExt::collect(futures::StreamExt::buffer_unordered(
        futures::stream::iter(deletions),
        64,
    ))
    .await;
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_counted_by_resource_and_by_finalizer() {
        let mut remaining = Remaining::default();
        let held = |names: &[&str]| json!({ "metadata": { "finalizers": names } });
        remaining.add("configmaps", &held(&["a/b"]));
        remaining.add("configmaps", &held(&["a/b", "c/d"]));
        remaining.add("leases.coordination.k8s.io", &held(&[]));
        let mut namespace = json!({ "status": { "phase": "Terminating" } });
        assert!(remaining.tell(&mut namespace, "2020-01-02T03:04:05Z"));
        assert!(
            !remaining.tell(&mut namespace, "2021-01-02T03:04:05Z"),
            "nothing changed"
        );
        let conditions = namespace["status"]["conditions"].as_array().unwrap().clone();
        let messages: Vec<&str> = conditions
            .iter()
            .map(|condition| condition["message"].as_str().unwrap())
            .collect();
        assert_eq!(
            messages[3..],
            [
                "Some resources are remaining: configmaps. has 2 resource instances, \
                 leases.coordination.k8s.io has 1 resource instances",
                "Some content in the namespace has finalizers remaining: a/b in 2 resource instances, \
                 c/d in 1 resource instances",
            ]
        );
        assert!(Remaining::default().tell(&mut namespace, "2021-01-02T03:04:05Z"));
        assert_eq!(namespace["status"]["conditions"][3]["status"], "False");
    }

    #[test]
    fn only_the_finalizer_for_the_content_is_taken_away() {
        let mut namespace = json!({ "spec": { "finalizers": ["example.com/own", "kubernetes"] } });
        assert!(stays(&namespace));
        assert!(remove_finalizer(&mut namespace));
        assert_eq!(namespace["spec"], json!({ "finalizers": ["example.com/own"] }));
        assert!(!remove_finalizer(&mut namespace));
        let mut namespace = json!({ "spec": { "finalizers": ["kubernetes"] } });
        assert!(!stays(&namespace));
        assert!(remove_finalizer(&mut namespace));
        assert_eq!(namespace["spec"], json!({}));
    }
}
