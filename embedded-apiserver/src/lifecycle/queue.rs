//! The queue of looks: no repetitions, so it is never longer than there are objects.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::storage::{Event, EventKind, Key};

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// An object that is being deleted or has owners.
    Object(Key),
    /// The dependents of an owner that is gone.
    OwnerGone(u128),
    /// An owner that lost a dependent, and may have waited for that.
    DependentGone(u128),
    /// Cluster roles, of which some take their rules from others.
    ClusterRoles,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: IndexSet<Work>,
    /// Namespaces and definitions that wait for their content to go, and so for every deletion in them.
    emptying: HashSet<Key>,
}

impl Queue {
    /// Adds work, unless it waits already.
    pub fn push(&self, work: Work) {
        if self.inner.lock().waiting.insert(work) {
            self.wake.notify_one();
        }
    }

    /// The next work; waits for it.
    pub async fn pop(&self) -> Work {
        loop {
            if let Some(work) = self.inner.lock().waiting.shift_remove_index(0) {
                return work;
            }
            self.wake.notified().await;
        }
    }

    /// Takes in a write.
    pub fn observe(&self, event: &Arc<Event>) {
        let key = &event.key;
        let object = &event.object;
        if key.resource.as_ref() == crate::access::CLUSTER_ROLES {
            self.push(Work::ClusterRoles);
        }
        if event.kind == EventKind::Deleted {
            let mut inner = self.inner.lock();
            inner.emptying.remove(key);
            inner.waiting.insert(Work::OwnerGone(object.uid()));
            let waiters: Vec<Key> = inner
                .emptying
                .iter()
                .filter(|waiter| match waiter.resource.as_ref() {
                    "namespaces" => waiter.object.name == key.object.namespace,
                    _ => waiter.object.name == key.resource,
                })
                .cloned()
                .collect();
            inner.waiting.extend(waiters.into_iter().map(Work::Object));
            for owner in object.owners() {
                inner.waiting.insert(Work::DependentGone(*owner));
            }
            drop(inner);
            self.wake.notify_one();
            return;
        }
        if object.deleting() && matches!(key.resource.as_ref(), "namespaces" | crate::registry::DEFINITIONS) {
            self.inner.lock().emptying.insert(key.clone());
        }
        let new_owners = object.owned()
            && event
                .previous
                .as_ref()
                .is_none_or(|previous| !previous.has_owners_of(object));
        if object.deleting() || new_owners {
            self.push(Work::Object(key.clone()));
        }
    }
}
