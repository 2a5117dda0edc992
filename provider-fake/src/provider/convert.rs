//! Between the words of the protocol and those of the cloud. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use provider_sdk::{ActuatorError, ClusterSpec, MachineSpec, Resource, v1};

use super::PROVIDER_ID_PREFIX;
use crate::cloud::catalogue::MachineTypeInfo;
use crate::cloud::instances::{InstanceRef, InstanceShape};
use crate::cloud::model::{Instance, InstanceState, Owner};
use crate::cloud::networks::{NetworkRef, NetworkShape, NetworkView};
use crate::cloud::{Cloud, CloudError};
use crate::config::{FakeClusterConfig, FakeMachineConfig};

/// The longest time until the next look at something that changes.
const LONGEST_POLL: Duration = Duration::from_secs(10);
/// The shortest.
const SHORTEST_POLL: Duration = Duration::from_millis(50);

pub(super) fn actuator_error(error: CloudError) -> ActuatorError {
    let code = error.code();
    let mut converted = ActuatorError::new(error.reason, error.message)
        .with_effect(error.effect)
        .with_cloud_code(code);
    if let Some(retry_after) = error.retry_after {
        converted = converted.with_retry_after(retry_after);
    }
    if let Some((quota, description)) = error.quota {
        converted = converted.with_quota(format!("quota:{quota}"), description);
    }
    if let Some(field) = error.field {
        converted = converted.with_field(field, code);
    }
    error.facts.into_iter().fold(converted, |converted, (name, value)| {
        converted.with_metadata(name, value)
    })
}

pub(super) fn owner(ownership: &v1::Ownership) -> Owner {
    Owner {
        management_cluster: ownership.management_cluster_id.clone(),
        cluster: ownership.cluster_uid.clone(),
        object: ownership.object_uid.clone(),
        namespace: ownership.namespace.clone(),
        cluster_name: ownership.cluster_name.clone(),
        name: ownership.object_name.clone(),
    }
}

pub(super) fn ownership(owner: &Owner) -> v1::Ownership {
    v1::Ownership {
        management_cluster_id: owner.management_cluster.clone(),
        cluster_uid: owner.cluster.clone(),
        object_uid: owner.object.clone(),
        namespace: owner.namespace.clone(),
        cluster_name: owner.cluster_name.clone(),
        object_name: owner.name.clone(),
    }
}

pub(super) fn machine_provider_id(instance: &Instance) -> String {
    format!("{PROVIDER_ID_PREFIX}{}/{}", instance.zone, instance.id)
}

pub(super) fn cluster_provider_id(cloud: &Cloud, network: &str) -> String {
    format!("{PROVIDER_ID_PREFIX}{}/{network}", cloud.settings().region)
}

/// The place and the id in a provider_id, whose id begins with `prefix-`.
fn parse_id(provider_id: &str, prefix: &str) -> Result<(String, String), ActuatorError> {
    let parts = provider_id
        .strip_prefix(PROVIDER_ID_PREFIX)
        .and_then(|rest| rest.split_once('/'));
    let is_id = |id: &str| {
        let digits = id.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
        digits.is_some_and(|digits| digits.len() == 17 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match parts {
        Some((place, id)) if !place.is_empty() && is_id(id) => Ok((place.to_owned(), id.to_owned())),
        _ => Err(ActuatorError::new(
            v1::ErrorReason::MalformedProviderId,
            format!(
                "{provider_id:?} is no id of this provider; they look like {PROVIDER_ID_PREFIX}zone-a/{prefix}-0123456789abcdef0"
            ),
        )),
    }
}

/// The zone and the id of an instance.
pub(super) fn parse_machine_id(provider_id: &str) -> Result<(String, String), ActuatorError> {
    parse_id(provider_id, "i")
}

pub(super) fn instance_ref(resource: &Resource) -> Result<InstanceRef, ActuatorError> {
    Ok(InstanceRef {
        key: resource.key.clone(),
        owner: owner(&resource.ownership),
        id: resource.provider_id.as_deref().map(parse_machine_id).transpose()?,
    })
}

pub(super) fn network_ref(resource: &Resource) -> Result<NetworkRef, ActuatorError> {
    let id = resource
        .provider_id
        .as_deref()
        .map(|id| parse_id(id, "net"))
        .transpose()?;
    Ok(NetworkRef {
        key: resource.key.clone(),
        owner: owner(&resource.ownership),
        id: id.map(|(_, id)| id),
    })
}

pub(super) fn instance_shape(spec: &MachineSpec<FakeMachineConfig>) -> InstanceShape {
    let config = &spec.config;
    let mut labels: BTreeMap<String, String> = config.labels.clone();
    labels.extend(spec.node_labels.clone());
    let taint = |taint: &v1::Taint| format!("{}={}:{}", taint.key, taint.value, taint.effect);
    InstanceShape {
        name: spec.name.clone(),
        kubernetes_version: spec.kubernetes_version.clone().unwrap_or_default(),
        control_plane: spec.control_plane,
        zone: spec.failure_domain.clone(),
        machine_type: config.machine_type.clone(),
        image: config.image.clone(),
        disk_gib: config.disk_gib,
        public_address: config.public_address,
        labels,
        taints: spec.taints.iter().map(taint).collect(),
        console_kib: config.console_kib,
    }
}

pub(super) fn network_shape(spec: &ClusterSpec<FakeClusterConfig>) -> NetworkShape {
    let config = &spec.config;
    let given = spec
        .control_plane_endpoint
        .as_ref()
        .filter(|endpoint| !endpoint.host.is_empty());
    let wanted = config.load_balancer.enabled && given.is_none();
    NetworkShape {
        name: spec.name.clone(),
        region: config.region.clone(),
        cidr: config.network.cidr.0,
        zones: config.zones.clone(),
        load_balancer_port: wanted.then_some(config.load_balancer.port),
        given_endpoint: given.map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port)),
        labels: config.labels.clone(),
    }
}

