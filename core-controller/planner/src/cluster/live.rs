//! A cluster that is wanted: looked for where somebody may have made it, made where
//! nobody has, brought to its spec, and its endpoint kept pointed at its control plane.
//! Not for: clusters that are being deleted.

use std::time::Duration;

use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::ClusterStatus;
use outrigger_api::names::{CONDITION_PROVIDER_CONFIG_VALID, CONDITION_READY};

use super::case::{Case, QUIET, TROUBLE_QUIET};
use super::{Action, Plan};
use crate::event::Event;
use crate::line::Line;
use crate::observation::{Gate, Knowledge, plus};
use crate::operation::{Call, Member, Outcome};
use crate::provider::Snapshot;
use crate::request;
use crate::validation::Verdict;

/// How often infrastructure that is well is looked at.
const RECHECK: Duration = Duration::from_mins(10);
/// How long an accepted Update may take to show before it is sent again.
const UPDATE_PATIENCE: Duration = Duration::from_mins(5);
/// The shortest time between the two looks that find infrastructure gone.
const LOST_CONFIRMATION: Duration = Duration::from_secs(5);
/// How soon to look again while somebody else asks for a verdict.
const VERDICT_LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The capability without which no endpoint members are set.
const ENDPOINT_MEMBERS: &str = "endpoint_members";

pub(super) fn plan(case: &Case<'_>) -> Plan {
    let observation = case.view.observation;
    if !case.has_finalizer() {
        let mut plan = case.wait(case.before.clone(), "the finalizer goes on before the first call");
        plan.actions.push(Action::AddFinalizer);
        return plan;
    }
    match &observation.knowledge {
        Knowledge::Present { status, told, .. } => present(case, status, *told),
        Knowledge::Absent { .. } | Knowledge::Nothing => not_there(case),
    }
}

/// Nothing is known of it, or it is not there.
fn not_there(case: &Case<'_>) -> Plan {
    let observation = case.view.observation;
    if let Some(in_flight) = observation.in_flight() {
        return case.wait(
            case.before.clone(),
            format!("waits for the answer to {}", in_flight.operation.call.name()),
        );
    }
    let was_made = case.before.provider_id.is_some();
    let provider = match case.line() {
        Line::Usable(provider) => provider,
        Line::Closed(_, sentence) if was_made => return case.wait_for_provider(case.before.clone(), sentence),
        Line::Closed(reason, sentence) => return waits(case, reason, sentence),
    };
    if let Some(failure) = &case.unusable_spec
        && !was_made
    {
        return refused(case, &failure.condition_reason(), &failure.sentence());
    }
    let settled = case.settled(provider);
    match &observation.knowledge {
        Knowledge::Nothing
            if !observation.doubt && !was_made && case.view.witnessed_birth && !observation.create_uncertain => {}
        Knowledge::Absent {
            first_asked,
            last_asked,
        } if !observation.doubt => {
            let timings = &provider.timings;
            let apart = timings
                .read_after_write
                .max(timings.poll_interval.min(LOST_CONFIRMATION));
            let counts_from = if was_made {
                settled.max(plus(*first_asked, apart))
            } else {
                settled
            };
            if *last_asked < counts_from {
                if counts_from > case.now {
                    return case
                        .wait(
                            case.before.clone(),
                            "waits until reads show what was done, to ask again",
                        )
                        .no_later_than(case.now, counts_from);
                }
                return ask(case, Call::Exists, "asks again whether the infrastructure is there");
            }
            if was_made {
                return lost(case, *last_asked);
            }
        }
        Knowledge::Nothing | Knowledge::Absent { .. } | Knowledge::Present { .. } => {
            return ask(
                case,
                Call::Exists,
                "asks whether the infrastructure is there before it is made",
            );
        }
    }
    match verdict(case) {
        Some(plan) => plan,
        None => ask(
            case,
            Call::Create { failure_domain: None },
            "creates the cluster's infrastructure",
        ),
    }
}

