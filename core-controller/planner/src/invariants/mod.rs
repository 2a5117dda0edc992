//! The invariants of MachineSets and MachineDeployments, checked after each step of a simulation (test support only).
//!
//! The checker knows nothing of how plans are made: it looks at what a plan would do to the simulated API, through the same
//! calls that a real executor makes. Not for the arithmetic (tested beside it).

mod simulation;
mod world;

use jiff::Timestamp;
use outrigger_api::names::{ANNOTATION_DELETE_MACHINE, ANNOTATION_DESIRED_REPLICAS};
use outrigger_api::{Machine, MachineSet, ResourceExt, StrategyType, reference};

use crate::machine_deployment::{self, Bounds};
use crate::machine_set::{self, Readiness, is_deleting, readiness};
use world::World;

/// Machines that this set controls and nobody deletes, whether the index shows them or not.
fn living<'w>(world: &'w World, set: &MachineSet) -> Vec<&'w Machine> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    world
        .machines
        .iter()
        .filter(|machine| reference::is_controlled_by(&machine.metadata, uid) && !is_deleting(machine))
        .collect()
}

fn is_available(machine: &Machine, seconds: i32, now: Timestamp) -> bool {
    readiness(machine, seconds, now) == Readiness::Available
}

/// What a MachineSet's plan must never do.
pub fn check_set(world: &World, set: &MachineSet, plan: &machine_set::Plan) {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let living = living(world, set);
    let mut created = Vec::new();
    let mut deleted = Vec::new();
    for action in &plan.actions {
        match action {
            machine_set::Action::Create(machine) => {
                assert!(
                    reference::is_controlled_by(&machine.metadata, uid),
                    "a machine is created for somebody else"
                );
                if !world
                    .machines
                    .iter()
                    .any(|other| other.metadata.name == machine.metadata.name)
                {
                    created.push(machine.name_any());
                }
            }
            machine_set::Action::Delete { name, uid: victim, .. } => {
                let machine = world
                    .machines
                    .iter()
                    .find(|machine| machine.metadata.uid.as_ref() == Some(victim));
                if let Some(machine) = machine {
                    assert!(
                        reference::is_controlled_by(&machine.metadata, uid),
                        "{name} is deleted and is not ours"
                    );
                    if !is_deleting(machine) {
                        deleted.push(machine);
                    }
                }
            }
            machine_set::Action::Adopt { name, .. } => {
                let machine = world.machine(name).expect("adopts what is there");
                assert!(
                    reference::controller(&machine.metadata).is_none(),
                    "{name} is taken from its controller"
                );
            }
            machine_set::Action::Release { name, .. } => {
                let machine = world.machine(name).expect("releases what is there");
                assert!(
                    reference::is_controlled_by(&machine.metadata, uid),
                    "{name} is released and is not ours"
                );
            }
        }
    }
    let desired = set.spec.replicas as usize;
    if !created.is_empty() {
        assert!(
            living.len() + created.len() <= desired,
            "{} machines and {} new ones are more than {desired}: {}",
            living.len(),
            created.len(),
            plan.reason
        );
    }
    let replaced = plan
        .actions
        .iter()
        .any(|action| matches!(action, machine_set::Action::Delete { replaced: true, .. }));
    if !deleted.is_empty() && !replaced {
        let repeated = world.unanswered_deletes(set);
        let fresh = deleted
            .iter()
            .filter(|machine| !repeated.contains(machine.metadata.uid.as_ref().unwrap()))
            .count();
        assert!(
            fresh == 0 || living.len() - deleted.len() >= desired,
            "{} of {} machines are deleted, {desired} are wanted: {}",
            deleted.len(),
            living.len(),
            plan.reason
        );
        let staying: Vec<&Machine> = living
            .iter()
            .copied()
            .filter(|machine| {
                !plan.actions.iter().any(
                    |action| matches!(action, machine_set::Action::Release { name, .. } if *name == machine.name_any()),
                )
            })
            .collect();
        check_choice(world, set, &staying, &deleted, &repeated);
    }
    let names: std::collections::BTreeSet<&String> = created.iter().collect();
    assert_eq!(names.len(), created.len(), "a name is used twice");
}

/// No available machine goes while one that is worth less stays, except that somebody marked it.
fn check_choice(
    world: &World,
    set: &MachineSet,
    living: &[&Machine],
    deleted: &[&Machine],
    repeated: &std::collections::BTreeSet<String>,
) {
    let seconds = set.spec.min_ready_seconds;
    let marked = |machine: &Machine| machine.annotations().contains_key(ANNOTATION_DELETE_MACHINE);
    let gone = |machine: &Machine| deleted.iter().any(|victim| victim.metadata.uid == machine.metadata.uid);
    let good = deleted.iter().any(|machine| {
        is_available(machine, seconds, world.now)
            && !marked(machine)
            && !repeated.contains(machine.metadata.uid.as_ref().unwrap())
    });
    if good {
        let spared = living.iter().find(|machine| {
            !gone(machine)
                && !world.is_hidden(&machine.name_any())
                && (marked(machine) || !is_available(machine, seconds, world.now))
        });
        assert!(
            spared.is_none(),
            "an available machine goes before {:?}",
            spared.map(|machine| machine.name_any())
        );
    }
}

