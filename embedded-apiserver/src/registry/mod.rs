//! The resources that are served at this moment: the built-in ones and those of established custom resource definitions.
//!
//! Readers take a snapshot and work with it; a change of the definitions makes a new snapshot.

mod builtin;
mod conversion;
pub mod custom;
mod definition;
pub mod validation;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

pub use builtin::is_built_in_kind;
pub use definition::{Behaviour, Resource, ScalePaths, Version};

use crate::storage::{Store, Stored};

/// Under which name objects are stored: `PLURAL` or `PLURAL.GROUP`.
pub fn storage_name(group: &str, plural: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

/// The name under which custom resource definitions are stored.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// The order of the built-in groups in discovery (kube-apiserver's priorities of API services).
const GROUP_ORDER: [&str; 18] = [
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
];

/// The resources at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// All of them, the built-in ones first, custom ones by group and name.
    pub resources: Vec<Arc<Resource>>,
    by_name: HashMap<(String, String), Arc<Resource>>,
}

impl Snapshot {
    fn new(resources: Vec<Arc<Resource>>) -> Self {
        let by_name = resources
            .iter()
            .map(|resource| ((resource.group.clone(), resource.plural.clone()), Arc::clone(resource)))
            .collect();
        Self { resources, by_name }
    }

    /// A resource by group and plural name.
    pub fn find(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(&(group.to_owned(), plural.to_owned()))
    }

    /// The resource whose objects are stored under this name.
    pub fn by_storage(&self, storage: &str) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|resource| resource.storage.as_ref() == storage)
    }

    /// A resource by group and kind.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|resource| resource.group == group && resource.kind == kind)
    }

    /// Whether the group is one of the server's own.
    pub fn is_built_in(&self, group: &str) -> bool {
        self.resources
            .iter()
            .any(|resource| resource.group == group && resource.custom.is_none())
    }

    /// Whether the group has the version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.resources
            .iter()
            .any(|resource| resource.group == group && resource.served(version).is_some())
    }

    /// The groups in the order of discovery, each with its served versions by preference.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.resources {
            let at = match groups.iter().position(|(group, _)| *group == resource.group) {
                Some(at) => at,
                None => {
                    groups.push((resource.group.clone(), Vec::new()));
                    groups.len() - 1
                }
            };
            if let Some((_, versions)) = groups.get_mut(at) {
                for version in resource.versions.iter().filter(|version| version.served) {
                    if !versions.contains(&version.name) {
                        versions.push(version.name.clone());
                    }
                }
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(custom::version_priority(version)));
        }
        groups.retain(|(_, versions)| !versions.is_empty());
        // Stable: custom groups keep their order, after all others.
        groups.sort_by_key(|(group, _)| {
            let place = GROUP_ORDER.iter().position(|known| known == group);
            place.unwrap_or(GROUP_ORDER.len())
        });
        groups
    }
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    snapshot: RwLock<Arc<Snapshot>>,
    /// Reloads are one at a time, or an older one could win.
    reloading: parking_lot::Mutex<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// With the built-in resources alone.
    pub fn new() -> Self {
        let resources = builtin::resources().into_iter().map(Arc::new).collect();
        Self {
            snapshot: RwLock::new(Arc::new(Snapshot::new(resources))),
            reloading: parking_lot::Mutex::new(()),
        }
    }

    /// The resources now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read())
    }

    /// Reads the definitions again; what did not change is kept, with its compiled schemas.
    pub fn reload(&self, store: &Store) {
        let _one_at_a_time = self.reloading.lock();
        let old = self.snapshot();
        let mut resources: Vec<_> = old
            .resources
            .iter()
            .filter(|resource| resource.custom.is_none())
            .cloned()
            .collect();
        let definitions = store.list_all(DEFINITIONS, None);
        let mut custom = Vec::new();
        for (_, stored) in definitions {
            let Ok(definition) = stored.value() else { continue };
            if !custom::is_established(&definition) {
                continue;
            }
            let same = old.resources.iter().find(|resource| {
                resource
                    .custom
                    .as_ref()
                    .is_some_and(|origin| custom::is_origin(&definition, origin))
            });
            let resource = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(custom::resource(
                    &definition,
                    changed_at(&old, &definition, &stored, store),
                )),
            };
            custom.push(resource);
        }
        custom.sort_by(|left, right| (&left.group, &left.plural).cmp(&(&right.group, &right.plural)));
        resources.extend(custom);
        *self.snapshot.write() = Arc::new(Snapshot::new(resources));
        // Watches of resources that are gone or changed find out now, not at their next event.
        let now = self.snapshot();
        for resource in old.resources.iter().filter(|resource| resource.custom.is_some()) {
            let same = now
                .find(&resource.group, &resource.plural)
                .is_some_and(|now| Arc::ptr_eq(now, resource));
            if !same {
                store.wake(&resource.storage);
            }
        }
    }
}

/// Up to which revision objects were written under another definition than this one.
fn changed_at(old: &Snapshot, definition: &Value, stored: &Stored, store: &Store) -> u64 {
    let uid = text(definition, "/metadata/uid");
    let replaced = old
        .resources
        .iter()
        .filter_map(|resource| resource.custom.as_ref())
        .any(|origin| origin.uid == uid);
    // Until this moment, objects were written under the old one; after a start, only the definition's own write counts.
    if replaced { store.revision() } else { stored.revision }
}

/// Text at a path, or the empty text.
pub(crate) fn text<'value>(value: &'value Value, pointer: &str) -> &'value str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
