//! The objects of one kind as the API server has them, as far as we know: the state
//! at the revision that the watch has reached, overlaid with our own newer writes.
//!
//! Every answer to an own write and every watch event may come in any order relative
//! to the other; the table keeps what is newer. Three rules make that exact:
//!
//! 1. An own answer not newer than the watch has nothing to say: the watch has told
//!    it already, or has told that the object is gone.
//! 2. A list at revision L replaces everything except own writes newer than L.
//! 3. An object that our own write removed stays removed until the watch says so too:
//!    a UID never comes back.
//!
//! Not for: locking and routing (the module above), or what objects mean.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use fnv::{FnvBuildHasher, FnvHashMap};

use crate::names::Name;

/// A kind that can be kept in a [`Table`].
pub trait Stored: kube::Resource + Clone + Send + Sync + 'static {
    /// The secondary keys under which [`Table::find`] finds the object.
    fn index_keys(&self, keys: &mut Vec<IndexKey>);

    /// Drops what nobody here reads, before the object is kept. The default drops
    /// managed fields and the annotation of `kubectl apply`.
    fn trim(&mut self) {
        trim_metadata(self.meta_mut());
    }
}

/// Drops managed fields and the annotation of `kubectl apply`, the two largest things
/// that no reconciler reads.
pub fn trim_metadata(meta: &mut kube::core::ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
    if meta.labels.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
        meta.labels = None;
    }
    // Parsers leave room for four of each; here none is added.
    if let Some(owners) = &mut meta.owner_references {
        owners.shrink_to_fit();
    }
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.shrink_to_fit();
    }
}

/// A secondary key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IndexKey {
    /// Objects whose controller has this UID.
    Controller(Arc<str>),
    /// Objects without a controller that belong to the cluster (namespace, name).
    Orphan(Name),
    /// Objects that belong to the cluster (namespace, name).
    Cluster(Name),
    /// Objects that use the provider of this name.
    Provider(Arc<str>),
}

/// What an event did to the table.
#[derive(Debug)]
pub struct Change<K> {
    /// Which object.
    pub name: Name,
    /// What was known before.
    pub old: Option<Arc<K>>,
    /// What is known now; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    uid: Arc<str>,
    version: u64,
    /// The revision at which this process saw the object come into being.
    born: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Table<K> {
    objects: HashMap<Name, Entry<K>, FnvBuildHasher>,
    by_uid: FnvHashMap<Arc<str>, Name>,
    secondary: FnvHashMap<IndexKey, BTreeSet<Name>>,
    /// Removed by our own write, not yet by the watch. As many as deletions are under way.
    removed: HashSet<Arc<str>, FnvBuildHasher>,
    /// The revision that the watch has reached; 0 before the first list.
    watched: u64,
}

/// A list that is older than what is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleList {
    /// The revision of the list.
    pub listed: u64,
    /// The revision that the watch had reached before.
    pub watched: u64,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            objects: HashMap::default(),
            by_uid: FnvHashMap::default(),
            secondary: FnvHashMap::default(),
            removed: HashSet::default(),
            watched: 0,
        }
    }
}

/// The revision of an object; 0 when it has none that is a number.
pub fn version_of<K: kube::Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

fn uid_of<K: kube::Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// Whether the API server has removed the object with the write that returned it: it
/// was being deleted and the last finalizer went.
fn is_removed<K: kube::Resource>(object: &K) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or_default() == 0
}

impl<K: Stored> Table<K> {
    /// The object of this name.
    pub fn get(&self, name: &Name) -> Option<Arc<K>> {
        self.objects.get(name).map(|entry| Arc::clone(&entry.object))
    }

    /// The object with this UID.
    pub fn get_by_uid(&self, uid: &str) -> Option<Arc<K>> {
        self.by_uid.get(uid).and_then(|name| self.get(name))
    }

    /// The objects under a secondary key, in the order of their names.
    pub fn find(&self, key: &IndexKey) -> Vec<Arc<K>> {
        self.secondary
            .get(key)
            .into_iter()
            .flatten()
            .filter_map(|name| self.get(name))
            .collect()
    }

    /// The names under a secondary key, in order.
    pub fn find_names(&self, key: &IndexKey) -> Vec<Name> {
        self.secondary.get(key).into_iter().flatten().cloned().collect()
    }

    /// How many objects are under a secondary key.
    pub fn count(&self, key: &IndexKey) -> usize {
        self.secondary.get(key).map_or(0, BTreeSet::len)
    }

    /// Every name, in no order.
    pub fn names(&self) -> Vec<Name> {
        self.objects.keys().cloned().collect()
    }

    /// Every object, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values().map(|entry| &entry.object)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The revision at which this process saw the object come into being, if it did.
    pub fn born(&self, name: &Name) -> Option<u64> {
        self.objects.get(name).and_then(|entry| entry.born)
    }

