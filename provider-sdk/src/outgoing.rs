//! What a provider answers, brought within the bounds of the protocol. What can be cut
//! without harm is cut; an answer that breaks the contract is a defect of the provider
//! and becomes `PROVIDER_BUG`.

use std::time::Duration;

use actuator_proto::errors::ActuatorError;
use actuator_proto::limits::{
    MAX_PAGE_BYTES, MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES, MAX_STRING_BYTES, MAX_TEXT_BYTES, bounded_text,
};
use actuator_proto::v1::{self, Effect, ErrorReason};
use prost::Message;

use crate::answer::{Deletion, Diagnostic, Page};
use actuator_proto::secrets::Secrets;

/// The most entries of any list within one status.
const MAX_ENTRIES: usize = 1000;

/// What an answer is checked against.
#[derive(Clone)]
pub(crate) struct Bounds {
    /// What the provider_id of a machine begins with.
    pub(crate) prefix: String,
    /// What must not stand in any text.
    pub(crate) secrets: Secrets,
    /// What has happened if the answer turns out to be unusable.
    pub(crate) effect: Effect,
}

impl Bounds {
    fn bug(&self, words: impl Into<String>) -> ActuatorError {
        ActuatorError::new(
            ErrorReason::ProviderBug,
            format!("the provider's answer breaks the protocol: {}", words.into()),
        )
        .with_effect(self.effect)
    }

    fn message(&self, text: &mut String) {
        *text = bounded_text(&self.secrets.mask(text), MAX_TEXT_BYTES);
    }

    fn provider_id(&self, id: &str, prefix: &str, required: bool) -> Result<(), ActuatorError> {
        if id.is_empty() {
            return if required {
                Err(self.bug("provider_id is missing"))
            } else {
                Ok(())
            };
        }
        if id.len() > MAX_PROVIDER_ID_BYTES {
            return Err(self.bug(format!(
                "provider_id has {} bytes, at most {MAX_PROVIDER_ID_BYTES} are allowed",
                id.len()
            )));
        }
        if id.chars().any(char::is_control) {
            return Err(self.bug("provider_id contains control characters"));
        }
        if !id.starts_with(prefix) {
            return Err(self.bug(format!("provider_id {id:?} does not begin with {prefix:?}")));
        }
        Ok(())
    }

    /// A machine's status, as part of an answer that says that the machine is there.
    pub(crate) fn machine_status(&self, mut status: v1::MachineStatus) -> Result<v1::MachineStatus, ActuatorError> {
        self.provider_id(&status.provider_id, &self.prefix, true)?;
        status.addresses.truncate(MAX_ENTRIES);
        for address in &mut status.addresses {
            string(&mut address.address);
        }
        string(&mut status.failure_domain);
        string(&mut status.machine_type);
        self.shared(
            &mut status.conditions,
            status.failure.as_mut(),
            &mut status.artefacts,
            &mut status.provider_state,
        );
        Ok(status)
    }

    /// A cluster's status, as part of an answer that says that the cluster is there.
    pub(crate) fn cluster_status(&self, mut status: v1::ClusterStatus) -> Result<v1::ClusterStatus, ActuatorError> {
        self.provider_id(&status.provider_id, "", true)?;
        if let Some(endpoint) = &mut status.endpoint {
            string(&mut endpoint.host);
            if !(0..=65535).contains(&endpoint.port) {
                return Err(self.bug(format!("endpoint.port is {}, it must be 1 to 65535", endpoint.port)));
            }
        }
        status.failure_domains.truncate(MAX_ENTRIES);
        for domain in &mut status.failure_domains {
            string(&mut domain.name);
            domain.attributes.values_mut().for_each(string);
        }
        self.shared(
            &mut status.conditions,
            status.failure.as_mut(),
            &mut status.artefacts,
            &mut status.provider_state,
        );
        Ok(status)
    }

