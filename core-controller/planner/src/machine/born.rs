//! A machine with a providerID: it is shown as it is, brought to its spec in place, and
//! given up when it is gone. It is never created again.
//! Not for: machines that are being deleted.

use std::time::Duration;

use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::names::{CONDITION_INFRASTRUCTURE_READY, CONDITION_READY};
use outrigger_api::{MachinePhase, OperationState};

use super::case::{Case, TROUBLE_QUIET};
use super::status::{assert, last_operation};
use super::{Plan, REASON_INSTANCE_LOST};
use crate::conditions::Assertion;
use crate::event::Event;
use crate::line::Line;
use crate::observation::{Gate, Knowledge, plus};
use crate::operation::{Call, Outcome};
use crate::provider::Snapshot;
use crate::validation::Verdict;

/// How often a machine that is well is looked at when nothing tells of changes.
const RECHECK: Duration = Duration::from_mins(10);
/// The same while a watch tells of changes: it only guards against what a watch missed.
const RECHECK_WATCHED: Duration = Duration::from_hours(1);
/// How often a machine that is changing is looked at while a watch tells of changes.
const POLL_WATCHED: Duration = Duration::from_secs(30);
/// How often a machine that is there and not well is looked at.
const POLL_UNWELL: Duration = Duration::from_mins(1);
/// How long an accepted Update may take to show before it is sent again.
const UPDATE_PATIENCE: Duration = Duration::from_mins(5);
/// The shortest time between the two looks that find an instance gone.
const LOST_CONFIRMATION: Duration = Duration::from_secs(5);

pub(super) fn plan(case: &Case<'_>, provider_id: &str) -> Plan {
    let before = &case.before;
    if before.phase == Some(MachinePhase::Failed) && before.failure_reason.is_some() {
        return case.wait(before.clone(), "the machine has failed for good; its owner replaces it");
    }
    match &case.view.observation.knowledge {
        Knowledge::Nothing => nothing_known(case),
        Knowledge::Absent {
            first_asked,
            last_asked,
        } => absent(case, provider_id, *first_asked, *last_asked),
        Knowledge::Present { status, .. } if !status.provider_id.is_empty() && status.provider_id != provider_id => {
            other_instance(case, provider_id, &status.provider_id)
        }
        Knowledge::Present { status, told, hint, .. } => present(case, status, *told, *hint),
    }
}

/// After a restart, or when nothing could be learned: the status stays as it is.
fn nothing_known(case: &Case<'_>) -> Plan {
    if let Some(in_flight) = case.view.observation.in_flight() {
        return case.wait_for_answer(case.before.clone(), &in_flight.operation.call);
    }
    match case.line() {
        Line::Closed(_, sentence) => case.wait_for_provider(case.before.clone(), sentence),
        Line::Usable(_) => case.look(case.before.clone(), "asks what the machine is"),
    }
}

/// Gone, says the provider: it is asked once more, past the window in which reads may
/// be old, before the machine is given up.
fn absent(case: &Case<'_>, provider_id: &str, first_asked: Timestamp, last_asked: Timestamp) -> Plan {
    if let Some(in_flight) = case.view.observation.in_flight() {
        return case.wait_for_answer(case.before.clone(), &in_flight.operation.call);
    }
    let provider = match case.line() {
        Line::Closed(_, sentence) => return case.wait_for_provider(case.before.clone(), sentence),
        Line::Usable(provider) => provider,
    };
    let timings = &provider.timings;
    let apart = timings
        .read_after_write
        .max(timings.poll_interval.min(LOST_CONFIRMATION));
    let confirmed_from = case.settled(provider).max(plus(first_asked, apart));
    if last_asked >= confirmed_from && !case.view.observation.doubt {
        let status = case.status_lost(provider_id);
        let sentence = status.failure_message.clone().unwrap_or_default();
        let mut plan = case.wait(status, sentence.clone());
        plan.events
            .push(Event::warning(REASON_INSTANCE_LOST, "Observe", sentence));
        return plan;
    }
    if confirmed_from > case.now && !case.view.observation.doubt {
        return case
            .wait(
                case.before.clone(),
                "the instance seems to be gone; it is looked for once more",
            )
            .no_later_than(case.now, confirmed_from);
    }
    case.look(case.before.clone(), "the instance seems to be gone; asks once more")
}

