//! Requests as provider code gets them: checked, with typed configs.

use std::collections::BTreeMap;

use actuator_proto::v1;
use bytes::Bytes;

use crate::bootstrap::Bootstrap;
use crate::config::ConfigHint;

/// An existing resource, in Update, Delete and Exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Whose it is.
    pub ownership: v1::Ownership,
    /// The key with which it was created. It alone must be enough to find it.
    pub key: String,
    /// The provider's own id where it is known; has the right prefix, is a shortcut,
    /// and may belong to something else: then `OWNERSHIP_MISMATCH`.
    pub provider_id: Option<String>,
}

/// What a cluster shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSpec<C> {
    /// The name of the Cluster object.
    pub name: String,
    /// The provider's own config; that of `{}` where none was sent.
    pub config: C,
    /// The ranges of the pods, in CIDR notation.
    pub pod_cidr_blocks: Vec<String>,
    /// The ranges of the services, in CIDR notation.
    pub service_cidr_blocks: Vec<String>,
    /// Given by the user where the endpoint exists already: make none then.
    pub control_plane_endpoint: Option<v1::Endpoint>,
    /// Equal digests mean an equal spec; 32 bytes.
    pub digest: Vec<u8>,
}

/// What a machine shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineSpec<C> {
    /// The name of the Machine object.
    pub name: String,
    /// For example `v1.34.1`.
    pub kubernetes_version: Option<String>,
    /// Where to put it; `None` lets the provider choose.
    pub failure_domain: Option<String>,
    /// The labels of the future node.
    pub node_labels: BTreeMap<String, String>,
    /// The taints of the future node.
    pub taints: Vec<v1::Taint>,
    /// The provider's own config; that of `{}` where none was sent.
    pub config: C,
    /// Whether it is to run the control plane.
    pub control_plane: bool,
    /// The status of its cluster as last seen: network, endpoint, provider_state.
    pub cluster: Option<v1::ClusterStatus>,
    /// Equal digests mean an equal spec; 32 bytes.
    pub digest: Vec<u8>,
}

/// Asks for a cluster's resources.
#[derive(Debug, Clone)]
pub struct CreateCluster<C> {
    /// Whose it is: write it, and the key, on every artefact, atomically with its
    /// creation.
    pub ownership: v1::Ownership,
    /// What it shall be.
    pub spec: ClusterSpec<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks for a change of a cluster's resources.
#[derive(Debug, Clone)]
pub struct UpdateCluster<C> {
    /// Which cluster.
    pub resource: Resource,
    /// What it shall be.
    pub spec: ClusterSpec<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks for the removal of a cluster's resources.
#[derive(Debug, Clone)]
pub struct DeleteCluster<C> {
    /// Which cluster.
    pub resource: Resource,
    /// The config where it is still known.
    pub config: ConfigHint<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks whether a cluster's resources are there.
#[derive(Debug, Clone)]
pub struct ClusterExists<C> {
    /// Which cluster.
    pub resource: Resource,
    /// The config where it is known.
    pub config: ConfigHint<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks for a machine.
#[derive(Debug, Clone)]
pub struct CreateMachine<C> {
    /// Whose it is: write it, and the key, on every artefact, atomically with its
    /// creation.
    pub ownership: v1::Ownership,
    /// What it shall be.
    pub spec: MachineSpec<C>,
    /// What it runs at its first boot. No part of the spec: other bootstrap data on a
    /// replay returns the existing machine.
    pub bootstrap: Option<Bootstrap>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks for a change of a machine.
#[derive(Debug, Clone)]
pub struct UpdateMachine<C> {
    /// Which machine.
    pub resource: Resource,
    /// What it shall be.
    pub spec: MachineSpec<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks for the removal of a machine.
#[derive(Debug, Clone)]
pub struct DeleteMachine<C> {
    /// Which machine.
    pub resource: Resource,
    /// The config where it is still known.
    pub config: ConfigHint<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks whether a machine is there.
#[derive(Debug, Clone)]
pub struct MachineExists<C> {
    /// Which machine.
    pub resource: Resource,
    /// The config where it is known.
    pub config: ConfigHint<C>,
    /// From the last status, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Asks for the full set of members of an endpoint.
#[derive(Debug, Clone)]
pub struct SetEndpointMembers {
    /// The cluster.
    pub cluster: Resource,
    /// All of them; what is not named is taken out. Within the advertised
    /// `max_members`.
    pub members: Vec<v1::EndpointMember>,
    /// From the last status of the cluster, if any: a hint that may be stale.
    pub provider_state: Bytes,
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most this many items, within the provider's own `max_page_size`.
    pub size: usize,
    /// From the page before; `None` for the first. One that is no longer valid gets
    /// `PAGE_TOKEN_EXPIRED`.
    pub token: Option<String>,
}

/// Asks for a page of clusters.
#[derive(Debug, Clone)]
pub struct ListClusters<C> {
    /// Only those of this management cluster.
    pub management_cluster_id: String,
    /// Which page.
    pub page: PageRequest,
    /// Says where to look (region, project).
    pub config: Option<C>,
}

/// Asks for a page of machines.
#[derive(Debug, Clone)]
pub struct ListMachines<C> {
    /// Only those of this management cluster.
    pub management_cluster_id: String,
    /// Only those of this cluster; `None` for all.
    pub cluster_uid: Option<String>,
    /// Which page.
    pub page: PageRequest,
    /// Says where to look (region, project); a cluster config.
    pub config: Option<C>,
}

/// Asks for a stream of changes.
#[derive(Debug, Clone)]
pub struct WatchMachines<C> {
    /// Only those of this management cluster.
    pub management_cluster_id: String,
    /// From a former bookmark: only what changed since. One that is no longer valid gets
    /// `RESUME_TOKEN_EXPIRED`.
    pub resume_token: Option<String>,
    /// Says where to look (region, project); a cluster config.
    pub config: Option<C>,
}

/// Asks for what a machine wrote to its console.
#[derive(Debug, Clone)]
pub struct ConsoleOutput<C> {
    /// Which machine.
    pub resource: Resource,
    /// The last so many bytes; `None`: all there is.
    pub tail_bytes: Option<u64>,
    /// The config where it is known.
    pub config: ConfigHint<C>,
}

/// A cluster's or a machine's config.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyConfig<C, M> {
    /// A cluster config.
    Cluster(C),
    /// A machine config.
    Machine(M),
}

/// Asks for a page of machine types.
#[derive(Debug, Clone)]
pub struct ListMachineTypes<C, M> {
    /// Which page.
    pub page: PageRequest,
    /// Only this one; `None` for all.
    pub name: Option<String>,
    /// Says where to look (region, project).
    pub config: Option<AnyConfig<C, M>>,
}

/// Asks for a verdict on a config that fits its schema.
#[derive(Debug, Clone)]
pub struct Validation<C> {
    /// The config.
    pub config: C,
    /// What is replaced by it, where there was one before and it can be read: then also
    /// tell which changes need a replacement.
    pub previous: Option<C>,
    /// Whether to look also for what the config names; reads only. Else: no network.
    pub preflight: bool,
}
