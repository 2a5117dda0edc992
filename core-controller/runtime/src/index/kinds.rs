//! The five kinds in their tables: how each is found, and what of it is kept.
//!
//! Not for: the rules of a table.

use outrigger_api::{Cluster, Machine, MachineDeployment, MachineSet, Provider, reference};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::table::{IndexKey, Stored, Table, trim_metadata};
use crate::names::{Kind, Name};

/// One table per kind.
#[derive(Debug, Default)]
pub struct Index {
    /// Provider endpoints.
    pub providers: RwLock<Table<Provider>>,
    /// Clusters.
    pub clusters: RwLock<Table<Cluster>>,
    /// Deployments.
    pub deployments: RwLock<Table<MachineDeployment>>,
    /// Sets.
    pub sets: RwLock<Table<MachineSet>>,
    /// Machines.
    pub machines: RwLock<Table<Machine>>,
}

/// A kind that the core reconciles.
pub trait Reconciled:
    Stored + kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + std::fmt::Debug
{
    /// Its kind.
    const KIND: Kind;
    /// Its resource, for metrics.
    const RESOURCE: &'static str;
    /// Its status subresource, for metrics.
    const STATUS: &'static str;

    /// Its table.
    fn table(index: &Index) -> &RwLock<Table<Self>>;

    /// The API for objects in this namespace; nothing for cluster-scoped kinds.
    fn api(client: kube::Client, namespace: &str) -> kube::Api<Self>;
}

/// The name of a cluster in the namespace of the object that names it.
fn cluster_name(meta: &kube::core::ObjectMeta, cluster: &str) -> Name {
    Name::new(meta.namespace.as_deref().unwrap_or_default(), cluster)
}

fn push_owner_keys(meta: &kube::core::ObjectMeta, cluster: &str, keys: &mut Vec<IndexKey>) {
    let cluster = cluster_name(meta, cluster);
    match reference::controller(meta) {
        Some(owner) => keys.push(IndexKey::Controller(owner.uid.as_str().into())),
        None => keys.push(IndexKey::Orphan(cluster.clone())),
    }
    keys.push(IndexKey::Cluster(cluster));
}

impl Stored for Provider {
    fn index_keys(&self, _: &mut Vec<IndexKey>) {}
}

impl Stored for Cluster {
    fn index_keys(&self, keys: &mut Vec<IndexKey>) {
        keys.push(IndexKey::Provider(self.spec.provider.as_str().into()));
    }
}

impl Stored for MachineDeployment {
    fn index_keys(&self, keys: &mut Vec<IndexKey>) {
        keys.push(IndexKey::Cluster(cluster_name(&self.metadata, &self.spec.cluster_name)));
    }
}

impl Stored for MachineSet {
    fn index_keys(&self, keys: &mut Vec<IndexKey>) {
        push_owner_keys(&self.metadata, &self.spec.cluster_name, keys);
    }
}

impl Stored for Machine {
    fn index_keys(&self, keys: &mut Vec<IndexKey>) {
        push_owner_keys(&self.metadata, &self.spec.cluster_name, keys);
        // The Cluster's provider is found by way of the cluster.
        let remembered = || self.status.as_ref()?.provider_name.as_deref();
        if let Some(provider) = self.spec.provider.as_deref().or_else(remembered) {
            keys.push(IndexKey::Provider(provider.into()));
        }
    }

    fn trim(&mut self) {
        trim_metadata(&mut self.metadata);
        self.spec.taints.shrink_to_fit();
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
            status.addresses.shrink_to_fit();
        }
    }
}

impl Reconciled for Provider {
    const KIND: Kind = Kind::Provider;
    const RESOURCE: &'static str = "providers";
    const STATUS: &'static str = "providers/status";

    fn table(index: &Index) -> &RwLock<Table<Self>> {
        &index.providers
    }

    fn api(client: kube::Client, _: &str) -> kube::Api<Self> {
        kube::Api::all(client)
    }
}

macro_rules! namespaced {
    ($kind:ident, $table:ident, $resource:literal) => {
        impl Reconciled for $kind {
            const KIND: Kind = Kind::$kind;
            const RESOURCE: &'static str = $resource;
            const STATUS: &'static str = concat!($resource, "/status");

            fn table(index: &Index) -> &RwLock<Table<Self>> {
                &index.$table
            }

            fn api(client: kube::Client, namespace: &str) -> kube::Api<Self> {
                kube::Api::namespaced(client, namespace)
            }
        }
    };
}

namespaced!(Cluster, clusters, "clusters");
namespaced!(MachineDeployment, deployments, "machinedeployments");
namespaced!(MachineSet, sets, "machinesets");
namespaced!(Machine, machines, "machines");