/// The key leads to another instance than the one that was written down.
fn other_instance(case: &Case<'_>, expected: &str, found: &str) -> Plan {
    let sentence = format!(
        "spec.providerID is {expected}, and the provider has {found} for this Machine; nothing is done until a person \
         has found out why"
    );
    let mut status = case.before.clone();
    for type_ in [CONDITION_READY, CONDITION_INFRASTRUCTURE_READY] {
        let fails = Assertion::fails(type_, "ProviderIDMismatch", sentence.clone());
        assert(case, &mut status, fails, false);
    }
    look_later(case, case.wait(status, sentence), RECHECK)
}

fn present(case: &Case<'_>, status: &v1::MachineStatus, told: Timestamp, hint: bool) -> Plan {
    let observation = case.view.observation;
    let standing = standing(case, status);
    let updating = matches!(standing, Standing::Applying) || in_flight_update(case);
    let current = standing == Standing::Current;
    let mut shown = case.status_present(status, current, updating);
    let updated = current && updated_now(case);
    if updated {
        last_operation(case, &mut shown, "Update", OperationState::Succeeded, None, false);
    }
    let mut plan = step(case, status, &standing, shown, told, hint);
    if updated {
        plan.events.push(Event::normal(
            "SuccessfulUpdate",
            "Update",
            "the machine was brought to its spec in place",
        ));
    }
    let terminal = plan.status.phase == Some(MachinePhase::Failed);
    let last = plan.status.last_operation.as_ref();
    if !terminal && last.is_some_and(|operation| operation.type_ == "Update") {
        // Whatever is done next: the status says so now, and never again as news.
        plan = plan.with_failure_event(case, "FailedUpdate", "Update");
    }
    if terminal && observation.in_flight().is_none() {
        let reason = plan.status.failure_message.clone().unwrap_or_default();
        plan.action = None;
        plan.look_again = None;
        plan.reason.clone_from(&reason);
        plan.events.push(Event::warning("MachineFailed", "Observe", reason));
    }
    plan
}

/// Whether an Update of this process has just come to its end.
fn updated_now(case: &Case<'_>) -> bool {
    let sent = case.view.observation.update_sent.as_ref();
    sent.is_some_and(|(digest, _)| *digest == case.basis.digest)
        && case
            .before
            .last_operation
            .as_ref()
            .is_none_or(|operation| operation.type_ != "Update" || operation.state != OperationState::Succeeded)
        || case
            .before
            .last_operation
            .as_ref()
            .is_some_and(|operation| operation.type_ == "Update" && operation.state != OperationState::Succeeded)
}

fn in_flight_update(case: &Case<'_>) -> bool {
    // Only where it shows already: an Update that is answered at once is one write.
    case.before.phase == Some(MachinePhase::Updating)
        && case
            .view
            .observation
            .in_flight()
            .is_some_and(|in_flight| in_flight.operation.call == Call::Update)
}

/// How the instance stands to the spec.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It is what the spec asks for, as far as the provider tells.
    Current,
    /// It is not, and an Update was accepted.
    Applying,
    /// It is not.
    Behind,
    /// No request can be made of the spec.
    Unusable,
}

fn standing(case: &Case<'_>, status: &v1::MachineStatus) -> Standing {
    if case.unusable_spec.is_some() {
        return Standing::Unusable;
    }
    let current = if status.observed_digest.is_empty() {
        // A provider that reports no digests: the generation tells, if that is reported.
        status.observed_generation == 0 || status.observed_generation >= spec_generation(case)
    } else {
        case.digests.contains(&status.observed_digest)
    };
    if current {
        return Standing::Current;
    }
    match &case.view.observation.update_sent {
        Some((digest, sent)) if *digest == case.basis.digest && plus(*sent, UPDATE_PATIENCE) > case.now => {
            Standing::Applying
        }
        _ => Standing::Behind,
    }
}

