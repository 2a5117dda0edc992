//! The status of a Machine: a function of its spec, of what its provider said and of
//! what it waits for. Times change with transitions only, and of a failure that is
//! retried the first words stay, so that saying the same again is no write.
//! Not for: choosing what to do.

use actuator_proto::limits::{MAX_STRING_BYTES, MAX_TEXT_BYTES, bounded_text};
use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::names::{
    CONDITION_DELETING, CONDITION_INFRASTRUCTURE_READY, CONDITION_PAUSED, CONDITION_PROVIDER_CONFIG_VALID,
    CONDITION_READY,
};
use outrigger_api::{LastOperation, MachineAddress, MachinePhase, MachineStatus, OperationState, Time};

use super::case::{Case, TROUBLE_QUIET};
use super::{Plan, REASON_INSTANCE_LOST, REASON_REPLACE_REQUIRED, provider_name};
use crate::conditions::{self, Assertion};
use crate::event::Event;
use crate::observation::Trouble;
use crate::operation::{Call, Failure, condition_reason};
use crate::request;
use crate::validation::Verdict;

/// The most addresses that are kept.
const MAX_ADDRESSES: usize = 64;
/// The longest address.
const MAX_ADDRESS_BYTES: usize = 253;

/// Puts `assertion` into the status. With `keep_words`, the words of a condition that
/// already says the same for the same reason stay.
pub(super) fn assert(case: &Case<'_>, status: &mut MachineStatus, mut assertion: Assertion, keep_words: bool) {
    if keep_words
        && let Some(known) = conditions::get(&status.conditions, assertion.type_)
        && known.status == assertion.status
        && known.reason == assertion.reason
    {
        assertion.message.clone_from(&known.message);
    }
    conditions::set(
        &mut status.conditions,
        assertion,
        case.view.machine.metadata.generation,
        case.now,
    );
}

/// Sets the last operation; its time moves with type and state only.
pub(super) fn last_operation(
    case: &Case<'_>,
    status: &mut MachineStatus,
    type_: &str,
    state: OperationState,
    words: Option<(String, String)>,
    keep_words: bool,
) {
    let before = status.last_operation.take();
    let same = before
        .as_ref()
        .filter(|before| before.type_ == type_ && before.state == state);
    let last_transition_time = same.map_or_else(
        || Time(conditions::whole_seconds(case.now)),
        |same| same.last_transition_time.clone(),
    );
    let (reason, message) = words.unzip();
    let kept = same.filter(|same| keep_words && same.reason == reason);
    status.last_operation = Some(LastOperation {
        type_: type_.to_owned(),
        state,
        message: kept.map_or(message, |same| same.message.clone()),
        reason,
        last_transition_time,
    });
}

/// The operation of a call, as `lastOperation` names it.
fn operation_type(call: &Call) -> &'static str {
    match call {
        Call::Update => "Update",
        Call::Delete => "Delete",
        Call::Validate | Call::Create { .. } | Call::Exists | Call::SetEndpointMembers(_) => "Create",
    }
}

/// Whether a failure is the config's fault.
fn is_about_config(failure: &Failure) -> bool {
    matches!(failure.reason.as_str(), "INVALID_CONFIG" | "UNSUPPORTED_SCHEMA_VERSION")
}

