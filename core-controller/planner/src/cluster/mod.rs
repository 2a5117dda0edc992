//! One Cluster: what its provider makes for it besides machines, and its end, which
//! waits for everything that belongs to it.
//! Not for: the machines themselves, or calls.

use std::time::Duration;

use actuator_proto::v1;
use jiff::Timestamp;
use outrigger_api::{Cluster, ClusterStatus, Machine, MachineDeployment, MachineSet};

mod case;
mod deletion;
mod live;
mod status;
#[cfg(test)]
mod tests;

use case::Case;

use crate::event::Event;
use crate::operation::{self, Operation, Outcome};
use crate::provider::Snapshot;
use crate::validation::Verdict;

/// What a process has learned of one cluster.
pub type Observation = crate::observation::Observation<v1::ClusterStatus>;
/// What a provider answered.
pub type Answer = operation::Answer<v1::ClusterStatus>;
/// What became of an operation.
pub type OperationResult = operation::OperationResult<v1::ClusterStatus>;

/// What was observed of one cluster.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The object, as the index has it.
    pub cluster: &'a Cluster,
    /// The provider that `spec.provider` names, where it is known.
    pub provider: Option<&'a Snapshot>,
    /// What this process has learned from the provider.
    pub observation: &'a Observation,
    /// Whether this process saw the object being created.
    pub witnessed_birth: bool,
    /// Since when this process leads.
    pub leading_since: Timestamp,
    /// The version of the credentials Secret where it is watched, else "".
    pub credentials_version: &'a str,
    /// What is known of the cluster's config; `None`: nobody has asked this provider.
    pub verdict: Option<&'a Verdict>,
    /// Every MachineDeployment of the cluster.
    pub deployments: &'a [&'a MachineDeployment],
    /// Every MachineSet of the cluster.
    pub sets: &'a [&'a MachineSet],
    /// Every Machine of the cluster.
    pub machines: &'a [&'a Machine],
}

/// A kind of object that belongs to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChildKind {
    /// A MachineDeployment.
    MachineDeployment,
    /// A MachineSet.
    MachineSet,
    /// A Machine.
    Machine,
}

/// What the executor is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put [`outrigger_api::names::FINALIZER_CLUSTER`] on the object.
    AddFinalizer,
    /// Take the finalizer off the object.
    RemoveFinalizer,
    /// Delete an object of the cluster, in its namespace, with this UID as precondition.
    DeleteChild {
        /// Its kind.
        kind: ChildKind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Call the provider: `Observation::started` first, `Observation::observe` with what
    /// became of it.
    Provider(Operation),
}

/// What to do about one cluster. The status is written before the actions.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The full desired status; written only where it differs from the observed one.
    pub status: ClusterStatus,
    /// The next steps; at most one of them calls the provider.
    pub actions: Vec<Action>,
    /// Plan again after this long at the latest; `None`: something will change first.
    pub look_again: Option<Duration>,
    /// What happened.
    pub events: Vec<Event>,
    /// Why it acts or waits.
    pub reason: String,
    /// Another core leads: end this process.
    pub step_down: bool,
}

/// What to do about the cluster, judged at `now`. Same input, same plan.
pub fn plan(view: &View<'_>, now: Timestamp) -> Plan {
    let case = Case::new(view, now);
    if case.is_paused() {
        return case.wait(case.status_paused(), "the Cluster is paused");
    }
    let mut plan = if view.cluster.metadata.deletion_timestamp.is_some() {
        deletion::plan(&case)
    } else {
        live::plan(&case)
    };
    status::unpause(&case, &mut plan.status);
    plan.step_down = view
        .observation
        .troubles
        .iter()
        .any(|trouble| trouble.failure.outcome == Outcome::StepDown);
    plan
}
