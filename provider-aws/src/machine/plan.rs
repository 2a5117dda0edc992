//! What to do about a machine, from what EC2 shows of it. Pure.

use std::time::Duration;

use provider_sdk::v1::ErrorReason;
use provider_sdk::{ActuatorError, Resource};

use crate::ec2::Tags;
use crate::ec2::instances::{Instance, Leftover};
use crate::recent::Trace;
use crate::tags::{self, Applied, Kind};

/// What is seen of a machine.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Every instance with the key, those that ended within the hour among them.
    pub instances: Vec<Instance>,
    /// The instance of the id that the core knows, where it is none of these.
    pub named: Option<Instance>,
    /// Volumes with the key; looked for when no instance lives.
    pub volumes: Vec<Leftover>,
    /// Interfaces with the key; looked for when no instance lives.
    pub interfaces: Vec<Leftover>,
    /// What this process has done a moment ago.
    pub trace: Trace<Instance>,
}

/// How far an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is there: pending, running, stopping, stopped, or what nobody here knows.
    Lives,
    /// It is on its way out.
    Ends,
    /// It is gone, and EC2 still tells of it.
    Ended,
}

/// How far this instance is.
pub fn life(instance: &Instance) -> Life {
    match instance.state.name.as_str() {
        "shutting-down" => Life::Ends,
        "terminated" => Life::Ended,
        _ => Life::Lives,
    }
}

/// Whether anything lives, so that there is no need to look for what is left.
pub fn lives(instances: &[Instance]) -> bool {
    instances.iter().any(|instance| life(instance) != Life::Ended)
}

/// Whether this is what was made a moment ago.
pub fn is_made(trace: &Trace<Instance>, instance: &Instance) -> bool {
    matches!(trace, Trace::Made(made) if made.id == instance.id)
}

impl Observation {
    /// Whether EC2 shows nothing at all.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.named.is_none() && self.leftovers().next().is_none()
    }

    fn with(&self, wanted: Life) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| life(instance) == wanted)
    }

    /// Refuses everything when something carries the key, or has the id, and is not this
    /// machine's.
    fn check_owner(&self, resource: &Resource) -> Result<(), ActuatorError> {
        self.instances
            .iter()
            .chain(&self.named)
            .try_for_each(|instance| tags::check_owner(Kind::Machine, &instance.id, &instance.tags(), resource))
    }

    /// The one that lives.
    fn living(&self) -> Result<Option<&Instance>, ActuatorError> {
        let living: Vec<&Instance> = self.with(Life::Lives).collect();
        match living.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => {
                let ids: Vec<&str> = several.iter().map(|instance| instance.id.as_str()).collect();
                Err(ActuatorError::new(
                    ErrorReason::MultipleInstances,
                    format!(
                        "the instances {} carry the same key; end those that do not belong there",
                        ids.join(", ")
                    ),
                ))
            }
        }
    }

    /// The made one, unless EC2 shows that it is over by now.
    fn made(&self) -> Option<&Instance> {
        match &self.trace {
            Trace::Made(made) if self.instances.iter().all(|instance| instance.id != made.id) => Some(made),
            _ => None,
        }
    }

    fn leftovers(&self) -> impl Iterator<Item = &Leftover> {
        self.volumes.iter().chain(&self.interfaces)
    }
}

/// What a create comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Create {
    /// It was made before.
    Existing(Box<Instance>),
    /// It has to be made.
    Run,
}

/// Decides about a create.
pub fn create(seen: &Observation, resource: &Resource, wanted: &Applied) -> Result<Create, ActuatorError> {
    seen.check_owner(resource)?;
    // A key is never used twice: what has ended is told as it is, and its owner replaces it.
    let former = seen.with(Life::Ends).chain(seen.with(Life::Ended)).next();
    let Some(there) = seen.living()?.or_else(|| seen.made()).or(former) else {
        return Ok(Create::Run);
    };
    if tags::applied(&there.tags()).digest == wanted.digest {
        return Ok(Create::Existing(Box::new(there.clone())));
    }
    Err(ActuatorError::new(
        ErrorReason::KeyConflict,
        format!(
            "{} was made with this key from another spec; it is left as it is",
            there.id
        ),
    ))
}

/// What is said about a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Presence {
    /// Nothing of it is there, for sure.
    Absent,
    /// It is there.
    Present(Box<Instance>),
    /// It is on its way out, or something of it is left.
    Terminating(Box<Instance>),
}

