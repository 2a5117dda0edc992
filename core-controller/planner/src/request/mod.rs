//! From API objects to the messages of the protocol: pure, so that digests and requests
//! can be made and tested without a provider.
//! Not for: reading Secrets or sending anything; the executor hands the bytes in.

use std::collections::BTreeMap;

use actuator_proto::{digest, key, limits, v1};
use outrigger_api::names::LABEL_CONTROL_PLANE;
use outrigger_api::{Cluster, ConfigSpec, Machine, ObjectMeta, ResourceExt as _};
use serde_json::Value;

mod echo;
#[cfg(test)]
mod tests;

pub use echo::{cluster_status, machine_provider_state, provider_status_of_cluster, provider_status_of_machine};

use crate::operation::{Failure, Member, Operation, Outcome};

/// Why no request can be made of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The config is larger than the protocol allows.
    #[error(
        "spec.providerSpec has {bytes} bytes as JSON; at most {} are allowed",
        limits::MAX_CONFIG_BYTES
    )]
    ConfigTooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// The config cannot be written as JSON.
    #[error("spec.providerSpec cannot be written as JSON ({0}); correct it")]
    ConfigNotJson(String),
    /// The bootstrap data is larger than the protocol allows.
    #[error(
        "the bootstrap data has {bytes} bytes; at most {} are allowed",
        limits::MAX_BOOTSTRAP_BYTES
    )]
    BootstrapTooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// The object has no UID.
    #[error("the {kind} {name} has no UID: it was never stored")]
    NoUid {
        /// What kind of object it is.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A call that this kind of object does not have.
    #[error("a {kind} has no call {call}")]
    NoSuchCall {
        /// What kind of object it is.
        kind: &'static str,
        /// The call.
        call: &'static str,
    },
}

impl From<RequestError> for Failure {
    /// Nothing was sent; held until the object changes.
    fn from(error: RequestError) -> Self {
        let reason = match error {
            RequestError::ConfigTooLarge { .. } | RequestError::ConfigNotJson(_) => "INVALID_CONFIG",
            RequestError::BootstrapTooLarge { .. } => "BOOTSTRAP_TOO_LARGE",
            RequestError::NoUid { .. } | RequestError::NoSuchCall { .. } => "InvalidRequest",
        };
        Self {
            outcome: Outcome::Hold { look_again: None },
            ..Self::not_sent(reason, error.to_string())
        }
    }
}

/// What goes into every request besides the object.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The UID of the management cluster's `kube-system` namespace.
    pub management_cluster_id: &'a str,
    /// The lease's count of transitions; 0: the caller does not fence.
    pub fencing_epoch: i64,
    /// Which try in a row, from 1; see `Observation::next_attempt`.
    pub attempt: i32,
    /// What the provider wants to see again; see `Observation::provider_state`. Where it
    /// is empty, what the object's status remembers is taken.
    pub provider_state: &'a [u8],
    /// How the cloud is reached.
    pub credentials: v1::Credentials,
    /// For Create: what the machine runs at its first boot.
    pub bootstrap: Option<v1::BootstrapData>,
}

/// A request for one machine, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub enum MachineRequest {
    /// ValidateConfig.
    Validate(v1::ValidateConfigRequest),
    /// CreateMachine.
    Create(v1::CreateMachineRequest),
    /// UpdateMachine.
    Update(v1::UpdateMachineRequest),
    /// DeleteMachine.
    Delete(v1::DeleteMachineRequest),
    /// MachineExists.
    Exists(v1::MachineExistsRequest),
}

/// A request for one cluster, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterRequest {
    /// ValidateConfig.
    Validate(v1::ValidateConfigRequest),
    /// CreateCluster.
    Create(v1::CreateClusterRequest),
    /// UpdateCluster.
    Update(v1::UpdateClusterRequest),
    /// DeleteCluster.
    Delete(v1::DeleteClusterRequest),
    /// ClusterExists.
    Exists(v1::ClusterExistsRequest),
    /// SetEndpointMembers.
    SetEndpointMembers(v1::SetEndpointMembersRequest),
}

/// Where the credentials for a machine or a cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsSource {
    /// In this Secret of the object's namespace.
    Secret(String),
    /// The provider uses what its own process was given.
    Ambient,
    /// Not known: the Cluster is gone and the machine's status does not remember. Nothing
    /// may be sent: with other credentials a provider would see nothing and say so.
    Unknown,
}

