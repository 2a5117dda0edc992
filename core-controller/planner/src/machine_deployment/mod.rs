//! Plans a MachineDeployment: a MachineSet for each template it had, and as many replicas for each as the strategy allows.
//!
//! The semantics are those of Kubernetes' Deployment, with availability counted on the machines themselves. Not for the machines:
//! those belong to the sets (see `machine_set`).

mod arithmetic;
mod draft;
mod observation;
mod revision;
mod roll;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::{ANNOTATION_PAUSED, CONDITION_PAUSED};
use outrigger_api::{
    Cluster, DeletePolicy, Machine, MachineDeployment, MachineDeploymentStatus, MachineSet, MachineTemplate,
    OwnerReference, ResourceExt,
};
use serde_json::{Value, json};

use crate::conditions::{self, Assertion};
use crate::event::Event;
use draft::Draft;

pub use arithmetic::Bounds;
pub use observation::{ALREADY_EXISTS, CONFLICT, Observation, Performed};
pub use status::{REASON_COMPLETE, REASON_CREATED, REASON_DEADLINE, REASON_PAUSED, REASON_RESUMED, REASON_UPDATED};

/// A MachineSet and the machines that it controls.
#[derive(Clone, Copy, Debug)]
pub struct SetView<'a> {
    /// The set.
    pub set: &'a MachineSet,
    /// The machines that it controls, those being deleted included.
    pub machines: &'a [&'a Machine],
}

/// What was observed of a MachineDeployment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The deployment itself.
    pub deployment: &'a MachineDeployment,
    /// Its Cluster, if there is one of that name.
    pub cluster: Option<&'a Cluster>,
    /// Sets of the namespace: all that the deployment controls, and all that nobody controls and the selector matches. More
    /// do no harm.
    pub sets: &'a [SetView<'a>],
    /// What is remembered of earlier plans.
    pub observation: &'a Observation,
}

/// What to change on a MachineSet; what is empty stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetPatch {
    /// Replicas before and after.
    pub replicas: Option<(i32, i32)>,
    /// The new minReadySeconds.
    pub min_ready_seconds: Option<i32>,
    /// The new delete policy.
    pub delete_policy: Option<DeletePolicy>,
    /// Annotations to set, or to take away where there is no value.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl SetPatch {
    /// The JSON merge patch, with the resource version as a precondition.
    pub fn to_merge_patch(&self, resource_version: Option<&str>) -> Value {
        let mut spec = serde_json::Map::new();
        if let Some((_, replicas)) = self.replicas {
            spec.insert("replicas".to_owned(), json!(replicas));
        }
        if let Some(seconds) = self.min_ready_seconds {
            spec.insert("minReadySeconds".to_owned(), json!(seconds));
        }
        if let Some(policy) = self.delete_policy {
            spec.insert("deletePolicy".to_owned(), json!(policy));
        }
        json!({"metadata": {"resourceVersion": resource_version, "annotations": self.annotations}, "spec": spec})
    }
}

/// Something to do, about the deployment or one of its sets.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create this MachineSet. If the name is taken, put what has it into the index and report `AlreadyExists`.
    CreateSet(Box<MachineSet>),
    /// Change a MachineSet (see [`SetPatch::to_merge_patch`]).
    PatchSet {
        /// The set's name.
        name: String,
        /// The version that the decision was made on: a precondition.
        resource_version: Option<String>,
        /// What to change.
        patch: SetPatch,
    },
    /// Delete an old MachineSet without machines, with UID and resource version as preconditions.
    DeleteSet {
        /// The set's name.
        name: String,
        /// The set's UID.
        uid: String,
        /// The version that the decision was made on.
        resource_version: Option<String>,
    },
    /// Give a MachineSet these owner references, to adopt or to release it, with UID and resource version as preconditions.
    OwnSet {
        /// The set's name.
        name: String,
        /// The set's UID.
        uid: String,
        /// The version that the decision was made on.
        resource_version: Option<String>,
        /// All owner references that the set is to have.
        owner_references: Vec<OwnerReference>,
    },
    /// Change the deployment itself, with its resource version as a precondition.
    PatchDeployment {
        /// Annotations to set, or to take away where there is no value.
        annotations: BTreeMap<String, Option<String>>,
        /// The template to replace the deployment's with, and the revision that it comes from.
        rollback: Option<(i64, Box<MachineTemplate>)>,
    },
}

/// What to do about a MachineDeployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The whole status that it should have.
    pub status: MachineDeploymentStatus,
    /// What to do, in this order; any of them may fail without harm.
    pub actions: Vec<Action>,
    /// When to plan again if nothing happens before.
    pub look_again: Option<Duration>,
    /// What people should read.
    pub events: Vec<Event>,
    /// Why it acts or waits, in words.
    pub reason: String,
}

/// Plans a MachineDeployment.
pub fn plan(view: &View<'_>, now: Timestamp) -> Plan {
    let deployment = view.deployment;
    if let Some(why) = paused(view) {
        let mut status = deployment.status.clone().unwrap_or_default();
        let assertion = Assertion::holds(CONDITION_PAUSED, "Paused", why.clone());
        conditions::set(&mut status.conditions, assertion, deployment.metadata.generation, now);
        return Plan {
            status,
            actions: Vec::new(),
            look_again: None,
            events: Vec::new(),
            reason: why,
        };
    }
    let mut draft = Draft::new(view, now);
    draft.decide();
    draft.finish()
}

/// Why nothing is done for the deployment, if it is paused. `spec.paused` is something else: it only stops roll-outs.
fn paused(view: &View<'_>) -> Option<String> {
    if view.deployment.annotations().contains_key(ANNOTATION_PAUSED) {
        Some(format!("the annotation {ANNOTATION_PAUSED} is set"))
    } else if view
        .cluster
        .is_some_and(|cluster| cluster.spec.paused || cluster.annotations().contains_key(ANNOTATION_PAUSED))
    {
        Some(format!("Cluster {} is paused", view.deployment.spec.cluster_name))
    } else {
        None
    }
}
