//! What the runtime remembers of a MachineDeployment between two plans: a name that was taken, and failures to wait for.
//!
//! In memory only: forgetting it costs a request. Patches need no memory, as each has the resource version that it was decided
//! on; a create is asked for again until its answer is definite.

use std::collections::BTreeMap;

use jiff::Timestamp;
use outrigger_api::MachineSet;

use crate::event::Event;
use crate::machine_set::{Outcome, after, delay};

/// One action that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Performed {
    /// A MachineSet was to be created.
    CreateSet(Box<MachineSet>),
    /// A MachineSet was to be patched.
    PatchSet {
        /// The MachineSet's name.
        name: String,
        /// Replicas before and after, if they were to change.
        replicas: Option<(i32, i32)>,
    },
    /// An old MachineSet was to be deleted.
    DeleteSet {
        /// The MachineSet's name.
        name: String,
    },
    /// A MachineSet was to be adopted or released.
    Own {
        /// The MachineSet's name.
        name: String,
    },
    /// The MachineDeployment itself was to be patched.
    PatchDeployment {
        /// The revision that its template was to be taken from, if it was to be rolled back.
        rolled_back_to: Option<i64>,
    },
}

/// The reason with which the API server refuses a name that is taken.
pub const ALREADY_EXISTS: &str = "AlreadyExists";
/// The reason with which the API server refuses a change of something that has changed since; not worth a word.
pub const CONFLICT: &str = "Conflict";

/// What is remembered. `Default` is knowing nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    pub(super) unanswered: Option<Box<MachineSet>>,
    pub(super) taken_name: Option<String>,
    pub(super) failure: Option<(&'static str, String)>,
    pub(super) not_before: Option<Timestamp>,
    possible: BTreeMap<String, Vec<Timestamp>>,
    failures: u32,
}

impl Observation {
    /// Learns of the machines that a set may have besides those that the index shows, creates whose answer never came: until
    /// when each of them may still show. To be said after each plan of a set (see
    /// [`crate::machine_set::Observation::possible_machines`]).
    pub fn note_possible(&mut self, set_name: &str, machines: Vec<Timestamp>) {
        if machines.is_empty() {
            self.possible.remove(set_name);
        } else {
            self.possible.insert(set_name.to_owned(), machines);
        }
    }

    /// How many machines this set may have besides those that the index shows.
    pub(super) fn possible(&self, set_name: &str, now: Timestamp) -> i32 {
        let until = self.possible.get(set_name).into_iter().flatten();
        until.filter(|until| **until > now).count() as i32
    }

    /// When the next of those machines is known not to be there: then there is room for another one, and nothing else tells.
    pub(super) fn next_settled(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.possible.values().flatten();
        until.filter(|until| **until > now).min().copied()
    }

    /// Learns how the actions of one plan went, and says what people should read of it.
    pub fn observe(&mut self, results: &[(Performed, Outcome)], now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let mut failure = None;
        let mut done = false;
        for (performed, outcome) in results {
            if let Performed::CreateSet(set) = performed {
                self.note_create(set, outcome);
            }
            match outcome {
                Outcome::Done => {
                    done = true;
                    events.extend(news(performed));
                }
                Outcome::Refused { reason, .. } if reason == CONFLICT => {}
                Outcome::Refused { reason, .. } if reason == ALREADY_EXISTS => {}
                Outcome::Refused { message, .. } | Outcome::Unknown { message } => {
                    failure = Some(complaint(performed, message));
                }
            }
        }
        match failure {
            Some(failure) => {
                self.failures += 1;
                self.not_before = Some(after(now, delay(self.failures)));
                if self.failure.as_ref().is_none_or(|(reason, _)| *reason != failure.0) {
                    events.push(Event::warning(failure.0, "Reconcile", failure.1.clone()));
                }
                self.failure = Some(failure);
            }
            None if done => {
                self.failures = 0;
                self.failure = None;
                self.not_before = None;
            }
            None => {}
        }
        events
    }

    fn note_create(&mut self, set: &MachineSet, outcome: &Outcome) {
        match outcome {
            Outcome::Unknown { .. } => self.unanswered = Some(Box::new(set.clone())),
            Outcome::Done => self.unanswered = None,
            Outcome::Refused { reason, .. } => {
                self.unanswered = None;
                if reason == ALREADY_EXISTS {
                    self.taken_name.clone_from(&set.metadata.name);
                }
            }
        }
    }
}

fn news(performed: &Performed) -> Option<Event> {
    match performed {
        Performed::CreateSet(set) => Some(Event::normal(
            "SuccessfulCreate",
            "Create",
            format!(
                "created MachineSet {} with {} machines",
                set.metadata.name.as_deref().unwrap_or_default(),
                set.spec.replicas
            ),
        )),
        Performed::PatchSet {
            name,
            replicas: Some((from, to)),
        } if to > from => Some(Event::normal(
            "ScalingUp",
            "Scale",
            format!("scaled MachineSet {name} up from {from} to {to}"),
        )),
        Performed::PatchSet {
            name,
            replicas: Some((from, to)),
        } if to < from => Some(Event::normal(
            "ScalingDown",
            "Scale",
            format!("scaled MachineSet {name} down from {from} to {to}"),
        )),
        Performed::DeleteSet { name } => Some(Event::normal(
            "SuccessfulDelete",
            "Delete",
            format!("deleted old MachineSet {name}"),
        )),
        Performed::PatchDeployment {
            rolled_back_to: Some(revision),
        } => Some(Event::normal(
            "RolledBack",
            "Rollback",
            format!("rolled the template back to revision {revision}"),
        )),
        Performed::PatchSet { .. } | Performed::Own { .. } | Performed::PatchDeployment { .. } => None,
    }
}

fn complaint(performed: &Performed, message: &str) -> (&'static str, String) {
    match performed {
        Performed::CreateSet(set) => {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            (
                "FailedCreate",
                format!("MachineSet {name} could not be created: {message}"),
            )
        }
        Performed::DeleteSet { name } => (
            "FailedDelete",
            format!("MachineSet {name} could not be deleted: {message}"),
        ),
        Performed::PatchSet { name, .. } | Performed::Own { name } => (
            "FailedUpdate",
            format!("MachineSet {name} could not be changed: {message}"),
        ),
        Performed::PatchDeployment { .. } => (
            "FailedUpdate",
            format!("the MachineDeployment could not be changed: {message}"),
        ),
    }
}
