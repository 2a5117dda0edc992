//! What a provider answers is untrusted input: texts are bounded and stripped of
//! control characters, numbers of items are bounded, ids are refused when they cannot
//! be ids. Pure.

use std::time::Duration;

use actuator_proto::limits::{
    MAX_DIAGNOSTICS, MAX_PAGE_ITEMS, MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES, MAX_STRING_BYTES, MAX_TEXT_BYTES,
    bounded_line, is_harmless,
};
use actuator_proto::v1;

/// The most addresses, conditions, failure domains and members of one resource.
const MAX_ITEMS: usize = 100;
/// The most artefacts of one resource.
const MAX_ARTEFACTS: usize = 500;
/// The longest that a provider can ask to be left alone.
const MAX_POLL_AFTER: Duration = Duration::from_mins(30);

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The contract rules it out.
    Defect(String),
    /// It contradicts what was answered before.
    Inconsistent(String),
}

/// An answer of a provider.
pub(crate) trait Answer {
    /// Makes it fit to be used, or refuses it.
    fn clean(&mut self) -> Result<(), Fault>;
    /// The id of the resource that the call was about, where it is told.
    fn provider_id(&self) -> Option<&str> {
        None
    }
    /// Whether the resource is not there any more.
    fn is_gone(&self) -> bool {
        false
    }
}

fn defect<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Defect(message.into()))
}

/// A sentence, as one line.
fn text(text: &mut String, max: usize) {
    let harmless = |character| is_harmless(character) && !matches!(character, '\n' | '\t');
    if text.len() > max || !text.chars().all(harmless) {
        *text = bounded_line(text, max);
    }
}

fn word(word: &mut String) {
    text(word, MAX_STRING_BYTES);
}

/// An id is taken as it is or not at all: a shortened one would be another one.
fn check_id(id: &str) -> Result<(), Fault> {
    if id.len() > MAX_PROVIDER_ID_BYTES {
        return defect(format!(
            "the provider id has {} bytes and may have {MAX_PROVIDER_ID_BYTES}; the provider has to be mended",
            id.len()
        ));
    }
    if !id
        .chars()
        .all(|character| is_harmless(character) && !character.is_control())
    {
        return defect("the provider id has control characters; the provider has to be mended");
    }
    Ok(())
}

/// A duration of the protocol within 0 and `max`; one that is negative or none is `None`.
pub(crate) fn duration(duration: Option<prost_types::Duration>, max: Duration) -> Option<Duration> {
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .map(|duration| duration.min(max))
}

fn poll_after(after: &mut Option<prost_types::Duration>) {
    *after = duration(after.take(), MAX_POLL_AFTER).and_then(|after| prost_types::Duration::try_from(after).ok());
}