/// Gone for sure, as far as anybody can tell: looked for again slowly, never made again.
fn lost(case: &Case<'_>, last_asked: Timestamp) -> Plan {
    let status = case.status_lost();
    let due = plus(last_asked, RECHECK);
    let plan = if due > case.now {
        case.wait(status, "the infrastructure is gone")
            .no_later_than(case.now, due)
    } else {
        case.call(status, Call::Exists, "looks again for infrastructure that was gone")
            .unwrap_or_else(|(status, gate)| case.wait(status, "the infrastructure is gone").at_gate(case.now, &gate))
    };
    plan.with_failure_event(case, CONDITION_READY, "InfrastructureLost", "Observe")
}

fn waits(case: &Case<'_>, reason: &str, sentence: String) -> Plan {
    match case.may_complain(case.created_at(), QUIET) {
        Ok(()) => {
            let status = case.status_waiting(reason, &sentence, false);
            case.wait_for_provider(status, sentence)
        }
        Err(then) => case
            .wait_for_provider(case.before.clone(), sentence)
            .no_later_than(case.now, then),
    }
}

fn refused(case: &Case<'_>, reason: &str, sentence: &str) -> Plan {
    let mut status = case.status_waiting(reason, sentence, false);
    case.add_refused(&mut status, reason, sentence);
    case.wait(status, format!("the provider refuses the config: {sentence}"))
        .with_failure_event(case, CONDITION_PROVIDER_CONFIG_VALID, "FailedCreate", "Create")
}

/// The provider judges the config once; one that it refuses is not sent. `None`: go on.
fn verdict(case: &Case<'_>) -> Option<Plan> {
    match case.view.verdict {
        Some(Verdict::Valid) => None,
        Some(Verdict::Invalid(sentence)) => Some(refused(case, "InvalidConfig", sentence)),
        Some(Verdict::Asking) => Some(
            case.wait(case.before.clone(), "waits for the verdict on the config")
                .no_later_than(case.now, plus(case.now, VERDICT_LOOK_AGAIN)),
        ),
        None if has_no_verdicts(case) => None,
        None => Some(ask(case, Call::Validate, "asks for the verdict on the config")),
    }
}

fn has_no_verdicts(case: &Case<'_>) -> bool {
    case.view
        .observation
        .trouble(&Call::Validate)
        .is_some_and(|trouble| trouble.failure.outcome == Outcome::Fallback)
}

/// The call, or what keeps it from being sent.
fn ask(case: &Case<'_>, call: Call, reason: &str) -> Plan {
    let gate = match case.call(case.before.clone(), call.clone(), reason) {
        Ok(plan) => return plan,
        Err((_, gate)) => gate,
    };
    let Some(trouble) = case.trouble_with(&call) else {
        return case.wait(case.before.clone(), reason).at_gate(case.now, &gate);
    };
    let failure = &trouble.failure;
    let sentence = failure.sentence();
    let quiet = case.may_complain(Some(trouble.since), TROUBLE_QUIET);
    let plan = match quiet {
        Err(then) if failure.is_transient() => case.wait(case.before.clone(), sentence).no_later_than(case.now, then),
        // Of infrastructure that was made, what passes by itself says nothing.
        _ if case.before.provider_id.is_some() && failure.is_transient() => case.wait(case.before.clone(), sentence),
        _ if case.before.provider_id.is_some() => {
            let mut status = case.before.clone();
            case.add_unknown(&mut status, failure);
            case.wait(status, sentence)
                .with_failure_event(case, CONDITION_READY, "ProviderFailed", "Observe")
        }
        _ => {
            let reason = failure.condition_reason();
            let mut status = case.status_waiting(&reason, &sentence, failure.is_transient());
            if super::status::is_about_config(failure) {
                case.add_refused(&mut status, &reason, &sentence);
            }
            case.wait(status, sentence)
                .with_failure_event(case, CONDITION_READY, "FailedCreate", "Create")
        }
    };
    match gate {
        Gate::Held => plan.no_later_than(case.now, plus(case.now, RECHECK)),
        gate => plan.at_gate(case.now, &gate),
    }
}

