//! The end of a machine: Delete until the provider says GONE, Exists until it says
//! ABSENT past its read-after-write window, and only then the finalizer. Nothing else
//! is needed: not the Cluster, not the bootstrap data, not the set.
//! Not for: draining a node, which comes before.

use outrigger_api::MachineStatus;

use super::case::{Case, QUIET, TROUBLE_QUIET};
use super::{Action, Plan};
use crate::line::Line;
use crate::observation::{Deletion, Gate, Knowledge, plus};
use crate::operation::{Call, Failure};
use crate::removal::{self, Step};
use crate::request::{self, CredentialsSource};

pub(super) fn plan(case: &Case<'_>) -> Plan {
    let observation = case.view.observation;
    if !case.has_finalizer() {
        return case.wait(case.before.clone(), "the provider has nothing left of it");
    }
    if let Some(in_flight) = observation.in_flight() {
        return case.wait_for_answer(in_progress(case), &in_flight.operation.call);
    }
    let never_made = case.view.witnessed_birth
        && !observation.create_attempted
        && case.view.machine.spec.provider_id.is_none()
        && matches!(observation.knowledge, Knowledge::Nothing)
        && observation.deletion.is_none()
        && !observation.doubt;
    if never_made {
        return done(case, "nothing was ever made for it");
    }
    let provider = match case.line() {
        Line::Usable(provider) => provider,
        Line::Closed(reason, sentence) => {
            let plan = wait_for_a_person(case, reason, sentence);
            let again = plan.look_again;
            let plan = case.wait_for_provider(plan.status, plan.reason);
            return match again {
                Some(again) => plan.no_later_than(case.now, plus(case.now, again)),
                None => plan,
            };
        }
    };
    if request::machine_credentials(case.view.machine, case.view.cluster) == CredentialsSource::Unknown {
        let machine = case.view.machine;
        return wait_for_a_person(
            case,
            "CredentialsUnknown",
            format!(
                "with the Cluster {} its credentials are gone, and with others the provider would not see the instance; \
                 create the Cluster again, with its credentialsRef, or remove the instance {} by hand and then the \
                 finalizer",
                machine.spec.cluster_name,
                machine.spec.provider_id.as_deref().unwrap_or("of this Machine")
            ),
        );
    }
    match removal::next(observation, &provider.timings, case.now) {
        Step::Delete => call(case, Call::Delete, "deletes the machine"),
        Step::Ask => call(case, Call::Exists, "asks whether the machine is gone"),
        Step::Done => done(case, "the provider has nothing left of it"),
        Step::Pending(due) => case
            .wait(in_progress(case), removal::words(observation))
            .no_later_than(case.now, due),
        Step::Settle(from) => case
            .wait(
                case.before.clone(),
                "waits until reads show the deletion, to ask whether the machine is gone",
            )
            .no_later_than(case.now, from),
    }
}

fn done(case: &Case<'_>, reason: &str) -> Plan {
    let mut plan = case.wait(case.before.clone(), reason);
    plan.action = Some(Action::RemoveFinalizer);
    plan
}

/// The status while the provider is at it; as it was before the provider said so.
fn in_progress(case: &Case<'_>) -> MachineStatus {
    match case.view.observation.deletion {
        Some(Deletion::InProgress(_)) => case.status_deleting(removal::words(case.view.observation), None),
        Some(Deletion::Gone(_)) | None => case.before.clone(),
    }
}

/// The call, or a status that says what is in its way.
fn call(case: &Case<'_>, call: Call, reason: &str) -> Plan {
    let gate = match case.call(in_progress(case), call.clone(), reason) {
        Ok(plan) => return plan,
        Err((_, gate)) => gate,
    };
    let Some(trouble) = case.trouble_with(&call) else {
        return case.wait(case.before.clone(), reason).at_gate(case.now, &gate);
    };
    let failure = &trouble.failure;
    let sentence = failure.sentence();
    if failure.is_transient()
        && let Err(then) = case.may_complain(Some(trouble.since), TROUBLE_QUIET)
    {
        return case
            .wait(case.before.clone(), sentence)
            .at_gate(case.now, &gate)
            .no_later_than(case.now, then);
    }
    let plan = case
        .wait(
            case.status_deleting(format!("the instance cannot be removed: {sentence}"), Some(failure)),
            sentence,
        )
        .with_failure_event(case, "FailedDelete", "Delete");
    match gate {
        // It is never given up: what forbids a deletion may end without a sign.
        Gate::Held => plan.no_later_than(case.now, plus(case.now, std::time::Duration::from_mins(10))),
        gate => plan.at_gate(case.now, &gate),
    }
}

fn wait_for_a_person(case: &Case<'_>, reason: &'static str, sentence: String) -> Plan {
    let since = case
        .view
        .machine
        .metadata
        .deletion_timestamp
        .as_ref()
        .map(|time| time.0);
    match case.may_complain(since, QUIET) {
        Ok(()) => {
            let failure = Failure::not_sent(reason, sentence.clone());
            case.wait(case.status_deleting(sentence.clone(), Some(&failure)), sentence)
                .with_failure_event(case, "FailedDelete", "Delete")
        }
        Err(then) => case.wait(case.before.clone(), sentence).no_later_than(case.now, then),
    }
}