impl Case<'_> {
    /// The status as it was, for the generation of now.
    fn judged(&self) -> MachineStatus {
        let mut status = self.before.clone();
        status.observed_generation = self.view.machine.metadata.generation;
        if let Some(name) = provider_name(self.view.machine, self.view.cluster) {
            status.provider_name = Some(name.to_owned());
        }
        status
    }

    /// Nothing was made yet, for this reason.
    pub fn status_waiting(&self, reason: &str, sentence: String, keep_words: bool) -> MachineStatus {
        let mut status = self.judged();
        status.phase = Some(MachinePhase::Pending);
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            assert(
                self,
                &mut status,
                Assertion::fails(type_, reason, sentence.clone()),
                keep_words,
            );
        }
        if matches!(self.view.verdict, Some(Verdict::Valid)) {
            assert(self, &mut status, config_valid(), false);
        }
        status
    }

    /// The config is refused; nothing was made.
    pub fn status_refused(&self, reason: String, sentence: String) -> MachineStatus {
        let mut status = self.status_waiting(&reason, sentence.clone(), false);
        assert(
            self,
            &mut status,
            Assertion::fails(CONDITION_PROVIDER_CONFIG_VALID, reason.clone(), sentence.clone()),
            false,
        );
        last_operation(
            self,
            &mut status,
            "Create",
            OperationState::Failed,
            Some((reason, sentence)),
            false,
        );
        status
    }

    /// The trouble that keeps `call` from being sent: its own, else the provider's.
    pub fn trouble_with(&self, call: &Call) -> Option<&Trouble> {
        let observation = self.view.observation;
        observation
            .trouble(call)
            .or_else(|| observation.troubles.iter().max_by_key(|trouble| trouble.last))
    }

    /// The status of a machine that was not made because of the trouble with `call`, the
    /// words, and when they are to be shown if that is not yet.
    pub fn status_in_trouble(&self, call: &Call) -> (MachineStatus, String, Option<Timestamp>) {
        let Some(trouble) = self.trouble_with(call) else {
            return (self.before.clone(), "waits before it asks again".to_owned(), None);
        };
        let failure = &trouble.failure;
        let sentence = failure.sentence();
        if failure.is_transient()
            && let Err(then) = self.may_complain(Some(trouble.since), TROUBLE_QUIET)
        {
            return (self.before.clone(), sentence, Some(then));
        }
        let reason = failure.condition_reason();
        if is_about_config(failure) {
            return (self.status_refused(reason, sentence.clone()), sentence, None);
        }
        let transient = failure.is_transient();
        let mut status = self.status_waiting(&reason, sentence.clone(), transient);
        last_operation(
            self,
            &mut status,
            operation_type(&trouble.operation.call),
            OperationState::Failed,
            Some((reason, sentence.clone())),
            transient,
        );
        (status, sentence, None)
    }

    /// The status of a machine that is there.
    pub fn status_present(&self, provider: &v1::MachineStatus, current: bool, updating: bool) -> MachineStatus {
        let mut status = self.judged();
        let text = |text: &str| Some(bounded_text(text, MAX_STRING_BYTES)).filter(|text| !text.is_empty());
        if let Some(domain) = text(&provider.failure_domain) {
            status.failure_domain = Some(domain);
        }
        status.machine_type = text(&provider.machine_type);
        status.addresses = addresses(&provider.addresses);
        status.provider_status =
            request::provider_status_of_machine(provider, self.view.cluster, &self.before.provider_status);
        if !provider.observed_digest.is_empty() && provider.observed_digest.len() <= 32 {
            status.applied_digest = Some(hex::encode(&provider.observed_digest));
        }
        let (phase, ready) = judgement(provider);
        let updating = updating && phase == MachinePhase::Running;
        status.phase = Some(if updating { MachinePhase::Updating } else { phase });
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            assert(self, &mut status, Assertion { type_, ..ready.clone() }, false);
        }
        if current {
            // The provider works with it: it has accepted it.
            assert(self, &mut status, config_valid(), false);
        }
        let terminal = phase == MachinePhase::Failed;
        status.failure_reason = terminal.then(|| ready.reason.clone());
        status.failure_message = terminal.then(|| ready.message.clone());
        let before = status.last_operation.as_ref().map(|operation| operation.type_.clone());
        let type_ = if updating {
            "Update"
        } else {
            before.as_deref().unwrap_or("Create")
        };
        // What is left of a look that failed or of a deletion says nothing of a machine that is there.
        let type_ = if type_ == "Update" { "Update" } else { "Create" };
        let (state, words) = if terminal {
            (OperationState::Failed, Some((ready.reason, ready.message)))
        } else if updating || (phase != MachinePhase::Running && type_ == "Create" && is_on_its_way(provider)) {
            (OperationState::InProgress, None)
        } else {
            (OperationState::Succeeded, None)
        };
        last_operation(self, &mut status, type_, state, words, false);
        status
    }

    /// The instance is gone, and nobody here has deleted it.
    pub fn status_lost(&self, provider_id: &str) -> MachineStatus {
        let sentence =
            format!("the instance {provider_id} is gone though nobody deleted this Machine; its owner replaces it");
        let mut status = self.judged();
        status.phase = Some(MachinePhase::Failed);
        status.failure_reason = Some(REASON_INSTANCE_LOST.to_owned());
        status.failure_message = Some(sentence.clone());
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            assert(
                self,
                &mut status,
                Assertion::fails(type_, REASON_INSTANCE_LOST, sentence.clone()),
                false,
            );
        }
        status
    }

    /// A machine that was made cannot be looked at until a person has changed something.
    /// The phase stays what it was; a machine of which nothing is known is Unknown.
    pub fn status_unknown(&self, failure: &Failure) -> MachineStatus {
        let mut status = self.judged();
        status.phase = Some(status.phase.unwrap_or(MachinePhase::Unknown));
        for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
            let unknown = Assertion::unknown(type_, failure.condition_reason(), failure.sentence());
            assert(self, &mut status, unknown, failure.is_transient());
        }
        status
    }

    /// The last Update has failed: the machine is there as it was.
    pub fn add_update_trouble(&self, status: &mut MachineStatus, trouble: &Trouble) {
        let failure = &trouble.failure;
        let (reason, sentence) = (failure.condition_reason(), failure.sentence());
        if failure.outcome == crate::operation::Outcome::ReplaceByOwner {
            assert(
                self,
                status,
                Assertion::fails(
                    CONDITION_READY,
                    REASON_REPLACE_REQUIRED,
                    format!("the spec cannot be reached in place, the owner replaces the machine: {sentence}"),
                ),
                false,
            );
        }
        if is_about_config(failure) {
            assert(
                self,
                status,
                Assertion::fails(CONDITION_PROVIDER_CONFIG_VALID, reason.clone(), sentence.clone()),
                false,
            );
        }
        last_operation(
            self,
            status,
            "Update",
            OperationState::Failed,
            Some((reason, sentence)),
            failure.is_transient(),
        );
    }

    /// The new config is refused: the machine is there as it was.
    pub fn add_refused_update(&self, status: &mut MachineStatus, sentence: &str) {
        assert(
            self,
            status,
            Assertion::fails(CONDITION_PROVIDER_CONFIG_VALID, "InvalidConfig", sentence),
            false,
        );
        last_operation(
            self,
            status,
            "Update",
            OperationState::Failed,
            Some(("InvalidConfig".to_owned(), sentence.to_owned())),
            false,
        );
    }

    /// The deletion takes time, or fails.
    pub fn status_deleting(&self, sentence: String, failure: Option<&Failure>) -> MachineStatus {
        let mut status = self.judged();
        status.phase = Some(MachinePhase::Deleting);
        let keep_words = failure.is_none_or(Failure::is_transient);
        assert(
            self,
            &mut status,
            Assertion::holds(CONDITION_DELETING, "WaitingForInfrastructureDeletion", sentence.clone()),
            // The stage is the same whatever goes wrong in it: the words are new when
            // what goes wrong is another thing.
            keep_words && same_failure(&self.before, failure),
        );
        assert(
            self,
            &mut status,
            Assertion::fails(CONDITION_READY, "Deleting", "the machine is being deleted"),
            false,
        );
        let (state, words) = match failure {
            Some(failure) => (
                OperationState::Failed,
                Some((failure.condition_reason(), failure.sentence())),
            ),
            None => (OperationState::InProgress, None),
        };
        last_operation(self, &mut status, "Delete", state, words, keep_words);
        status
    }

    /// Nothing is done because `by` is paused.
    pub fn status_paused(&self, by: &str) -> MachineStatus {
        let mut status = self.before.clone();
        let sentence = format!("nothing is done for the machine: {by} is paused");
        assert(
            self,
            &mut status,
            Assertion::holds(CONDITION_PAUSED, "Paused", sentence),
            false,
        );
        status
    }
}