/// Decides whether a machine is there.
pub fn exists(seen: &Observation, resource: &Resource) -> Result<Presence, ActuatorError> {
    seen.check_owner(resource)?;
    if let Some(instance) = seen.living()?.or_else(|| seen.made()) {
        return Ok(Presence::Present(Box::new(instance.clone())));
    }
    if let Some(instance) = seen.with(Life::Ends).next() {
        return Ok(Presence::Terminating(Box::new(instance.clone())));
    }
    if let Some(left) = seen.leftovers().next() {
        return match seen.with(Life::Ended).next() {
            Some(instance) => Ok(Presence::Terminating(Box::new(instance.clone()))),
            None => Err(pending(
                format!(
                    "the instance is gone, and {} is left of it; delete the machine",
                    left.id
                ),
                None,
            )),
        };
    }
    match &seen.trace {
        Trace::Unsettled(left) if seen.instances.is_empty() => Err(unsettled(*left)),
        _ => Ok(Presence::Absent),
    }
}

/// What a delete comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delete {
    /// Instances to end.
    pub terminate: Vec<String>,
    /// Volumes to remove.
    pub volumes: Vec<String>,
    /// Interfaces to remove.
    pub interfaces: Vec<String>,
    /// What is still there, with its type and id.
    pub remaining: Vec<(&'static str, String)>,
    /// What it waits for; `None`: nothing is left.
    pub waits_for: Option<String>,
    /// Ask again not before this.
    pub poll_after: Option<Duration>,
}

/// Decides about a delete. More than one instance of the key is no reason to stop: all go.
pub fn delete(seen: &Observation, resource: &Resource) -> Result<Delete, ActuatorError> {
    seen.check_owner(resource)?;
    let mut plan = Delete::default();
    let terminate = seen.with(Life::Lives).chain(seen.made());
    plan.terminate = terminate.map(|instance| instance.id.clone()).collect();
    let there = seen.with(Life::Lives).chain(seen.made()).chain(seen.with(Life::Ends));
    for instance in there {
        plan.remaining.push(("instance", instance.id.clone()));
        plan.remaining
            .extend(instance.volumes().map(|id| ("volume", id.to_owned())));
        plan.remaining
            .extend(instance.interfaces().map(|id| ("network-interface", id.to_owned())));
    }
    if let Some((_, id)) = plan.remaining.first() {
        plan.waits_for = Some(format!("the instance {id} is being ended"));
        return Ok(plan);
    }
    let free = |left: &[Leftover]| left.iter().filter(|it| it.is_free()).map(|it| it.id.clone()).collect();
    plan.volumes = free(&seen.volumes);
    plan.interfaces = free(&seen.interfaces);
    plan.remaining
        .extend(seen.volumes.iter().map(|it| ("volume", it.id.clone())));
    plan.remaining
        .extend(seen.interfaces.iter().map(|it| ("network-interface", it.id.clone())));
    if let Some((kind, id)) = plan.remaining.first() {
        plan.waits_for = Some(format!("the {kind} {id} is being removed"));
        return Ok(plan);
    }
    if let Trace::Unsettled(left) = seen.trace
        && seen.instances.is_empty()
    {
        plan.waits_for = Some("what was made a moment ago may not be seen yet".to_owned());
        plan.poll_after = Some(left);
    }
    Ok(plan)
}

/// What an update comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// It is as it should be.
    Nothing(Box<Instance>),
    /// Its tags change.
    Retag {
        /// The instance.
        instance: Box<Instance>,
        /// The instance, its volumes and its interfaces.
        ids: Vec<String>,
        /// Tags to take off.
        remove: Vec<String>,
        /// Tags to write.
        write: Tags,
    },
}

/// Decides about an update.
pub fn update(
    seen: &Observation,
    resource: &Resource,
    wanted: &Applied,
    asked_for: &Tags,
) -> Result<Update, ActuatorError> {
    seen.check_owner(resource)?;
    let Some(instance) = seen.living()?.or_else(|| seen.made()) else {
        return Err(match seen.trace {
            Trace::Unsettled(left) if seen.instances.is_empty() => unsettled(left),
            _ => ActuatorError::new(ErrorReason::ResourceNotFound, "there is no instance with this key"),
        });
    };
    let there = instance.tags();
    let applied = tags::applied(&there);
    if wanted.generation < applied.generation {
        return Err(ActuatorError::new(
            ErrorReason::StaleGeneration,
            format!(
                "the generation {} is behind {}, which was applied",
                wanted.generation, applied.generation
            ),
        ));
    }
    if applied == *wanted {
        return Ok(Update::Nothing(Box::new(instance.clone())));
    }
    if applied.shape != wanted.shape {
        return Err(ActuatorError::new(
            ErrorReason::ReplaceRequired,
            format!(
                "{} can only be given other tags in place; everything else replaces it",
                instance.id
            ),
        ));
    }
    let ids = std::iter::once(instance.id.as_str())
        .chain(instance.volumes())
        .chain(instance.interfaces());
    Ok(Update::Retag {
        ids: ids.map(ToOwned::to_owned).collect(),
        remove: tags::no_longer_asked_for(&there, asked_for),
        write: tags::changing(wanted, asked_for),
        instance: Box::new(instance.clone()),
    })
}