/// The generation that the provider has to have seen. The second generation is the one
/// that the providerID itself made: it asks for nothing new.
fn spec_generation(case: &Case<'_>) -> i64 {
    if case.basis.generation == 2 {
        1
    } else {
        case.basis.generation
    }
}

/// The next call, if one is due.
fn step(
    case: &Case<'_>,
    status: &v1::MachineStatus,
    standing: &Standing,
    mut shown: outrigger_api::MachineStatus,
    told: Timestamp,
    hint: bool,
) -> Plan {
    let observation = case.view.observation;
    let update_trouble = observation.trouble(&Call::Update);
    if *standing == Standing::Behind
        && let Some(trouble) = update_trouble
        && trouble.operation.basis.digest == case.basis.digest
        && !observation.is_looking_into(&case.basis, case.now)
        && (!trouble.failure.is_transient() || case.may_complain(Some(trouble.since), TROUBLE_QUIET).is_ok())
    {
        case.add_update_trouble(&mut shown, trouble);
    }
    if let Some(failure) = &case.unusable_spec {
        case.add_refused_update(&mut shown, &failure.sentence());
    }
    // A look that a person has to make possible again; the last words of the provider
    // are old by then.
    if let Some(trouble) = observation.trouble(&Call::Exists)
        && !trouble.failure.is_transient()
    {
        let unknown = case.status_unknown(&trouble.failure);
        shown.conditions = unknown.conditions;
    }
    if let Some(in_flight) = observation.in_flight() {
        return case.wait_for_answer(shown, &in_flight.operation.call);
    }
    let provider = match case.line() {
        Line::Closed(_, sentence) => return case.wait_for_provider(shown, sentence),
        Line::Usable(provider) => provider,
    };
    if observation.doubt || (hint && *standing == Standing::Behind) {
        return case.look(shown, "asks what the machine is");
    }
    if *standing == Standing::Behind {
        return update(case, provider, status, shown, told);
    }
    let plan = case.wait(shown, reason(status, standing));
    look_when_due(case, plan, provider, status, standing, told)
}

fn reason(status: &v1::MachineStatus, standing: &Standing) -> &'static str {
    match (status.phase(), standing) {
        (_, Standing::Applying) => "the provider applies the new spec",
        (v1::MachinePhase::Running, _) => "the machine runs",
        (v1::MachinePhase::Stopped, _) => "the instance is switched off",
        (v1::MachinePhase::Deleting, _) => "somebody else is removing the instance",
        _ => "the provider is making the machine",
    }
}

/// Brings the instance to the spec: the verdict first, then Update.
fn update(
    case: &Case<'_>,
    provider: &Snapshot,
    status: &v1::MachineStatus,
    mut shown: outrigger_api::MachineStatus,
    told: Timestamp,
) -> Plan {
    let verdict = case.view.verdict;
    let no_verdicts = || {
        let trouble = case.view.observation.trouble(&Call::Validate);
        trouble.is_some_and(|trouble| trouble.failure.outcome == Outcome::Fallback)
    };
    let call = match verdict {
        Some(Verdict::Invalid(sentence)) => {
            case.add_refused_update(&mut shown, sentence);
            let plan = case.wait(shown, format!("the provider refuses the new config: {sentence}"));
            return look_when_due(case, plan, provider, status, &Standing::Behind, told);
        }
        Some(Verdict::Asking) => {
            let plan = case.wait(shown, "waits for the verdict on the config");
            return plan.no_later_than(case.now, plus(case.now, Duration::from_millis(100)));
        }
        None if !no_verdicts() => Call::Validate,
        Some(Verdict::Valid) | None => Call::Update,
    };
    match case.call(shown, call.clone(), "brings the machine to its spec in place") {
        Ok(plan) => plan,
        Err((shown, gate)) => {
            let reason = case.trouble_with(&call).map_or_else(
                || "waits before it asks again".to_owned(),
                |trouble| trouble.failure.sentence(),
            );
            let mut plan = case.wait(shown, reason).at_gate(case.now, &gate);
            if let Some(trouble) = case.view.observation.trouble(&call)
                && let Err(then) = case.may_complain(Some(trouble.since), TROUBLE_QUIET)
            {
                plan = plan.no_later_than(case.now, then);
            }
            look_when_due(case, plan, provider, status, &Standing::Behind, told)
        }
    }
}

