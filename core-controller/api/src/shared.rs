//! Types that several kinds share: the template of a Machine, provider configuration, references, taints, addresses.
//!
//! Not for anything that belongs to one kind only.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;

/// Default of `deletion.nodeDrainTimeout`.
pub const DEFAULT_DRAIN_TIMEOUT: &str = "10m";
/// Default of `deletion.nodeVolumeDetachTimeout`.
pub const DEFAULT_VOLUME_DETACH_TIMEOUT: &str = "5m";
/// Default of `deletion.nodeDeletionTimeout`.
pub const DEFAULT_NODE_DELETION_TIMEOUT: &str = "10s";

/// A duration as the API writes it (`10m`, `1h30m`); `None` for text that the API server would have refused.
pub fn duration(text: &str) -> Option<Duration> {
    let parsed: kube_core::Duration = text.parse().ok()?;
    (!parsed.is_negative()).then(|| parsed.into())
}

/// Configuration for a provider. Only its kind and version are the core's concern; the rest is handed to the provider
/// as it is, which validates it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ConfigSpec {
    /// The kind of the configuration, as the provider lists it in status.configKinds of its Provider object.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form("^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$", "kind must be a word of letters, digits and dashes")]))]
    pub kind: String,
    /// The version of the configuration's schema, such as `v1`.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = [schema::form("^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$", "version must be a word such as v1")])
    )]
    pub version: String,
    /// Everything else, for the provider.
    #[serde(flatten)]
    #[schemars(skip)]
    pub config: Map<String, Value>,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalSecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [schema::form(schema::DNS_SUBDOMAIN, "name must be a name of lower-case letters, digits, dashes and dots")]))]
    pub name: String,
}

/// Where an API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// A host name or an IP address, without scheme and port.
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [schema::form(r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$|^[0-9A-Fa-f:.]+$", "host must be a host name or an IP address, without scheme and port")])
    )]
    pub host: String,
    /// The TCP port, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// How a machine becomes a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The Secret of this namespace whose key `value` holds the data that the machine runs at its first boot, and whose key
    /// `format` says how it is written (cloud-config when there is none). The machine is not created before the Secret exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [schema::form(schema::DNS_SUBDOMAIN, "dataSecretName must be a name of lower-case letters, digits, dashes and dots")]))]
    pub data_secret_name: Option<String>,
}

/// How long each stage of a machine's deletion may take before the next one begins all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Deletion {
    /// The longest wait for the node's Pods to be evicted, such as `10m`; `0s` does not wait.
    #[schemars(schema_with = "schema::duration")]
    pub node_drain_timeout: String,
    /// The longest wait for the node's volumes to be detached, such as `5m`; `0s` does not wait.
    #[schemars(schema_with = "schema::duration")]
    pub node_volume_detach_timeout: String,
    /// The longest time that deleting the Node object is tried, such as `10s`; `0s` does not try.
    #[schemars(schema_with = "schema::duration")]
    pub node_deletion_timeout: String,
}

impl Default for Deletion {
    fn default() -> Self {
        Self {
            node_drain_timeout: DEFAULT_DRAIN_TIMEOUT.to_owned(),
            node_volume_detach_timeout: DEFAULT_VOLUME_DETACH_TIMEOUT.to_owned(),
            node_deletion_timeout: DEFAULT_NODE_DELETION_TIMEOUT.to_owned(),
        }
    }
}

/// What a taint does to Pods that do not tolerate it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New Pods stay away.
    #[default]
    NoSchedule,
    /// New Pods stay away if they can.
    PreferNoSchedule,
    /// New Pods stay away and those there are evicted.
    NoExecute,
}

impl TaintEffect {
    /// The effect as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A taint that a node gets when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// The taint's key, such as `dedicated`.
    #[schemars(length(min = 1, max = 317), extend("x-kubernetes-validations" = [schema::form(schema::LABEL_KEY, "key must be letters, digits, '-', '_' and '.', with an optional DNS prefix and '/'")]))]
    pub key: String,
    /// The taint's value; it may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = [schema::form(schema::LABEL_VALUE, "value must be empty, or letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")]))]
    pub value: Option<String>,
    /// What the taint does to Pods that do not tolerate it.
    pub effect: TaintEffect,
}

/// An address of a machine, as the provider reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineAddress {
    /// The kind of address: InternalIP, ExternalIP, InternalDNS, ExternalDNS or Hostname.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
    /// The address itself.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
}

/// The metadata that a template gives to what is made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// Labels of each Machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each Machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// What each Machine of a set looks like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplate {
    /// Labels and annotations of each Machine.
    #[serde(default)]
    pub metadata: TemplateMeta,
    /// The spec of each Machine; its Cluster is that of the set.
    pub spec: MachineTemplateSpec,
}

/// A Machine's spec without what differs between the Machines of a set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineTemplateSpec {
    /// The name of the Provider that makes the machines; that of the Cluster when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "provider must be a name of at most 63 lower-case letters, digits and dashes")]))]
    pub provider: Option<String>,
    /// What the machines are like, in the provider's own terms.
    pub provider_spec: ConfigSpec,
    /// The Kubernetes version that the machines run, such as `v1.34.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = [schema::form(schema::KUBERNETES_VERSION, "version must be a Kubernetes version such as v1.34.2")]))]
    pub version: Option<String>,
    /// The failure domain (a zone) that the machines are in; the provider and the core choose one when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub failure_domain: Option<String>,
    /// Taints that the nodes get when they join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<Taint>,
    /// Labels that the nodes get when they join.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub node_labels: BTreeMap<String, String>,
    /// How the machines become nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// How long each stage of a machine's deletion may take.
    #[serde(default)]
    pub deletion: Deletion,
}