    fn shared(
        &self,
        conditions: &mut Vec<v1::Condition>,
        failure: Option<&mut v1::Failure>,
        artefacts: &mut Vec<v1::Artefact>,
        provider_state: &mut Vec<u8>,
    ) {
        conditions.truncate(MAX_ENTRIES);
        for condition in conditions {
            string(&mut condition.r#type);
            string(&mut condition.reason);
            self.message(&mut condition.message);
        }
        if let Some(failure) = failure {
            string(&mut failure.reason);
            self.message(&mut failure.message);
        }
        bound_artefacts(artefacts);
        if provider_state.len() > MAX_PROVIDER_STATE_BYTES {
            // A hint that may be lost; losing the whole answer for it would be worse.
            tracing::error!(
                bytes = provider_state.len(),
                "the provider answered a provider_state above {MAX_PROVIDER_STATE_BYTES} bytes; it is dropped"
            );
            provider_state.clear();
        }
    }

    /// The parts of a Delete's response.
    pub(crate) fn deletion(&self, deletion: Deletion) -> Removal {
        match deletion {
            Deletion::Gone => Removal {
                state: v1::DeletionState::Gone,
                ..Removal::default()
            },
            Deletion::InProgress {
                mut message,
                poll_after,
                mut remaining,
            } => {
                self.message(&mut message);
                bound_artefacts(&mut remaining);
                Removal {
                    state: v1::DeletionState::InProgress,
                    message,
                    poll_after: poll_after.and_then(wire_duration),
                    remaining,
                }
            }
        }
    }

    /// A page of a list, whose items are checked by `item`.
    pub(crate) fn page<T: Message>(
        &self,
        page: Page<T>,
        size: usize,
        item: impl Fn(&Self, T) -> Result<T, ActuatorError>,
    ) -> Result<(Vec<T>, String), ActuatorError> {
        if page.items.len() > size {
            return Err(self.bug(format!("a page has {} items, {size} were asked for", page.items.len())));
        }
        let token = page.next_page_token.unwrap_or_default();
        if token.len() > MAX_STRING_BYTES {
            return Err(self.bug(format!(
                "next_page_token has {} bytes, at most {MAX_STRING_BYTES} are allowed",
                token.len()
            )));
        }
        let items = page
            .items
            .into_iter()
            .map(|one| item(self, one))
            .collect::<Result<Vec<T>, _>>()?;
        let bytes: usize = items.iter().map(|item| item.encoded_len() + 8).sum();
        if bytes > MAX_PAGE_BYTES {
            return Err(self.bug(format!(
                "a page has {bytes} bytes, at most {MAX_PAGE_BYTES} are allowed"
            )));
        }
        Ok((items, token))
    }

    pub(crate) fn listed_machine(&self, mut machine: v1::ListedMachine) -> Result<v1::ListedMachine, ActuatorError> {
        machine.status = machine.status.map(|status| self.machine_status(status)).transpose()?;
        Ok(machine)
    }

    pub(crate) fn listed_cluster(&self, mut cluster: v1::ListedCluster) -> Result<v1::ListedCluster, ActuatorError> {
        cluster.status = cluster.status.map(|status| self.cluster_status(status)).transpose()?;
        Ok(cluster)
    }

    pub(crate) fn machine_type(&self, mut machine_type: v1::MachineType) -> Result<v1::MachineType, ActuatorError> {
        if machine_type.name.is_empty() {
            return Err(self.bug("a machine type has no name"));
        }
        string(&mut machine_type.name);
        string(&mut machine_type.architecture);
        string(&mut machine_type.currency);
        machine_type.availability.truncate(MAX_ENTRIES);
        Ok(machine_type)
    }

    pub(crate) fn members(&self, mut response: v1::SetEndpointMembersResponse) -> v1::SetEndpointMembersResponse {
        response.members.truncate(MAX_ENTRIES);
        for member in &mut response.members {
            self.message(&mut member.message);
        }
        response
    }

    /// A resume token of a watch.
    pub(crate) fn resume_token(&self, token: String) -> Result<String, ActuatorError> {
        if token.len() > MAX_STRING_BYTES {
            return Err(self.bug(format!(
                "a resume token has {} bytes, at most {MAX_STRING_BYTES} are allowed",
                token.len()
            )));
        }
        Ok(token)
    }

    /// Diagnostics, the worst first.
    pub(crate) fn diagnostics(&self, mut found: Vec<Diagnostic>) -> Vec<v1::Diagnostic> {
        found.sort_by_key(|diagnostic| !diagnostic.is_error());
        found.truncate(actuator_proto::limits::MAX_DIAGNOSTICS);
        found
            .into_iter()
            .map(|diagnostic| v1::Diagnostic {
                severity: diagnostic.severity.into(),
                json_pointer: bounded_text(&diagnostic.pointer, MAX_TEXT_BYTES),
                message: bounded_text(&self.secrets.mask(&diagnostic.message), MAX_TEXT_BYTES),
                requires_replacement: diagnostic.requires_replacement,
            })
            .collect()
    }
}

/// The parts of a Delete's response, for both kinds of resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Removal {
    pub(crate) state: v1::DeletionState,
    pub(crate) message: String,
    pub(crate) poll_after: Option<prost_types::Duration>,
    pub(crate) remaining: Vec<v1::Artefact>,
}

