//! How the lists of the built-in kinds merge: facts of the Kubernetes API reference.
//!
//! For: field ownership (`x-kubernetes-list-type`) and strategic merge patches (`x-kubernetes-patch-…`). Not for: CRDs,
//! whose schemas say it themselves.

/// One list of one definition; lists that are not here are atomic and replaced.
pub(super) struct List {
    pub(super) definition: &'static str,
    pub(super) property: &'static str,
    pub(super) kind: &'static str,
    pub(super) keys: &'static [&'static str],
    pub(super) strategy: &'static str,
    pub(super) merge_key: &'static str,
}

macro_rules! lists {
    ($($definition:literal $property:literal $list_type:literal [$($key:literal),*] $strategy:literal $merge_key:literal;)*) => {
        pub(super) const LISTS: &[List] = &[$(List {
            definition: $definition,
            property: $property,
            kind: $list_type,
            keys: &[$($key),*],
            strategy: $strategy,
            merge_key: $merge_key,
        }),*];
    };
}

lists! {
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" "finalizers" "set" [] "merge" "";
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" "ownerReferences" "map" ["uid"] "merge" "uid";
    "io.k8s.api.core.v1.ServiceAccount" "secrets" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.NamespaceStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.api.core.v1.NodeSpec" "podCIDRs" "set" [] "merge" "";
    "io.k8s.api.core.v1.NodeStatus" "addresses" "map" ["type"] "merge" "type";
    "io.k8s.api.core.v1.NodeStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.api.core.v1.PodSpec" "containers" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.PodSpec" "initContainers" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.PodSpec" "ephemeralContainers" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.PodSpec" "volumes" "map" ["name"] "merge,retainKeys" "name";
    "io.k8s.api.core.v1.PodSpec" "imagePullSecrets" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.PodSpec" "hostAliases" "map" ["ip"] "merge" "ip";
    "io.k8s.api.core.v1.PodSpec" "topologySpreadConstraints" "map" ["topologyKey", "whenUnsatisfiable"] "merge" "topologyKey";
    "io.k8s.api.core.v1.PodSpec" "resourceClaims" "map" ["name"] "merge,retainKeys" "name";
    "io.k8s.api.core.v1.PodSpec" "schedulingGates" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.PodStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.api.core.v1.PodStatus" "podIPs" "map" ["ip"] "merge" "ip";
    "io.k8s.api.core.v1.PodStatus" "hostIPs" "atomic" [] "merge" "ip";
    "io.k8s.api.core.v1.PodStatus" "resourceClaimStatuses" "map" ["name"] "merge,retainKeys" "name";
    "io.k8s.api.core.v1.Container" "env" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.Container" "ports" "map" ["containerPort", "protocol"] "merge" "containerPort";
    "io.k8s.api.core.v1.Container" "volumeMounts" "map" ["mountPath"] "merge" "mountPath";
    "io.k8s.api.core.v1.Container" "volumeDevices" "map" ["devicePath"] "merge" "devicePath";
    "io.k8s.api.core.v1.EphemeralContainer" "env" "map" ["name"] "merge" "name";
    "io.k8s.api.core.v1.EphemeralContainer" "ports" "map" ["containerPort", "protocol"] "merge" "containerPort";
    "io.k8s.api.core.v1.EphemeralContainer" "volumeMounts" "map" ["mountPath"] "merge" "mountPath";
    "io.k8s.api.core.v1.EphemeralContainer" "volumeDevices" "map" ["devicePath"] "merge" "devicePath";
    "io.k8s.api.core.v1.ResourceRequirements" "claims" "map" ["name"] "" "";
    "io.k8s.api.core.v1.ServiceSpec" "ports" "map" ["port", "protocol"] "merge" "port";
    "io.k8s.api.core.v1.ServiceStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.api.policy.v1.PodDisruptionBudgetStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.api.apps.v1.DaemonSetStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.api.apps.v1.DeploymentStatus" "conditions" "map" ["type"] "merge" "type";
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus" "conditions" "map" ["type"] "" "";
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps" "x-kubernetes-validations" "map" ["rule"] "merge" "rule";
}

/// Fields whose maps have one owner as a whole: definition and property.
pub(super) const ATOMIC_FIELDS: &[(&str, &str)] = &[
    ("io.k8s.api.core.v1.PodSpec", "nodeSelector"),
    ("io.k8s.api.core.v1.ServiceSpec", "selector"),
];

/// Structures that have one owner as a whole.
pub(super) const ATOMIC_MAPS: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.FileKeySelector",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ObjectReference",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.api.rbac.v1.RoleRef",
    "io.k8s.api.rbac.v1.Subject",
];
