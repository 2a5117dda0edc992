//! Plans a MachineSet: as many machines as it says, never one too many, and the right ones given up first.
//!
//! Not for the machines themselves (see `machine`), nor for replacing them when their template changes (see
//! `machine_deployment`).

mod choice;
mod count;
mod observation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::{
    ANNOTATION_DISABLE_MACHINE_CREATE, ANNOTATION_PAUSED, CONDITION_PAUSED, CONDITION_READY, CONDITION_REPLICA_FAILURE,
    FINALIZER_MACHINE, LABEL_CLUSTER_NAME, LABEL_SET_NAME,
};
use outrigger_api::{
    Cluster, Machine, MachineSet, MachineSetStatus, MachineSpec, ObjectMeta, OwnerReference, ResourceExt, reference,
    selector,
};

use crate::conditions::{self, Assertion};
use crate::event::Event;

pub use choice::{Names, encode, order_for_deletion};
pub use count::{Counts, Readiness, has_failed, is_deleting, is_up_to_date, readiness};
use observation::ANSWER_WINDOW;
pub use observation::{Failure, LARGEST_BATCH, Observation, Outcome, Performed};
pub(crate) use observation::{after, delay};

/// What was observed of a MachineSet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The set itself.
    pub set: &'a MachineSet,
    /// Its Cluster, if there is one of that name.
    pub cluster: Option<&'a Cluster>,
    /// Machines of the namespace: all that the set controls, and all that nobody controls and the selector matches. More do
    /// no harm.
    pub machines: &'a [&'a Machine],
    /// What is remembered of earlier plans.
    pub observation: &'a Observation,
    /// Randomness for names; another number each time.
    pub seed: u64,
}

/// Something to do, about one Machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create this Machine. Its name may have been tried before: if it exists and is controlled by the set, all is well.
    Create(Box<Machine>),
    /// Delete a Machine, with its UID as a precondition.
    Delete {
        /// The Machine's name.
        name: String,
        /// The Machine's UID.
        uid: String,
        /// Whether it failed and is to be replaced.
        replaced: bool,
    },
    /// Make the set the controller of a Machine that has none, with UID and resource version as preconditions.
    Adopt {
        /// The Machine's name.
        name: String,
        /// The Machine's UID.
        uid: String,
        /// The version that the decision was made on.
        resource_version: Option<String>,
        /// All owner references that the Machine is to have.
        owner_references: Vec<OwnerReference>,
    },
    /// Give up a Machine that no longer matches the selector, with UID and resource version as preconditions.
    Release {
        /// The Machine's name.
        name: String,
        /// The Machine's UID.
        uid: String,
        /// The version that the decision was made on.
        resource_version: Option<String>,
        /// All owner references that the Machine is to keep.
        owner_references: Vec<OwnerReference>,
    },
}

/// What to do about a MachineSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The whole status that it should have.
    pub status: MachineSetStatus,
    /// What to do, in any order.
    pub actions: Vec<Action>,
    /// When to plan again if nothing happens before.
    pub look_again: Option<Duration>,
    /// What people should read.
    pub events: Vec<Event>,
    /// Why it acts or waits, in words.
    pub reason: String,
}

/// Which machines belong to the set, and which are to be adopted or released.
struct Membership<'a> {
    members: Vec<&'a Machine>,
    actions: Vec<Action>,
}

/// Plans a MachineSet.
pub fn plan(view: &View<'_>, now: Timestamp) -> Plan {
    let observed = view.set.status.clone().unwrap_or_default();
    let generation = view.set.metadata.generation;
    if let Some(why) = paused(view) {
        let mut status = observed;
        conditions::set(
            &mut status.conditions,
            Assertion::holds(CONDITION_PAUSED, "Paused", why.clone()),
            generation,
            now,
        );
        return Plan {
            status,
            actions: Vec::new(),
            look_again: None,
            events: Vec::new(),
            reason: why,
        };
    }
    let Membership { members, mut actions } = membership(view);
    let (reason, wait) = if view.set.metadata.deletion_timestamp.is_some() {
        actions.clear();
        ("the set is being deleted: its machines go with it".to_owned(), None)
    } else {
        decide(view, &members, &mut actions, now)
    };
    let counts = Counts::of(members.iter().copied(), view.set.spec.min_ready_seconds, now);
    let status = status(view, observed, &members, counts, now);
    let look_again = [wait, counts.next_available].into_iter().flatten().min();
    Plan {
        status,
        actions,
        look_again,
        events: Vec::new(),
        reason,
    }
}

