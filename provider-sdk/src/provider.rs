//! The trait that a provider author implements. Everything about the wire, about
//! waiting, repeating and refusing is done before and after these calls.

use actuator_proto::errors::ActuatorError;
use actuator_proto::v1;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::answer::{Deletion, Diagnostic, Existence, Page, Probe};
use crate::config::Config;
use crate::context::{CallContext, OperationContext};
use crate::info::ProviderInfo;
use crate::request::{
    ClusterExists, ConsoleOutput, CreateCluster, CreateMachine, DeleteCluster, DeleteMachine, ListClusters,
    ListMachineTypes, ListMachines, MachineExists, SetEndpointMembers, UpdateCluster, UpdateMachine, Validation,
    WatchMachines,
};

/// One element of a watch; see [`Provider::watch_machines`].
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// The machine is there, in this state.
    Present(Box<v1::ListedMachine>),
    /// The machine is gone.
    Gone(v1::GoneMachine),
    /// The snapshot is complete; the resume token of this point.
    Synced(String),
    /// Nothing more happened up to here; the resume token of this point.
    Bookmark(String),
}

/// What a watch yields. After an error the watch ends.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ActuatorError>>;

/// What reading a console yields, in pieces of any size.
pub type ByteStream = BoxStream<'static, Result<Bytes, ActuatorError>>;

