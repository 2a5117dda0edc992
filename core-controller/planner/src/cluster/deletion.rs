//! The end of a cluster, in order: MachineDeployments, MachineSets, Machines (workers
//! before the control plane), what the provider made, and then the finalizer. At each
//! stage the status says what it waits for.
//! Not for: deleting machines, which each Machine does itself.

use std::time::Duration;

use outrigger_api::names::CONDITION_DELETING;
use outrigger_api::{ObjectMeta, Resource};

use super::case::{Case, QUIET, TROUBLE_QUIET};
use super::{Action, ChildKind, Plan};
use crate::line::Line;
use crate::observation::{Deletion, Gate, Knowledge, plus};
use crate::operation::Call;
use crate::removal::{self, Step};
use crate::request;

/// The most objects that one plan deletes; the next plan goes on.
const MAX_DELETES: usize = 100;
/// How many names a sentence has.
const NAMES_SHOWN: usize = 3;
/// How often a deletion that is held is tried all the same.
const HELD_LOOK_AGAIN: Duration = Duration::from_mins(10);

pub(super) fn plan(case: &Case<'_>) -> Plan {
    if !case.has_finalizer() {
        return case.wait(case.before.clone(), "nothing is left of it");
    }
    let view = case.view;
    let (control_plane, workers): (Vec<_>, Vec<_>) = view
        .machines
        .iter()
        .copied()
        .partition(|machine| request::is_control_plane(machine));
    let stages = [
        Stage::new(
            ChildKind::MachineDeployment,
            "WaitingForMachineDeployments",
            "MachineDeployment",
            metas(view.deployments.iter().copied()),
        ),
        Stage::new(
            ChildKind::MachineSet,
            "WaitingForMachineSets",
            "MachineSet",
            metas(view.sets.iter().copied()),
        ),
        Stage::new(
            ChildKind::Machine,
            "WaitingForWorkers",
            "worker Machine",
            metas(workers.into_iter()),
        ),
        Stage::new(
            ChildKind::Machine,
            "WaitingForControlPlane",
            "control-plane Machine",
            metas(control_plane.into_iter()),
        ),
    ];
    match stages.iter().find(|stage| !stage.objects.is_empty()) {
        Some(stage) => stage.plan(case),
        None => infrastructure(case),
    }
}

fn metas<'a, K: Resource + 'a>(objects: impl Iterator<Item = &'a K>) -> Vec<&'a ObjectMeta> {
    objects.map(Resource::meta).collect()
}

/// A kind of object that has to be gone before the next.
struct Stage<'a> {
    kind: ChildKind,
    reason: &'static str,
    word: &'static str,
    objects: Vec<&'a ObjectMeta>,
}

impl<'a> Stage<'a> {
    fn new(kind: ChildKind, reason: &'static str, word: &'static str, mut objects: Vec<&'a ObjectMeta>) -> Self {
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            kind,
            reason,
            word,
            objects,
        }
    }

    fn plan(&self, case: &Case<'_>) -> Plan {
        let sentence = self.sentence();
        let mut plan = case.wait(case.status_deleting(self.reason, &sentence, false), sentence);
        plan.actions = self
            .objects
            .iter()
            .filter(|object| object.deletion_timestamp.is_none())
            .filter_map(|object| {
                Some(Action::DeleteChild {
                    kind: self.kind,
                    name: object.name.clone()?,
                    uid: object.uid.clone()?,
                })
            })
            .take(MAX_DELETES)
            .collect();
        plan
    }

    /// "waits for 5 worker Machines to go: a, b, c and 2 more".
    fn sentence(&self) -> String {
        let count = self.objects.len();
        let plural = if count == 1 { "" } else { "s" };
        let names: Vec<&str> = self
            .objects
            .iter()
            .take(NAMES_SHOWN)
            .map(|object| object.name.as_deref().unwrap_or("?"))
            .collect();
        let mut sentence = format!("waits for {count} {}{plural} to go: {}", self.word, names.join(", "));
        if count > NAMES_SHOWN {
            sentence = format!("{sentence} and {} more", count - NAMES_SHOWN);
        }
        sentence
    }
}

const STAGE_INFRASTRUCTURE: &str = "WaitingForInfrastructureDeletion";
/// The same stage while something is in the way.
const STAGE_BLOCKED: &str = "InfrastructureDeletionBlocked";

/// All that belongs to it is gone: now what the provider made.
fn infrastructure(case: &Case<'_>) -> Plan {
    let observation = case.view.observation;
    if let Some(in_flight) = observation.in_flight() {
        let call = in_flight.operation.call.name();
        return case.wait(in_progress(case), format!("waits for the answer to {call}"));
    }
    let never_made = case.view.witnessed_birth
        && !observation.create_attempted
        && case.before.provider_id.is_none()
        && matches!(observation.knowledge, Knowledge::Nothing)
        && observation.deletion.is_none()
        && !observation.doubt;
    if never_made {
        return done(case, "nothing was ever made for it");
    }
    let provider = match case.line() {
        Line::Usable(provider) => provider,
        Line::Closed(_, sentence) => {
            let since = case
                .view
                .cluster
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|time| time.0);
            return match case.may_complain(since, QUIET) {
                Ok(()) => {
                    let status = case.status_deleting(STAGE_BLOCKED, &sentence, false);
                    case.wait_for_provider(status, sentence)
                }
                Err(then) => case
                    .wait_for_provider(case.before.clone(), sentence)
                    .no_later_than(case.now, then),
            };
        }
    };
    match removal::next(observation, &provider.timings, case.now) {
        Step::Delete => call(case, Call::Delete, "deletes the cluster's infrastructure"),
        Step::Ask => call(case, Call::Exists, "asks whether the infrastructure is gone"),
        Step::Done => done(case, "the provider has nothing left of it"),
        Step::Pending(due) => case
            .wait(in_progress(case), removal::words(observation))
            .no_later_than(case.now, due),
        Step::Settle(from) => case
            .wait(
                case.before.clone(),
                "waits until reads show the deletion, to ask whether the infrastructure is gone",
            )
            .no_later_than(case.now, from),
    }
}

fn done(case: &Case<'_>, reason: &str) -> Plan {
    let mut plan = case.wait(case.before.clone(), reason);
    plan.actions.push(Action::RemoveFinalizer);
    plan
}

/// The status while the provider is at it; as it was before the provider said so.
fn in_progress(case: &Case<'_>) -> outrigger_api::ClusterStatus {
    match case.view.observation.deletion {
        Some(Deletion::InProgress(_)) => {
            case.status_deleting(STAGE_INFRASTRUCTURE, &removal::words(case.view.observation), true)
        }
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
    let sentence = format!("the cluster's infrastructure cannot be removed: {}", failure.sentence());
    let plan = match case.may_complain(Some(trouble.since), TROUBLE_QUIET) {
        Err(then) if failure.is_transient() => case.wait(case.before.clone(), sentence).no_later_than(case.now, then),
        Err(_) | Ok(()) => {
            let status = case.status_deleting(STAGE_BLOCKED, &sentence, failure.is_transient());
            case.wait(status, sentence)
                .with_failure_event(case, CONDITION_DELETING, "FailedDelete", "Delete")
        }
    };
    match gate {
        Gate::Held => plan.no_later_than(case.now, plus(case.now, HELD_LOOK_AGAIN)),
        gate => plan.at_gate(case.now, &gate),
    }
}
