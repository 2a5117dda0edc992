//! Who has to look when an object changed: the object itself, and those who decide on
//! what it says.
//!
//! Not for: deciding whether anything follows from the change.

use std::sync::Arc;
use std::time::Duration;

use outrigger_api::{Cluster, Machine, MachineDeployment, MachineSet, Provider, reference};

use crate::index::{Change, Index, IndexKey, Reconciled};
use crate::memory::Memory;
use crate::names::{Key, Kind, Name};
use crate::queue::WorkQueue;

/// How long an owner waits for more of its children to move before it counts again:
/// the more there are, the longer, so that counting never takes most of the time.
fn count_delay(children: usize) -> Duration {
    Duration::from_micros((children as u64).saturating_mul(100))
        .clamp(Duration::from_millis(5), Duration::from_millis(300))
}

/// How long a cluster waits after the number of its members has changed.
const COUNT_DELAY: Duration = Duration::from_millis(100);
/// The same for a cluster, which only shows the counts.
const CLUSTER_COUNT_DELAY: Duration = Duration::from_millis(500);

/// Puts keys in the queue.
#[derive(Debug, Clone)]
pub struct Router {
    index: Arc<Index>,
    queue: WorkQueue<Key>,
    memory: Arc<Memory>,
}

/// A kind whose changes are routed.
pub trait Routed: Sized {
    /// Queues everybody who has to look.
    fn route(change: &Change<Self>, router: &Router);
}

impl Router {
    /// A router over the index into the queue; what is gone is forgotten.
    pub fn new(index: Arc<Index>, queue: WorkQueue<Key>, memory: Arc<Memory>) -> Self {
        Self { index, queue, memory }
    }

    /// An object has changed in the index.
    pub fn changed<K: Reconciled + Routed>(&self, change: &Change<K>) {
        let uid = |object: &Option<Arc<K>>| object.as_ref().and_then(|object| object.meta().uid.clone());
        if let Some(old) = uid(&change.old)
            && uid(&change.new).as_ref() != Some(&old)
        {
            self.memory.forget(&Key::new(K::KIND, change.name.clone()), &old);
        }
        K::route(change, self);
    }

    /// Queues an object now.
    pub fn add(&self, kind: Kind, name: Name) {
        self.queue.add(Key::new(kind, name));
    }

    /// Queues an object after a delay.
    pub fn add_after(&self, kind: Kind, name: Name, delay: Duration) {
        self.queue.add_after(Key::new(kind, name), delay);
    }

    /// Queues every object of every kind.
    pub fn add_everything(&self) {
        let index = &self.index;
        let each = [
            (Kind::Provider, index.providers.read().names()),
            (Kind::Cluster, index.clusters.read().names()),
            (Kind::MachineDeployment, index.deployments.read().names()),
            (Kind::MachineSet, index.sets.read().names()),
            (Kind::Machine, index.machines.read().names()),
        ];
        for (kind, names) in each {
            for name in names {
                self.add(kind, name);
            }
        }
    }

    /// Queues the clusters and machines of a provider.
    pub fn add_members_of_provider(&self, provider: &str) {
        let key = IndexKey::Provider(provider.into());
        let clusters = self.index.clusters.read().find_names(&key);
        for cluster in clusters {
            let machines = self
                .index
                .machines
                .read()
                .find_names(&IndexKey::Cluster(cluster.clone()));
            self.add(Kind::Cluster, cluster);
            for machine in machines {
                self.add(Kind::Machine, machine);
            }
        }
        let machines = self.index.machines.read().find_names(&key);
        for machine in machines {
            self.add(Kind::Machine, machine);
        }
    }

    fn add_members_of_cluster(&self, cluster: &Name) {
        let key = IndexKey::Cluster(cluster.clone());
        let each = [
            (Kind::MachineDeployment, self.index.deployments.read().find_names(&key)),
            (Kind::MachineSet, self.index.sets.read().find_names(&key)),
            (Kind::Machine, self.index.machines.read().find_names(&key)),
        ];
        for (kind, names) in each {
            for name in names {
                self.add(kind, name);
            }
        }
    }
}

/// Whether only the status of an object that stays has moved.
fn is_status_only<K: kube::Resource>(change: &Change<K>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let (old, new) = (old.meta(), new.meta());
            old.uid == new.uid
                && old.generation == new.generation
                && old.deletion_timestamp == new.deletion_timestamp
                && old.labels == new.labels
                && old.annotations == new.annotations
                && old.owner_references == new.owner_references
                && old.finalizers == new.finalizers
        }
        _ => false,
    }
}