fn same_failure(before: &MachineStatus, failure: Option<&Failure>) -> bool {
    let reason = before
        .last_operation
        .as_ref()
        .filter(|operation| operation.type_ == "Delete")
        .and_then(|operation| operation.reason.as_deref());
    reason == failure.map(Failure::condition_reason).as_deref()
}

/// Takes back what a pause has said.
pub(super) fn unpause(case: &Case<'_>, status: &mut MachineStatus) {
    if conditions::is_true(&status.conditions, CONDITION_PAUSED) {
        assert(case, status, Assertion::fails(CONDITION_PAUSED, "NotPaused", ""), false);
    }
}

fn config_valid() -> Assertion {
    Assertion::holds(CONDITION_PROVIDER_CONFIG_VALID, "Accepted", "")
}

fn is_on_its_way(provider: &v1::MachineStatus) -> bool {
    matches!(
        provider.phase(),
        v1::MachinePhase::Unspecified | v1::MachinePhase::Pending | v1::MachinePhase::Provisioning
    )
}

/// Phase and readiness from the provider's phase and failure; the condition's type is
/// put in by the caller.
fn judgement(provider: &v1::MachineStatus) -> (MachinePhase, Assertion) {
    let fails = |reason: &str, message: &str| Assertion::fails("", reason, message);
    if let Some(failure) = &provider.failure {
        let reason = condition_reason(&failure.reason);
        let message = bounded_text(failure.message.trim().trim_end_matches('.'), MAX_TEXT_BYTES);
        let phase = match provider.phase() {
            _ if failure.terminal => MachinePhase::Failed,
            phase if is_on_its_way(provider) && phase != v1::MachinePhase::Failed => MachinePhase::Provisioning,
            _ => MachinePhase::Provisioned,
        };
        return (phase, fails(&reason, &message));
    }
    match provider.phase() {
        v1::MachinePhase::Running => (MachinePhase::Running, Assertion::holds("", "Running", "")),
        v1::MachinePhase::Unspecified | v1::MachinePhase::Pending | v1::MachinePhase::Provisioning => (
            MachinePhase::Provisioning,
            fails("Provisioning", "the provider is making the machine"),
        ),
        v1::MachinePhase::Stopped => (
            MachinePhase::Provisioned,
            fails(
                "Stopped",
                "the instance is switched off; start it in the cloud, or delete this Machine",
            ),
        ),
        v1::MachinePhase::Deleting => (
            MachinePhase::Provisioned,
            fails("Terminating", "somebody else is removing the instance"),
        ),
        // Without a failure that says so it is not for good.
        v1::MachinePhase::Failed => (
            MachinePhase::Provisioned,
            fails(
                "ProviderFailed",
                "the provider says that the machine has failed and not why",
            ),
        ),
    }
}

