//! The kind MachineDeployment: changes its machines one after the other, as a Deployment does with Pods.
//!
//! Not for the machines themselves: those belong to its MachineSets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::machine_set::DeletePolicy;
use crate::schema;
use crate::shared::MachineTemplate;

/// Default of `revisionHistoryLimit`.
pub const DEFAULT_REVISION_HISTORY_LIMIT: i32 = 10;
/// Default of `progressDeadlineSeconds`.
pub const DEFAULT_PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// How many machines there are to be, what they are like, and how they are replaced.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.outrigger.dev",
    version = "v1alpha1",
    kind = "MachineDeployment",
    namespaced,
    shortname = "md",
    category = "cluster-api",
    status = "MachineDeploymentStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "A number of machines that are replaced gradually when their template changes.",
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
        name = "Updated",
        type_ = "integer",
        json_path = ".status.updatedReplicas",
        description = "How many of them are as the template says"
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
#[schemars(extend("x-kubernetes-validations" = [
    schema::selector_matches_template(),
    schema::rule_at(".progressDeadlineSeconds", "self.progressDeadlineSeconds > self.minReadySeconds",
        "spec.progressDeadlineSeconds must be greater than spec.minReadySeconds: else no roll-out could end in time"),
]))]
pub struct MachineDeploymentSpec {
    /// The name of the Cluster that the machines belong to, in the same namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "clusterName must be a name of at most 63 lower-case letters, digits and dashes"), schema::rule("self == oldSelf", "spec.clusterName cannot change: create another MachineDeployment in the other Cluster")]))]
    pub cluster_name: String,
    /// How many machines there are to be.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub replicas: i32,
    /// Which MachineSets and Machines belong to the deployment. The template's labels must match it.
    #[schemars(schema_with = "schema::selector")]
    pub selector: LabelSelector,
    /// What each machine is like. Changing it starts a roll-out.
    pub template: MachineTemplate,
    /// How machines are replaced when the template changes.
    #[serde(default)]
    pub strategy: Strategy,
    /// How many seconds a machine must be ready before it counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// How many old MachineSets without machines are kept to roll back to.
    #[serde(default = "default_revision_history_limit")]
    #[schemars(range(min = 0, max = 1000))]
    pub revision_history_limit: i32,
    /// How many seconds a roll-out may make no progress before the condition Progressing says so.
    #[serde(default = "default_progress_deadline_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,
    /// Whether changes of the template wait; scaling goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

fn one() -> i32 {
    1
}

fn default_revision_history_limit() -> i32 {
    DEFAULT_REVISION_HISTORY_LIMIT
}

fn default_progress_deadline_seconds() -> i32 {
    DEFAULT_PROGRESS_DEADLINE_SECONDS
}

impl Default for MachineDeploymentSpec {
    fn default() -> Self {
        Self {
            cluster_name: String::new(),
            replicas: one(),
            selector: LabelSelector::default(),
            template: MachineTemplate::default(),
            strategy: Strategy::default(),
            min_ready_seconds: 0,
            revision_history_limit: DEFAULT_REVISION_HISTORY_LIMIT,
            progress_deadline_seconds: DEFAULT_PROGRESS_DEADLINE_SECONDS,
            paused: false,
        }
    }
}

/// How machines are replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    /// RollingUpdate replaces machines by itself; OnDelete replaces each machine when somebody deletes it.
    #[serde(rename = "type")]
    pub type_: StrategyType,
    /// How far a rolling update goes at once.
    pub rolling_update: RollingUpdate,
}

/// Who replaces machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// The core does, a few at a time.
    #[default]
    RollingUpdate,
    /// A person does, by deleting them.
    OnDelete,
}

/// How far a rolling update goes at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule("!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])",
        "spec.strategy.rollingUpdate: maxSurge and maxUnavailable must not both be 0: no machine could ever be replaced"),
]))]
pub struct RollingUpdate {
    /// How many machines there may be above spec.replicas: a number, or a percentage of spec.replicas rounded up.
    #[schemars(schema_with = "schema::surge")]
    pub max_surge: IntOrString,
    /// How many machines may be missing from spec.replicas: a number, or a percentage of spec.replicas rounded down.
    #[schemars(schema_with = "schema::unavailable")]
    pub max_unavailable: IntOrString,
    /// Which machines go first; as spec.deletePolicy of a MachineSet.
    pub delete_policy: DeletePolicy,
}

impl Default for RollingUpdate {
    fn default() -> Self {
        Self {
            max_surge: IntOrString::Int(1),
            max_unavailable: IntOrString::Int(0),
            delete_policy: DeletePolicy::default(),
        }
    }
}

/// How far the roll-out is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDeploymentStatus {
    /// The metadata.generation that this status was judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// How many machines there are, without those being deleted.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How many of them are as the template says.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub updated_replicas: i32,
    /// How many of them are ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// How many of them have been ready for minReadySeconds.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub available_replicas: i32,
    /// How many are missing until all are available.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub unavailable_replicas: i32,
    /// How many times the name for a new MachineSet was taken; part of the next name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub collision_count: Option<i32>,
    /// When the roll-out last made progress; progressDeadlineSeconds counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_progress_time: Option<Time>,
    /// The selector as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub selector: Option<String>,
    /// Available, Progressing, ReplicaFailure, Paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
