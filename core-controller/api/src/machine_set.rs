//! The kind MachineSet: a number of equal machines, as a ReplicaSet is a number of equal Pods.
//!
//! Not for changing them one after the other: that is a MachineDeployment.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::shared::MachineTemplate;

/// How many machines there are to be, and what they are like.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.outrigger.dev",
    version = "v1alpha1",
    kind = "MachineSet",
    namespaced,
    shortname = "ms",
    category = "cluster-api",
    status = "MachineSetStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "A number of equal machines.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterName",
        description = "The Cluster that the machines belong to"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "How many machines there are to be"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".status.replicas",
        description = "How many machines there are"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "How many of them are ready"
    ),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.availableReplicas",
        description = "How many of them have been ready for minReadySeconds"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long the object has existed"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.template.spec.version",
        description = "The Kubernetes version of the machines",
        priority = 1
    ),
    selectable = ".spec.clusterName"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [schema::selector_matches_template()]))]
pub struct MachineSetSpec {
    /// The name of the Cluster that the machines belong to, in the same namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "clusterName must be a name of at most 63 lower-case letters, digits and dashes"), schema::rule("self == oldSelf", "spec.clusterName cannot change: create another MachineSet in the other Cluster")]))]
    pub cluster_name: String,
    /// How many machines there are to be.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub replicas: i32,
    /// Which Machines belong to the set: those of its Cluster with these labels. The template's labels must match it.
    #[schemars(schema_with = "schema::selector")]
    pub selector: LabelSelector,
    /// What each machine is like. Changing it changes new machines only.
    pub template: MachineTemplate,
    /// How many seconds a machine must be ready before it counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// Which machines go first when the set shrinks, after those annotated with cluster.outrigger.dev/delete-machine, failed
    /// ones and those that are not ready.
    #[serde(default)]
    pub delete_policy: DeletePolicy,
}

fn one() -> i32 {
    1
}

impl Default for MachineSetSpec {
    fn default() -> Self {
        Self {
            cluster_name: String::new(),
            replicas: one(),
            selector: LabelSelector::default(),
            template: MachineTemplate::default(),
            min_ready_seconds: 0,
            delete_policy: DeletePolicy::default(),
        }
    }
}

/// Which of several machines that are equally good goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletePolicy {
    /// Any of them.
    #[default]
    Random,
    /// The youngest.
    Newest,
    /// The oldest.
    Oldest,
}

/// How many machines there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineSetStatus {
    /// The metadata.generation that this status was judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// How many machines there are, without those being deleted.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How many of them are ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// How many of them have been ready for minReadySeconds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub available_replicas: i32,
    /// How many of them are as the template says.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub up_to_date_replicas: i32,
    /// The selector as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub selector: Option<String>,
    /// Ready, ReplicaFailure, Paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
