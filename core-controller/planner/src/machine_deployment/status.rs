//! The status of a MachineDeployment: counts, whether it is available, whether its roll-out goes forward.
//!
//! Not for deciding anything: a status that is lost changes no machine.

use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::{
    CONDITION_AVAILABLE, CONDITION_PAUSED, CONDITION_PROGRESSING, CONDITION_REPLICA_FAILURE, STATUS_FALSE,
};
use outrigger_api::{MachineDeploymentStatus, Time, selector};

use super::View;
use super::arithmetic::Bounds;
use super::roll::Facts;
use crate::conditions::{self, Assertion};

/// Reason of Progressing: all machines are as the template says, and available.
pub const REASON_COMPLETE: &str = "NewMachineSetAvailable";
/// Reason of Progressing: a set for the template was made.
pub const REASON_CREATED: &str = "NewMachineSetCreated";
/// Reason of Progressing: machines are being replaced.
pub const REASON_UPDATED: &str = "MachineSetUpdated";
/// Reason of Progressing: nothing has moved for progressDeadlineSeconds.
pub const REASON_DEADLINE: &str = "ProgressDeadlineExceeded";
/// Reason of Progressing: spec.paused is set.
pub const REASON_PAUSED: &str = "DeploymentPaused";
/// Reason of Progressing: spec.paused was taken away.
pub const REASON_RESUMED: &str = "DeploymentResumed";

/// What the status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The set for the template, if there is one.
    pub new: Option<&'a Facts<'a>>,
    /// The others.
    pub olds: &'a [Facts<'a>],
    /// Machines of sets that are being deleted.
    pub leaving: i32,
    /// How far a roll-out may go.
    pub bounds: Bounds,
    /// Whether a set for the template is made in this very plan.
    pub creates_set: bool,
    /// How often a name was taken.
    pub collisions: Option<i32>,
    /// Whether something is left to do about the sets.
    pub unsettled: bool,
}

/// Whether all machines are as the template says, all available, and nothing else is left.
pub fn is_complete(new: Option<&Facts<'_>>, olds: &[Facts<'_>], leaving: i32, desired: i32) -> bool {
    leaving == 0
        && olds.iter().all(|old| old.counts.existing == 0 && old.replicas() == 0)
        && new.is_some_and(|new| {
            new.replicas() == desired && new.counts.existing == desired && new.counts.available == desired
        })
}

