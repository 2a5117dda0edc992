//! The names that other programs rely on: labels, annotations, finalizers and condition types.
//!
//! Not for reasons of conditions or events: those belong to the decision that gives them.

/// The API group of every kind here.
pub const GROUP: &str = "cluster.outrigger.dev";
/// The served and stored version of every kind here.
pub const VERSION: &str = "v1alpha1";
/// `group/version`, as `apiVersion` has it.
pub const API_VERSION: &str = "cluster.outrigger.dev/v1alpha1";

/// Label on everything that belongs to a Cluster: its name.
pub const LABEL_CLUSTER_NAME: &str = "cluster.outrigger.dev/cluster-name";
/// Label on MachineSets and Machines that belong to a MachineDeployment: its name.
pub const LABEL_DEPLOYMENT_NAME: &str = "cluster.outrigger.dev/deployment-name";
/// The same under the fixed name that the cluster-autoscaler reads whatever its group setting.
pub const LABEL_DEPLOYMENT_NAME_UPSTREAM: &str = "cluster.x-k8s.io/deployment-name";
/// Label on Machines that belong to a MachineSet: its name.
pub const LABEL_SET_NAME: &str = "cluster.outrigger.dev/set-name";
/// Label on Machines that run a control plane; its value is empty.
pub const LABEL_CONTROL_PLANE: &str = "cluster.outrigger.dev/control-plane";
/// Label that tells the MachineSets of one MachineDeployment, and their Machines, apart.
pub const LABEL_TEMPLATE_HASH: &str = "machine-template-hash";

/// Annotation on any object: while it is there (whatever its value), nothing is done for the object.
pub const ANNOTATION_PAUSED: &str = "cluster.outrigger.dev/paused";
/// Annotation on a Machine: it goes first when its MachineSet shrinks.
pub const ANNOTATION_DELETE_MACHINE: &str = "cluster.outrigger.dev/delete-machine";
/// Annotation on a MachineSet: the revision of the MachineDeployment's template that it stands for.
pub const ANNOTATION_REVISION: &str = "cluster.outrigger.dev/revision";
/// The same under the fixed name that the cluster-autoscaler reads whatever its group setting.
pub const ANNOTATION_REVISION_UPSTREAM: &str = "machinedeployment.clusters.x-k8s.io/revision";
/// Annotation on a MachineSet: earlier revisions that had the same template, separated by commas.
pub const ANNOTATION_REVISION_HISTORY: &str = "cluster.outrigger.dev/revision-history";
/// Annotation on a MachineSet: the replicas that its MachineDeployment wanted at the last scaling.
pub const ANNOTATION_DESIRED_REPLICAS: &str = "cluster.outrigger.dev/desired-replicas";
/// Annotation on a MachineSet: the most machines its MachineDeployment allowed at the last scaling.
pub const ANNOTATION_MAX_REPLICAS: &str = "cluster.outrigger.dev/max-replicas";
/// Annotation on a MachineSet: while it is there, no machine is created. A MachineDeployment with the strategy OnDelete puts it
/// on its old sets, so that a deleted machine is replaced by the new one.
pub const ANNOTATION_DISABLE_MACHINE_CREATE: &str = "cluster.outrigger.dev/disable-machine-create";
/// Annotation on a MachineDeployment: roll back to this revision (`0` means the previous one). It is taken away when done.
pub const ANNOTATION_ROLLBACK_TO: &str = "cluster.outrigger.dev/rollback-to";
/// Annotation on a MachineDeployment or MachineSet: the cluster-autoscaler never goes below it.
pub const ANNOTATION_AUTOSCALER_MIN_SIZE: &str = "cluster.outrigger.dev/cluster-api-autoscaler-node-group-min-size";
/// Annotation on a MachineDeployment or MachineSet: the cluster-autoscaler never goes above it.
pub const ANNOTATION_AUTOSCALER_MAX_SIZE: &str = "cluster.outrigger.dev/cluster-api-autoscaler-node-group-max-size";

/// Finalizer on Machines: goes when the provider has confirmed that nothing is left.
pub const FINALIZER_MACHINE: &str = "cluster.outrigger.dev/machine";
/// Finalizer on Clusters: goes when every owned object and the provider's cluster are gone.
pub const FINALIZER_CLUSTER: &str = "cluster.outrigger.dev/cluster";

/// Condition: the object does all that it is for.
pub const CONDITION_READY: &str = "Ready";
/// Condition of a Provider: its endpoint answers.
pub const CONDITION_REACHABLE: &str = "Reachable";
/// Condition of a Cluster or Machine: what the provider makes for it is there and works.
pub const CONDITION_INFRASTRUCTURE_READY: &str = "InfrastructureReady";
/// Condition of a Cluster or Machine: the provider accepts its providerSpec.
pub const CONDITION_PROVIDER_CONFIG_VALID: &str = "ProviderConfigValid";
/// Condition of a Machine: its node is Ready.
pub const CONDITION_NODE_READY: &str = "NodeReady";
/// Condition: nothing is done for the object, because it or its Cluster is paused.
pub const CONDITION_PAUSED: &str = "Paused";
/// Condition: the object is being deleted; its reason names the stage.
pub const CONDITION_DELETING: &str = "Deleting";
/// Condition of a MachineDeployment: it has the machines that its strategy promises.
pub const CONDITION_AVAILABLE: &str = "Available";
/// Condition of a MachineDeployment: its roll-out goes forward, or has ended.
pub const CONDITION_PROGRESSING: &str = "Progressing";
/// Condition of a MachineSet or MachineDeployment: machines cannot be created or deleted.
pub const CONDITION_REPLICA_FAILURE: &str = "ReplicaFailure";

/// The value of a condition that holds.
pub const STATUS_TRUE: &str = "True";
/// The value of a condition that does not hold.
pub const STATUS_FALSE: &str = "False";
/// The value of a condition that nobody can tell.
pub const STATUS_UNKNOWN: &str = "Unknown";
