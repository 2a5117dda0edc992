//! A machine without a providerID: it is looked for where somebody may have made it,
//! made where nobody has, and known by the provider's id from then on.
//! Not for: machines that are being deleted.

use outrigger_api::ResourceExt as _;
use outrigger_api::names::CONDITION_INFRASTRUCTURE_READY;

use super::case::{Case, QUIET};
use super::placement::{Placement, Question};
use super::{Action, Plan};
use crate::conditions;
use crate::line::Line;
use crate::observation::{Knowledge, plus};
use crate::operation::{Call, Outcome};
use crate::provider::Snapshot;
use crate::request;
use crate::validation::Verdict;

/// How soon to look again while somebody else asks for a verdict.
const VERDICT_LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// The table, row by row: the first row that fits is the plan.
pub(super) fn plan(case: &Case<'_>) -> Plan {
    let observation = case.view.observation;
    if let Some(in_flight) = observation.in_flight() {
        let call = &in_flight.operation.call;
        // A machine that shows nothing looks forgotten: a call that takes long is told of, once.
        if case.before.phase.is_none() {
            return case.waits(
                "WaitingForProvider",
                format!("waits for the provider's answer to {}", call.name()),
            );
        }
        return case.wait_for_answer(case.before.clone(), call);
    }
    // The provider has it, and says so itself: its id is written down before all else.
    if let (
        Knowledge::Present {
            status, hint: false, ..
        },
        false,
    ) = (&observation.knowledge, observation.doubt)
    {
        return known(case, &status.provider_id);
    }
    let Some(cluster) = case.view.cluster else {
        let name = &case.view.machine.spec.cluster_name;
        return case.waits(
            "ClusterNotFound",
            format!("waits for the Cluster {name}, which is not there"),
        );
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        let name = cluster.name_any();
        return case.waits(
            "ClusterDeleting",
            format!("the Cluster {name} is being deleted: no machine is created"),
        );
    }
    let provider = match case.line() {
        Line::Usable(provider) => provider,
        Line::Closed(reason, sentence) => {
            let plan = case.waits(reason, sentence);
            let again = plan.look_again;
            let mut plan = case.wait_for_provider(plan.status, plan.reason);
            plan.look_again = plan.look_again.min(again.or(plan.look_again));
            return plan;
        }
    };
    if let Some(failure) = &case.unusable_spec {
        return case
            .wait(
                case.status_refused(failure.condition_reason(), failure.sentence()),
                failure.sentence(),
            )
            .with_failure_event(case, "FailedCreate", "Create");
    }
    if !case.has_finalizer() {
        let mut plan = case.wait(case.before.clone(), "the finalizer goes on before the first call");
        plan.action = Some(Action::AddFinalizer);
        return plan;
    }
    if let Some(plan) = look_first(case, provider) {
        return plan;
    }
    let infrastructure_ready = cluster
        .status
        .as_ref()
        .is_some_and(|status| conditions::is_true(&status.conditions, CONDITION_INFRASTRUCTURE_READY));
    if !infrastructure_ready {
        return case.waits(
            "WaitingForClusterInfrastructure",
            format!("waits for the infrastructure of the Cluster {}", cluster.name_any()),
        );
    }
    if let Some(plan) = validate(case) {
        return plan;
    }
    create(case)
}

/// The provider's own id, checked before it is written for ever.
fn known(case: &Case<'_>, provider_id: &str) -> Plan {
    let fit = !provider_id.is_empty()
        && provider_id.len() <= actuator_proto::limits::MAX_PROVIDER_ID_BYTES
        && !provider_id.chars().any(char::is_control);
    if !fit {
        let sentence = "the provider answered with a provider_id that is empty, above 512 bytes or has control \
                        characters; this is a defect of the provider";
        return case
            .wait(
                case.status_waiting("MalformedProviderID", sentence.to_owned(), false),
                sentence,
            )
            .no_later_than(case.now, plus(case.now, std::time::Duration::from_mins(10)));
    }
    let mut plan = case.wait(case.before.clone(), format!("the provider has it as {provider_id}"));
    plan.action = Some(Action::SetProviderId(provider_id.to_owned()));
    plan
}