/// Why nothing is done for the set, if it is paused.
fn paused(view: &View<'_>) -> Option<String> {
    if view.set.annotations().contains_key(ANNOTATION_PAUSED) {
        Some(format!("the annotation {ANNOTATION_PAUSED} is set"))
    } else if view
        .cluster
        .is_some_and(|cluster| cluster.spec.paused || cluster.annotations().contains_key(ANNOTATION_PAUSED))
    {
        Some(format!("Cluster {} is paused", view.set.spec.cluster_name))
    } else {
        None
    }
}

/// Sorts machines into members, those to adopt and those to release.
fn membership<'a>(view: &View<'a>) -> Membership<'a> {
    let set = view.set;
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let mut found = Membership {
        members: Vec::new(),
        actions: Vec::new(),
    };
    for machine in view.machines.iter().copied() {
        let matches = selector::matches(&set.spec.selector, machine.metadata.labels.as_ref())
            && machine.spec.cluster_name == set.spec.cluster_name;
        let controller = reference::controller(&machine.metadata);
        let ours = !uid.is_empty() && controller.is_some_and(|owner| owner.uid == uid);
        if ours && (matches || is_deleting(machine)) {
            found.members.push(machine);
        } else if ours {
            let owners = machine
                .owner_references()
                .iter()
                .filter(|owner| owner.uid != uid)
                .cloned()
                .collect();
            found.actions.push(Action::Release {
                name: machine.name_any(),
                uid: machine.metadata.uid.clone().unwrap_or_default(),
                resource_version: machine.metadata.resource_version.clone(),
                owner_references: owners,
            });
        } else if controller.is_none()
            && matches
            && !is_deleting(machine)
            && machine.metadata.namespace == set.metadata.namespace
        {
            let Some(owner) = reference::controller_of(set).filter(|owner| !owner.uid.is_empty()) else {
                continue;
            };
            let mut owners: Vec<OwnerReference> = machine
                .owner_references()
                .iter()
                .filter(|other| other.uid != owner.uid)
                .cloned()
                .collect();
            owners.push(owner);
            found.actions.push(Action::Adopt {
                name: machine.name_any(),
                uid: machine.metadata.uid.clone().unwrap_or_default(),
                resource_version: machine.metadata.resource_version.clone(),
                owner_references: owners,
            });
        }
    }
    found
}