fn unsettled(left: Duration) -> ActuatorError {
    pending("what was made a moment ago may not be seen yet", Some(left))
}

fn pending(message: impl Into<String>, wait: Option<Duration>) -> ActuatorError {
    let error = ActuatorError::new(ErrorReason::OperationPending, message);
    match wait {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags::tests::{applied_for_tests, owner};

    fn resource() -> Resource {
        Resource {
            ownership: owner(),
            key: "k".to_owned(),
            provider_id: None,
        }
    }

    fn own_tags() -> Tags {
        let asked: Tags = [("old".to_owned(), "1".to_owned())].into();
        tags::all(Kind::Machine, "k", &owner(), &applied_for_tests(), &asked)
    }

    fn instance(id: &str, state: &str) -> Instance {
        Instance::for_tests(id, state, &own_tags())
    }

    fn seen(states: &[&str]) -> Observation {
        Observation {
            instances: states
                .iter()
                .enumerate()
                .map(|(number, state)| instance(&format!("i-{number}"), state))
                .collect(),
            named: None,
            volumes: Vec::new(),
            interfaces: Vec::new(),
            trace: Trace::Settled,
        }
    }

    const ALIVE: [&str; 5] = ["pending", "running", "stopping", "stopped", "what-is-this"];

    #[test]
    fn only_what_nobody_has_seen_is_made() {
        assert_eq!(
            create(&seen(&[]), &resource(), &applied_for_tests()).expect("a plan"),
            Create::Run
        );
        // A look-up that found nothing while something may be on its way: the token of the
        // request keeps it one.
        let unsettled = Observation {
            trace: Trace::Unsettled(Duration::from_secs(1)),
            ..seen(&[])
        };
        assert_eq!(
            create(&unsettled, &resource(), &applied_for_tests()).expect("a plan"),
            Create::Run
        );
        for state in ALIVE.into_iter().chain(["shutting-down", "terminated"]) {
            let plan = create(&seen(&[state]), &resource(), &applied_for_tests()).expect("a plan");
            assert_eq!(plan, Create::Existing(Box::new(instance("i-0", state))), "{state}");
        }
        let made = Observation {
            trace: Trace::Made(instance("i-9", "pending")),
            ..seen(&[])
        };
        let plan = create(&made, &resource(), &applied_for_tests()).expect("a plan");
        assert_eq!(plan, Create::Existing(Box::new(instance("i-9", "pending"))));
    }

    #[test]
    fn another_spec_is_a_conflict() {
        let other = Applied {
            digest: vec![8; 32],
            ..applied_for_tests()
        };
        for state in ALIVE {
            let error = create(&seen(&[state]), &resource(), &other).expect_err("refused");
            assert_eq!(error.reason(), ErrorReason::KeyConflict);
        }
    }

    #[test]
    fn two_that_live_are_escalated_and_both_deleted() {
        let two = seen(&["running", "pending", "terminated"]);
        for error in [
            create(&two, &resource(), &applied_for_tests()).expect_err("refused"),
            exists(&two, &resource()).expect_err("refused"),
        ] {
            assert_eq!(error.reason(), ErrorReason::MultipleInstances);
            assert!(error.message().contains("i-0, i-1"), "{error}");
        }
        assert_eq!(delete(&two, &resource()).expect("a plan").terminate, ["i-0", "i-1"]);
    }

    #[test]
    fn states_map_exactly() {
        for state in ALIVE {
            let found = exists(&seen(&[state]), &resource()).expect("an answer");
            assert_eq!(found, Presence::Present(Box::new(instance("i-0", state))));
        }
        let ends = exists(&seen(&["shutting-down"]), &resource()).expect("an answer");
        assert!(matches!(ends, Presence::Terminating(_)));
        assert_eq!(
            exists(&seen(&["terminated"]), &resource()).expect("an answer"),
            Presence::Absent
        );
        assert_eq!(exists(&seen(&[]), &resource()).expect("an answer"), Presence::Absent);
    }

    #[test]
    fn nothing_found_within_the_window_is_not_absent() {
        let unsettled = Observation {
            trace: Trace::Unsettled(Duration::from_secs(7)),
            ..seen(&[])
        };
        let error = exists(&unsettled, &resource()).expect_err("it cannot tell");
        assert_eq!(error.reason(), ErrorReason::OperationPending);
        let plan = delete(&unsettled, &resource()).expect("a plan");
        assert!(plan.waits_for.is_some() && plan.poll_after == Some(Duration::from_secs(7)));
        let made = Observation {
            trace: Trace::Made(instance("i-9", "pending")),
            ..seen(&[])
        };
        assert!(matches!(exists(&made, &resource()), Ok(Presence::Present(_))));
        assert_eq!(delete(&made, &resource()).expect("a plan").terminate, ["i-9"]);
        // Once EC2 shows the end of what was made, that is how it is.
        let over = Observation {
            instances: vec![instance("i-9", "terminated")],
            ..made
        };
        assert_eq!(exists(&over, &resource()).expect("an answer"), Presence::Absent);
        assert_eq!(delete(&over, &resource()).expect("a plan"), Delete::default());
    }

    #[test]
    fn gone_means_that_nothing_is_left() {
        let ended = seen(&["terminated"]);
        assert_eq!(delete(&ended, &resource()).expect("a plan"), Delete::default());
        let left = Observation {
            volumes: vec![
                Leftover::for_tests("vol-1", "available"),
                Leftover::for_tests("vol-2", "in-use"),
            ],
            interfaces: vec![Leftover::for_tests("eni-1", "available")],
            ..ended
        };
        let plan = delete(&left, &resource()).expect("a plan");
        assert_eq!(
            (plan.volumes, plan.interfaces),
            (vec!["vol-1".to_owned()], vec!["eni-1".to_owned()])
        );
        assert_eq!(plan.remaining.len(), 3);
        assert!(plan.waits_for.is_some() && plan.terminate.is_empty());
        assert!(matches!(exists(&left, &resource()), Ok(Presence::Terminating(_))));
        let nameless = Observation {
            instances: Vec::new(),
            ..left
        };
        assert!(exists(&nameless, &resource()).is_err());
        let ends = delete(&seen(&["shutting-down"]), &resource()).expect("a plan");
        assert!(ends.terminate.is_empty() && ends.waits_for.is_some());
    }

    #[test]
    fn what_belongs_to_others_is_left_alone() {
        let foreign = Observation {
            named: Some(Instance::for_tests("i-7", "running", &Tags::new())),
            ..seen(&["running"])
        };
        for error in [
            create(&foreign, &resource(), &applied_for_tests())
                .map(|_| ())
                .expect_err("refused"),
            exists(&foreign, &resource()).map(|_| ()).expect_err("refused"),
            delete(&foreign, &resource()).map(|_| ()).expect_err("refused"),
            update(&foreign, &resource(), &applied_for_tests(), &Tags::new())
                .map(|_| ())
                .expect_err("refused"),
        ] {
            assert_eq!(error.reason(), ErrorReason::OwnershipMismatch);
            assert!(error.message().contains("i-7"), "{error}");
        }
    }

    #[test]
    fn an_update_changes_tags_or_nothing() {
        let running = seen(&["running"]);
        let nothing = update(&running, &resource(), &applied_for_tests(), &Tags::new()).expect("a plan");
        assert!(matches!(nothing, Update::Nothing(_)));
        let newer = Applied {
            digest: vec![9; 32],
            generation: 4,
            ..applied_for_tests()
        };
        let asked: Tags = [("new".to_owned(), "2".to_owned())].into();
        let Update::Retag { remove, write, ids, .. } = update(&running, &resource(), &newer, &asked).expect("a plan")
        else {
            panic!("tags change")
        };
        assert_eq!((remove, ids), (vec!["old".to_owned()], vec!["i-0".to_owned()]));
        assert_eq!(tags::applied(&write), newer);
        let other = Applied {
            shape: "other".to_owned(),
            ..newer.clone()
        };
        let older = Applied {
            generation: 2,
            ..newer.clone()
        };
        for (wanted, reason, states) in [
            (&other, ErrorReason::ReplaceRequired, &["running"][..]),
            (&older, ErrorReason::StaleGeneration, &["running"]),
            (&newer, ErrorReason::ResourceNotFound, &["terminated"]),
            (&newer, ErrorReason::ResourceNotFound, &["shutting-down"]),
            (&newer, ErrorReason::ResourceNotFound, &[]),
        ] {
            let error = update(&seen(states), &resource(), wanted, &asked).expect_err("refused");
            assert_eq!(error.reason(), reason);
        }
    }
}