/// The whole status, and when it changes if nothing happens.
pub fn status(view: &View<'_>, input: &Input<'_>, now: Timestamp) -> (MachineDeploymentStatus, Option<Duration>) {
    let deployment = view.deployment;
    let (spec, generation) = (&deployment.spec, deployment.metadata.generation);
    let observed = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&Facts<'_>) -> i32| input.new.into_iter().chain(input.olds).map(count).sum::<i32>();
    let available = sum(|facts| facts.counts.available);
    let replicas = sum(|facts| facts.counts.existing) + input.leaving;
    let mut status = MachineDeploymentStatus {
        observed_generation: generation,
        replicas,
        updated_replicas: input.new.map_or(0, |new| new.counts.existing),
        ready_replicas: sum(|facts| facts.counts.ready),
        available_replicas: available,
        unavailable_replicas: (replicas.max(spec.replicas) - available).max(0),
        collision_count: input.collisions,
        last_progress_time: observed.last_progress_time.clone(),
        selector: Some(selector::to_text(&spec.selector)),
        conditions: observed.conditions.clone(),
    };
    let minimum = spec.replicas - input.bounds.unavailable;
    let words = format!(
        "{available} of {} machines are available, at least {minimum} must be",
        spec.replicas
    );
    let assertion = if available >= minimum {
        Assertion::holds(CONDITION_AVAILABLE, "MinimumReplicasAvailable", words)
    } else {
        Assertion::fails(CONDITION_AVAILABLE, "MinimumReplicasUnavailable", words)
    };
    conditions::set(&mut status.conditions, assertion, generation, now);

    let look_again = progress(view, input, &observed, &mut status, now);

    match failure(view, input) {
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
    (status, look_again)
}

/// Why machines cannot be made or deleted: our own failure, or that of a set.
fn failure(view: &View<'_>, input: &Input<'_>) -> Option<(String, String)> {
    if let Some((reason, message)) = view.observation.failure.as_ref().filter(|_| input.unsettled) {
        return Some(((*reason).to_owned(), message.clone()));
    }
    input.new.into_iter().chain(input.olds).find_map(|facts| {
        let conditions = &facts.set.status.as_ref()?.conditions;
        let condition = conditions::get(conditions, CONDITION_REPLICA_FAILURE)?;
        conditions::is_true(conditions, CONDITION_REPLICA_FAILURE)
            .then(|| (condition.reason.clone(), condition.message.clone()))
    })
}

/// Sets Progressing and the time of the last progress; returns when the deadline passes.
fn progress(
    view: &View<'_>,
    input: &Input<'_>,
    observed: &MachineDeploymentStatus,
    status: &mut MachineDeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let spec = &view.deployment.spec;
    let generation = view.deployment.metadata.generation;
    let before = conditions::get(&observed.conditions, CONDITION_PROGRESSING);
    let reason_before = before.map_or("", |condition| condition.reason.as_str());
    let failed_before = before.is_some_and(|condition| condition.status == STATUS_FALSE);
    let mut say = |assertion| conditions::set(&mut status.conditions, assertion, generation, now);

    if spec.paused {
        say(Assertion::unknown(
            CONDITION_PROGRESSING,
            REASON_PAUSED,
            "spec.paused is set: changes of the template wait",
        ));
        return None;
    }
    let complete = is_complete(input.new, input.olds, input.leaving, spec.replicas);
    let rolling = input.new.is_none()
        || input.leaving > 0
        || input
            .olds
            .iter()
            .any(|old| old.counts.existing > 0 || old.replicas() > 0);
    if complete || (reason_before == REASON_COMPLETE && !rolling) {
        say(Assertion::holds(
            CONDITION_PROGRESSING,
            REASON_COMPLETE,
            "all machines are as the template says",
        ));
        return None;
    }
    let moved = status.updated_replicas > observed.updated_replicas
        || status.replicas - status.updated_replicas < observed.replicas - observed.updated_replicas
        || status.ready_replicas > observed.ready_replicas
        || status.available_replicas > observed.available_replicas;
    let begins = before.is_none() || observed.last_progress_time.is_none() || reason_before == REASON_COMPLETE;
    let reason = if input.creates_set {
        REASON_CREATED
    } else if reason_before == REASON_PAUSED {
        REASON_RESUMED
    } else {
        REASON_UPDATED
    };
    if moved || begins || input.creates_set || reason_before == REASON_PAUSED {
        status.last_progress_time = Some(Time(conditions::whole_seconds(now)));
        say(Assertion::holds(
            CONDITION_PROGRESSING,
            reason,
            "machines are being brought to what the template says",
        ));
        return Some(Duration::from_secs(spec.progress_deadline_seconds.max(0) as u64));
    }
    let since = observed.last_progress_time.as_ref().map_or(now, |time| time.0);
    let deadline = since.as_millisecond() + i64::from(spec.progress_deadline_seconds) * 1000;
    let left = u64::try_from(deadline - now.as_millisecond()).unwrap_or(0);
    if failed_before || left == 0 {
        let words = format!("nothing has moved for {} seconds", spec.progress_deadline_seconds);
        say(Assertion::fails(CONDITION_PROGRESSING, REASON_DEADLINE, words));
        return None;
    }
    let reason = if reason_before.is_empty() {
        REASON_UPDATED
    } else {
        reason_before
    }
    .to_owned();
    say(Assertion::holds(
        CONDITION_PROGRESSING,
        reason,
        "machines are being brought to what the template says",
    ));
    Some(Duration::from_millis(left))
}