fn namespace_of<K: kube::Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

impl Routed for Provider {
    fn route(change: &Change<Self>, router: &Router) {
        router.add(Kind::Provider, change.name.clone());
    }
}

impl Routed for Cluster {
    fn route(change: &Change<Self>, router: &Router) {
        router.add(Kind::Cluster, change.name.clone());
        if !is_status_only(change) {
            // The provider may have to watch in another place.
            for cluster in change.old.iter().chain(&change.new) {
                router.add_after(Kind::Provider, Name::new("", &cluster.spec.provider), COUNT_DELAY);
            }
        }
        // Counts of machines move all the time; what machines decide on does not.
        let seen = |cluster: &Option<Arc<Self>>| {
            cluster.as_ref().map(|cluster| {
                let status = cluster.status.clone().unwrap_or_default();
                (
                    cluster.metadata.uid.clone(),
                    cluster.metadata.generation,
                    cluster.metadata.deletion_timestamp.clone(),
                    cluster.metadata.annotations.clone(),
                    status.phase,
                    status.failure_domains,
                    status.provider_status,
                    status.control_plane_endpoint,
                )
            })
        };
        if seen(&change.old) != seen(&change.new) {
            router.add_members_of_cluster(&change.name);
        }
    }
}

impl Routed for MachineDeployment {
    fn route(change: &Change<Self>, router: &Router) {
        router.add(Kind::MachineDeployment, change.name.clone());
        if !is_status_only(change) {
            for deployment in change.old.iter().chain(&change.new) {
                let cluster = Name::new(namespace_of(&**deployment), &deployment.spec.cluster_name);
                router.add_after(Kind::Cluster, cluster, COUNT_DELAY);
            }
        }
    }
}

impl Routed for MachineSet {
    fn route(change: &Change<Self>, router: &Router) {
        router.add(Kind::MachineSet, change.name.clone());
        let status_only = is_status_only(change);
        for set in change.old.iter().chain(&change.new) {
            let namespace = namespace_of(&**set);
            match reference::controller(&set.metadata) {
                Some(owner) => router.add(Kind::MachineDeployment, Name::new(namespace, &owner.name)),
                None if !status_only => {
                    // A deployment may adopt it.
                    let cluster = IndexKey::Cluster(Name::new(namespace, &set.spec.cluster_name));
                    let deployments = router.index.deployments.read().find_names(&cluster);
                    for deployment in deployments {
                        router.add(Kind::MachineDeployment, deployment);
                    }
                }
                None => {}
            }
            if !status_only {
                let cluster = Name::new(namespace, &set.spec.cluster_name);
                router.add_after(Kind::Cluster, cluster, COUNT_DELAY);
            }
        }
    }
}

impl Routed for Machine {
    fn route(change: &Change<Self>, router: &Router) {
        router.add(Kind::Machine, change.name.clone());
        let status_only = is_status_only(change);
        for machine in change.old.iter().chain(&change.new) {
            let namespace = namespace_of(&**machine);
            match reference::controller(&machine.metadata) {
                Some(owner) => {
                    let name = Name::new(namespace, &owner.name);
                    let children = IndexKey::Controller(owner.uid.as_str().into());
                    let delay = count_delay(router.index.machines.read().count(&children));
                    // A deployment counts the machines of its sets itself.
                    let set = router.index.sets.read().get(&name);
                    if let Some(owner) = set.as_ref().and_then(|set| reference::controller(&set.metadata)) {
                        let deployment = Name::new(namespace, &owner.name);
                        router.add_after(Kind::MachineDeployment, deployment, delay);
                    }
                    router.add_after(Kind::MachineSet, name, delay);
                }
                None if !status_only => {
                    // A set may adopt it.
                    let cluster = IndexKey::Cluster(Name::new(namespace, &machine.spec.cluster_name));
                    let sets = router.index.sets.read().find_names(&cluster);
                    for set in sets {
                        router.add_after(Kind::MachineSet, set, COUNT_DELAY);
                    }
                }
                None => {}
            }
            let cluster = Name::new(namespace, &machine.spec.cluster_name);
            let gone = change.new.is_none();
            let delay = if gone { COUNT_DELAY } else { CLUSTER_COUNT_DELAY };
            router.add_after(Kind::Cluster, cluster, delay);
        }
    }
}