/// What a MachineDeployment's plan must never do.
pub fn check_deployment(world: &World, plan: &machine_deployment::Plan) {
    let spec = &world.deployment.spec;
    let rolling = &spec.strategy.rolling_update;
    let by_hand = spec.strategy.type_ == StrategyType::OnDelete;
    let bounds = if by_hand {
        Bounds {
            surge: 0,
            unavailable: 0,
        }
    } else {
        Bounds::resolve(&rolling.max_surge, &rolling.max_unavailable, spec.replicas)
    };
    let uid = world.deployment.metadata.uid.as_deref().unwrap_or_default();
    let ours: Vec<&MachineSet> = world
        .sets
        .iter()
        .filter(|set| reference::is_controlled_by(&set.metadata, uid))
        .collect();

    // Who is touched is ours.
    for action in &plan.actions {
        match action {
            machine_deployment::Action::PatchSet { name, .. } => {
                assert!(
                    ours.iter().any(|set| set.name_any() == *name),
                    "{name} is patched and is not ours"
                );
            }
            machine_deployment::Action::DeleteSet { name, .. } => {
                let set = ours
                    .iter()
                    .find(|set| set.name_any() == *name)
                    .expect("deletes its own sets only");
                assert_eq!(set.spec.replicas, 0, "{name} is deleted with replicas");
                let owner = set.metadata.uid.as_deref().unwrap_or_default();
                let left = world
                    .machines
                    .iter()
                    .filter(|machine| reference::is_controlled_by(&machine.metadata, owner));
                assert_eq!(left.count(), 0, "{name} is deleted with machines");
            }
            _ => {}
        }
    }

    // What all sets together may hold.
    let wanted = |set: &MachineSet| {
        plan.actions
            .iter()
            .find_map(|action| match action {
                machine_deployment::Action::PatchSet { name, patch, .. } if *name == set.name_any() => {
                    patch.replicas.map(|(_, to)| to)
                }
                _ => None,
            })
            .unwrap_or(set.spec.replicas)
    };
    let new: i32 = plan
        .actions
        .iter()
        .map(|action| match action {
            machine_deployment::Action::CreateSet(set)
                if !world.sets.iter().any(|known| known.metadata.name == set.metadata.name) =>
            {
                set.spec.replicas
            }
            _ => 0,
        })
        .sum();
    let existing = |set: &MachineSet| living(world, set).len() as i32;
    let before: i32 = ours.iter().map(|set| set.spec.replicas.max(existing(set))).sum();
    // A patch may be refused: each growth must fit with every set as large as it is now.
    let grown: i32 = ours
        .iter()
        .map(|set| wanted(set).max(set.spec.replicas).max(existing(set)))
        .sum::<i32>()
        + new;
    let allowed = spec.replicas + bounds.surge;
    assert!(
        grown <= allowed.max(before),
        "{grown} machines are possible, {allowed} are allowed ({before} before): {}",
        plan.reason
    );

    // What stays available, were every set to follow at once.
    let desired = spec.replicas.to_string();
    let behind = |set: &&MachineSet| {
        set.spec.replicas > 0
            && set
                .annotations()
                .get(ANNOTATION_DESIRED_REPLICAS)
                .is_some_and(|then| *then != desired)
    };
    // Whoever asks for fewer machines, or for other bounds, gives machines up on purpose.
    let scaling = spec.paused || world.was_scaled || ours.iter().any(behind);
    let total: i32 = ours.iter().map(|set| set.spec.replicas).sum();
    if scaling || (by_hand && total > spec.replicas) {
        return;
    }
    let after = |marked_too, replicas: &dyn Fn(&MachineSet) -> i32| -> i32 {
        ours.iter()
            .map(|set| available_after(world, set, replicas(set), marked_too))
            .sum()
    };
    let as_it_is = |set: &MachineSet| set.spec.replicas;
    let (now, then) = (after(true, &as_it_is), after(true, &wanted));
    // What somebody marked is lost because of them.
    let only_marked = after(false, &as_it_is) == after(false, &wanted);
    let minimum = spec.replicas - bounds.unavailable;
    assert!(
        then >= now.min(minimum) || only_marked,
        "{then} machines stay available, {now} were, {minimum} must be: {}",
        plan.reason
    );
}

/// How many available machines a set keeps when it comes down to `replicas`, asked of the set's own planner.
fn available_after(world: &World, set: &MachineSet, replicas: i32, marked_too: bool) -> i32 {
    let mut set = set.clone();
    set.spec.replicas = replicas;
    let seconds = world.deployment.spec.min_ready_seconds;
    set.spec.min_ready_seconds = seconds;
    let machines: Vec<&Machine> = living(world, &set)
        .into_iter()
        .filter(|machine| !world.is_hidden(&machine.name_any()))
        .collect();
    let victims = machines.len().saturating_sub(replicas as usize);
    let mut order = machines.clone();
    machine_set::order_for_deletion(&mut order, set.spec.delete_policy, seconds, world.now);
    order[victims..]
        .iter()
        .filter(|machine| is_available(machine, seconds, world.now))
        .filter(|machine| marked_too || !machine.annotations().contains_key(ANNOTATION_DELETE_MACHINE))
        .count() as i32
}