fn artefacts(artefacts: &mut Vec<v1::Artefact>) {
    artefacts.truncate(MAX_ARTEFACTS);
    for artefact in artefacts {
        word(&mut artefact.r#type);
        text(&mut artefact.id, MAX_PROVIDER_ID_BYTES);
    }
}

fn conditions(conditions: &mut Vec<v1::Condition>) {
    conditions.truncate(MAX_ITEMS);
    for condition in conditions {
        word(&mut condition.r#type);
        word(&mut condition.reason);
        text(&mut condition.message, MAX_TEXT_BYTES);
    }
}

fn failure(failure: &mut Option<v1::Failure>) {
    if let Some(failure) = failure {
        word(&mut failure.reason);
        text(&mut failure.message, MAX_TEXT_BYTES);
    }
}

fn state(state: &mut Vec<u8>) {
    // A hint that may be lost.
    if state.len() > MAX_PROVIDER_STATE_BYTES {
        state.clear();
    }
}

fn digest(digest: &mut Vec<u8>) {
    if digest.len() > 64 {
        digest.clear();
    }
}

fn endpoint(endpoint: &mut Option<v1::Endpoint>) {
    let usable = |endpoint: &v1::Endpoint| {
        (1..=65535).contains(&endpoint.port)
            && (1..=253).contains(&endpoint.host.len())
            && !endpoint.host.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if !endpoint.as_ref().is_some_and(usable) {
        *endpoint = None;
    }
}

fn ownership(ownership: &mut Option<v1::Ownership>) {
    if let Some(ownership) = ownership {
        for field in [
            &mut ownership.management_cluster_id,
            &mut ownership.cluster_uid,
            &mut ownership.object_uid,
            &mut ownership.namespace,
            &mut ownership.cluster_name,
            &mut ownership.object_name,
        ] {
            word(field);
        }
    }
}

pub(crate) fn machine_status(status: &mut v1::MachineStatus) -> Result<(), Fault> {
    check_id(&status.provider_id)?;
    status.addresses.truncate(MAX_ITEMS);
    for address in &mut status.addresses {
        word(&mut address.address);
    }
    status.addresses.retain(|address| !address.address.is_empty());
    word(&mut status.failure_domain);
    word(&mut status.machine_type);
    digest(&mut status.observed_digest);
    conditions(&mut status.conditions);
    failure(&mut status.failure);
    artefacts(&mut status.artefacts);
    poll_after(&mut status.poll_after);
    state(&mut status.provider_state);
    Ok(())
}

fn cluster_status(status: &mut v1::ClusterStatus) -> Result<(), Fault> {
    check_id(&status.provider_id)?;
    endpoint(&mut status.endpoint);
    status.failure_domains.truncate(MAX_ITEMS);
    for domain in &mut status.failure_domains {
        word(&mut domain.name);
        let attributes = std::mem::take(&mut domain.attributes);
        domain.attributes = attributes
            .into_iter()
            .take(MAX_ITEMS)
            .map(|(mut key, mut value)| {
                word(&mut key);
                word(&mut value);
                (key, value)
            })
            .collect();
    }
    status.failure_domains.retain(|domain| !domain.name.is_empty());
    digest(&mut status.observed_digest);
    conditions(&mut status.conditions);
    failure(&mut status.failure);
    artefacts(&mut status.artefacts);
    poll_after(&mut status.poll_after);
    state(&mut status.provider_state);
    Ok(())
}

pub(crate) fn listed_machine(machine: &mut v1::ListedMachine) -> Result<(), Fault> {
    ownership(&mut machine.ownership);
    word(&mut machine.idempotency_key);
    match &mut machine.status {
        Some(status) => machine_status(status),
        None => Ok(()),
    }
}

pub(crate) fn gone_machine(machine: &mut v1::GoneMachine) -> Result<(), Fault> {
    ownership(&mut machine.ownership);
    word(&mut machine.idempotency_key);
    check_id(&machine.provider_id)
}

fn id_of(id: Option<&String>) -> Option<&str> {
    id.map(String::as_str).filter(|id| !id.is_empty())
}

macro_rules! created {
    ($response:ident, $clean:ident) => {
        impl Answer for v1::$response {
            fn clean(&mut self) -> Result<(), Fault> {
                match &mut self.status {
                    Some(status) if !status.provider_id.is_empty() => $clean(status),
                    _ => defect("the answer has no provider id, which it must; the provider has to be mended"),
                }
            }
            fn provider_id(&self) -> Option<&str> {
                id_of(self.status.as_ref().map(|status| &status.provider_id))
            }
        }
    };
}

macro_rules! updated {
    ($response:ident, $clean:ident) => {
        impl Answer for v1::$response {
            fn clean(&mut self) -> Result<(), Fault> {
                self.status.as_mut().map_or(Ok(()), $clean)
            }
            fn provider_id(&self) -> Option<&str> {
                id_of(self.status.as_ref().map(|status| &status.provider_id))
            }
        }
    };
}

macro_rules! deleted {
    ($response:ident) => {
        impl Answer for v1::$response {
            fn clean(&mut self) -> Result<(), Fault> {
                text(&mut self.message, MAX_TEXT_BYTES);
                poll_after(&mut self.poll_after);
                artefacts(&mut self.remaining);
                Ok(())
            }
        }
    };
}

macro_rules! exists {
    ($response:ident, $clean:ident) => {
        impl Answer for v1::$response {
            fn clean(&mut self) -> Result<(), Fault> {
                let present = self.presence() == v1::Presence::Present;
                match &mut self.status {
                    Some(status) => $clean(status),
                    None if present => defect("the answer is PRESENT and has no status; the provider has to be mended"),
                    None => Ok(()),
                }
            }
            fn provider_id(&self) -> Option<&str> {
                let there = matches!(self.presence(), v1::Presence::Present | v1::Presence::Terminating);
                id_of(self.status.as_ref().map(|status| &status.provider_id)).filter(|_| there)
            }
            fn is_gone(&self) -> bool {
                self.presence() == v1::Presence::Absent
            }
        }
    };
}

macro_rules! page {
    ($response:ident, $items:ident, $clean:expr) => {
        impl Answer for v1::$response {
            fn clean(&mut self) -> Result<(), Fault> {
                if self.$items.len() > MAX_PAGE_ITEMS {
                    return defect(format!(
                        "the page has {} items and may have {MAX_PAGE_ITEMS}; the provider has to be mended",
                        self.$items.len()
                    ));
                }
                if self.next_page_token.len() > 4096 {
                    return defect("the page token is longer than 4096 bytes; the provider has to be mended");
                }
                self.$items.iter_mut().try_for_each($clean)
            }
        }
    };
}

created!(CreateMachineResponse, machine_status);
created!(CreateClusterResponse, cluster_status);
updated!(UpdateMachineResponse, machine_status);
updated!(UpdateClusterResponse, cluster_status);
deleted!(DeleteMachineResponse);
deleted!(DeleteClusterResponse);
exists!(MachineExistsResponse, machine_status);
exists!(ClusterExistsResponse, cluster_status);
page!(ListMachinesResponse, machines, listed_machine);
page!(ListClustersResponse, clusters, |cluster: &mut v1::ListedCluster| {
    ownership(&mut cluster.ownership);
    word(&mut cluster.idempotency_key);
    cluster.status.as_mut().map_or(Ok(()), cluster_status)
});
page!(ListMachineTypesResponse, machine_types, |kind: &mut v1::MachineType| {
    word(&mut kind.name);
    word(&mut kind.architecture);
    word(&mut kind.currency);
    kind.cpu_millis = kind.cpu_millis.max(0);
    kind.memory_bytes = kind.memory_bytes.max(0);
    kind.availability.truncate(MAX_ITEMS);
    for availability in &mut kind.availability {
        word(&mut availability.failure_domain);
    }
    let resources = std::mem::take(&mut kind.extended_resources);
    kind.extended_resources = resources
        .into_iter()
        .take(MAX_ITEMS)
        .map(|(mut name, mut quantity)| {
            word(&mut name);
            word(&mut quantity);
            (name, quantity)
        })
        .collect();
    Ok(())
});

impl Answer for v1::SetEndpointMembersResponse {
    fn clean(&mut self) -> Result<(), Fault> {
        endpoint(&mut self.endpoint);
        poll_after(&mut self.poll_after);
        self.members.truncate(MAX_ITEMS);
        self.members.iter_mut().try_for_each(|member| {
            text(&mut member.message, MAX_TEXT_BYTES);
            check_id(&member.provider_id)
        })
    }
}

impl Answer for v1::ValidateConfigResponse {
    fn clean(&mut self) -> Result<(), Fault> {
        self.diagnostics.truncate(MAX_DIAGNOSTICS);
        for diagnostic in &mut self.diagnostics {
            text(&mut diagnostic.json_pointer, MAX_TEXT_BYTES);
            text(&mut diagnostic.message, MAX_TEXT_BYTES);
        }
        Ok(())
    }
}

impl Answer for v1::GetConfigSchemaResponse {
    fn clean(&mut self) -> Result<(), Fault> {
        if self.json_schema.len() > 1024 * 1024 {
            return defect("the schema is larger than 1 MiB; the provider has to be mended");
        }
        if actuator_proto::digest::sha256(&self.json_schema) != self.sha256 {
            return defect("the schema does not match its SHA-256; the provider has to be mended");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(id: &str) -> v1::MachineStatus {
        v1::MachineStatus {
            provider_id: id.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_id_is_taken_whole_or_refused() {
        let exists = |id: &str| {
            v1::MachineExistsResponse {
                presence: v1::Presence::Present.into(),
                status: Some(status(id)),
            }
            .clean()
        };
        assert_eq!(exists(&"i".repeat(512)), Ok(()));
        assert!(matches!(exists(&"i".repeat(513)), Err(Fault::Defect(_))));
        assert!(matches!(exists("i-1\u{1b}[2J"), Err(Fault::Defect(_))));
        assert!(matches!(
            v1::CreateMachineResponse::default().clean(),
            Err(Fault::Defect(_))
        ));
        let empty = v1::CreateMachineResponse {
            status: Some(status("")),
        };
        assert!(matches!(empty.clone().clean(), Err(Fault::Defect(_))));
    }

    #[test]
    fn unknown_enum_values_stay_unspecified_and_are_never_absent_or_gone() {
        let mut answer = v1::MachineExistsResponse {
            presence: 77,
            status: None,
        };
        assert_eq!(answer.clean(), Ok(()));
        assert_eq!(answer.presence(), v1::Presence::Unspecified);
        assert!(!answer.is_gone());
        assert!(
            !v1::DeleteMachineResponse {
                state: 99,
                ..Default::default()
            }
            .is_gone()
        );
    }

    #[test]
    fn a_page_that_is_too_large_is_refused() {
        let mut page = v1::ListMachinesResponse {
            machines: vec![v1::ListedMachine::default(); MAX_PAGE_ITEMS + 1],
            ..Default::default()
        };
        assert!(matches!(page.clean(), Err(Fault::Defect(_))));
        page.machines.pop();
        assert_eq!(page.clean(), Ok(()));
        page.next_page_token = "x".repeat(5000);
        assert!(page.clean().is_err());
    }

    #[test]
    fn a_schema_must_match_its_digest() {
        let json_schema = b"{}".to_vec();
        let sha256 = actuator_proto::digest::sha256(&json_schema);
        let mut answer = v1::GetConfigSchemaResponse { json_schema, sha256 };
        assert_eq!(answer.clean(), Ok(()));
        answer.json_schema.push(b' ');
        assert!(answer.clean().is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_and_clean(
            texts in prop::collection::vec(any::<String>(), 12), long in ".{0,3000}", seconds in any::<i64>(), nanos in any::<i32>(),
            port in any::<i32>(), state in prop::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let mut status = status("i-1");
            status.failure = Some(v1::Failure { reason: long.clone(), message: long.clone(), terminal: true });
            status.conditions = texts.iter().map(|text| v1::Condition { message: format!("{long}{text}"), r#type: text.clone(), ..Default::default() }).collect();
            status.artefacts = texts.iter().map(|text| v1::Artefact { r#type: long.clone(), id: text.clone() }).collect();
            status.addresses = texts.iter().map(|text| v1::MachineAddress { r#type: 1, address: text.clone() }).collect();
            status.poll_after = Some(prost_types::Duration { seconds, nanos });
            status.provider_state = state;
            prop_assert_eq!(machine_status(&mut status), Ok(()));
            let clean = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
            for condition in &status.conditions {
                prop_assert!(condition.message.len() <= MAX_TEXT_BYTES && clean(&condition.message));
                prop_assert!(condition.r#type.len() <= MAX_STRING_BYTES && !condition.r#type.chars().any(char::is_control));
            }
            for address in &status.addresses {
                prop_assert!(!address.address.is_empty() && clean(&address.address));
            }
            prop_assert!(status.provider_state.len() <= MAX_PROVIDER_STATE_BYTES);
            let after = duration(status.poll_after, Duration::MAX);
            prop_assert!(after.is_none_or(|after| after <= MAX_POLL_AFTER));
            let mut cluster = v1::ClusterStatus {
                endpoint: Some(v1::Endpoint { host: texts[0].clone(), port }),
                ..Default::default()
            };
            prop_assert_eq!(cluster_status(&mut cluster), Ok(()));
            prop_assert!(cluster.endpoint.is_none_or(|endpoint| (1..=65535).contains(&endpoint.port)));
        }
    }
}
