//! A machine's status, from its instance. Pure.

use std::time::Duration;

use jiff::Timestamp;
use provider_sdk::v1;

use crate::ec2::instances::Instance;
use crate::{ids, tags};

/// What is told about an instance. `poll` is how soon to look again while it changes.
pub fn of(instance: &Instance, poll: Duration) -> v1::MachineStatus {
    use v1::MachinePhase as Phase;

    let state = instance.state.name.as_str();
    let phase = match state {
        "pending" => Phase::Provisioning,
        "running" => Phase::Running,
        "stopping" | "stopped" => Phase::Stopped,
        "shutting-down" | "terminated" => Phase::Deleting,
        // Never terminal, never absent: the core keeps asking.
        _ => Phase::Unspecified,
    };
    let changing = matches!(state, "pending" | "stopping" | "shutting-down");
    let applied = tags::applied(&instance.tags());
    v1::MachineStatus {
        provider_id: ids::machine(&instance.placement.availability_zone, &instance.id),
        phase: phase as i32,
        addresses: addresses(instance),
        failure_domain: instance.placement.availability_zone.clone(),
        machine_type: instance.instance_type.clone(),
        observed_generation: applied.generation,
        observed_digest: applied.digest,
        conditions: vec![condition(instance, phase)],
        failure: None,
        artefacts: artefacts(instance),
        poll_after: changing.then(|| prost_types::Duration::try_from(poll).ok()).flatten(),
        provider_state: Vec::new(),
    }
}

fn condition(instance: &Instance, phase: v1::MachinePhase) -> v1::Condition {
    let state = instance.state.name.as_str();
    // `shutting-down` becomes `ShuttingDown`.
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    };
    let status = match phase {
        v1::MachinePhase::Running => v1::ConditionStatus::True,
        v1::MachinePhase::Unspecified => v1::ConditionStatus::Unknown,
        _ => v1::ConditionStatus::False,
    };
    let why = instance.state_reason.as_ref().filter(|reason| !reason.code.is_empty());
    v1::Condition {
        r#type: "InstanceRunning".to_owned(),
        status: status as i32,
        reason: state.split('-').map(capitalised).collect(),
        message: why.map(|why| why.message.clone()).unwrap_or_default(),
        // EC2 tells when it was started, not when its state changed.
        last_transition_time: None,
    }
}

fn addresses(instance: &Instance) -> Vec<v1::MachineAddress> {
    use v1::MachineAddressType as Type;

    [
        (Type::InternalIp, &instance.private_ip_address),
        (Type::ExternalIp, &instance.public_ip_address),
        (Type::InternalDns, &instance.private_dns_name),
        (Type::ExternalDns, &instance.public_dns_name),
        // What kubelet registers as with the cloud provider of AWS.
        (Type::Hostname, &instance.private_dns_name),
    ]
    .into_iter()
    .filter_map(|(kind, address)| {
        let address = address.as_ref().filter(|address| !address.is_empty())?;
        Some(v1::MachineAddress {
            r#type: kind as i32,
            address: address.clone(),
        })
    })
    .collect()
}

/// What there is because of an instance; nothing once it has ended.
fn artefacts(instance: &Instance) -> Vec<v1::Artefact> {
    if instance.state.name == "terminated" {
        return Vec::new();
    }
    let artefact = |kind: &str, id: &str| v1::Artefact {
        r#type: kind.to_owned(),
        id: id.to_owned(),
    };
    std::iter::once(artefact("instance", &instance.id))
        .chain(instance.volumes().map(|id| artefact("volume", id)))
        .chain(instance.interfaces().map(|id| artefact("network-interface", id)))
        .collect()
}

/// When an instance was started.
pub fn created_at(instance: &Instance) -> Option<prost_types::Timestamp> {
    let time: Timestamp = instance.launch_time.parse().ok()?;
    Some(prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::Tags;

    #[test]
    fn states_become_phases() {
        use v1::MachinePhase as Phase;
        for (state, phase, reason, polled) in [
            ("pending", Phase::Provisioning, "Pending", true),
            ("running", Phase::Running, "Running", false),
            ("stopping", Phase::Stopped, "Stopping", true),
            ("stopped", Phase::Stopped, "Stopped", false),
            ("shutting-down", Phase::Deleting, "ShuttingDown", true),
            ("something-new", Phase::Unspecified, "SomethingNew", false),
        ] {
            let status = of(&Instance::for_tests("i-1", state, &Tags::new()), Duration::from_secs(5));
            assert_eq!(status.phase(), phase, "{state}");
            assert_eq!(status.conditions[0].reason, reason);
            assert_eq!(status.poll_after.is_some(), polled, "{state}");
            assert_eq!(status.provider_id, "aws:///eu-central-1a/i-1");
        }
    }

    #[test]
    fn empty_names_are_no_addresses() {
        let mut instance = Instance::for_tests("i-1", "running", &Tags::new());
        instance.private_ip_address = Some("10.0.0.1".to_owned());
        instance.public_dns_name = Some(String::new());
        assert_eq!(addresses(&instance).len(), 1);
    }
}