/// Whether the infrastructure is what the spec asks for, as far as the provider tells.
fn is_current(case: &Case<'_>, status: &v1::ClusterStatus) -> bool {
    if status.observed_digest.is_empty() {
        status.observed_generation == 0 || status.observed_generation >= case.basis.generation
    } else {
        status.observed_digest == case.basis.digest
    }
}

fn is_being_made(status: &v1::ClusterStatus) -> bool {
    matches!(
        status.phase(),
        v1::ClusterPhase::Pending | v1::ClusterPhase::Provisioning
    )
}

fn present(case: &Case<'_>, status: &v1::ClusterStatus, told: Timestamp) -> Plan {
    let observation = case.view.observation;
    let current = case.unusable_spec.is_none() && is_current(case, status);
    let mut shown = case.status_present(status, current);
    if let Some(failure) = &case.unusable_spec {
        case.add_refused(&mut shown, &failure.condition_reason(), &failure.sentence());
    }
    if let Some(trouble) = observation.trouble(&Call::Exists)
        && !trouble.failure.is_transient()
    {
        case.add_unknown(&mut shown, &trouble.failure);
    }
    let refused = !current && add_update_trouble(case, &mut shown);
    let mut plan = next_call(case, status, shown, current, told);
    if refused {
        plan = plan.with_failure_event(case, CONDITION_PROVIDER_CONFIG_VALID, "FailedUpdate", "Update");
    }
    let first = case.before.provider_id.is_none() && plan.status.provider_id.is_some();
    if first {
        let message = format!(
            "the provider {} makes the cluster's infrastructure",
            case.view.cluster.spec.provider
        );
        plan.events.push(Event::normal("SuccessfulCreate", "Create", message));
    }
    plan
}

/// Says why the new spec was not reached, where a person has to know; whatever is done
/// next. Returns whether it was said.
fn add_update_trouble(case: &Case<'_>, shown: &mut ClusterStatus) -> bool {
    let Some(trouble) = case.view.observation.trouble(&Call::Update) else {
        return false;
    };
    let failure = &trouble.failure;
    let quiet = failure.is_transient() && case.may_complain(Some(trouble.since), TROUBLE_QUIET).is_err()
        || case.view.observation.is_looking_into(&case.basis, case.now);
    if quiet || trouble.operation.basis.digest != case.basis.digest {
        return false;
    }
    // What is there works on; only the new spec is not reached.
    let reason = match failure.outcome {
        Outcome::ReplaceByOwner => "ReplaceRequired".to_owned(),
        _ => failure.condition_reason(),
    };
    let sentence = format!("the new spec cannot be applied: {}", failure.sentence());
    case.add_refused(shown, &reason, &sentence);
    true
}

