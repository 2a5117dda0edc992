//! The store's state and its rules, without locks, threads or files.
//!
//! A write is first judged against the state and what is about to be written (`prepare`), then published as a whole.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Change, Events, Expect, Guard, Key, RevisionError, Snapshot, Stored, Write, WriteError};

/// Namespace (empty for cluster scope) and name, in list order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// The namespace; empty for cluster scope.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// From texts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl Ord for ObjectName {
    /// By `NAMESPACE/NAME` as one text, as the keys of etcd are: `a-b/c` comes before `a/c`.
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right) = (self.namespace.as_bytes(), other.namespace.as_bytes());
        let shared = left.len().min(right.len());
        left[..shared]
            .cmp(&right[..shared])
            .then_with(|| match (left.get(shared), right.get(shared)) {
                (None, None) => self.name.cmp(&other.name),
                (None, Some(next)) => b'/'.cmp(next).then(Ordering::Less),
                (Some(next), _) => next.cmp(&b'/').then(Ordering::Greater),
            })
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where a list begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this object.
    At(ObjectName),
    /// After this object.
    After(ObjectName),
}

impl Start {
    fn includes(&self, name: &ObjectName) -> bool {
        match self {
            Self::At(start) => name >= start,
            Self::After(start) => name > start,
        }
    }
}

/// How much of the past is kept per resource.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    /// The number of events.
    pub events: usize,
    /// Their size in bytes.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            events: 20_000,
            bytes: 32 << 20,
        }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It was removed.
    Deleted,
}

/// A write that happened.
#[derive(Debug)]
pub struct Event {
    /// Which object.
    pub key: Key,
    /// What happened.
    pub kind: EventKind,
    /// The object after it; its last state, with the revision of the deletion, when it was deleted.
    pub object: Arc<Stored>,
    /// The object before it.
    pub previous: Option<Arc<Stored>>,
}

impl Event {
    /// The revision of the write.
    pub fn revision(&self) -> u64 {
        self.object.revision
    }

    fn weight(&self) -> usize {
        // The object is shared with the state while it is current, so this overestimates, which is the safe side.
        self.object.weight() + 128
    }
}

/// Writes that were judged but not published yet.
#[derive(Default)]
pub(super) struct Overlay {
    events: Vec<Arc<Event>>,
    latest: HashMap<Key, Option<Arc<Stored>>>,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn events(&self) -> &[Arc<Event>] {
        &self.events
    }
}

struct Collection {
    objects: BTreeMap<ObjectName, Arc<Stored>>,
    history: VecDeque<Arc<Event>>,
    history_bytes: usize,
    /// Every event after this revision is in the history.
    oldest: u64,
    wake: watch::Sender<u64>,
}

impl Collection {
    fn new(oldest: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            oldest,
            wake: watch::Sender::new(oldest),
        }
    }

    fn record(&mut self, event: Arc<Event>, limits: HistoryLimits) {
        self.history_bytes += event.weight();
        self.history.push_back(event);
        while self.history.len() > limits.events || self.history_bytes > limits.bytes {
            // The newest event always stays, or a single large object would expire every watch.
            if self.history.len() == 1 {
                break;
            }
            let Some(dropped) = self.history.pop_front() else { break };
            self.history_bytes -= dropped.weight();
            self.oldest = dropped.revision();
        }
    }

    fn after(&self, revision: u64) -> impl Iterator<Item = &Arc<Event>> {
        let from = self.history.partition_point(|event| event.revision() <= revision);
        self.history.range(from..)
    }
}

pub(super) struct State {
    revision: u64,
    /// The revision at which the history of all resources begins.
    start: u64,
    limits: HistoryLimits,
    collections: HashMap<Arc<str>, Collection>,
    uids: HashMap<u128, Key>,
    dependents: HashMap<u128, BTreeSet<Key>>,
}

impl State {
    pub(super) fn new(limits: HistoryLimits) -> Self {
        // Clients read resourceVersion "0" as "any". 1 comes before everything: it has expired, as in a real cluster
        // that has compacted its history.
        Self::loaded(limits, 2, [])
    }

    /// A state with these objects and no history.
    pub(super) fn loaded(
        limits: HistoryLimits,
        revision: u64,
        objects: impl IntoIterator<Item = (Key, Arc<Stored>)>,
    ) -> Self {
        let mut state = Self {
            revision,
            start: revision,
            limits,
            collections: HashMap::new(),
            uids: HashMap::new(),
            dependents: HashMap::new(),
        };
        for (key, stored) in objects {
            state.index(&key, None, Some(&stored));
            state.collection(&key.resource).objects.insert(key.object, stored);
        }
        state
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.collections.get(&key.resource)?.objects.get(&key.object).cloned()
    }