/// Where the credentials of a cluster are.
pub fn cluster_credentials(cluster: &Cluster) -> CredentialsSource {
    match &cluster.spec.credentials_ref {
        Some(secret) => CredentialsSource::Secret(secret.name.clone()),
        None => CredentialsSource::Ambient,
    }
}

/// Where the credentials for a machine are: as its Cluster says, or as it said when the
/// machine was made.
pub fn machine_credentials(machine: &Machine, cluster: Option<&Cluster>) -> CredentialsSource {
    match cluster {
        Some(cluster) => cluster_credentials(cluster),
        None => echo::origin(machine).map_or(CredentialsSource::Unknown, |origin| origin.credentials),
    }
}

/// Credentials from the entries of a Secret, or the provider's own where there is none.
pub fn credentials(entries: Option<BTreeMap<String, Vec<u8>>>) -> v1::Credentials {
    let source = match entries {
        Some(entries) => v1::credentials::Source::Data(v1::CredentialData {
            entries: entries.into_iter().collect(),
        }),
        None => v1::credentials::Source::Ambient(v1::AmbientCredentials {}),
    };
    v1::Credentials { source: Some(source) }
}

/// Bootstrap data from the entries `value` and `format` of a Secret. A format that is
/// not known is passed on as RAW; none is cloud-config.
pub fn bootstrap(value: Vec<u8>, format: Option<&str>) -> Result<v1::BootstrapData, RequestError> {
    if value.len() > limits::MAX_BOOTSTRAP_BYTES {
        return Err(RequestError::BootstrapTooLarge { bytes: value.len() });
    }
    let format = match format.map(str::trim) {
        None | Some("" | "cloud-config") => v1::BootstrapFormat::CloudConfig,
        Some("ignition") => v1::BootstrapFormat::Ignition,
        Some(_) => v1::BootstrapFormat::Raw,
    };
    Ok(v1::BootstrapData {
        sha256: digest::sha256(&value),
        format: format.into(),
        data: value,
    })
}

/// A provider's config: its JSON without kind and version, which travel beside it, with
/// sorted keys, so that equal configs are equal bytes wherever they were stored.
pub fn opaque_config(config: &ConfigSpec) -> Result<v1::OpaqueConfig, RequestError> {
    let mut value = Value::Object(config.config.clone());
    value.sort_all_objects();
    let json = serde_json::to_vec(&value).map_err(|error| RequestError::ConfigNotJson(error.to_string()))?;
    if json.len() > limits::MAX_CONFIG_BYTES {
        return Err(RequestError::ConfigTooLarge { bytes: json.len() });
    }
    Ok(v1::OpaqueConfig {
        kind: config.kind.clone(),
        schema_version: config.version.clone(),
        sha256: digest::sha256(&json),
        json,
    })
}

/// SHA-256 over kind, version and JSON of a config: under it verdicts are kept.
pub fn config_digest(config: &v1::OpaqueConfig) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(config.kind.len() + config.schema_version.len() + config.sha256.len() + 2);
    bytes.extend_from_slice(config.kind.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(config.schema_version.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&config.sha256);
    digest::sha256(&bytes)
}

/// Whether a machine is to run the control plane.
pub fn is_control_plane(machine: &Machine) -> bool {
    machine.labels().contains_key(LABEL_CONTROL_PLANE)
}

/// What a machine shall be, with its digest. `failure_domain` is where it was asked to
/// be when the provider was not left to choose.
pub fn machine_spec(
    machine: &Machine,
    cluster: Option<&Cluster>,
    failure_domain: Option<&str>,
) -> Result<v1::MachineSpec, RequestError> {
    let spec = &machine.spec;
    let mut message = v1::MachineSpec {
        name: machine.name_any(),
        kubernetes_version: spec.version.clone().unwrap_or_default(),
        failure_domain: failure_domain.unwrap_or_default().to_owned(),
        node_labels: spec.node_labels.clone().into_iter().collect(),
        taints: spec
            .taints
            .iter()
            .map(|taint| v1::Taint {
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
                effect: taint.effect.as_str().to_owned(),
            })
            .collect(),
        config: Some(opaque_config(&spec.provider_spec)?),
        control_plane: is_control_plane(machine),
        cluster: None,
        digest: Vec::new(),
    };
    // The set of taints is unordered in the API: equal sets are equal specs.
    message
        .taints
        .sort_by(|a, b| (&a.key, &a.effect, &a.value).cmp(&(&b.key, &b.effect, &b.value)));
    message.digest = digest::machine_spec(&message);
    message.cluster = cluster.map(cluster_status);
    Ok(message)
}

