//! What there is: which machines are ready, which are available, how many.
//!
//! Not for what to do about it.

use std::time::Duration;

use jiff::Timestamp;
use outrigger_api::names::CONDITION_READY;
use outrigger_api::{Machine, MachinePhase, MachineSpec, MachineTemplateSpec};

use crate::conditions;

/// How far a machine is on its way to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not ready, failed, or being deleted.
    NotReady,
    /// Ready, and available after this time if it stays so.
    Ready(Duration),
    /// Ready for long enough.
    Available,
}

/// How far this machine is. A machine that is being deleted or has failed is not ready, whatever its condition still says.
pub fn readiness(machine: &Machine, min_ready_seconds: i32, now: Timestamp) -> Readiness {
    if is_deleting(machine) || has_failed(machine) {
        return Readiness::NotReady;
    }
    let ready = machine
        .status
        .as_ref()
        .and_then(|status| conditions::get(&status.conditions, CONDITION_READY));
    let Some(ready) = ready.filter(|condition| condition.status == outrigger_api::names::STATUS_TRUE) else {
        return Readiness::NotReady;
    };
    if min_ready_seconds <= 0 {
        return Readiness::Available;
    }
    let available_at = ready.last_transition_time.0.as_millisecond() + i64::from(min_ready_seconds) * 1000;
    match u64::try_from(available_at - now.as_millisecond()) {
        Ok(left) if left > 0 => Readiness::Ready(Duration::from_millis(left)),
        _ => Readiness::Available,
    }
}

/// Whether somebody has asked for the machine's deletion.
pub fn is_deleting(machine: &Machine) -> bool {
    machine.metadata.deletion_timestamp.is_some()
}

/// Whether the machine is lost, cannot be made, or cannot become what its spec says in place, so that its owner
/// replaces it.
pub fn has_failed(machine: &Machine) -> bool {
    machine
        .status
        .as_ref()
        .is_some_and(|status| status.phase == Some(MachinePhase::Failed))
        || crate::machine::needs_replacement(machine)
}

/// Whether the machine is as the template says. Its providerID is its own; so is its failure domain if the template names
/// none.
pub fn is_up_to_date(machine: &MachineSpec, template: &MachineTemplateSpec) -> bool {
    machine.provider == template.provider
        && machine.provider_spec == template.provider_spec
        && machine.version == template.version
        && (template.failure_domain.is_none() || machine.failure_domain == template.failure_domain)
        && machine.taints == template.taints
        && machine.node_labels == template.node_labels
        && machine.bootstrap == template.bootstrap
        && machine.deletion == template.deletion
}

/// How many machines there are of each sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Machines that nobody is deleting.
    pub existing: i32,
    /// Those of them that are ready.
    pub ready: i32,
    /// Those of them that have been ready for long enough.
    pub available: i32,
    /// Machines on their way out.
    pub deleting: i32,
    /// How long until the next ready machine counts as available.
    pub next_available: Option<Duration>,
}

impl Counts {
    /// Counts these machines.
    pub fn of<'a>(machines: impl IntoIterator<Item = &'a Machine>, min_ready_seconds: i32, now: Timestamp) -> Self {
        let mut counts = Self::default();
        for machine in machines {
            if is_deleting(machine) {
                counts.deleting += 1;
                continue;
            }
            counts.existing += 1;
            match readiness(machine, min_ready_seconds, now) {
                Readiness::NotReady => {}
                Readiness::Ready(left) => {
                    counts.ready += 1;
                    counts.next_available = Some(counts.next_available.map_or(left, |next| next.min(left)));
                }
                Readiness::Available => {
                    counts.ready += 1;
                    counts.available += 1;
                }
            }
        }
        counts
    }
}
