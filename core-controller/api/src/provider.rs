//! The kind Provider: where a provider is reached, and what it said of itself.
//!
//! Not for credentials of a cloud: those are named by Clusters and travel with each call.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Default of `limits.maxInFlight`.
pub const DEFAULT_MAX_IN_FLIGHT: i32 = 64;

/// Where a provider is reached, and how hard it may be pressed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cluster.outrigger.dev",
    version = "v1alpha1",
    kind = "Provider",
    shortname = "prov",
    category = "cluster-api",
    status = "ProviderStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "A provider of machines: a process that speaks the actuator protocol.",
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".spec.endpoint",
        description = "Where the provider is reached"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        description = "The provider's own version"
    ),
    printcolumn(
        name = "Protocol",
        type_ = "string",
        json_path = ".status.protocol",
        description = "The protocol in use"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the provider does its work"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long the object has existed"
    ),
    selectable = ".spec.endpoint"
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at(".tls", "!self.endpoint.startsWith('https://') || has(self.tls)",
        "spec.tls.secretRef is required for an https:// endpoint: remote providers are reached with mutual TLS only"),
    schema::rule_at(".tls", "!self.endpoint.startsWith('unix://') || !has(self.tls)",
        "spec.tls must be left out for a unix:// endpoint: a Unix socket is protected by its folder"),
]))]
pub struct ProviderSpec {
    /// Where the provider is reached: `unix:///run/actuator/NAME/actuator.sock` or `https://HOST:PORT`.
    #[schemars(length(min = 9, max = 512), extend("x-kubernetes-validations" = [
        schema::rule(
            r"self.matches('^unix:///[^\\s]+$') || self.matches('^https://([-A-Za-z0-9.]+|\\[[0-9A-Fa-f:]+\\])(:[0-9]{1,5})?/?$')",
            "spec.endpoint must be unix:///PATH or https://HOST:PORT"),
        schema::rule("!self.startsWith('unix://') || size(self) <= 107",
            "spec.endpoint: the path of a Unix socket must have at most 100 characters"),
    ]))]
    pub endpoint: String,
    /// Certificates for an https:// endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProviderTls>,
    /// How hard the provider may be pressed.
    #[serde(default)]
    pub limits: ProviderLimits,
}

/// Certificates for a remote provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    schema::rule_at(".secretRef", "(has(self.source) && self.source == 'Flag') != has(self.secretRef)",
        "spec.tls.secretRef is required, and must be left out where spec.tls.source is Flag"),
]))]
pub struct ProviderTls {
    /// Where the certificates are. The core itself writes Flag, for endpoints that its command line names.
    #[serde(default, skip_serializing_if = "TlsSource::is_secret")]
    pub source: TlsSource,
    /// The Secret with `ca.crt`, `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<TlsSecretReference>,
    /// The name that the provider's certificate must have; the endpoint's host when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [schema::form(schema::DNS_SUBDOMAIN, "serverName must be a name of lower-case letters, digits, dashes and dots")]))]
    pub server_name: Option<String>,
}

/// Where the certificates for a provider are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsSource {
    /// In a Secret.
    #[default]
    Secret,
    /// In a folder that the core was started with (`--provider-tls`).
    Flag,
}

impl TlsSource {
    /// Whether they are in a Secret.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
    pub fn is_secret(&self) -> bool {
        *self == Self::Secret
    }
}

/// A Secret in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSecretReference {
    /// The Secret's namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [schema::form(schema::DNS_LABEL, "namespace must be a name of at most 63 lower-case letters, digits and dashes")]))]
    pub namespace: String,
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [schema::form(schema::DNS_SUBDOMAIN, "name must be a name of lower-case letters, digits, dashes and dots")]))]
    pub name: String,
}

/// How hard a provider may be pressed. What the provider itself asks for counts too; the smaller number wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderLimits {
    /// The most calls in flight at once.
    #[schemars(range(min = 1, max = 4096))]
    pub max_in_flight: i32,
    /// The most calls started in a second; no limit when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub calls_per_second: Option<i32>,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self {
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            calls_per_second: None,
        }
    }
}

/// What the provider said of itself at the last discovery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// The metadata.generation that this status was judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// The name that the provider gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub name: Option<String>,
    /// The provider's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// Which start of the provider's process this is; another value means that it restarted.
    #[serde(default, rename = "instanceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub instance_id: Option<String>,
    /// The protocol in use, such as `actuator.v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub protocol: Option<String>,
    /// The protocols that the provider serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub protocols: Vec<String>,
    /// The optional abilities that the provider has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// The kinds of configuration that the provider takes in providerSpec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind"]))]
    pub config_kinds: Vec<ConfigKind>,
    /// The keys that a credentials Secret for this provider may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub credential_keys: Vec<String>,
    /// Ready and Reachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A kind of configuration that a provider takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigKind {
    /// The kind, as providerSpec.kind has it.
    #[schemars(length(min = 1, max = 256))]
    pub kind: String,
    /// What it configures: Cluster or Machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub target: Option<String>,
    /// The versions of its schema, as providerSpec.version has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub versions: Vec<String>,
}