/// What a cluster shall be, with its digest.
pub fn cluster_spec(cluster: &Cluster) -> Result<v1::ClusterSpec, RequestError> {
    let spec = &cluster.spec;
    let network = spec.cluster_network.as_ref();
    let mut message = v1::ClusterSpec {
        name: cluster.name_any(),
        config: Some(opaque_config(&spec.provider_spec)?),
        pod_cidr_blocks: network
            .and_then(|network| network.pods.as_ref())
            .map(|ranges| ranges.cidr_blocks.clone())
            .unwrap_or_default(),
        service_cidr_blocks: network
            .and_then(|network| network.services.as_ref())
            .map(|ranges| ranges.cidr_blocks.clone())
            .unwrap_or_default(),
        control_plane_endpoint: spec.control_plane_endpoint.as_ref().map(|endpoint| v1::Endpoint {
            host: endpoint.host.clone(),
            port: endpoint.port,
        }),
        digest: Vec::new(),
    };
    message.digest = digest::cluster_spec(&message);
    Ok(message)
}

fn uid<'a>(kind: &'static str, meta: &'a ObjectMeta) -> Result<&'a str, RequestError> {
    meta.uid
        .as_deref()
        .filter(|uid| !uid.is_empty())
        .ok_or_else(|| RequestError::NoUid {
            kind,
            name: meta.name.clone().unwrap_or_default(),
        })
}

/// The idempotency key of a machine, the same for its life.
pub fn machine_key(machine: &Machine) -> Result<String, RequestError> {
    Ok(key::derive(uid("Machine", &machine.metadata)?))
}

/// Whose a machine is.
pub fn machine_ownership(
    machine: &Machine,
    cluster: Option<&Cluster>,
    management_cluster_id: &str,
) -> Result<v1::Ownership, RequestError> {
    let cluster_uid = match cluster {
        Some(cluster) => uid("Cluster", &cluster.metadata)?.to_owned(),
        None => echo::origin(machine)
            .map(|origin| origin.cluster_uid)
            .unwrap_or_default(),
    };
    Ok(v1::Ownership {
        management_cluster_id: management_cluster_id.to_owned(),
        cluster_uid,
        object_uid: uid("Machine", &machine.metadata)?.to_owned(),
        namespace: machine.namespace().unwrap_or_default(),
        cluster_name: machine.spec.cluster_name.clone(),
        object_name: machine.name_any(),
    })
}

/// Whose a cluster's resources are.
pub fn cluster_ownership(cluster: &Cluster, management_cluster_id: &str) -> Result<v1::Ownership, RequestError> {
    let uid = uid("Cluster", &cluster.metadata)?;
    Ok(v1::Ownership {
        management_cluster_id: management_cluster_id.to_owned(),
        cluster_uid: uid.to_owned(),
        object_uid: uid.to_owned(),
        namespace: cluster.namespace().unwrap_or_default(),
        cluster_name: cluster.name_any(),
        object_name: cluster.name_any(),
    })
}

fn meta(idempotency_key: String, generation: Option<i64>, context: &Context<'_>) -> v1::OperationMeta {
    v1::OperationMeta {
        idempotency_key,
        generation: generation.unwrap_or_default(),
        fencing_epoch: context.fencing_epoch,
        attempt: context.attempt,
    }
}

fn validate(config: v1::OpaqueConfig) -> v1::ValidateConfigRequest {
    v1::ValidateConfigRequest {
        config: Some(config),
        mode: v1::ValidationMode::Static.into(),
        credentials: None,
        previous: None,
    }
}