/// Adds creates or deletes; says why, and how long to wait for more.
fn decide(
    view: &View<'_>,
    members: &[&Machine],
    actions: &mut Vec<Action>,
    now: Timestamp,
) -> (String, Option<Duration>) {
    let seen = view.observation;
    if let Some(left) = seen.not_before.and_then(|time| until(time, now)) {
        let why = seen
            .failure
            .as_ref()
            .map_or("the last request failed", |failure| failure.message.as_str());
        return (format!("waiting after a failure: {why}"), Some(left));
    }
    // A machine that changes hands is in the way of a new one, and is nobody's to delete, until it has.
    let changing = actions.len();
    // A delete whose answer never came is asked for again until it comes; until then nothing else is given up in
    // the machine's place, and nothing new is made either.
    let mut going: Vec<&Machine> = Vec::new();
    let mut staying: Vec<&Machine> = Vec::new();
    for machine in members.iter().copied().filter(|machine| !is_deleting(machine)) {
        let asked = machine
            .metadata
            .uid
            .as_ref()
            .is_some_and(|uid| seen.unanswered_deletes.contains_key(uid));
        if asked {
            going.push(machine);
        } else {
            staying.push(machine);
        }
    }
    actions.extend(going.iter().map(|machine| delete(machine, false)));

    // A create whose answer never came may have made a machine that the index does not show yet. It is asked for again under
    // the same name as long as it is needed; until it shows, or cannot come any more, it is in the way of other new ones.
    let names: BTreeSet<String> = view.machines.iter().map(|machine| machine.name_any()).collect();
    let unanswered: BTreeMap<&String, Duration> = seen
        .unanswered_creates
        .iter()
        .filter(|(name, _)| !names.contains(*name))
        .filter_map(|(name, asked)| Some((name, until(after(*asked, ANSWER_WINDOW), now)?)))
        .collect();

    let desired = view.set.spec.replicas.max(0) as usize;
    let missing = desired.saturating_sub(staying.len() + going.len() + changing);
    let mut create = Vec::new();
    let (reason, wait) = if staying.len() > desired {
        order_for_deletion(
            &mut staying,
            view.set.spec.delete_policy,
            view.set.spec.min_ready_seconds,
            now,
        );
        let too_many = staying.len() - desired;
        let batch = too_many.min(LARGEST_BATCH);
        actions.extend(staying.iter().take(batch).map(|machine| delete(machine, false)));
        (
            format!("deleting {batch} of {too_many} machines too many"),
            (batch < too_many).then_some(Duration::ZERO),
        )
    } else if let Some((reason, wait)) = replace_failed(view, &staying, actions, now) {
        (reason, wait)
    } else if missing > 0 {
        match refuses_to_create(view) {
            Some(why) => (why, None),
            None if unanswered.len() > missing => (
                format!("waiting for {} machines that may have been created", unanswered.len()),
                unanswered.values().min().copied(),
            ),
            None => {
                let batch = (missing - unanswered.len()).min(seen.batch);
                let taken = names.iter().chain(seen.unanswered_creates.keys()).cloned().collect();
                let mut drawn = Names::new(view.set.metadata.name.as_deref().unwrap_or_default(), view.seed, taken);
                create.extend(unanswered.keys().map(|name| (*name).clone()));
                create.extend((0..batch).map(|_| drawn.draw()));
                let left = missing - create.len();
                (
                    format!("creating {} of {missing} missing machines", create.len()),
                    (left > 0).then_some(Duration::ZERO),
                )
            }
        }
    } else if changing > 0 {
        (format!("adopting or releasing {changing} machines"), None)
    } else {
        (format!("all {desired} machines are there"), None)
    };
    actions.extend(
        create
            .into_iter()
            .filter_map(|name| new_machine(view.set, name))
            .map(|machine| Action::Create(Box::new(machine))),
    );
    (reason, wait)
}

/// Deletes the machines that failed, so that others take their place; slower each time.
fn replace_failed(
    view: &View<'_>,
    staying: &[&Machine],
    actions: &mut Vec<Action>,
    now: Timestamp,
) -> Option<(String, Option<Duration>)> {
    let failed: Vec<&Machine> = staying
        .iter()
        .copied()
        .filter(|machine| has_failed(machine))
        .take(LARGEST_BATCH)
        .collect();
    // Without its Cluster no other machine could take its place.
    let cluster_is_there = view
        .cluster
        .is_some_and(|cluster| cluster.metadata.deletion_timestamp.is_none());
    if failed.is_empty() || !cluster_is_there {
        return None;
    }
    let noun = if failed.len() == 1 { "machine" } else { "machines" };
    if let Some(left) = view.observation.replace_not_before.and_then(|time| until(time, now)) {
        return Some((
            format!(
                "waiting before {} failed {noun} are replaced: others failed just before",
                failed.len()
            ),
            Some(left),
        ));
    }
    actions.extend(failed.iter().map(|machine| delete(machine, true)));
    Some((format!("replacing {} failed {noun}", failed.len()), None))
}

/// Why no machine may be created now.
fn refuses_to_create(view: &View<'_>) -> Option<String> {
    let name = &view.set.spec.cluster_name;
    match view.cluster {
        None => Some(format!(
            "no machine is created: Cluster {name} does not exist in this namespace"
        )),
        Some(cluster) if cluster.metadata.deletion_timestamp.is_some() => {
            Some(format!("no machine is created: Cluster {name} is being deleted"))
        }
        Some(_) if view.set.annotations().contains_key(ANNOTATION_DISABLE_MACHINE_CREATE) => {
            Some("no machine is created: the MachineDeployment replaces machines only when they are deleted".to_owned())
        }
        Some(_) => None,
    }
}

