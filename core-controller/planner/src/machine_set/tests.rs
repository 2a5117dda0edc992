//! Single cases of a MachineSet's plan; random ones are in `invariants`.

use outrigger_api::names::{ANNOTATION_DELETE_MACHINE, CONDITION_READY};
use outrigger_api::{DeletePolicy, LabelSelector, MachinePhase, MachineSetSpec, MachineStatus, MachineTemplate, Time};
use rstest::rstest;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn set(replicas: i32) -> MachineSet {
    let mut template = MachineTemplate::default();
    template.metadata.labels.insert("app".into(), "web".into());
    template.metadata.annotations.insert("note".into(), "kept".into());
    template.spec.version = Some("v1.34.2".into());
    let selector = LabelSelector {
        match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
        match_expressions: None,
    };
    let spec = MachineSetSpec {
        cluster_name: "demo".into(),
        replicas,
        selector,
        template,
        ..MachineSetSpec::default()
    };
    let mut set = MachineSet::new("web", spec);
    set.metadata.namespace = Some("default".into());
    set.metadata.uid = Some("set-uid".into());
    set.metadata.generation = Some(7);
    set
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.metadata.name = Some("demo".into());
    cluster
}

/// A machine of the set, created `age` seconds ago and ready since `ready` seconds, if at all.
fn member(set: &MachineSet, name: &str, age: i64, ready: Option<i64>) -> Machine {
    let mut machine = new_machine(set, name.to_owned()).unwrap();
    machine.metadata.uid = Some(format!("uid-{name}"));
    machine.metadata.resource_version = Some("1".into());
    machine.metadata.creation_timestamp = Some(Time(Timestamp::from_second(now().as_second() - age).unwrap()));
    machine.spec.provider_id = Some(format!("fake://{name}"));
    let mut status = MachineStatus {
        phase: Some(MachinePhase::Running),
        ..MachineStatus::default()
    };
    if let Some(seconds) = ready {
        let since = Timestamp::from_second(now().as_second() - seconds).unwrap();
        conditions::set(
            &mut status.conditions,
            Assertion::holds(CONDITION_READY, "Ready", ""),
            None,
            since,
        );
    }
    machine.status = Some(status);
    machine
}

fn plan_with(set: &MachineSet, machines: &[Machine], observation: &Observation) -> Plan {
    let machines: Vec<&Machine> = machines.iter().collect();
    let cluster = cluster();
    plan(
        &View {
            set,
            cluster: Some(&cluster),
            machines: &machines,
            observation,
            seed: 42,
        },
        now(),
    )
}

fn deleted(plan: &Plan) -> Vec<&str> {
    plan.actions
        .iter()
        .filter_map(|action| {
            if let Action::Delete { name, .. } = action {
                Some(name.as_str())
            } else {
                None
            }
        })
        .collect()
}