/// Unless nobody can have called Create, Exists is asked first, and ABSENT counts only
/// when it was asked for after the read-after-write window of all that was sent.
fn look_first(case: &Case<'_>, provider: &Snapshot) -> Option<Plan> {
    let observation = case.view.observation;
    let settled = case.settled(provider);
    let from = match &observation.knowledge {
        Knowledge::Absent { last_asked, .. } if !observation.doubt && *last_asked >= settled => return None,
        Knowledge::Nothing if !observation.doubt && case.view.witnessed_birth && !observation.create_uncertain => {
            return None;
        }
        // It was not there, too early to count.
        Knowledge::Absent { .. } => settled,
        Knowledge::Nothing | Knowledge::Present { .. } => case.now,
    };
    if from > case.now {
        let plan = case.wait(
            case.before.clone(),
            "waits until reads show what was done, to ask whether the machine is there",
        );
        return Some(plan.no_later_than(case.now, from));
    }
    Some(case.try_call(Call::Exists, "asks whether the machine is there before it is created"))
}

/// The provider judges the config once; one that it refuses is not sent.
fn validate(case: &Case<'_>) -> Option<Plan> {
    match case.view.verdict {
        Some(Verdict::Valid) => None,
        Some(Verdict::Invalid(sentence)) => Some(
            case.wait(
                case.status_refused("InvalidConfig".to_owned(), sentence.clone()),
                format!("the provider refuses the config: {sentence}"),
            )
            .with_failure_event(case, "FailedCreate", "Create"),
        ),
        Some(Verdict::Asking) => Some(
            case.wait(case.before.clone(), "waits for the verdict on the config")
                .no_later_than(case.now, plus(case.now, VERDICT_LOOK_AGAIN)),
        ),
        None => {
            let falls_back = case
                .view
                .observation
                .trouble(&Call::Validate)
                .is_some_and(|trouble| trouble.failure.outcome == Outcome::Fallback);
            // Whoever cannot judge configs judges them with Create.
            (!falls_back).then(|| case.try_call(Call::Validate, "asks for the verdict on the config"))
        }
    }
}

fn create(case: &Case<'_>) -> Plan {
    let machine = case.view.machine;
    let control_plane = request::is_control_plane(machine);
    let domains = case
        .view
        .cluster
        .and_then(|cluster| cluster.status.as_ref())
        .map(|status| status.failure_domains.as_slice())
        .unwrap_or_default();
    let question = Question {
        asked_for: machine.spec.failure_domain.as_deref(),
        chosen: case.before.failure_domain.as_deref(),
        domains: domains
            .iter()
            .filter(|domain| domain.control_plane || !control_plane)
            .map(|domain| domain.name.as_str())
            .collect(),
        exhausted: &case.view.observation.exhausted,
        exhausted_for_siblings: case.view.exhausted_domains,
        uid: machine.metadata.uid.as_deref().unwrap_or_default(),
    };
    match question.answer(case.now) {
        Placement::Here(failure_domain) => case.try_call(Call::Create { failure_domain }, "creates the machine"),
        Placement::Choose(domain) => {
            let mut status = case.before.clone();
            status.failure_domain = Some(domain.clone());
            case.wait(status, format!("there is no room where it was tried; next in {domain}"))
        }
        Placement::NoRoomBefore(when) => {
            let create = Call::Create { failure_domain: None };
            let (status, sentence) = if case.view.observation.trouble(&create).is_some() {
                let (status, sentence, _) = case.status_in_trouble(&create);
                (status, sentence)
            } else {
                let sentence = "there is no room for the machine in any failure domain that is allowed".to_owned();
                let status = case.status_waiting("InsufficientCapacity", sentence.clone(), true);
                (status, sentence)
            };
            case.wait(status, sentence)
                .with_failure_event(case, "FailedCreate", "Create")
                .no_later_than(case.now, when)
        }
    }
}

impl Case<'_> {
    /// Something has to come first: said in the status once the object is old enough.
    fn waits(&self, reason: &'static str, sentence: String) -> Plan {
        match self.may_complain(self.created_at(), QUIET) {
            Ok(()) => self.wait(self.status_waiting(reason, sentence.clone(), false), sentence),
            Err(then) => self.wait(self.before.clone(), sentence).no_later_than(self.now, then),
        }
    }

    /// The call, or what keeps it from being sent.
    fn try_call(&self, call: Call, reason: &str) -> Plan {
        match self.call(self.before.clone(), call.clone(), reason) {
            Ok(plan) => plan,
            Err((_, gate)) => {
                let (status, sentence, show_at) = self.status_in_trouble(&call);
                let mut plan = self
                    .wait(status, sentence)
                    .with_failure_event(self, "FailedCreate", "Create")
                    .at_gate(self.now, &gate);
                if let Some(then) = show_at {
                    plan = plan.no_later_than(self.now, then);
                }
                plan
            }
        }
    }
}
