//! Random lives of a MachineDeployment: whatever happens, in whatever order, the invariants hold, and in the end all is well.
//!
//! Not for single cases: those are told by the planners' own tests.

use outrigger_api::names::{ANNOTATION_PAUSED, ANNOTATION_ROLLBACK_TO, LABEL_TEMPLATE_HASH};
use outrigger_api::{DeletePolicy, IntOrString, Machine, ResourceExt, StrategyType, Time, reference};
use proptest::prelude::*;

use super::world::{Fault, World, mark, set_failed, set_ready};
use crate::machine_set::{is_deleting, is_up_to_date};

#[derive(Clone, Debug)]
enum Happening {
    PlanDeployment,
    PlanSet(usize),
    PlanAll,
    Ready(usize),
    AllReady,
    NotReady(usize),
    Failed(usize),
    Marked(usize),
    DeletedByUser(usize),
    Relabelled(usize),
    DeletionsFinish,
    Orphan(bool),
    Scale(i32),
    ScaleSet(usize, i32),
    Template(u8),
    RollBack(i64),
    Strategy {
        surge: i32,
        unavailable: i32,
        percent: bool,
    },
    OnDelete,
    Policy(DeletePolicy),
    MinReady(i32),
    Pause(bool),
    PauseCluster(bool),
    CreateFault(Fault),
    DeleteFault(Fault),
    CatchUp,
    Restart,
    Wait(i64),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::Refused), Just(Fault::AnswerLost), Just(Fault::RequestLost)]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::PlanDeployment),
        8 => any::<usize>().prop_map(Happening::PlanSet),
        6 => Just(Happening::PlanAll),
        6 => any::<usize>().prop_map(Happening::Ready),
        5 => Just(Happening::AllReady),
        3 => any::<usize>().prop_map(Happening::NotReady),
        2 => any::<usize>().prop_map(Happening::Failed),
        2 => any::<usize>().prop_map(Happening::Marked),
        2 => any::<usize>().prop_map(Happening::DeletedByUser),
        1 => any::<usize>().prop_map(Happening::Relabelled),
        4 => Just(Happening::DeletionsFinish),
        1 => any::<bool>().prop_map(Happening::Orphan),
        3 => (0..12_i32).prop_map(Happening::Scale),
        1 => (any::<usize>(), 0..12_i32).prop_map(|(set, replicas)| Happening::ScaleSet(set, replicas)),
        3 => (0..4_u8).prop_map(Happening::Template),
        1 => (0..4_i64).prop_map(Happening::RollBack),
        2 => (0..5_i32, 0..5_i32, any::<bool>())
            .prop_map(|(surge, unavailable, percent)| Happening::Strategy { surge, unavailable, percent }),
        1 => Just(Happening::OnDelete),
        1 => prop_oneof![Just(DeletePolicy::Random), Just(DeletePolicy::Newest), Just(DeletePolicy::Oldest)]
            .prop_map(Happening::Policy),
        1 => (0..30_i32).prop_map(Happening::MinReady),
        1 => any::<bool>().prop_map(Happening::Pause),
        1 => any::<bool>().prop_map(Happening::PauseCluster),
        2 => fault().prop_map(Happening::CreateFault),
        1 => fault().prop_map(Happening::DeleteFault),
        2 => Just(Happening::CatchUp),
        1 => Just(Happening::Restart),
        4 => (1..40_i64).prop_map(Happening::Wait),
    ]
}

fn amount(number: i32, percent: bool) -> IntOrString {
    if percent {
        IntOrString::String(format!("{}%", number * 20))
    } else {
        IntOrString::Int(number)
    }
}

fn plan_all(world: &mut World) -> bool {
    let mut wrote = world.run_deployment();
    for index in 0..world.sets.len() {
        wrote |= world.run_set(index);
    }
    wrote
}