/// The request for a machine's operation.
pub fn machine_request(
    machine: &Machine,
    cluster: Option<&Cluster>,
    operation: &Operation,
    context: Context<'_>,
) -> Result<MachineRequest, RequestError> {
    use crate::operation::Call;
    let key = machine_key(machine)?;
    let ownership = machine_ownership(machine, cluster, context.management_cluster_id)?;
    let meta = meta(key.clone(), machine.metadata.generation, &context);
    let provider_state = if context.provider_state.is_empty() {
        machine_provider_state(machine)
    } else {
        context.provider_state.to_vec()
    };
    let reference = || v1::ResourceRef {
        ownership: Some(ownership.clone()),
        idempotency_key: key.clone(),
        provider_id: machine.spec.provider_id.clone().unwrap_or_default(),
    };
    // For Delete and Exists the config is an aid: one that cannot be sent stays away.
    let config_where_known = || opaque_config(&machine.spec.provider_spec).ok();
    let credentials = Some(context.credentials);
    Ok(match &operation.call {
        Call::Validate => MachineRequest::Validate(validate(opaque_config(&machine.spec.provider_spec)?)),
        Call::Create { failure_domain } => MachineRequest::Create(v1::CreateMachineRequest {
            meta: Some(meta),
            ownership: Some(ownership),
            spec: Some(machine_spec(machine, cluster, failure_domain.as_deref())?),
            bootstrap: context.bootstrap,
            credentials,
            provider_state,
        }),
        Call::Update => MachineRequest::Update(v1::UpdateMachineRequest {
            meta: Some(meta),
            r#ref: Some(reference()),
            spec: Some(machine_spec(machine, cluster, machine.spec.failure_domain.as_deref())?),
            credentials,
            provider_state,
        }),
        Call::Delete => MachineRequest::Delete(v1::DeleteMachineRequest {
            meta: Some(meta),
            r#ref: Some(reference()),
            config: config_where_known(),
            credentials,
            provider_state,
        }),
        Call::Exists => MachineRequest::Exists(v1::MachineExistsRequest {
            r#ref: Some(reference()),
            config: config_where_known(),
            credentials,
            provider_state,
        }),
        call @ Call::SetEndpointMembers(_) => {
            return Err(RequestError::NoSuchCall {
                kind: "Machine",
                call: call.name(),
            });
        }
    })
}

/// The request for a cluster's operation.
pub fn cluster_request(
    cluster: &Cluster,
    operation: &Operation,
    context: Context<'_>,
) -> Result<ClusterRequest, RequestError> {
    use crate::operation::Call;
    let ownership = cluster_ownership(cluster, context.management_cluster_id)?;
    let key = key::derive(&ownership.object_uid);
    let meta = meta(key.clone(), cluster.metadata.generation, &context);
    let provider_state = if context.provider_state.is_empty() {
        echo::cluster_provider_state(cluster)
    } else {
        context.provider_state.to_vec()
    };
    let reference = || v1::ResourceRef {
        ownership: Some(ownership.clone()),
        idempotency_key: key.clone(),
        provider_id: cluster
            .status
            .as_ref()
            .and_then(|status| status.provider_id.clone())
            .unwrap_or_default(),
    };
    let config_where_known = || opaque_config(&cluster.spec.provider_spec).ok();
    let credentials = Some(context.credentials);
    Ok(match &operation.call {
        Call::Validate => ClusterRequest::Validate(validate(opaque_config(&cluster.spec.provider_spec)?)),
        Call::Create { .. } => ClusterRequest::Create(v1::CreateClusterRequest {
            meta: Some(meta),
            ownership: Some(ownership),
            spec: Some(cluster_spec(cluster)?),
            credentials,
            provider_state,
        }),
        Call::Update => ClusterRequest::Update(v1::UpdateClusterRequest {
            meta: Some(meta),
            r#ref: Some(reference()),
            spec: Some(cluster_spec(cluster)?),
            credentials,
            provider_state,
        }),
        Call::Delete => ClusterRequest::Delete(v1::DeleteClusterRequest {
            meta: Some(meta),
            r#ref: Some(reference()),
            config: config_where_known(),
            credentials,
            provider_state,
        }),
        Call::Exists => ClusterRequest::Exists(v1::ClusterExistsRequest {
            r#ref: Some(reference()),
            config: config_where_known(),
            credentials,
            provider_state,
        }),
        Call::SetEndpointMembers(members) => ClusterRequest::SetEndpointMembers(v1::SetEndpointMembersRequest {
            meta: Some(meta),
            cluster: Some(reference()),
            members: members.iter().map(endpoint_member).collect(),
            credentials,
            provider_state,
        }),
    })
}

fn endpoint_member(member: &Member) -> v1::EndpointMember {
    v1::EndpointMember {
        idempotency_key: member.idempotency_key.clone(),
        provider_id: member.provider_id.clone(),
        draining: member.draining,
    }
}
