//! The status of a Cluster: a function of its spec, of what its provider said and of
//! what it waits for. Times change with transitions only.
//! Not for: choosing what to do.

use actuator_proto::limits::{MAX_PROVIDER_ID_BYTES, MAX_STRING_BYTES, MAX_TEXT_BYTES, bounded_text};
use actuator_proto::v1;
use outrigger_api::names::{
    CONDITION_DELETING, CONDITION_INFRASTRUCTURE_READY, CONDITION_PAUSED, CONDITION_PROVIDER_CONFIG_VALID,
    CONDITION_READY,
};
use outrigger_api::{ClusterPhase, ClusterStatus, Endpoint, FailureDomain};

use super::Plan;
use super::case::Case;
use crate::conditions::{self, Assertion};
use crate::event::Event;
use crate::operation::{Failure, condition_reason};
use crate::request;

/// The most failure domains that are kept, and the most attributes of each.
const MAX_DOMAINS: usize = 128;
const MAX_ATTRIBUTES: usize = 64;
/// The longest host name.
const MAX_HOST_BYTES: usize = 253;

/// Puts `assertion` into the status. With `keep_words`, the words of a condition that
/// already says the same for the same reason stay.
pub(super) fn assert(case: &Case<'_>, status: &mut ClusterStatus, mut assertion: Assertion, keep_words: bool) {
    if keep_words
        && let Some(known) = conditions::get(&status.conditions, assertion.type_)
        && known.status == assertion.status
        && known.reason == assertion.reason
    {
        assertion.message.clone_from(&known.message);
    }
    let generation = case.view.cluster.metadata.generation;
    conditions::set(&mut status.conditions, assertion, generation, case.now);
}

/// Whether a failure is the config's fault.
pub(super) fn is_about_config(failure: &Failure) -> bool {
    matches!(failure.reason.as_str(), "INVALID_CONFIG" | "UNSUPPORTED_SCHEMA_VERSION")
}

impl Case<'_> {
    fn judged(&self) -> ClusterStatus {
        let mut status = self.before.clone();
        status.observed_generation = self.view.cluster.metadata.generation;
        status
    }

    /// Nothing was made yet, for this reason.
    pub fn status_waiting(&self, reason: &str, sentence: &str, keep_words: bool) -> ClusterStatus {
        let mut status = self.judged();
        status.phase = Some(ClusterPhase::Pending);
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            assert(self, &mut status, Assertion::fails(type_, reason, sentence), keep_words);
        }
        status
    }

    /// The config is refused. What is there already stays as it is.
    pub fn add_refused(&self, status: &mut ClusterStatus, reason: &str, sentence: &str) {
        let refused = Assertion::fails(CONDITION_PROVIDER_CONFIG_VALID, reason, sentence);
        assert(self, status, refused, false);
    }

    /// What the provider says of it.
    pub fn status_present(&self, provider: &v1::ClusterStatus, current: bool) -> ClusterStatus {
        let mut status = self.judged();
        let id = bounded_text(&provider.provider_id, MAX_PROVIDER_ID_BYTES);
        if !id.is_empty() {
            status.provider_id = Some(id);
        }
        let given = self.view.cluster.spec.control_plane_endpoint.clone();
        if let Some(endpoint) = given.or_else(|| provider.endpoint.as_ref().and_then(endpoint)) {
            status.control_plane_endpoint = Some(endpoint);
        }
        status.failure_domains = failure_domains(&provider.failure_domains);
        status.provider_status = request::provider_status_of_cluster(provider);
        if !provider.observed_digest.is_empty() && provider.observed_digest.len() <= 32 {
            status.applied_digest = Some(hex::encode(&provider.observed_digest));
        }
        let (phase, ready) = judgement(provider);
        status.phase = Some(phase);
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            assert(self, &mut status, Assertion { type_, ..ready.clone() }, false);
        }
        if current {
            let accepted = Assertion::holds(CONDITION_PROVIDER_CONFIG_VALID, "Accepted", "");
            assert(self, &mut status, accepted, false);
        }
        status
    }

    /// What was there is gone.
    pub fn status_lost(&self) -> ClusterStatus {
        let mut status = self.judged();
        status.phase = Some(ClusterPhase::Failed);
        let sentence = "the cluster's infrastructure is gone though nobody deleted this Cluster; it is not made again, \
                        because its machines were in it: delete the Cluster";
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            assert(
                self,
                &mut status,
                Assertion::fails(type_, "InfrastructureLost", sentence),
                false,
            );
        }
        status
    }

    /// It cannot be looked at until a person has changed something.
    pub fn add_unknown(&self, status: &mut ClusterStatus, failure: &Failure) {
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            let unknown = Assertion::unknown(type_, failure.condition_reason(), failure.sentence());
            assert(self, status, unknown, failure.is_transient());
        }
    }

    /// The deletion is at this stage.
    pub fn status_deleting(&self, stage: &str, sentence: &str, keep_words: bool) -> ClusterStatus {
        let mut status = self.judged();
        status.phase = Some(ClusterPhase::Deleting);
        let deleting = Assertion::holds(CONDITION_DELETING, stage, sentence);
        assert(self, &mut status, deleting, keep_words);
        let not_ready = Assertion::fails(CONDITION_READY, "Deleting", "the cluster is being deleted");
        assert(self, &mut status, not_ready, false);
        status
    }

    /// Nothing is done.
    pub fn status_paused(&self) -> ClusterStatus {
        let mut status = self.before.clone();
        let sentence = "nothing is done for the cluster and what belongs to it";
        assert(
            self,
            &mut status,
            Assertion::holds(CONDITION_PAUSED, "Paused", sentence),
            false,
        );
        status
    }
}