    /// The revision that the watch has reached; 0 before the first list.
    pub fn watched(&self) -> u64 {
        self.watched
    }

    /// A watch event ADDED or MODIFIED. `added` says that it was ADDED by the live
    /// watch, so that the object's birth was witnessed.
    pub fn observe(&mut self, object: K, added: bool) -> Option<Change<K>> {
        let version = version_of(&object);
        self.watched = self.watched.max(version);
        self.put(object, version, added.then_some(version))
    }

    /// A watch event DELETED, with the object as it was.
    pub fn observe_deleted(&mut self, object: &K) -> Option<Change<K>> {
        let version = version_of(object);
        self.watched = self.watched.max(version);
        self.removed.remove(uid_of(object));
        let name = Name::of(object);
        // Another object of that name may be there already, by our own create.
        if self
            .objects
            .get(&name)
            .is_some_and(|entry| &*entry.uid == uid_of(object))
        {
            self.take(&name)
        } else {
            None
        }
    }

    /// A bookmark: the watch has reached this revision.
    pub fn observe_bookmark(&mut self, version: u64) {
        self.watched = self.watched.max(version);
    }

    /// A complete list at revision `listed`. Everything unlisted is gone, unless our
    /// own write after the list put it there.
    pub fn replace(&mut self, objects: Vec<K>, listed: u64) -> Result<Vec<Change<K>>, StaleList> {
        if listed < self.watched {
            return Err(StaleList {
                listed,
                watched: self.watched,
            });
        }
        self.watched = listed;
        let mut changes = Vec::new();
        let uids: HashSet<&str> = objects.iter().map(uid_of).collect();
        self.removed.retain(|uid| uids.contains(&**uid));
        let gone: Vec<Name> = self
            .objects
            .iter()
            .filter(|(_, entry)| entry.version <= listed && !uids.contains(&*entry.uid))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            changes.extend(self.take(&name));
        }
        for object in objects {
            let version = version_of(&object);
            changes.extend(self.put(object, version, None));
        }
        Ok(changes)
    }

    /// Forgets the revision of the watch, so that the next list is taken whatever its
    /// revision: the API server's storage was put back to an older state.
    pub fn accept_any_list(&mut self) {
        self.watched = 0;
        for entry in self.objects.values_mut() {
            entry.version = 0;
        }
    }

    /// The API server's answer to our own write. `created` says that the write was a
    /// create, so that the object's birth was witnessed.
    pub fn apply_own(&mut self, object: K, created: bool) -> Option<Change<K>> {
        let version = version_of(&object);
        if is_removed(&object) {
            return self.remove_own(&Name::of(&object), uid_of(&object));
        }
        if version <= self.watched {
            return None;
        }
        self.put(object, version, created.then_some(version))
    }

    /// Our own write has removed the object with this UID for good.
    pub fn remove_own(&mut self, name: &Name, uid: &str) -> Option<Change<K>> {
        let entry = self.objects.get(name)?;
        if &*entry.uid != uid {
            return None;
        }
        self.removed.insert(Arc::clone(&entry.uid));
        self.take(name)
    }

    fn put(&mut self, mut object: K, version: u64, born: Option<u64>) -> Option<Change<K>> {
        if self.removed.contains(uid_of(&object)) {
            return None;
        }
        let name = Name::of(&object);
        let mut born = born;
        if let Some(known) = self.objects.get(&name) {
            if known.version >= version {
                return None;
            }
            if &*known.uid == uid_of(&object) {
                born = born.or(known.born);
            }
        }
        object.trim();
        let old = self.take(&name).and_then(|change| change.old);
        let uid: Arc<str> = uid_of(&object).into();
        let object = Arc::new(object);
        let mut keys = Vec::new();
        object.index_keys(&mut keys);
        for key in keys {
            self.secondary.entry(key).or_default().insert(name.clone());
        }
        self.by_uid.insert(Arc::clone(&uid), name.clone());
        self.objects.insert(
            name.clone(),
            Entry {
                object: Arc::clone(&object),
                uid,
                version,
                born,
            },
        );
        Some(Change {
            name,
            old,
            new: Some(object),
        })
    }

    fn take(&mut self, name: &Name) -> Option<Change<K>> {
        let entry = self.objects.remove(name)?;
        self.by_uid.remove(&entry.uid);
        let mut keys = Vec::new();
        entry.object.index_keys(&mut keys);
        for key in keys {
            if let Some(names) = self.secondary.get_mut(&key) {
                names.remove(name);
                if names.is_empty() {
                    self.secondary.remove(&key);
                }
            }
        }
        Some(Change {
            name: name.clone(),
            old: Some(entry.object),
            new: None,
        })
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