/// A cloud behind the actuator protocol.
///
/// What holds for every call:
/// * Requests are checked: required fields are there, sizes are within bounds, configs
///   fit their type, required credentials are present.
/// * Mutations of one key never run at the same time, and each runs to its end even
///   when the caller has gone. Mutations of different keys, and all reads, run
///   concurrently.
/// * A panic becomes INTERNAL with `PROVIDER_BUG`, and the process goes on.
/// * Errors tell what they left behind with `ActuatorError::with_effect`: a failed
///   mutation that may have changed something is never of effect NONE, which is the
///   default.
///
/// What remains to the provider is the durable part of the contract: a resource is
/// found by its key alone, a replay of Create with the same key and digest returns the
/// same `provider_id` for the life of the resource, another digest gets
/// `KEY_CONFLICT`, and GONE means that nothing of the key is left.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// What a user writes into `Cluster.spec.providerSpec`.
    type ClusterConfig: Config;
    /// What a user writes into `Machine.spec.providerSpec`.
    type MachineConfig: Config;

    /// What the provider is. Asked once, when the server is built.
    fn info(&self) -> ProviderInfo;

    /// Which optional calls there are. Asked once, when the server is built; a call
    /// whose capability is missing answers UNIMPLEMENTED without reaching the provider.
    fn capabilities(&self) -> v1::Capabilities {
        v1::Capabilities::default()
    }

    /// Whether the provider can work, from memory: a call to the cloud here would take
    /// the provider down together with its cloud.
    fn probe(&self) -> Probe {
        Probe::ready()
    }

    /// Judges a cluster config beyond its schema. With [`Validation::preflight`] set it
    /// may ask the cloud, else it must not. Also called, not preflight, before each
    /// Create and Update; errors among the diagnostics then refuse the request.
    async fn validate_cluster(
        &self,
        context: &CallContext,
        request: &Validation<Self::ClusterConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let _ = (context, request);
        Ok(Vec::new())
    }

    /// The same for a machine config.
    async fn validate_machine(
        &self,
        context: &CallContext,
        request: &Validation<Self::MachineConfig>,
    ) -> Result<Vec<Diagnostic>, ActuatorError> {
        let _ = (context, request);
        Ok(Vec::new())
    }

    /// Makes what a cluster needs besides its machines, or finds what a former call
    /// with this key made. Returns when the cloud has accepted.
    async fn create_cluster(
        &self,
        context: &OperationContext,
        request: CreateCluster<Self::ClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError>;

    /// Converges a cluster to a new spec, or refuses with `REPLACE_REQUIRED`.
    async fn update_cluster(
        &self,
        context: &OperationContext,
        request: UpdateCluster<Self::ClusterConfig>,
    ) -> Result<v1::ClusterStatus, ActuatorError>;

    /// Removes a cluster; what is not there is [`Deletion::Gone`].
    async fn delete_cluster(
        &self,
        context: &OperationContext,
        request: DeleteCluster<Self::ClusterConfig>,
    ) -> Result<Deletion, ActuatorError>;

    /// Tells whether a cluster is there. "Cannot tell" is an error, never
    /// [`Existence::Absent`].
    async fn cluster_exists(
        &self,
        context: &CallContext,
        request: ClusterExists<Self::ClusterConfig>,
    ) -> Result<Existence<v1::ClusterStatus>, ActuatorError>;

    /// Makes a machine, or finds the one that a former call with this key made.
    /// Returns when the cloud has accepted, not when the machine runs.
    async fn create_machine(
        &self,
        context: &OperationContext,
        request: CreateMachine<Self::MachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError>;

    /// Converges a machine to a new spec in place, or refuses with `REPLACE_REQUIRED`;
    /// `RESOURCE_NOT_FOUND` when it is not there.
    async fn update_machine(
        &self,
        context: &OperationContext,
        request: UpdateMachine<Self::MachineConfig>,
    ) -> Result<v1::MachineStatus, ActuatorError>;

    /// Removes a machine with every artefact of its key; what is not there is
    /// [`Deletion::Gone`].
    async fn delete_machine(
        &self,
        context: &OperationContext,
        request: DeleteMachine<Self::MachineConfig>,
    ) -> Result<Deletion, ActuatorError>;

    /// Tells whether a machine is there, and its status. "Cannot tell" is an error,
    /// never [`Existence::Absent`].
    async fn machine_exists(
        &self,
        context: &CallContext,
        request: MachineExists<Self::MachineConfig>,
    ) -> Result<Existence<v1::MachineStatus>, ActuatorError>;

    /// Lists clusters. Capability `list_clusters`.
    async fn list_clusters(
        &self,
        context: &CallContext,
        request: ListClusters<Self::ClusterConfig>,
    ) -> Result<Page<v1::ListedCluster>, ActuatorError> {
        let _ = (context, request);
        Err(not_implemented("list_clusters"))
    }

    /// Lists machines. Capability `list_machines`.
    async fn list_machines(
        &self,
        context: &CallContext,
        request: ListMachines<Self::ClusterConfig>,
    ) -> Result<Page<v1::ListedMachine>, ActuatorError> {
        let _ = (context, request);
        Err(not_implemented("list_machines"))
    }

    /// Streams changes: each machine, [`WatchEvent::Synced`], then events. Bookmarks
    /// that keep the stream alive are added to it. Capability `watch_machines`.
    async fn watch_machines(
        &self,
        context: &CallContext,
        request: WatchMachines<Self::ClusterConfig>,
    ) -> Result<WatchStream, ActuatorError> {
        let _ = (context, request);
        Err(not_implemented("watch_machines"))
    }

    /// Sets the full set of control-plane machines behind a cluster's endpoint.
    /// Capability `endpoint_members`.
    async fn set_endpoint_members(
        &self,
        context: &OperationContext,
        request: SetEndpointMembers,
    ) -> Result<v1::SetEndpointMembersResponse, ActuatorError> {
        let _ = (context, request);
        Err(not_implemented("endpoint_members"))
    }

    /// Reads a machine's console; pieces of any size, which are cut to what the
    /// protocol allows. Capability `console_output`.
    async fn console_output(
        &self,
        context: &CallContext,
        request: ConsoleOutput<Self::MachineConfig>,
    ) -> Result<ByteStream, ActuatorError> {
        let _ = (context, request);
        Err(not_implemented("console_output"))
    }

    /// Lists the machine types that can be had. Capability `machine_types`.
    async fn list_machine_types(
        &self,
        context: &CallContext,
        request: ListMachineTypes<Self::ClusterConfig, Self::MachineConfig>,
    ) -> Result<Page<v1::MachineType>, ActuatorError> {
        let _ = (context, request);
        Err(not_implemented("machine_types"))
    }

    /// Called once when the server stops, after the last mutation has ended: flush what
    /// must be on disk.
    async fn shutdown(&self) {}
}

/// A provider that advertises a capability and does not implement its call.
fn not_implemented(capability: &str) -> ActuatorError {
    ActuatorError::new(
        v1::ErrorReason::ProviderBug,
        format!("the provider advertises {capability} and does not implement it"),
    )
}