fn all_ready(world: &mut World) {
    for index in 0..world.machines.len() {
        if !is_deleting(&world.machines[index]) {
            world.with_machine(index, |machine, now| set_ready(machine, true, now));
        }
    }
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::PlanDeployment => {
            world.run_deployment();
        }
        Happening::PlanSet(index) => {
            world.run_set(index);
        }
        Happening::PlanAll => {
            plan_all(world);
        }
        Happening::Ready(index) => world.with_machine(index, |machine, now| set_ready(machine, true, now)),
        Happening::AllReady => all_ready(world),
        Happening::NotReady(index) => world.with_machine(index, |machine, now| set_ready(machine, false, now)),
        Happening::Failed(index) => world.with_machine(index, |machine, _| set_failed(machine)),
        Happening::Marked(index) => world.with_machine(index, |machine, _| mark(machine)),
        Happening::DeletedByUser(index) => world.with_machine(index, |machine, now| {
            machine.metadata.deletion_timestamp.get_or_insert(Time(now));
        }),
        Happening::Relabelled(index) => world.with_machine(index, |machine, _| {
            machine
                .metadata
                .labels
                .get_or_insert_default()
                .insert(LABEL_TEMPLATE_HASH.to_owned(), "other".to_owned());
        }),
        Happening::DeletionsFinish => world.finish_deletions(),
        Happening::Orphan(matches) => world.add_orphan(matches),
        Happening::Scale(replicas) => {
            world.deployment.spec.replicas = replicas;
            world.was_scaled = true;
        }
        Happening::ScaleSet(index, replicas) => {
            if let Some(at) = index.checked_rem(world.sets.len()) {
                world.sets[at].spec.replicas = replicas;
                let version = world.sets[at].metadata.resource_version.clone().unwrap_or_default();
                world.sets[at].metadata.resource_version = Some(format!("{version}-user"));
            }
        }
        Happening::Template(number) => {
            world.deployment.spec.template.spec.version = Some(format!("v1.{number}.0"));
        }
        Happening::RollBack(revision) => {
            let annotations = world.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(ANNOTATION_ROLLBACK_TO.to_owned(), revision.to_string());
        }
        Happening::Strategy {
            surge,
            unavailable,
            percent,
        } => {
            let strategy = &mut world.deployment.spec.strategy;
            strategy.type_ = StrategyType::RollingUpdate;
            strategy.rolling_update.max_surge = amount(surge, percent);
            strategy.rolling_update.max_unavailable = amount(unavailable, percent);
            world.was_scaled = true;
        }
        Happening::OnDelete => {
            world.deployment.spec.strategy.type_ = StrategyType::OnDelete;
            world.was_scaled = true;
        }
        Happening::Policy(policy) => world.deployment.spec.strategy.rolling_update.delete_policy = policy,
        Happening::MinReady(seconds) => world.deployment.spec.min_ready_seconds = seconds,
        Happening::Pause(paused) => {
            world.deployment.spec.paused = paused;
            world.was_scaled = true;
        }
        Happening::PauseCluster(paused) => {
            world.cluster.spec.paused = paused;
            world.was_scaled = true;
        }
        Happening::CreateFault(fault) => world.faults.push(fault),
        Happening::DeleteFault(fault) => world.delete_faults.push(fault),
        Happening::CatchUp => world.catch_up(),
        Happening::Restart => world.restart(),
        Happening::Wait(seconds) => world.wait(seconds),
    }
}

/// Troubles end, and everybody works until nothing changes any more.
fn settle(world: &mut World) -> usize {
    world.faults.clear();
    world.delete_faults.clear();
    world.catch_up();
    world.cluster.spec.paused = false;
    world.deployment.spec.paused = false;
    world.deployment.spec.strategy.type_ = StrategyType::RollingUpdate;
    world
        .deployment
        .metadata
        .annotations
        .get_or_insert_default()
        .remove(ANNOTATION_PAUSED);
    world.was_scaled = true;
    let mut quiet = 0;
    for round in 0..400 {
        let wrote = plan_all(world);
        let busy = world.machines.iter().any(is_deleting);
        world.finish_deletions();
        all_ready(world);
        quiet = if wrote || busy { 0 } else { quiet + 1 };
        if quiet == 2 {
            return round;
        }
        // Long enough for every back-off and for minReadySeconds.
        world.wait(310);
    }
    panic!("it does not come to rest: {:?}", world.deployment.status);
}

fn controlled(world: &World) -> Vec<(&Machine, &outrigger_api::MachineSet)> {
    world
        .machines
        .iter()
        .filter_map(|machine| {
            let owner = reference::controller(&machine.metadata)?;
            let set = world
                .sets
                .iter()
                .find(|set| set.metadata.uid.as_ref() == Some(&owner.uid))?;
            Some((machine, set))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_it_converges(
        replicas in 0..8_i32,
        happenings in prop::collection::vec(happening(), 1..120),
    ) {
        let mut world = World::new(replicas);
        for happening in happenings {
            happen(&mut world, happening);
        }
        settle(&mut world);

        let desired = world.deployment.spec.replicas as usize;
        let ours = controlled(&world);
        prop_assert_eq!(ours.len(), desired);
        for (machine, set) in &ours {
            prop_assert!(
                is_up_to_date(&machine.spec, &world.deployment.spec.template.spec) || machine.name_any().starts_with("orphan"),
                "{} of {} is not as the template says", machine.name_any(), set.name_any()
            );
        }
        let status = world.deployment.status.clone().unwrap();
        prop_assert_eq!(status.available_replicas as usize, desired);
        prop_assert_eq!(status.updated_replicas as usize, desired);
        prop_assert_eq!(status.unavailable_replicas, 0);

        // A restart in the steady state writes nothing, now or later.
        world.restart();
        prop_assert!(!plan_all(&mut world));
        world.wait(100_000);
        prop_assert!(!plan_all(&mut world));
    }
}

#[test]
fn a_roll_out_of_twenty_by_one_costs_few_steps() {
    let mut world = World::new(20);
    settle(&mut world);
    world.deployment.spec.template.spec.version = Some("v2.0.0".to_owned());
    let rounds = settle(&mut world);
    assert!(rounds <= 70, "{rounds} rounds for twenty machines");
}