/// How long until then, within what a core should wait.
pub(super) fn until(cloud: &Cloud, at: Option<Timestamp>) -> Option<Duration> {
    let left = at?.duration_since(cloud.now());
    Some(
        Duration::try_from(left)
            .unwrap_or_default()
            .clamp(SHORTEST_POLL, LONGEST_POLL),
    )
}

fn wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

pub(super) fn artefact(kind: &str, id: &str) -> v1::Artefact {
    v1::Artefact {
        r#type: kind.to_owned(),
        id: id.to_owned(),
    }
}

/// What there is because of a machine; nothing once it is lost.
pub(super) fn machine_artefacts(instance: &Instance) -> Vec<v1::Artefact> {
    if instance.state == InstanceState::Lost {
        return Vec::new();
    }
    let mut artefacts = vec![
        artefact("instance", &instance.id),
        artefact("disk", &instance.disk),
        artefact("network-interface", &instance.network_interface),
    ];
    artefacts.extend(instance.address.as_ref().map(|id| artefact("address", id)));
    artefacts
}

pub(super) fn machine_status(cloud: &Cloud, instance: &Instance) -> v1::MachineStatus {
    use v1::MachineAddressType as Type;
    use v1::MachinePhase as Phase;

    let (phase, condition, reason) = match instance.state {
        InstanceState::Pending => (Phase::Provisioning, v1::ConditionStatus::False, "Booting"),
        InstanceState::Running => (Phase::Running, v1::ConditionStatus::True, "Booted"),
        InstanceState::Stopped => (Phase::Stopped, v1::ConditionStatus::False, "Stopped"),
        InstanceState::Failed => (Phase::Failed, v1::ConditionStatus::False, "Failed"),
        InstanceState::ShuttingDown => (Phase::Deleting, v1::ConditionStatus::False, "ShuttingDown"),
        InstanceState::Lost => (Phase::Failed, v1::ConditionStatus::False, "Lost"),
    };
    let address = |kind: Type, address: String| v1::MachineAddress {
        r#type: kind as i32,
        address,
    };
    let mut addresses = vec![
        address(Type::Hostname, instance.name.clone()),
        address(Type::InternalIp, instance.internal_ip.clone()),
        address(
            Type::InternalDns,
            format!("{}.{}.fake.internal", instance.id, instance.zone),
        ),
    ];
    addresses.extend(instance.external_ip.clone().map(|ip| address(Type::ExternalIp, ip)));
    let failure = instance.failure.as_ref().map(|message| v1::Failure {
        reason: if instance.state == InstanceState::Lost {
            "INSTANCE_LOST"
        } else {
            "INSTANCE_FAILED"
        }
        .to_owned(),
        message: message.clone(),
        terminal: true,
    });
    let changes_at = match instance.state {
        InstanceState::Pending => Some(instance.ready_at),
        InstanceState::ShuttingDown => instance.gone_at,
        _ => None,
    };
    let since = if instance.state == InstanceState::Pending {
        instance.created_at
    } else {
        instance.ready_at
    };
    v1::MachineStatus {
        provider_id: machine_provider_id(instance),
        phase: phase as i32,
        addresses,
        failure_domain: instance.zone.clone(),
        machine_type: instance.machine_type.clone(),
        observed_generation: instance.generation,
        observed_digest: hex::decode(&instance.digest).unwrap_or_default(),
        conditions: vec![v1::Condition {
            r#type: "InstanceRunning".to_owned(),
            status: condition as i32,
            reason: reason.to_owned(),
            message: instance.failure.clone().unwrap_or_default(),
            last_transition_time: Some(wire(since)),
        }],
        failure,
        artefacts: machine_artefacts(instance),
        poll_after: until(cloud, changes_at).and_then(wire_duration),
        provider_state: Vec::new(),
    }
}

