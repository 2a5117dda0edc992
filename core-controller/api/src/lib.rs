//! The custom resources of Outrigger: Provider, Cluster, Machine, MachineSet and MachineDeployment.
//!
//! Types, the names that go with them, and the CustomResourceDefinitions that they give. No client, no I/O, no decisions:
//! those are in the planner and the runtime.

#![allow(
    clippy::duplicated_attributes,
    reason = "printer columns of one kind have the same keys, with other values"
)]

mod cluster;
mod crds;
mod machine;
mod machine_deployment;
mod machine_set;
pub mod names;
mod provider;
pub mod reference;
mod schema;
pub mod selector;
mod shared;

pub use cluster::{
    Cluster, ClusterNetwork, ClusterPhase, ClusterSpec, ClusterStatus, DEFAULT_SERVICE_DOMAIN, FailureDomain,
    NetworkRanges,
};
pub use crds::crds;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, OwnerReference, Time};
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
pub use kube_core::{ObjectMeta, Resource, ResourceExt};
pub use machine::{LastOperation, Machine, MachinePhase, MachineSpec, MachineStatus, NodeReference, OperationState};
pub use machine_deployment::{
    DEFAULT_PROGRESS_DEADLINE_SECONDS, DEFAULT_REVISION_HISTORY_LIMIT, MachineDeployment, MachineDeploymentSpec,
    MachineDeploymentStatus, RollingUpdate, Strategy, StrategyType,
};
pub use machine_set::{DeletePolicy, MachineSet, MachineSetSpec, MachineSetStatus};
pub use provider::{
    ConfigKind, DEFAULT_MAX_IN_FLIGHT, Provider, ProviderLimits, ProviderSpec, ProviderStatus, ProviderTls,
    TlsSecretReference, TlsSource,
};
pub use shared::{
    Bootstrap, ConfigSpec, DEFAULT_DRAIN_TIMEOUT, DEFAULT_NODE_DELETION_TIMEOUT, DEFAULT_VOLUME_DETACH_TIMEOUT,
    Deletion, Endpoint, LocalSecretReference, MachineAddress, MachineTemplate, MachineTemplateSpec, Taint, TaintEffect,
    TemplateMeta, duration,
};