    /// Judges a write; if it may happen, adds it to the overlay and answers the object as it will be.
    pub(super) fn prepare(&self, write: Write, overlay: &mut Overlay) -> Result<Arc<Stored>, WriteError> {
        let current = match overlay.latest.get(&write.key) {
            Some(pending) => pending.clone(),
            None => self.get(&write.key),
        };
        match (write.expect, &current) {
            (Expect::Absent, Some(stored)) => return Err(WriteError::Exists(Arc::clone(stored))),
            (Expect::Revision(_), None) => return Err(WriteError::NotFound),
            (Expect::Revision(expected), Some(stored)) if stored.revision != expected => {
                return Err(WriteError::Conflict(Arc::clone(stored)));
            }
            _ => {}
        }
        if !write.guards.iter().all(|guard| self.holds(guard, overlay)) {
            return Err(WriteError::Guard);
        }
        let revision = overlay.events.last().map_or(self.revision, |event| event.revision()) + 1;
        let (kind, encoded) = match (write.change, &current) {
            (Change::Put(encoded), None) => (EventKind::Added, encoded),
            (Change::Put(encoded), Some(_)) => (EventKind::Modified, encoded),
            (Change::Delete(_), None) => return Err(WriteError::NotFound),
            (Change::Delete(encoded), Some(_)) => (EventKind::Deleted, encoded),
        };
        let object = Arc::new(encoded.finish(revision));
        let latest = (kind != EventKind::Deleted).then(|| Arc::clone(&object));
        overlay.latest.insert(write.key.clone(), latest);
        overlay.events.push(Arc::new(Event {
            key: write.key,
            kind,
            object: Arc::clone(&object),
            previous: current,
        }));
        Ok(object)
    }

    fn holds(&self, guard: &Guard, overlay: &Overlay) -> bool {
        match guard {
            Guard::Live(key) => match overlay.latest.get(key) {
                Some(pending) => pending.as_ref().is_some_and(|stored| !stored.deleting()),
                None => self.get(key).is_some_and(|stored| !stored.deleting()),
            },
            Guard::NamespaceEmpty(namespace) => {
                let pending = |key: &Key| key.object.namespace.as_ref() == namespace;
                if overlay
                    .latest
                    .iter()
                    .any(|(key, stored)| stored.is_some() && pending(key))
                {
                    return false;
                }
                self.collections.iter().all(|(resource, collection)| {
                    range_of(&collection.objects, Some(namespace), None).all(|(object, _)| {
                        let key = Key {
                            resource: Arc::clone(resource),
                            object: object.clone(),
                        };
                        matches!(overlay.latest.get(&key), Some(None))
                    })
                })
            }
            Guard::ResourceEmpty(resource) => {
                if overlay
                    .latest
                    .iter()
                    .any(|(key, stored)| stored.is_some() && key.resource == *resource)
                {
                    return false;
                }
                self.collections.get(resource).is_none_or(|collection| {
                    collection.objects.keys().all(|object| {
                        let key = Key {
                            resource: Arc::clone(resource),
                            object: object.clone(),
                        };
                        matches!(overlay.latest.get(&key), Some(None))
                    })
                })
            }
        }
    }

    /// Makes prepared writes visible, in order.
    pub(super) fn publish(&mut self, overlay: Overlay) -> Vec<Arc<Event>> {
        for event in &overlay.events {
            self.revision = event.revision();
            let after = (event.kind != EventKind::Deleted).then_some(&event.object);
            self.index(&event.key, event.previous.as_ref(), after);
            let limits = self.limits;
            let collection = self.collection(&event.key.resource);
            match after {
                Some(object) => collection.objects.insert(event.key.object.clone(), Arc::clone(object)),
                None => collection.objects.remove(&event.key.object),
            };
            collection.record(Arc::clone(event), limits);
        }
        let touched: BTreeSet<&Arc<str>> = overlay.events.iter().map(|event| &event.key.resource).collect();
        for resource in touched {
            if let Some(collection) = self.collections.get(resource) {
                collection.wake.send_replace(self.revision);
            }
        }
        overlay.events
    }

    fn collection(&mut self, resource: &Arc<str>) -> &mut Collection {
        let start = self.start;
        self.collections
            .entry(Arc::clone(resource))
            .or_insert_with(|| Collection::new(start))
    }