pub(super) fn listed(cloud: &Cloud, instance: &Instance) -> v1::ListedMachine {
    v1::ListedMachine {
        ownership: Some(ownership(&instance.owner)),
        idempotency_key: instance.key.clone(),
        created_at: Some(wire(instance.created_at)),
        status: Some(machine_status(cloud, instance)),
    }
}

pub(super) fn endpoint(view: &NetworkView) -> Option<v1::Endpoint> {
    if let Some(given) = &view.network.given_endpoint {
        let (host, port) = given.rsplit_once(':')?;
        return Some(v1::Endpoint {
            host: host.to_owned(),
            port: port.parse().ok()?,
        });
    }
    view.load_balancer.as_ref().map(|load_balancer| v1::Endpoint {
        host: load_balancer.host.clone(),
        port: i32::from(load_balancer.port),
    })
}

pub(super) fn cluster_status(cloud: &Cloud, view: &NetworkView) -> v1::ClusterStatus {
    use v1::ClusterPhase as Phase;

    let network = &view.network;
    let booting = network.ready_at > cloud.now();
    let incomplete = network.load_balancer_port.is_some() && view.load_balancer.is_none();
    let (phase, changes_at) = match (network.gone_at, booting || incomplete) {
        (Some(gone_at), _) => (Phase::Deleting, Some(gone_at)),
        (None, true) => (Phase::Provisioning, Some(network.ready_at)),
        (None, false) => (Phase::Ready, None),
    };
    let domain = |zone: &String| v1::FailureDomain {
        name: zone.clone(),
        control_plane: true,
        attributes: [("region".to_owned(), cloud.settings().region.clone())].into(),
    };
    let mut artefacts = vec![artefact("network", &network.id)];
    artefacts.extend(view.load_balancer.as_ref().map(|it| artefact("load-balancer", &it.id)));
    v1::ClusterStatus {
        provider_id: cluster_provider_id(cloud, &network.id),
        phase: phase as i32,
        endpoint: endpoint(view),
        failure_domains: network.zones.iter().map(domain).collect(),
        conditions: Vec::new(),
        artefacts,
        observed_generation: network.generation,
        observed_digest: hex::decode(&network.digest).unwrap_or_default(),
        failure: None,
        poll_after: until(cloud, changes_at).and_then(wire_duration),
        provider_state: Vec::new(),
    }
}

pub(super) fn member_status(member: &v1::EndpointMember, state: Option<InstanceState>) -> v1::EndpointMemberStatus {
    use v1::EndpointMemberState as State;

    let (state, message) = match state {
        _ if member.draining => (State::Draining, ""),
        Some(InstanceState::Running) => (State::Healthy, ""),
        Some(InstanceState::Pending) => (State::Registering, "the instance is booting"),
        Some(_) => (State::Unhealthy, "the instance does not run"),
        None => (State::Unhealthy, "there is no such instance"),
    };
    v1::EndpointMemberStatus {
        provider_id: member.provider_id.clone(),
        state: state as i32,
        message: message.to_owned(),
    }
}

pub(super) fn machine_type(info: &MachineTypeInfo, zones: Vec<(String, bool)>) -> v1::MachineType {
    let gpus = (info.gpus > 0).then(|| ("nvidia.com/gpu".to_owned(), info.gpus.to_string()));
    let availability = |(failure_domain, available)| v1::MachineTypeAvailability {
        failure_domain,
        available,
    };
    v1::MachineType {
        name: info.name.to_owned(),
        cpu_millis: i64::from(info.cpus) * 1000,
        memory_bytes: i64::from(info.memory_gib) << 30,
        architecture: info.architecture.to_owned(),
        extended_resources: gpus.into_iter().collect(),
        price_micros_per_hour: Some(info.price_micros_per_hour),
        currency: "USD".to_owned(),
        availability: zones.into_iter().map(availability).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_ids_are_read_back_and_others_refused() {
        let id = "fake:///zone-a/i-0123456789abcdef0";
        assert_eq!(
            parse_machine_id(id).expect("well-formed"),
            ("zone-a".to_owned(), "i-0123456789abcdef0".to_owned())
        );
        for malformed in [
            "aws:///zone-a/i-0123456789abcdef0",
            "fake:////i-0123456789abcdef0",
            "fake:///zone-a/i-0123",
            "fake:///zone-a/disk-0123456789abcdef0",
            "fake:///zone-a",
            "",
        ] {
            let error = parse_machine_id(malformed).expect_err(malformed);
            assert_eq!(error.reason(), v1::ErrorReason::MalformedProviderId);
        }
    }
}