/// Takes back what a pause has said.
pub(super) fn unpause(case: &Case<'_>, status: &mut ClusterStatus) {
    if conditions::is_true(&status.conditions, CONDITION_PAUSED) {
        assert(case, status, Assertion::fails(CONDITION_PAUSED, "NotPaused", ""), false);
    }
}

fn endpoint(endpoint: &v1::Endpoint) -> Option<Endpoint> {
    let host = bounded_text(&endpoint.host, MAX_HOST_BYTES);
    // What the API server would refuse is no endpoint.
    let fit = !host.is_empty()
        && (1..=65535).contains(&endpoint.port)
        && host
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | ':'));
    fit.then_some(Endpoint {
        host,
        port: endpoint.port,
    })
}

fn failure_domains(domains: &[v1::FailureDomain]) -> Vec<FailureDomain> {
    let mut known: Vec<FailureDomain> = domains
        .iter()
        .map(|domain| FailureDomain {
            name: bounded_text(&domain.name, MAX_STRING_BYTES),
            control_plane: domain.control_plane,
            attributes: domain
                .attributes
                .iter()
                .take(MAX_ATTRIBUTES)
                .map(|(name, value)| {
                    (
                        bounded_text(name, MAX_STRING_BYTES),
                        bounded_text(value, MAX_STRING_BYTES),
                    )
                })
                .collect(),
        })
        .filter(|domain| !domain.name.is_empty())
        .collect();
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known.dedup_by(|a, b| a.name == b.name);
    known.truncate(MAX_DOMAINS);
    known
}

/// Phase and readiness from the provider's phase and failure; the condition's type is
/// put in by the caller.
fn judgement(provider: &v1::ClusterStatus) -> (ClusterPhase, Assertion) {
    if let Some(failure) = &provider.failure {
        let message = bounded_text(failure.message.trim().trim_end_matches('.'), MAX_TEXT_BYTES);
        let phase = if failure.terminal || provider.phase() == v1::ClusterPhase::Failed {
            ClusterPhase::Failed
        } else {
            ClusterPhase::Provisioning
        };
        return (phase, Assertion::fails("", condition_reason(&failure.reason), message));
    }
    match provider.phase() {
        v1::ClusterPhase::Ready => (
            ClusterPhase::Provisioned,
            Assertion::holds("", "InfrastructureReady", ""),
        ),
        v1::ClusterPhase::Unspecified | v1::ClusterPhase::Pending | v1::ClusterPhase::Provisioning => (
            ClusterPhase::Provisioning,
            Assertion::fails(
                "",
                "Provisioning",
                "the provider is making the cluster's infrastructure",
            ),
        ),
        v1::ClusterPhase::Deleting => (
            ClusterPhase::Provisioning,
            Assertion::fails(
                "",
                "Terminating",
                "somebody else is removing the cluster's infrastructure",
            ),
        ),
        v1::ClusterPhase::Failed => (
            ClusterPhase::Failed,
            Assertion::fails(
                "",
                "ProviderFailed",
                "the provider says that the cluster has failed and not why",
            ),
        ),
    }
}

impl Plan {
    /// Adds one event when Ready is not given for a reason that is new.
    pub(super) fn with_failure_event(
        mut self,
        case: &Case<'_>,
        type_: &str,
        reason: &'static str,
        action: &'static str,
    ) -> Self {
        let before = conditions::get(&case.before.conditions, type_);
        if let Some(now) = conditions::get(&self.status.conditions, type_)
            && before.is_none_or(|before| before.reason != now.reason || before.message != now.message)
        {
            self.events.push(Event::warning(reason, action, now.message.clone()));
        }
        self
    }
}