fn created(plan: &Plan) -> Vec<&Machine> {
    plan.actions
        .iter()
        .filter_map(|action| {
            if let Action::Create(machine) = action {
                Some(machine.as_ref())
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn missing_machines_are_made_whole() {
    let set = set(3);
    let plan = plan_with(&set, &[], &Observation::default());
    let machines = created(&plan);
    assert_eq!(machines.len(), 3);
    let machine = machines[0];
    assert!(machine.name_any().starts_with("web-") && machine.name_any().len() == 9);
    assert_eq!(machine.finalizers(), [FINALIZER_MACHINE]);
    assert_eq!(machine.labels()[LABEL_CLUSTER_NAME], "demo");
    assert_eq!(machine.labels()[LABEL_SET_NAME], "web");
    assert_eq!(machine.labels()["app"], "web");
    assert_eq!(machine.annotations()["note"], "kept");
    assert!(reference::is_controlled_by(&machine.metadata, "set-uid"));
    assert_eq!(machine.spec.version.as_deref(), Some("v1.34.2"));
    assert_eq!(plan.status.observed_generation, Some(7));
    assert_eq!(plan.status.selector.as_deref(), Some("app=web"));
    let ready = conditions::get(&plan.status.conditions, CONDITION_READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.message.as_str()),
        ("False", "0 of 3 machines are ready, 0 exist")
    );
}

#[test]
fn nothing_is_done_twice_when_all_is_there() {
    let mut set = set(2);
    let machines = [member(&set, "a", 50, Some(40)), member(&set, "b", 50, Some(40))];
    let first = plan_with(&set, &machines, &Observation::default());
    assert!(first.actions.is_empty());
    assert_eq!(first.look_again, None);
    assert_eq!((first.status.ready_replicas, first.status.up_to_date_replicas), (2, 2));
    set.status = Some(first.status.clone());
    assert_eq!(plan_with(&set, &machines, &Observation::default()).status, first.status);
}

#[rstest]
#[case::marked_ones_first(DeletePolicy::Random, &["marked"], 1)]
#[case::then_failed_ones(DeletePolicy::Oldest, &["failed", "marked"], 2)]
#[case::then_those_never_made(DeletePolicy::Newest, &["failed", "marked", "never-made"], 3)]
#[case::then_those_not_ready(DeletePolicy::Newest, &["failed", "marked", "never-made", "not-ready"], 4)]
#[case::then_the_newest(DeletePolicy::Newest, &["failed", "marked", "never-made", "not-ready", "young"], 5)]
#[case::or_the_oldest(DeletePolicy::Oldest, &["failed", "marked", "never-made", "not-ready", "old"], 5)]
fn machines_go_in_order(#[case] policy: DeletePolicy, #[case] expected: &[&str], #[case] too_many: i32) {
    let mut set = set(7 - too_many);
    set.spec.delete_policy = policy;
    let mut marked = member(&set, "marked", 50, Some(40));
    marked
        .annotations_mut()
        .insert(ANNOTATION_DELETE_MACHINE.into(), String::new());
    let mut failed = member(&set, "failed", 50, Some(40));
    failed.status.as_mut().unwrap().phase = Some(MachinePhase::Failed);
    let mut never_made = member(&set, "never-made", 10, None);
    never_made.spec.provider_id = None;
    let machines = [
        member(&set, "old", 500, Some(40)),
        member(&set, "young", 10, Some(9)),
        member(&set, "middle", 100, Some(40)),
        member(&set, "not-ready", 50, None),
        failed,
        never_made,
        marked,
    ];
    let plan = plan_with(&set, &machines, &Observation::default());
    let mut names = deleted(&plan);
    names.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn a_failed_machine_is_replaced_and_then_more_slowly() {
    let set = set(1);
    let mut machine = member(&set, "a", 50, Some(40));
    machine.status.as_mut().unwrap().phase = Some(MachinePhase::Failed);
    let machines = [machine];
    let mut seen = Observation::default();
    let plan = plan_with(&set, &machines, &seen);
    assert_eq!(deleted(&plan), ["a"]);
    assert_eq!(
        plan.status.ready_replicas, 0,
        "a failed machine is not ready, whatever its condition still says"
    );
    let performed = Performed::Delete {
        name: "a".into(),
        uid: "uid-a".into(),
        replaced: true,
    };
    seen.observe(&[(performed, Outcome::Done)], now());
    let plan = plan_with(&set, &machines, &seen);
    assert!(plan.actions.is_empty());
    assert_eq!(plan.look_again, Some(Duration::from_secs(1)));
}

#[test]
fn machines_become_available_after_min_ready_seconds() {
    let mut set = set(2);
    set.spec.min_ready_seconds = 30;
    let machines = [member(&set, "a", 50, Some(40)), member(&set, "b", 50, Some(12))];
    let plan = plan_with(&set, &machines, &Observation::default());
    assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (2, 1));
    assert_eq!(plan.look_again, Some(Duration::from_secs(18)));
}

#[test]
fn orphans_are_adopted_and_strays_released() {
    let set = set(2);
    let mut orphan = member(&set, "orphan", 50, Some(40));
    orphan.metadata.owner_references = None;
    let mut other_cluster = orphan.clone();
    other_cluster.metadata.name = Some("elsewhere".into());
    other_cluster.spec.cluster_name = "other".into();
    let mut theirs = member(&set, "theirs", 50, Some(40));
    theirs.metadata.owner_references.as_mut().unwrap()[0].uid = "somebody".into();
    let mut stray = member(&set, "stray", 50, Some(40));
    stray.metadata.labels = None;
    let plan = plan_with(&set, &[orphan, other_cluster, theirs, stray], &Observation::default());
    assert_eq!(plan.actions.len(), 2, "{:?}", plan.actions);
    assert!(matches!(&plan.actions[0], Action::Adopt { name, owner_references, .. }
        if name == "orphan" && owner_references.len() == 1 && owner_references[0].controller == Some(true)));
    assert!(
        matches!(&plan.actions[1], Action::Release { name, owner_references, .. } if name == "stray" && owner_references.is_empty())
    );
}

#[test]
fn nothing_is_made_without_a_cluster_and_the_condition_says_so() {
    let set = set(1);
    let seen = Observation::default();
    let without = plan(
        &View {
            set: &set,
            cluster: None,
            machines: &[],
            observation: &seen,
            seed: 1,
        },
        now(),
    );
    assert!(without.actions.is_empty());
    let failure = conditions::get(&without.status.conditions, CONDITION_REPLICA_FAILURE).unwrap();
    assert!(
        failure.message.contains("Cluster demo does not exist"),
        "{}",
        failure.message
    );

    let mut leaving = cluster();
    leaving.metadata.deletion_timestamp = Some(Time(now()));
    let without = plan(
        &View {
            set: &set,
            cluster: Some(&leaving),
            machines: &[],
            observation: &seen,
            seed: 1,
        },
        now(),
    );
    assert!(without.actions.is_empty());
}

#[test]
fn a_paused_cluster_or_set_stops_everything() {
    let mut set = set(1);
    let mut cluster = cluster();
    cluster.spec.paused = true;
    let seen = Observation::default();
    let paused = plan(
        &View {
            set: &set,
            cluster: Some(&cluster),
            machines: &[],
            observation: &seen,
            seed: 1,
        },
        now(),
    );
    assert!(paused.actions.is_empty());
    assert!(conditions::is_true(&paused.status.conditions, CONDITION_PAUSED));
    set.status = Some(paused.status);
    let resumed = plan_with(&set, &[], &seen);
    assert_eq!(created(&resumed).len(), 1);
    assert!(!conditions::is_true(&resumed.status.conditions, CONDITION_PAUSED));
    set.annotations_mut().insert(ANNOTATION_PAUSED.into(), String::new());
    assert!(plan_with(&set, &[], &seen).actions.is_empty());
}

#[test]
fn an_unanswered_create_is_asked_for_again_under_its_name() {
    let set = set(2);
    let mut seen = Observation::default();
    let lost = Performed::Create {
        name: "web-lost1".into(),
    };
    let events = seen.observe(
        &[(
            lost.clone(),
            Outcome::Unknown {
                message: "timeout".into(),
            },
        )],
        now(),
    );
    assert_eq!(events.len(), 1);
    assert_eq!(
        plan_with(&set, &[], &seen).look_again,
        Some(Duration::from_secs(1)),
        "it backs off first"
    );
    seen.not_before = None;
    let plan = plan_with(&set, &[], &seen);
    let names: Vec<String> = created(&plan).iter().map(|machine| machine.name_any()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"web-lost1".to_owned()));
    // Seen by the index: it counts once.
    let machines = [member(&set, "web-lost1", 1, None)];
    assert_eq!(created(&plan_with(&set, &machines, &seen)).len(), 1);
    // Not needed any more: nothing else goes for it, and nothing is asked for.
    let mut smaller = set.clone();
    smaller.spec.replicas = 1;
    let machines = [member(&smaller, "other", 1, None)];
    assert!(plan_with(&smaller, &machines, &seen).actions.is_empty());
    // The answer came.
    seen.observe(&[(lost, Outcome::Done)], now());
    assert!(seen.unanswered_creates.is_empty());
}

#[test]
fn creates_grow_while_they_work_and_shrink_when_they_fail() {
    let set = set(1000);
    let mut seen = Observation::default();
    let first = plan_with(&set, &[], &seen);
    assert_eq!(created(&first).len(), 16);
    assert_eq!(first.look_again, Some(Duration::ZERO));
    let done: Vec<(Performed, Outcome)> = created(&first)
        .iter()
        .map(|machine| {
            (
                Performed::Create {
                    name: machine.name_any(),
                },
                Outcome::Done,
            )
        })
        .collect();
    let events = seen.observe(&done, now());
    assert_eq!(events.len(), 1, "one event for all of them");
    assert!(
        events[0].note.starts_with("created 16 machines: "),
        "{}",
        events[0].note
    );
    assert_eq!(created(&plan_with(&set, &[], &seen)).len(), 32);

    let refused = Outcome::Refused {
        reason: "Forbidden".into(),
        message: "exceeded quota".into(),
    };
    let create = Performed::Create {
        name: "web-aaaaa".into(),
    };
    assert_eq!(seen.observe(&[(create.clone(), refused.clone())], now()).len(), 1);
    assert_eq!(
        seen.observe(&[(create, refused)], now()).len(),
        0,
        "no event for the same failure again"
    );
    let waiting = plan_with(&set, &[], &seen);
    assert!(waiting.actions.is_empty());
    assert_eq!(waiting.look_again, Some(Duration::from_secs(2)));
    let failure = conditions::get(&waiting.status.conditions, CONDITION_REPLICA_FAILURE).unwrap();
    assert!(failure.message.contains("exceeded quota"));
    seen.not_before = None;
    assert_eq!(created(&plan_with(&set, &[], &seen)).len(), 1);
}

#[test]
fn a_set_that_is_being_deleted_does_nothing() {
    let mut set = set(3);
    set.metadata.deletion_timestamp = Some(Time(now()));
    assert!(plan_with(&set, &[], &Observation::default()).actions.is_empty());
}

#[test]
fn machines_of_an_older_template_are_not_up_to_date() {
    let mut set = set(1);
    let mut machine = member(&set, "a", 50, Some(40));
    machine.spec.failure_domain = Some("zone-a".into());
    assert_eq!(
        plan_with(&set, &[machine.clone()], &Observation::default())
            .status
            .up_to_date_replicas,
        1
    );
    set.spec.template.spec.version = Some("v1.35.0".into());
    assert_eq!(
        plan_with(&set, &[machine], &Observation::default())
            .status
            .up_to_date_replicas,
        0
    );
}

#[test]
fn names_differ_and_depend_on_the_seed() {
    let mut names = Names::new("web", 1, BTreeSet::new());
    let drawn: BTreeSet<String> = (0..2000).map(|_| names.draw()).collect();
    assert_eq!(drawn.len(), 2000);
    let first = Names::new("web", 7, BTreeSet::new()).draw();
    let second = Names::new("web", 7, [first.clone()].into()).draw();
    assert_ne!(first, second, "a name that is taken is not drawn");
}
