//! The kind Cluster: networking, the API endpoint, the provider and its cluster configuration.
//!
//! Not for machines: those name their Cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;
use crate::shared::{ConfigSpec, Endpoint, LocalSecretReference};

/// Default of `clusterNetwork.serviceDomain`.
pub const DEFAULT_SERVICE_DOMAIN: &str = "cluster.local";

/// What a cluster is to be.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.outrigger.dev",
    version = "v1alpha1",
    kind = "Cluster",
    namespaced,
    shortname = "cl",
    category = "cluster-api",
    status = "ClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "A Kubernetes cluster, and what its provider makes for it besides machines.",
    printcolumn(
        name = "Provider",
        type_ = "string",
        json_path = ".spec.provider",
        description = "The provider that makes the cluster"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the cluster is in its life"
    ),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".status.controlPlaneEndpoint.host",
        description = "Where the cluster's API server is reached"
    ),
    printcolumn(
        name = "Machines",
        type_ = "integer",
        json_path = ".status.machines",
        description = "How many machines belong to the cluster"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the cluster does all that it is for"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long the object has existed"
    ),
    selectable = ".spec.provider",
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at(".providerSpec", "self.providerSpec.kind == oldSelf.providerSpec.kind",
        "spec.providerSpec.kind cannot change: create another Cluster for another kind of configuration"),
    schema::immutable("clusterNetwork",
        "spec.clusterNetwork cannot change: the machines and nodes of the cluster already use its ranges"),
    schema::once_set("controlPlaneEndpoint", "spec.controlPlaneEndpoint cannot change once it is set"),
]))]
pub struct ClusterSpec {
    /// The name of the Provider that makes the cluster, and its machines unless they name another.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "provider must be a name of at most 63 lower-case letters, digits and dashes"), schema::rule("self == oldSelf", "spec.provider cannot change: create another Cluster for another provider")]))]
    pub provider: String,
    /// What the provider makes for the cluster, in the provider's own terms.
    pub provider_spec: ConfigSpec,
    /// The Secret of this namespace with the cloud's credentials; the provider's own when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<LocalSecretReference>,
    /// The cluster's address ranges; the provider's defaults when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_network: Option<ClusterNetwork>,
    /// Where the cluster's API server is reached, if somebody else than the provider makes that endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// Whether everything that belongs to the cluster is left as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// The address ranges of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule(
        "!has(self.pods) || !has(self.services) || self.pods.cidrBlocks.all(p, self.services.cidrBlocks.all(s, \
         !isCIDR(p) || !isCIDR(s) || !(cidr(p).containsIP(cidr(s).ip()) || cidr(s).containsIP(cidr(p).ip()))))",
        "spec.clusterNetwork: the ranges in pods.cidrBlocks and services.cidrBlocks must not overlap"),
]))]
pub struct ClusterNetwork {
    /// The ranges that Pods get their addresses from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NetworkRanges>,
    /// The ranges that Services get their addresses from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<NetworkRanges>,
    /// The DNS domain of Services.
    #[serde(default = "default_service_domain")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [schema::form(schema::DNS_SUBDOMAIN, "serviceDomain must be a name of lower-case letters, digits, dashes and dots")]))]
    pub service_domain: String,
}

fn default_service_domain() -> String {
    DEFAULT_SERVICE_DOMAIN.to_owned()
}

impl Default for ClusterNetwork {
    fn default() -> Self {
        Self {
            pods: None,
            services: None,
            service_domain: default_service_domain(),
        }
    }
}

/// Address ranges, one for each IP family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    /// One range such as `10.244.0.0/16`, or one for IPv4 and one for IPv6.
    #[schemars(length(min = 1, max = 2), inner(length(min = 4, max = 64)), extend(
        "x-kubernetes-list-type" = "atomic",
        "x-kubernetes-validations" = [
            schema::rule("self.all(c, isCIDR(c))",
                "cidrBlocks must hold CIDR ranges such as 10.244.0.0/16 or fd00:10:244::/56"),
            schema::rule("size(self) < 2 || self.exists(c, !isCIDR(c)) || cidr(self[0]).ip().family() != cidr(self[1]).ip().family()",
                "cidrBlocks may hold two ranges only if one is IPv4 and the other IPv6"),
        ]))]
    pub cidr_blocks: Vec<String>,
}

/// Where a Cluster is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ClusterPhase {
    /// Nothing was asked of the provider yet.
    #[default]
    Pending,
    /// The provider is at work.
    Provisioning,
    /// What the provider makes is there.
    Provisioned,
    /// The cluster is being deleted.
    Deleting,
    /// The provider said that it cannot be made; a person has to change something.
    Failed,
}

/// What a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The metadata.generation that this status was judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Where the cluster is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ClusterPhase>,
    /// The provider's name for the cluster.
    #[serde(default, rename = "providerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub provider_id: Option<String>,
    /// Where the cluster's API server is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// The failure domains (zones) that machines can be put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub failure_domains: Vec<FailureDomain>,
    /// What the provider reports, in its own terms.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub provider_status: Map<String, Value>,
    /// The SHA-256 of the configuration that the provider last accepted, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub applied_digest: Option<String>,
    /// How many machines belong to the cluster.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub machines: i32,
    /// How many of them are ready.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_machines: i32,
    /// Ready, InfrastructureReady, ProviderConfigValid, Paused, Deleting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A part of the cloud that fails on its own, such as a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureDomain {
    /// Its name, as spec.failureDomain of a Machine has it.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Whether machines of the control plane may be put there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub control_plane: bool,
    /// What else the provider says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::attributes")]
    pub attributes: BTreeMap<String, String>,
}