fn next_call(
    case: &Case<'_>,
    status: &v1::ClusterStatus,
    shown: ClusterStatus,
    current: bool,
    told: Timestamp,
) -> Plan {
    let observation = case.view.observation;
    if let Some(in_flight) = observation.in_flight() {
        let call = in_flight.operation.call.name();
        return case.wait(shown, format!("waits for the answer to {call}"));
    }
    let provider = match case.line() {
        Line::Closed(_, sentence) => return case.wait_for_provider(shown, sentence),
        Line::Usable(provider) => provider,
    };
    if observation.doubt {
        return try_call(case, shown, Call::Exists, "asks what the infrastructure is");
    }
    let ready = status.phase() == v1::ClusterPhase::Ready;
    let applying = observation
        .update_sent
        .as_ref()
        .is_some_and(|(digest, sent)| *digest == case.basis.digest && plus(*sent, UPDATE_PATIENCE) > case.now);
    let mut plan = if !current && !applying && case.unusable_spec.is_none() {
        update(case, shown)
    } else if ready {
        match members(case, provider) {
            Some(members) => try_call(
                case,
                shown,
                Call::SetEndpointMembers(members),
                "points the endpoint at the control plane",
            ),
            None => case.wait(shown, "the infrastructure is ready"),
        }
    } else if is_being_made(status) && !observation.accepted && case.unusable_spec.is_none() {
        // A provider may have been stopped between two of its steps; the same key lets it go on.
        let call = Call::Create { failure_domain: None };
        try_call(
            case,
            shown,
            call,
            "goes on with a creation that nobody here saw accepted",
        )
    } else {
        case.wait(shown, "the provider is making the cluster's infrastructure")
    };
    if plan.actions.is_empty() {
        let changing = (!ready && status.phase() != v1::ClusterPhase::Failed) || (!current && applying);
        let due = if changing {
            observation
                .poll_at
                .unwrap_or_else(|| plus(told, provider.timings.poll_interval))
        } else {
            plus(told, RECHECK)
        };
        if due > case.now {
            plan = plan.no_later_than(case.now, due);
        } else {
            let events = std::mem::take(&mut plan.events);
            plan = try_call(case, plan.status, Call::Exists, "asks what the infrastructure is");
            plan.events.extend(events);
        }
        if let Some((_, Some(again))) = &observation.members
            && *again > case.now
        {
            plan = plan.no_later_than(case.now, *again);
        }
    }
    plan
}

fn update(case: &Case<'_>, mut shown: ClusterStatus) -> Plan {
    let call = match case.view.verdict {
        Some(Verdict::Invalid(sentence)) => {
            case.add_refused(&mut shown, "InvalidConfig", sentence);
            return case
                .wait(shown, format!("the provider refuses the new config: {sentence}"))
                .with_failure_event(case, CONDITION_PROVIDER_CONFIG_VALID, "FailedUpdate", "Update");
        }
        Some(Verdict::Asking) => {
            return case
                .wait(shown, "waits for the verdict on the config")
                .no_later_than(case.now, plus(case.now, VERDICT_LOOK_AGAIN));
        }
        None if !has_no_verdicts(case) => Call::Validate,
        Some(Verdict::Valid) | None => Call::Update,
    };
    try_call(case, shown, call, "brings the infrastructure to its spec")
}

fn try_call(case: &Case<'_>, status: ClusterStatus, call: Call, reason: &str) -> Plan {
    match case.call(status, call.clone(), reason) {
        Ok(plan) => plan,
        Err((status, gate)) => {
            let words = case
                .trouble_with(&call)
                .map_or_else(|| reason.to_owned(), |trouble| trouble.failure.sentence());
            let plan = case.wait(status, words).at_gate(case.now, &gate);
            match case
                .view
                .observation
                .trouble(&call)
                .map(|trouble| case.may_complain(Some(trouble.since), TROUBLE_QUIET))
            {
                Some(Err(then)) => plan.no_later_than(case.now, then),
                Some(Ok(())) | None => plan,
            }
        }
    }
}

/// The set of endpoint members that is to be sent, if one is.
fn members(case: &Case<'_>, provider: &Snapshot) -> Option<Vec<Member>> {
    let given_by_user = case.view.cluster.spec.control_plane_endpoint.is_some();
    if given_by_user || !provider.has_capability(ENDPOINT_MEMBERS) {
        return None;
    }
    let mut members: Vec<Member> = case
        .view
        .machines
        .iter()
        .filter(|machine| request::is_control_plane(machine))
        .filter_map(|machine| {
            Some(Member {
                idempotency_key: request::machine_key(machine).ok()?,
                provider_id: machine.spec.provider_id.clone()?,
                draining: machine.metadata.deletion_timestamp.is_some(),
            })
        })
        .collect();
    members.sort();
    match &case.view.observation.members {
        None if members.is_empty() => None,
        Some((sent, again)) if *sent == members && again.is_none_or(|again| again > case.now) => None,
        None | Some(_) => Some(members),
    }
}