fn bound_artefacts(artefacts: &mut Vec<v1::Artefact>) {
    artefacts.truncate(MAX_ENTRIES);
    for artefact in artefacts {
        string(&mut artefact.r#type);
        artefact.id = bounded_text(&artefact.id, MAX_PROVIDER_ID_BYTES);
    }
}

fn string(text: &mut String) {
    if text.len() > MAX_STRING_BYTES || text.chars().any(char::is_control) {
        *text = bounded_text(text, MAX_STRING_BYTES);
    }
}

/// A duration for the wire; `None` beyond what it can hold.
pub(crate) fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            prefix: "fake:///".into(),
            secrets: Secrets::of([&b"s3cr3t-sentinel"[..]]),
            effect: Effect::Unknown,
        }
    }

    fn status(provider_id: &str) -> v1::MachineStatus {
        v1::MachineStatus {
            provider_id: provider_id.into(),
            ..Default::default()
        }
    }

    #[test]
    fn texts_are_cut_and_secrets_masked() -> Result<(), ActuatorError> {
        let mut machine = status("fake:///1");
        machine.conditions = vec![v1::Condition {
            message: format!("s3cr3t-sentinel {}", "x".repeat(5000)),
            ..Default::default()
        }];
        machine.failure = Some(v1::Failure {
            message: "said s3cr3t-sentinel\u{1b}[31m".into(),
            ..Default::default()
        });
        machine.provider_state = vec![0; MAX_PROVIDER_STATE_BYTES + 1];
        let machine = bounds().machine_status(machine)?;
        assert_eq!(machine.conditions[0].message.len(), MAX_TEXT_BYTES);
        assert!(!format!("{machine:?}").contains("s3cr3t"));
        assert_eq!(
            machine.failure.map(|failure| failure.message),
            Some("said ***************[31m".into())
        );
        assert!(machine.provider_state.is_empty());
        Ok(())
    }

    #[test]
    fn an_id_that_breaks_the_contract_is_a_bug_of_unknown_effect() {
        for id in ["", "aws:///1", &format!("fake:///{}", "x".repeat(512))] {
            let error = bounds().machine_status(status(id)).expect_err(id);
            assert_eq!(error.reason(), ErrorReason::ProviderBug);
            assert_eq!(error.effect(), Effect::Unknown);
        }
    }

    #[test]
    fn pages_beyond_their_bounds_are_bugs() {
        let item = |bytes: usize| v1::ListedMachine {
            idempotency_key: "k".repeat(bytes),
            ..Default::default()
        };
        let page = |items: Vec<v1::ListedMachine>| {
            bounds()
                .page(
                    Page {
                        items,
                        next_page_token: None,
                    },
                    2,
                    |_, item| Ok(item),
                )
                .map(|(items, _)| items.len())
                .map_err(|error| error.reason())
        };
        assert_eq!(page(vec![item(1), item(1)]), Ok(2));
        assert_eq!(page(vec![item(1), item(1), item(1)]), Err(ErrorReason::ProviderBug));
        assert_eq!(page(vec![item(MAX_PAGE_BYTES)]), Err(ErrorReason::ProviderBug));
    }
}