fn addresses(addresses: &[v1::MachineAddress]) -> Vec<MachineAddress> {
    use v1::MachineAddressType as Type;
    let mut known: Vec<MachineAddress> = addresses
        .iter()
        .filter_map(|address| {
            let type_ = match address.r#type() {
                Type::Hostname => "Hostname",
                Type::InternalIp => "InternalIP",
                Type::ExternalIp => "ExternalIP",
                Type::InternalDns => "InternalDNS",
                Type::ExternalDns => "ExternalDNS",
                Type::Unspecified => return None,
            };
            let address = bounded_text(&address.address, MAX_ADDRESS_BYTES);
            (!address.is_empty()).then(|| MachineAddress {
                type_: type_.to_owned(),
                address,
            })
        })
        .take(MAX_ADDRESSES)
        .collect();
    // Sorted: a provider that answers in another order each time causes no write.
    known.sort_by(|a, b| (&a.type_, &a.address).cmp(&(&b.type_, &b.address)));
    known.dedup();
    known
}

impl Plan {
    /// Adds one event when the last operation fails for another reason than before:
    /// never one per retry.
    pub(super) fn with_failure_event(mut self, case: &Case<'_>, reason: &'static str, action: &'static str) -> Self {
        let key = |status: &MachineStatus| {
            status
                .last_operation
                .as_ref()
                .filter(|operation| operation.state == OperationState::Failed)
                .map(|operation| (operation.type_.clone(), operation.reason.clone()))
        };
        let now = key(&self.status);
        if now.is_some() && now != key(&case.before) {
            let message = self
                .status
                .last_operation
                .as_ref()
                .and_then(|operation| operation.message.clone())
                .unwrap_or_default();
            self.events.push(Event::warning(reason, action, message));
        }
        self
    }
}
