//! One Machine: from its spec, its provider's answers and its cluster to the next step.
//! Everything that a process must remember between two plans is in the API object or
//! can be asked for again; see [`Observation`].
//! Not for: calls, clocks, or the children of sets.

use std::time::Duration;

use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::{Cluster, Machine, MachineStatus};

mod born;
mod case;
mod deletion;
mod placement;
#[cfg(test)]
mod simulation;
mod status;
#[cfg(test)]
mod tests;
mod unborn;

use case::Case;

use crate::event::Event;
use crate::operation::{self, Operation, Outcome};
use crate::provider::Snapshot;
use crate::validation::Verdict;

/// What a process has learned of one machine.
pub type Observation = crate::observation::Observation<v1::MachineStatus>;
/// What a provider answered.
pub type Answer = operation::Answer<v1::MachineStatus>;
/// What became of an operation.
pub type OperationResult = operation::OperationResult<v1::MachineStatus>;

/// What was observed of one machine.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The object, as the index has it.
    pub machine: &'a Machine,
    /// Its Cluster, where it is there.
    pub cluster: Option<&'a Cluster>,
    /// The provider named by [`provider_name`], where it is known.
    pub provider: Option<&'a Snapshot>,
    /// What this process has learned from the provider.
    pub observation: &'a Observation,
    /// Whether this process saw the object being created, so that nobody else can have
    /// called Create for it.
    pub witnessed_birth: bool,
    /// Since when this process leads. What others did for this machine, they did before.
    pub leading_since: Timestamp,
    /// The version of the credentials Secret where it is watched, else "".
    pub credentials_version: &'a str,
    /// What is known of the machine's config; `None`: nobody has asked this provider.
    pub verdict: Option<&'a Verdict>,
    /// Failure domains that had no capacity for siblings a short while ago; "" stands
    /// for the provider's own choice.
    pub exhausted_domains: &'a [String],
}

/// What the executor is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put [`outrigger_api::names::FINALIZER_MACHINE`] on the object.
    AddFinalizer,
    /// Take the finalizer off the object.
    RemoveFinalizer,
    /// Write `spec.providerID` with a patch of its own, at once.
    SetProviderId(String),
    /// Call the provider: `Observation::started` first, `Observation::observe` with what
    /// became of it.
    Provider(Operation),
}

/// What to do about one machine. The status is written before the action; where that
/// write fails the action waits for the next plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The full desired status; written only where it differs from the observed one.
    pub status: MachineStatus,
    /// The next step, if there is one.
    pub action: Option<Action>,
    /// Plan again after this long at the latest; `None`: something will change first.
    pub look_again: Option<Duration>,
    /// What happened.
    pub events: Vec<Event>,
    /// Why it acts or waits.
    pub reason: String,
    /// Another core leads: end this process.
    pub step_down: bool,
}

/// The reason of the condition Ready of a machine whose spec cannot be reached in place:
/// its owner replaces it.
pub const REASON_REPLACE_REQUIRED: &str = "ReplaceRequired";
/// The `failureReason` of a machine whose instance is gone though nobody here deleted it.
pub const REASON_INSTANCE_LOST: &str = "InstanceLost";

/// Whether the owner of this machine has to replace it: it failed for good, or its spec
/// cannot be reached in place.
pub fn needs_replacement(machine: &Machine) -> bool {
    machine.status.as_ref().is_some_and(|status| {
        (status.phase == Some(outrigger_api::MachinePhase::Failed) && status.failure_reason.is_some())
            || crate::conditions::get(&status.conditions, outrigger_api::names::CONDITION_READY)
                .is_some_and(|ready| ready.reason == REASON_REPLACE_REQUIRED)
    })
}

/// The provider of a machine: its own, else its Cluster's, else the one that its status
/// remembers for the time when the Cluster is gone.
pub fn provider_name<'a>(machine: &'a Machine, cluster: Option<&'a Cluster>) -> Option<&'a str> {
    machine
        .spec
        .provider
        .as_deref()
        .or_else(|| cluster.map(|cluster| cluster.spec.provider.as_str()))
        .or_else(|| machine.status.as_ref()?.provider_name.as_deref())
}

/// What to do about the machine, judged at `now`. Same input, same plan.
pub fn plan(view: &View<'_>, now: Timestamp) -> Plan {
    let case = Case::new(view, now);
    if let Some(by) = case.paused() {
        return case.wait(case.status_paused(by), format!("{by} is paused"));
    }
    let mut plan = if view.machine.metadata.deletion_timestamp.is_some() {
        deletion::plan(&case)
    } else if let Some(provider_id) = view.machine.spec.provider_id.as_deref() {
        born::plan(&case, provider_id)
    } else {
        unborn::plan(&case)
    };
    status::unpause(&case, &mut plan.status);
    plan.step_down = view
        .observation
        .troubles
        .iter()
        .any(|trouble| trouble.failure.outcome == Outcome::StepDown);
    plan
}
