//! The kind Machine: one machine that a provider makes and that becomes one node.
//!
//! Not for numbers of machines: those are MachineSets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;
use crate::shared::{Bootstrap, ConfigSpec, Deletion, MachineAddress, MachineTemplateSpec, Taint};

/// What a machine is to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.outrigger.dev",
    version = "v1alpha1",
    kind = "Machine",
    namespaced,
    shortname = "ma",
    category = "cluster-api",
    status = "MachineStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "One machine that a provider makes and that becomes one node.",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterName",
        description = "The Cluster that the machine belongs to"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the machine is in its life"
    ),
    printcolumn(
        name = "ProviderID",
        type_ = "string",
        json_path = ".spec.providerID",
        description = "The cloud's name for the machine"
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.nodeRef.name",
        description = "The node that the machine became"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.version",
        description = "The Kubernetes version that the machine is to run"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the machine does all that it is for"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long the object has existed"
    ),
    printcolumn(
        name = "InternalIP",
        type_ = "string",
        json_path = ".status.addresses[?(@.type==\"InternalIP\")].address",
        description = "The machine's address inside",
        priority = 1
    ),
    printcolumn(
        name = "ExternalIP",
        type_ = "string",
        json_path = ".status.addresses[?(@.type==\"ExternalIP\")].address",
        description = "The machine's address outside",
        priority = 1
    ),
    printcolumn(
        name = "FailureDomain",
        type_ = "string",
        json_path = ".status.failureDomain",
        description = "The zone that the machine is in",
        priority = 1
    ),
    selectable = ".spec.clusterName",
    selectable = ".spec.providerID",
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::once_set("providerID", "spec.providerID cannot change once it is set: a Machine stands for one machine of the cloud"),
    schema::immutable("provider", "spec.provider cannot change: create another Machine for another provider"),
    schema::immutable("failureDomain", "spec.failureDomain cannot change: create another Machine in the other failure domain"),
    schema::rule_at(".providerSpec", "self.providerSpec.kind == oldSelf.providerSpec.kind",
        "spec.providerSpec.kind cannot change: create another Machine for another kind of configuration"),
]))]
pub struct MachineSpec {
    /// The name of the Cluster that the machine belongs to, in the same namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "clusterName must be a name of at most 63 lower-case letters, digits and dashes"), schema::rule("self == oldSelf", "spec.clusterName cannot change: a machine stays in its Cluster")]))]
    pub cluster_name: String,
    /// The name of the Provider that makes the machine; that of the Cluster when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "provider must be a name of at most 63 lower-case letters, digits and dashes")]))]
    pub provider: Option<String>,
    /// What the machine is like, in the provider's own terms.
    pub provider_spec: ConfigSpec,
    /// The cloud's name for the machine, equal to the node's spec.providerID. The core writes it once.
    #[serde(default, rename = "providerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub provider_id: Option<String>,
    /// The Kubernetes version that the machine runs, such as `v1.34.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [schema::form(schema::KUBERNETES_VERSION, "version must be a Kubernetes version such as v1.34.2")]))]
    pub version: Option<String>,
    /// The failure domain (a zone) that the machine is in; one is chosen when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    /// Taints that the node gets when it joins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<Taint>,
    /// Labels that the node gets when it joins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_labels: BTreeMap<String, String>,
    /// How the machine becomes a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// How long each stage of the machine's deletion may take.
    #[serde(default)]
    pub deletion: Deletion,
}

impl MachineSpec {
    /// The spec of a new Machine made from a template, in the Cluster of that name.
    pub fn from_template(cluster_name: &str, template: &MachineTemplateSpec) -> Self {
        let MachineTemplateSpec {
            provider,
            provider_spec,
            version,
            failure_domain,
            taints,
            node_labels,
            bootstrap,
            deletion,
        } = template.clone();
        Self {
            cluster_name: cluster_name.to_owned(),
            provider,
            provider_spec,
            provider_id: None,
            version,
            failure_domain,
            taints,
            node_labels,
            bootstrap,
            deletion,
        }
    }
}

/// Where a Machine is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MachinePhase {
    /// Nothing was asked of the provider yet.
    #[default]
    Pending,
    /// The provider is making the machine.
    Provisioning,
    /// The machine is there, and not yet running.
    Provisioned,
    /// The machine runs.
    Running,
    /// The machine is being changed to what its spec says now.
    Updating,
    /// The machine is being deleted.
    Deleting,
    /// The machine is lost or cannot be made; its owner replaces it.
    Failed,
    /// Nobody can tell: the provider does not answer.
    Unknown,
}

/// What a machine is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// The metadata.generation that this status was judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Where the machine is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,
    /// The name of the Provider that made the machine: it deletes it, even when the Cluster is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub provider_name: Option<String>,
    /// The failure domain (a zone) that the machine is in or was asked for in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub failure_domain: Option<String>,
    /// The cloud's word for the machine's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub machine_type: Option<String>,
    /// The machine's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<MachineAddress>,
    /// The node that the machine became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ref: Option<NodeReference>,
    /// Why the machine failed, in one word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub failure_reason: Option<String>,
    /// Why the machine failed, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub failure_message: Option<String>,
    /// What the provider reports, in its own terms.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub provider_status: Map<String, Value>,
    /// The SHA-256 of the spec that the provider last accepted, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub applied_digest: Option<String>,
    /// The last thing that was asked of the provider, and how it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_operation: Option<LastOperation>,
    /// Ready, InfrastructureReady, ProviderConfigValid, NodeReady, Paused, Deleting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The node of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeReference {
    /// The Node's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Node's UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
}

/// How an operation of the provider went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationState {
    /// The provider is at it.
    #[default]
    InProgress,
    /// It is done.
    Succeeded,
    /// It failed; the message says why.
    Failed,
}

/// The last thing that was asked of the provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastOperation {
    /// What was asked: Create, Update or Delete.
    #[serde(rename = "type")]
    #[schemars(length(max = 32))]
    pub type_: String,
    /// How it went.
    pub state: OperationState,
    /// Why it failed, in one word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub reason: Option<String>,
    /// Why it failed, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// When the type or the state last changed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_transition_time: Time,
}