    fn index(&mut self, key: &Key, before: Option<&Arc<Stored>>, after: Option<&Arc<Stored>>) {
        if before.map(|stored| stored.uid()) != after.map(|stored| stored.uid()) {
            if let Some(before) = before {
                self.uids.remove(&before.uid());
            }
            if let Some(after) = after {
                self.uids.insert(after.uid(), key.clone());
            }
        }
        let owners_before = before.map(|stored| stored.owners()).unwrap_or_default();
        let owners_after = after.map(|stored| stored.owners()).unwrap_or_default();
        if owners_before == owners_after {
            return;
        }
        for owner in owners_before {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        for owner in owners_after {
            self.dependents.entry(*owner).or_default().insert(key.clone());
        }
    }

    pub(super) fn key_of(&self, uid: u128) -> Option<Key> {
        self.uids.get(&uid).cloned()
    }

    pub(super) fn dependents(&self, uid: u128) -> Vec<Key> {
        self.dependents.get(&uid).into_iter().flatten().cloned().collect()
    }

    pub(super) fn unfinished(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for (resource, collection) in &self.collections {
            for (object, stored) in &collection.objects {
                if stored.owned() || stored.deleting() {
                    keys.push(Key {
                        resource: Arc::clone(resource),
                        object: object.clone(),
                    });
                }
            }
        }
        keys
    }

    pub(super) fn count(&self, resource: &str) -> usize {
        self.collections
            .get(resource)
            .map_or(0, |collection| collection.objects.len())
    }

    pub(super) fn resources_in_namespace(&self, namespace: &str) -> Vec<Arc<str>> {
        let mut resources: Vec<_> = self
            .collections
            .iter()
            .filter(|(_, collection)| range_of(&collection.objects, Some(namespace), None).next().is_some())
            .map(|(resource, _)| Arc::clone(resource))
            .collect();
        resources.sort();
        resources
    }

    fn oldest(&self, resource: &str) -> u64 {
        self.collections
            .get(resource)
            .map_or(self.start, |collection| collection.oldest)
    }

    fn check(&self, resource: &str, requested: u64) -> Result<(), RevisionError> {
        let oldest = self.oldest(resource);
        if requested > self.revision {
            Err(RevisionError::Future {
                requested,
                current: self.revision,
            })
        } else if requested < oldest {
            Err(RevisionError::Expired { requested, oldest })
        } else {
            Ok(())
        }
    }

    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        start: Option<&Start>,
        at: Option<u64>,
        limit: usize,
    ) -> Result<Snapshot, RevisionError> {
        let revision = at.unwrap_or(self.revision);
        self.check(resource, revision)?;
        let Some(collection) = self.collections.get(resource) else {
            return Ok(Snapshot {
                revision,
                objects: Vec::new(),
                remaining: 0,
            });
        };
        // What the objects changed since then were at that time: the state before the first later event of each.
        let mut undone: BTreeMap<&ObjectName, Option<&Arc<Stored>>> = BTreeMap::new();
        for event in collection.after(revision) {
            undone.entry(&event.key.object).or_insert(event.previous.as_ref());
        }
        let mut present = range_of(&collection.objects, namespace, start);
        let owned = |(name, stored): (&ObjectName, &Arc<Stored>)| (name.clone(), Arc::clone(stored));
        if undone.is_empty() {
            let objects = present.by_ref().take(limit).map(owned).collect();
            return Ok(Snapshot {
                revision,
                objects,
                remaining: present.count(),
            });
        }
        let mut objects: BTreeMap<&ObjectName, &Arc<Stored>> = present.collect();
        for (name, before) in undone {
            let inside = namespace.is_none_or(|namespace| name.namespace.as_ref() == namespace)
                && start.is_none_or(|start| start.includes(name));
            match before {
                Some(stored) if inside => objects.insert(name, stored),
                _ => objects.remove(name),
            };
        }
        let remaining = objects.len().saturating_sub(limit);
        let objects = objects.into_iter().take(limit).map(owned).collect();
        Ok(Snapshot {
            revision,
            objects,
            remaining,
        })
    }

    pub(super) fn events_after(&self, resource: &str, revision: u64, limit: usize) -> Result<Events, RevisionError> {
        self.check(resource, revision)?;
        let Some(collection) = self.collections.get(resource) else {
            return Ok(Events {
                events: Vec::new(),
                revision: self.revision,
            });
        };
        let events: Vec<_> = collection.after(revision).take(limit).cloned().collect();
        let revision = match events.last() {
            Some(last) if events.len() == limit => last.revision(),
            _ => self.revision,
        };
        Ok(Events { events, revision })
    }

    pub(super) fn wake(&self, resource: &str) {
        if let Some(collection) = self.collections.get(resource) {
            collection.wake.send_replace(self.revision);
        }
    }

    pub(super) fn subscribe(&self, resource: &str) -> Option<watch::Receiver<u64>> {
        self.collections
            .get(resource)
            .map(|collection| collection.wake.subscribe())
    }

    pub(super) fn subscribe_new(&mut self, resource: &Arc<str>) -> watch::Receiver<u64> {
        self.collection(resource).wake.subscribe()
    }
}

fn range_of<'state>(
    objects: &'state BTreeMap<ObjectName, Arc<Stored>>,
    namespace: Option<&str>,
    start: Option<&Start>,
) -> impl Iterator<Item = (&'state ObjectName, &'state Arc<Stored>)> {
    let from = match (start, namespace) {
        (Some(Start::After(start)), _) => Bound::Excluded(start.clone()),
        (Some(Start::At(start)), _) => Bound::Included(start.clone()),
        (None, Some(namespace)) => Bound::Included(ObjectName::new(namespace, "")),
        (None, None) => Bound::Unbounded,
    };
    let namespace: Option<Arc<str>> = namespace.map(Into::into);
    objects
        .range((from, Bound::Unbounded))
        .take_while(move |(name, _)| namespace.as_ref().is_none_or(|namespace| name.namespace == *namespace))
}