/// Asks Exists when it is time to.
fn look_when_due(
    case: &Case<'_>,
    plan: Plan,
    provider: &Snapshot,
    status: &v1::MachineStatus,
    standing: &Standing,
    told: Timestamp,
) -> Plan {
    let observation = case.view.observation;
    let changing = *standing == Standing::Applying
        || matches!(
            status.phase(),
            v1::MachinePhase::Unspecified
                | v1::MachinePhase::Pending
                | v1::MachinePhase::Provisioning
                | v1::MachinePhase::Deleting
        );
    let well = status.phase() == v1::MachinePhase::Running && status.failure.is_none();
    let due = if changing && provider.watching {
        plus(told, provider.timings.poll_interval.max(POLL_WATCHED))
    } else if changing {
        observation
            .poll_at
            .unwrap_or_else(|| plus(told, provider.timings.poll_interval))
    } else if well {
        plus(
            told,
            case.jittered(if provider.watching { RECHECK_WATCHED } else { RECHECK }),
        )
    } else {
        plus(told, case.jittered(POLL_UNWELL))
    };
    if due > case.now {
        return plan.no_later_than(case.now, due);
    }
    look_now(case, plan)
}

fn look_later(case: &Case<'_>, plan: Plan, period: Duration) -> Plan {
    let told = match &case.view.observation.knowledge {
        Knowledge::Present { told, .. } => *told,
        Knowledge::Nothing | Knowledge::Absent { .. } => case.now,
    };
    let due = plus(told, case.jittered(period));
    if due > case.now || case.view.observation.in_flight().is_some() {
        return plan.no_later_than(case.now, due.max(plus(case.now, Duration::from_secs(1))));
    }
    match case.line() {
        Line::Usable(_) => look_now(case, plan),
        Line::Closed(..) => plan.no_later_than(case.now, plus(case.now, POLL_UNWELL)),
    }
}

/// Puts Exists into a plan that has no action yet.
fn look_now(case: &Case<'_>, plan: Plan) -> Plan {
    let looked = case.look(plan.status, &plan.reason);
    let look_again = match (looked.look_again, plan.look_again) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    Plan {
        events: plan.events,
        look_again,
        ..looked
    }
}

impl Case<'_> {
    /// Asks Exists, or says why it cannot be asked.
    fn look(&self, status: outrigger_api::MachineStatus, reason: &str) -> Plan {
        let (status, gate) = match self.call(status, Call::Exists, reason) {
            Ok(plan) => return plan,
            Err(closed) => closed,
        };
        let Some(trouble) = self.trouble_with(&Call::Exists) else {
            return self.wait(status, reason).at_gate(self.now, &gate);
        };
        let failure = &trouble.failure;
        let sentence = failure.sentence();
        // What passes by itself says nothing of the machine: it stays what it was. Only
        // where nothing at all is known is that the status.
        let shown = !failure.is_transient()
            || (status.phase.is_none() && self.may_complain(Some(trouble.since), TROUBLE_QUIET).is_ok());
        let status = if shown && matches!(self.view.observation.knowledge, Knowledge::Nothing) {
            self.status_unknown(failure)
        } else {
            status
        };
        let mut plan = self.wait(status, sentence).at_gate(self.now, &gate);
        if gate == Gate::Held {
            plan = plan.no_later_than(self.now, plus(self.now, RECHECK));
        }
        plan
    }
}