fn delete(machine: &Machine, replaced: bool) -> Action {
    Action::Delete {
        name: machine.name_any(),
        uid: machine.metadata.uid.clone().unwrap_or_default(),
        replaced,
    }
}

/// How long until `time`, if it is still to come.
fn until(time: Timestamp, now: Timestamp) -> Option<Duration> {
    u64::try_from(time.as_millisecond() - now.as_millisecond())
        .ok()
        .filter(|left| *left > 0)
        .map(Duration::from_millis)
}

/// A new Machine of the set; `None` before the API server has given the set a UID.
fn new_machine(set: &MachineSet, name: String) -> Option<Machine> {
    let owner = reference::controller_of(set).filter(|owner| !owner.uid.is_empty())?;
    let template = &set.spec.template;
    let mut labels = template.metadata.labels.clone();
    labels.insert(LABEL_CLUSTER_NAME.to_owned(), set.spec.cluster_name.clone());
    labels.insert(LABEL_SET_NAME.to_owned(), set.name_any());
    let annotations = &template.metadata.annotations;
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: set.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then(|| annotations.clone()),
        owner_references: Some(vec![owner]),
        finalizers: Some(vec![FINALIZER_MACHINE.to_owned()]),
        ..ObjectMeta::default()
    };
    Some(Machine {
        metadata,
        spec: MachineSpec::from_template(&set.spec.cluster_name, &template.spec),
        status: None,
    })
}

/// The status that the set should have.
fn status(
    view: &View<'_>,
    observed: MachineSetStatus,
    members: &[&Machine],
    counts: Counts,
    now: Timestamp,
) -> MachineSetStatus {
    let set = view.set;
    let up_to_date = members
        .iter()
        .filter(|machine| !is_deleting(machine) && is_up_to_date(&machine.spec, &set.spec.template.spec))
        .count();
    let mut status = MachineSetStatus {
        observed_generation: set.metadata.generation,
        replicas: counts.existing,
        ready_replicas: counts.ready,
        available_replicas: counts.available,
        up_to_date_replicas: i32::try_from(up_to_date).unwrap_or(i32::MAX),
        selector: Some(selector::to_text(&set.spec.selector)),
        conditions: observed.conditions,
    };
    let generation = set.metadata.generation;
    let desired = set.spec.replicas;
    let ready = if counts.existing == desired && counts.ready == desired {
        Assertion::holds(CONDITION_READY, "Ready", "")
    } else {
        let words = format!(
            "{} of {desired} machines are ready, {} exist",
            counts.ready, counts.existing
        );
        Assertion::fails(
            CONDITION_READY,
            if counts.existing == desired {
                "NotReady"
            } else {
                "Scaling"
            },
            words,
        )
    };
    conditions::set(&mut status.conditions, ready, generation, now);
    // A failure matters as long as there is something left to do.
    let seen = view.observation;
    let unsettled = counts.existing != desired || seen.not_before.is_some_and(|time| until(time, now).is_some());
    let failure = match (seen.failure.as_ref().filter(|_| unsettled), refuses_to_create(view)) {
        (Some(failure), _) => Some((failure.reason, failure.message.clone())),
        (None, Some(why)) if counts.existing < desired && view.cluster.is_none() => Some(("ClusterNotFound", why)),
        (None, _) => None,
    };
    match failure {
        Some((reason, message)) => {
            let assertion = Assertion::holds(CONDITION_REPLICA_FAILURE, reason, message);
            conditions::set(&mut status.conditions, assertion, generation, now);
        }
        None => conditions::remove(&mut status.conditions, CONDITION_REPLICA_FAILURE),
    }
    if conditions::get(&status.conditions, CONDITION_PAUSED).is_some() {
        conditions::set(
            &mut status.conditions,
            Assertion::fails(CONDITION_PAUSED, "NotPaused", ""),
            generation,
            now,
        );
    }
    status
}
