//! What is kept of a provider's answers in `status.providerStatus`, and how it is read
//! back: the provider's own conditions and artefacts for people, its state blob and the
//! machine's origin for requests that are made when nothing else is left.
//! Not for: fields that the API types have themselves.

use actuator_proto::{limits, v1};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrigger_api::{Cluster, Machine};
use serde_json::{Map, Value, json};

use super::CredentialsSource;

const CONDITIONS: &str = "conditions";
const ARTEFACTS: &str = "artefacts";
const STATE: &str = "state";
const ORIGIN: &str = "origin";
const CLUSTER_UID: &str = "clusterUID";
const CREDENTIALS_SECRET: &str = "credentialsSecretName";

/// The most conditions and artefacts that are kept.
const MAX_KEPT: usize = 32;

/// What a machine was made with: needed to delete it when its Cluster is gone.
pub(super) struct Origin {
    pub cluster_uid: String,
    pub credentials: CredentialsSource,
}

/// What to keep of a machine's status.
pub fn provider_status_of_machine(
    status: &v1::MachineStatus,
    cluster: Option<&Cluster>,
    kept: &Map<String, Value>,
) -> Map<String, Value> {
    let mut map = echo(&status.conditions, &status.artefacts, &status.provider_state);
    match cluster {
        Some(cluster) => {
            let mut origin = Map::new();
            if let Some(uid) = &cluster.metadata.uid {
                origin.insert(CLUSTER_UID.to_owned(), json!(uid));
            }
            if let Some(secret) = &cluster.spec.credentials_ref {
                origin.insert(CREDENTIALS_SECRET.to_owned(), json!(secret.name));
            }
            map.insert(ORIGIN.to_owned(), Value::Object(origin));
        }
        None => {
            if let Some(origin) = kept.get(ORIGIN) {
                map.insert(ORIGIN.to_owned(), origin.clone());
            }
        }
    }
    map
}

/// What to keep of a cluster's status.
pub fn provider_status_of_cluster(status: &v1::ClusterStatus) -> Map<String, Value> {
    echo(&status.conditions, &status.artefacts, &status.provider_state)
}

fn echo(conditions: &[v1::Condition], artefacts: &[v1::Artefact], state: &[u8]) -> Map<String, Value> {
    let text = |text: &str| limits::bounded_text(text, limits::MAX_STRING_BYTES);
    let mut map = Map::new();
    // Sorted: a provider that answers in another order each time causes no write.
    let mut kept: Vec<(String, Value)> = conditions
        .iter()
        .take(MAX_KEPT)
        .map(|condition| {
            let holds = match condition.status() {
                v1::ConditionStatus::True => "True",
                v1::ConditionStatus::False => "False",
                v1::ConditionStatus::Unspecified | v1::ConditionStatus::Unknown => "Unknown",
            };
            let type_ = text(&condition.r#type);
            let value = json!({
                "type": type_,
                "status": holds,
                "reason": text(&condition.reason),
                "message": limits::bounded_text(&condition.message, limits::MAX_TEXT_BYTES),
            });
            (type_, value)
        })
        .collect();
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    if !kept.is_empty() {
        map.insert(
            CONDITIONS.to_owned(),
            kept.into_iter().map(|(_, value)| value).collect(),
        );
    }
    let mut kept: Vec<(String, String)> = artefacts
        .iter()
        .take(MAX_KEPT)
        .map(|artefact| (text(&artefact.r#type), text(&artefact.id)))
        .collect();
    kept.sort();
    if !kept.is_empty() {
        let kept = kept.into_iter().map(|(type_, id)| json!({"type": type_, "id": id}));
        map.insert(ARTEFACTS.to_owned(), kept.collect());
    }
    if !state.is_empty() && state.len() <= limits::MAX_PROVIDER_STATE_BYTES {
        map.insert(STATE.to_owned(), json!(STANDARD.encode(state)));
    }
    map
}

fn state(map: &Map<String, Value>) -> Vec<u8> {
    map.get(STATE)
        .and_then(Value::as_str)
        .and_then(|text| STANDARD.decode(text).ok())
        .filter(|state| state.len() <= limits::MAX_PROVIDER_STATE_BYTES)
        .unwrap_or_default()
}

/// The state blob that a machine's status remembers; may be empty.
pub fn machine_provider_state(machine: &Machine) -> Vec<u8> {
    machine
        .status
        .as_ref()
        .map(|status| state(&status.provider_status))
        .unwrap_or_default()
}

/// The state blob that a cluster's status remembers; may be empty.
pub(super) fn cluster_provider_state(cluster: &Cluster) -> Vec<u8> {
    cluster
        .status
        .as_ref()
        .map(|status| state(&status.provider_status))
        .unwrap_or_default()
}

/// What a machine was made with, as far as its status remembers.
pub(super) fn origin(machine: &Machine) -> Option<Origin> {
    let origin = machine.status.as_ref()?.provider_status.get(ORIGIN)?.as_object()?;
    let text = |name: &str| origin.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Origin {
        cluster_uid: text(CLUSTER_UID).unwrap_or_default(),
        credentials: text(CREDENTIALS_SECRET).map_or(CredentialsSource::Ambient, CredentialsSource::Secret),
    })
}

/// The status of a cluster as its object remembers it: what a machine's provider is told
/// of the cluster.
pub fn cluster_status(cluster: &Cluster) -> v1::ClusterStatus {
    let Some(status) = &cluster.status else {
        return v1::ClusterStatus::default();
    };
    let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    v1::ClusterStatus {
        provider_id: status.provider_id.clone().unwrap_or_default(),
        phase: v1::ClusterPhase::Ready.into(),
        endpoint: status.control_plane_endpoint.as_ref().map(|endpoint| v1::Endpoint {
            host: endpoint.host.clone(),
            port: endpoint.port,
        }),
        failure_domains: status
            .failure_domains
            .iter()
            .map(|domain| v1::FailureDomain {
                name: domain.name.clone(),
                control_plane: domain.control_plane,
                attributes: domain.attributes.clone().into_iter().collect(),
            })
            .collect(),
        artefacts: status
            .provider_status
            .get(ARTEFACTS)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|artefact| v1::Artefact {
                r#type: field(artefact, "type"),
                id: field(artefact, "id"),
            })
            .collect(),
        provider_state: state(&status.provider_status),
        ..Default::default()
    }
}
