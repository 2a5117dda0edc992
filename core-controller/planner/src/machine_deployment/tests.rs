//! Single cases of a MachineDeployment's plan; random ones are in `invariants`.

use outrigger_api::names::{
    ANNOTATION_DELETE_MACHINE, ANNOTATION_DESIRED_REPLICAS, ANNOTATION_DISABLE_MACHINE_CREATE, ANNOTATION_MAX_REPLICAS,
    ANNOTATION_REVISION, ANNOTATION_REVISION_UPSTREAM, ANNOTATION_ROLLBACK_TO, CONDITION_AVAILABLE,
    CONDITION_PROGRESSING, CONDITION_READY, LABEL_DEPLOYMENT_NAME_UPSTREAM, LABEL_TEMPLATE_HASH,
};
use outrigger_api::{IntOrString, LabelSelector, MachineDeploymentSpec, MachineStatus, StrategyType, Time};

use super::*;
use crate::machine_set::Outcome;

fn start() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_second(start().as_second() + seconds).unwrap()
}

fn deployment(replicas: i32) -> MachineDeployment {
    let mut template = MachineTemplate::default();
    template.metadata.labels.insert("app".into(), "web".into());
    template.spec.version = Some("v1.34.0".into());
    let selector = LabelSelector {
        match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
        match_expressions: None,
    };
    let spec = MachineDeploymentSpec {
        cluster_name: "demo".into(),
        replicas,
        selector,
        template,
        ..MachineDeploymentSpec::default()
    };
    let mut deployment = MachineDeployment::new("web", spec);
    deployment.metadata.namespace = Some("default".into());
    deployment.metadata.uid = Some("deployment-uid".into());
    deployment
}

/// A deployment's set for this version, with machines of which so many are available.
struct Given {
    set: MachineSet,
    machines: Vec<Machine>,
}

fn given(
    deployment: &MachineDeployment,
    version: &str,
    revision: i64,
    replicas: i32,
    machines: i32,
    available: i32,
) -> Given {
    let mut old = deployment.clone();
    old.spec.template.spec.version = Some(version.to_owned());
    let hash = revision::hash(&old.spec.template, 0);
    let new = revision::NewSet {
        hash: &hash,
        replicas,
        revision,
        allowed: deployment.spec.replicas + 1,
    };
    let mut set = revision::new_set(&old, new).unwrap();
    set.metadata.uid = Some(format!("uid-{version}"));
    set.metadata.resource_version = Some(format!("{revision}"));
    set.metadata.creation_timestamp = Some(Time(later(revision - 1000)));
    let machines = (0..machines)
        .map(|index| {
            let mut machine = Machine::default();
            machine.metadata.name = Some(format!("{version}-{index}"));
            machine.metadata.uid = Some(format!("uid-{version}-{index}"));
            machine.spec.provider_id = Some(String::new());
            let mut status = MachineStatus::default();
            if index < available {
                conditions::set(
                    &mut status.conditions,
                    Assertion::holds(CONDITION_READY, "Ready", ""),
                    None,
                    later(-100),
                );
            }
            machine.status = Some(status);
            machine
        })
        .collect();
    Given { set, machines }
}

fn plan_at(deployment: &MachineDeployment, given: &[Given], observation: &Observation, now: Timestamp) -> Plan {
    let machines: Vec<Vec<&Machine>> = given.iter().map(|given| given.machines.iter().collect()).collect();
    let sets: Vec<SetView<'_>> = given
        .iter()
        .zip(&machines)
        .map(|(given, machines)| SetView {
            set: &given.set,
            machines,
        })
        .collect();
    let mut cluster = Cluster::default();
    cluster.metadata.name = Some("demo".into());
    plan(
        &View {
            deployment,
            cluster: Some(&cluster),
            sets: &sets,
            observation,
        },
        now,
    )
}

fn plan_of(deployment: &MachineDeployment, given: &[Given]) -> Plan {
    plan_at(deployment, given, &Observation::default(), start())
}

/// What becomes of the replicas of each set that is scaled.
fn scaled(plan: &Plan) -> Vec<(i32, i32)> {
    plan.actions
        .iter()
        .filter_map(|action| {
            if let Action::PatchSet { patch, .. } = action {
                patch.replicas
            } else {
                None
            }
        })
        .collect()
}

fn bounds(deployment: &mut MachineDeployment, surge: i32, unavailable: i32) {
    let rolling = &mut deployment.spec.strategy.rolling_update;
    rolling.max_surge = IntOrString::Int(surge);
    rolling.max_unavailable = IntOrString::Int(unavailable);
}

#[test]
fn the_first_set_carries_all_names_that_others_read() {
    let plan = plan_of(&deployment(3), &[]);
    let [Action::CreateSet(set)] = plan.actions.as_slice() else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!(set.spec.replicas, 3);
    let hash = &set.labels()[LABEL_TEMPLATE_HASH];
    assert_eq!(set.name_any(), format!("web-{hash}"));
    assert_eq!(set.labels()[LABEL_DEPLOYMENT_NAME_UPSTREAM], "web");
    assert_eq!(set.spec.template.metadata.labels[LABEL_TEMPLATE_HASH], *hash);
    assert_eq!(
        set.spec.selector.match_labels.as_ref().unwrap()[LABEL_TEMPLATE_HASH],
        *hash
    );
    assert_eq!(set.annotations()[ANNOTATION_REVISION], "1");
    assert_eq!(set.annotations()[ANNOTATION_REVISION_UPSTREAM], "1");
    assert_eq!(set.annotations()[ANNOTATION_DESIRED_REPLICAS], "3");
    assert_eq!(set.annotations()[ANNOTATION_MAX_REPLICAS], "4");
    let progressing = conditions::get(&plan.status.conditions, CONDITION_PROGRESSING).unwrap();
    assert_eq!(progressing.reason, REASON_CREATED);
}

#[test]
fn the_hash_never_changes() {
    // Machines are named after it: another value here means that an upgrade gives new sets other names.
    let template = deployment(1).spec.template;
    assert_eq!(revision::hash(&template, 0), "kl6l9tg5v9");
    assert_ne!(revision::hash(&template, 0), revision::hash(&template, 1));
    let labelled = given(&deployment(1), "v1.34.0", 1, 1, 0, 0).set.spec.template;
    assert_eq!(
        revision::hash(&labelled, 0),
        revision::hash(&template, 0),
        "the labels of a set are not hashed"
    );
}

#[test]
fn a_set_is_known_by_its_template_whatever_its_hash() {
    let deployment = deployment(3);
    let mut first = given(&deployment, "v1.34.0", 1, 3, 3, 3);
    first.set.metadata.name = Some("web-named-otherwise".into());
    let plan = plan_of(&deployment, &[first]);
    assert!(scaled(&plan).is_empty());
    assert!(
        !plan.actions.iter().any(|action| matches!(action, Action::CreateSet(_))),
        "{:?}",
        plan.actions
    );
}

#[test]
fn a_rolling_update_goes_as_far_as_its_bounds_and_no_further() {
    let mut deployment = deployment(10);
    bounds(&mut deployment, 3, 2);
    let old = || given(&deployment, "v1.33.0", 1, 10, 10, 10);
    // No set for the template yet: it is created as large as the surge.
    let plan = plan_of(&deployment, &[old()]);
    let Some(Action::CreateSet(set)) = plan.actions.first() else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!(set.spec.replicas, 3);
    // It is there and has nothing available: the old set gives what may be missing.
    let plan = plan_of(&deployment, &[old(), given(&deployment, "v1.34.0", 2, 3, 3, 0)]);
    assert_eq!(scaled(&plan), [(10, 8)]);
    // All of it is available: the old set gives more, and the new one waits until there is room.
    let plan = plan_of(&deployment, &[old(), given(&deployment, "v1.34.0", 2, 3, 3, 3)]);
    assert_eq!(scaled(&plan), [(10, 5)]);
    // Once the machines are gone the new set grows.
    let plan = plan_of(
        &deployment,
        &[
            given(&deployment, "v1.33.0", 1, 5, 5, 5),
            given(&deployment, "v1.34.0", 2, 3, 3, 3),
        ],
    );
    assert_eq!(scaled(&plan), [(3, 8)]);
}

#[test]
fn machines_of_no_use_go_first_and_cost_nothing() {
    let mut deployment = deployment(4);
    bounds(&mut deployment, 1, 0);
    let old = given(&deployment, "v1.33.0", 1, 4, 4, 3);
    let plan = plan_of(&deployment, &[old, given(&deployment, "v1.34.0", 2, 1, 1, 1)]);
    assert_eq!(scaled(&plan), [(4, 3)]);
}

#[test]
fn a_marked_machine_does_not_hold_up_those_of_no_use() {
    let mut deployment = deployment(4);
    bounds(&mut deployment, 1, 0);
    let mut old = given(&deployment, "v1.33.0", 1, 4, 4, 3);
    old.machines[0]
        .annotations_mut()
        .insert(ANNOTATION_DELETE_MACHINE.into(), String::new());
    let plan = plan_of(&deployment, &[old, given(&deployment, "v1.34.0", 2, 1, 1, 1)]);
    assert_eq!(scaled(&plan), [(4, 3)]);
}

#[test]
fn a_new_set_that_does_not_come_up_stops_the_roll_out() {
    let mut deployment = deployment(5);
    bounds(&mut deployment, 1, 0);
    let plan = plan_of(
        &deployment,
        &[
            given(&deployment, "v1.33.0", 1, 5, 5, 5),
            given(&deployment, "v1.34.0", 2, 1, 1, 0),
        ],
    );
    assert!(scaled(&plan).is_empty());
}

#[test]
fn scaling_in_the_middle_of_a_roll_out_is_proportional() {
    let mut deployment = deployment(10);
    bounds(&mut deployment, 3, 2);
    let given = [
        given(&deployment, "v1.33.0", 1, 8, 8, 8),
        given(&deployment, "v1.34.0", 2, 5, 5, 0),
    ];
    deployment.spec.replicas = 15;
    let given = given.map(|mut given| {
        let annotations = given.set.annotations_mut();
        annotations.insert(ANNOTATION_DESIRED_REPLICAS.into(), "10".into());
        annotations.insert(ANNOTATION_MAX_REPLICAS.into(), "13".into());
        given
    });
    let plan = plan_of(&deployment, &given);
    assert_eq!(scaled(&plan), [(8, 11), (5, 7)]);
}

#[test]
fn spec_paused_lets_scaling_through_and_nothing_else() {
    let mut deployment = deployment(5);
    deployment.spec.paused = true;
    let old = given(&deployment, "v1.33.0", 1, 3, 3, 3);
    let plan = plan_of(&deployment, &[old]);
    assert_eq!(scaled(&plan), [(3, 5)]);
    assert!(!plan.actions.iter().any(|action| matches!(action, Action::CreateSet(_))));
    let progressing = conditions::get(&plan.status.conditions, CONDITION_PROGRESSING).unwrap();
    assert_eq!(
        (progressing.status.as_str(), progressing.reason.as_str()),
        ("Unknown", REASON_PAUSED)
    );
}

#[test]
fn on_delete_replaces_what_somebody_deletes() {
    let mut deployment = deployment(3);
    deployment.spec.strategy.type_ = StrategyType::OnDelete;
    let mut old = given(&deployment, "v1.33.0", 1, 3, 3, 3);
    let new = || given(&deployment, "v1.34.0", 2, 0, 0, 0);
    let plan = plan_of(&deployment, &[given(&deployment, "v1.33.0", 1, 3, 3, 3), new()]);
    assert!(scaled(&plan).is_empty(), "nothing was deleted");
    assert!(
        plan.actions
            .iter()
            .any(|action| matches!(action, Action::PatchSet { patch, .. }
        if patch.annotations.get(ANNOTATION_DISABLE_MACHINE_CREATE) == Some(&Some("true".to_owned()))))
    );

    old.machines[0].metadata.deletion_timestamp = Some(Time(start()));
    let plan = plan_of(&deployment, &[old, new()]);
    assert_eq!(scaled(&plan), [(3, 2)], "the old set does not get it back");
    let plan = plan_of(&deployment, &[given(&deployment, "v1.33.0", 1, 2, 2, 2), new()]);
    assert_eq!(scaled(&plan), [(0, 1)], "the new set does");
}

#[test]
fn a_roll_out_that_stands_still_misses_its_deadline_and_recovers() {
    let mut deployment = deployment(3);
    bounds(&mut deployment, 1, 0);
    let stuck = || {
        [
            given(&deployment, "v1.33.0", 1, 3, 3, 3),
            given(&deployment, "v1.34.0", 2, 1, 1, 0),
        ]
    };
    let seen = Observation::default();
    let first = plan_at(&deployment, &stuck(), &seen, start());
    assert_eq!(first.look_again, Some(Duration::from_mins(10)));
    let mut next = deployment.clone();
    next.status = Some(first.status);
    let before = plan_at(&next, &stuck(), &seen, later(599));
    assert_eq!(before.look_again, Some(Duration::from_secs(1)));
    assert_eq!(
        Some(&before.status),
        next.status.as_ref(),
        "nothing is written while time goes by"
    );
    let missed = plan_at(&next, &stuck(), &seen, later(600));
    let condition = conditions::get(&missed.status.conditions, CONDITION_PROGRESSING).unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", REASON_DEADLINE)
    );
    next.status = Some(missed.status);
    let moving = [
        given(&deployment, "v1.33.0", 1, 3, 3, 3),
        given(&deployment, "v1.34.0", 2, 1, 1, 1),
    ];
    let moved = plan_at(&next, &moving, &seen, later(700));
    assert!(conditions::is_true(&moved.status.conditions, CONDITION_PROGRESSING));
}

#[test]
fn an_outage_after_the_roll_out_is_not_a_missed_deadline() {
    let deployment = deployment(3);
    let seen = Observation::default();
    let mut next = deployment.clone();
    next.status = Some(
        plan_at(
            &deployment,
            &[given(&deployment, "v1.34.0", 1, 3, 3, 3)],
            &seen,
            start(),
        )
        .status,
    );
    let outage = plan_at(&next, &[given(&deployment, "v1.34.0", 1, 3, 3, 0)], &seen, later(5000));
    let condition = conditions::get(&outage.status.conditions, CONDITION_PROGRESSING).unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("True", REASON_COMPLETE)
    );
    assert!(!conditions::is_true(&outage.status.conditions, CONDITION_AVAILABLE));
}

#[test]
fn rolling_back_takes_the_template_of_the_revision() {
    let mut deployment = deployment(3);
    deployment
        .annotations_mut()
        .insert(ANNOTATION_ROLLBACK_TO.into(), "0".into());
    let given = || {
        [
            given(&deployment, "v1.32.0", 1, 0, 0, 0),
            given(&deployment, "v1.33.0", 2, 0, 0, 0),
            given(&deployment, "v1.34.0", 3, 3, 3, 3),
        ]
    };
    let plan = plan_of(&deployment, &given());
    let [
        Action::PatchDeployment {
            annotations,
            rollback: Some((revision, template)),
        },
    ] = plan.actions.as_slice()
    else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!((*revision, template.spec.version.as_deref()), (2, Some("v1.33.0")));
    assert!(!template.metadata.labels.contains_key(LABEL_TEMPLATE_HASH));
    assert_eq!(annotations[ANNOTATION_ROLLBACK_TO], None);

    let mut unknown = deployment.clone();
    unknown
        .annotations_mut()
        .insert(ANNOTATION_ROLLBACK_TO.into(), "9".into());
    let plan = plan_of(&unknown, &given());
    assert!(matches!(
        plan.actions.as_slice(),
        [Action::PatchDeployment { rollback: None, .. }]
    ));
    assert_eq!(plan.events.len(), 1);
}

#[test]
fn an_old_template_that_comes_back_gets_a_new_revision() {
    let mut deployment = deployment(3);
    let sets = [
        given(&deployment, "v1.33.0", 1, 0, 0, 0),
        given(&deployment, "v1.34.0", 2, 3, 3, 3),
    ];
    deployment.spec.template.spec.version = Some("v1.33.0".into());
    let plan = plan_of(&deployment, &sets);
    let annotations = plan
        .actions
        .iter()
        .find_map(|action| match action {
            Action::PatchSet { patch, .. } => patch
                .annotations
                .get(ANNOTATION_REVISION)
                .map(|_| patch.annotations.clone()),
            _ => None,
        })
        .unwrap();
    assert_eq!(annotations[ANNOTATION_REVISION].as_deref(), Some("3"));
    assert_eq!(annotations[ANNOTATION_REVISION_UPSTREAM].as_deref(), Some("3"));
    assert!(
        plan.actions
            .iter()
            .any(|action| matches!(action, Action::PatchDeployment { annotations, .. }
        if annotations[ANNOTATION_REVISION].as_deref() == Some("3")))
    );
}

#[test]
fn history_beyond_its_limit_is_deleted_oldest_first() {
    let mut deployment = deployment(1);
    deployment.spec.revision_history_limit = 1;
    let given = [
        given(&deployment, "v1.31.0", 1, 0, 0, 0),
        given(&deployment, "v1.32.0", 2, 0, 0, 0),
        given(&deployment, "v1.33.0", 3, 0, 0, 0),
        given(&deployment, "v1.34.0", 4, 1, 1, 1),
    ];
    let plan = plan_of(&deployment, &given);
    let gone: Vec<&str> = plan
        .actions
        .iter()
        .filter_map(|action| {
            if let Action::DeleteSet { uid, .. } = action {
                Some(uid.as_str())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(gone, ["uid-v1.31.0", "uid-v1.32.0"]);
}

#[test]
fn a_name_that_is_taken_gives_another_name() {
    let deployment = deployment(1);
    let mut seen = Observation::default();
    let Some(Action::CreateSet(set)) = plan_of(&deployment, &[]).actions.pop() else {
        panic!("creates a set")
    };
    let taken = Outcome::Refused {
        reason: ALREADY_EXISTS.into(),
        message: String::new(),
    };
    seen.observe(&[(Performed::CreateSet(set.clone()), taken)], start());
    let plan = plan_at(&deployment, &[], &seen, start());
    let Some(Action::CreateSet(other)) = plan.actions.first() else {
        panic!("creates a set")
    };
    assert_ne!(other.name_any(), set.name_any());
    assert_eq!(plan.status.collision_count, Some(1));
    // The count was written: the name stays what it is.
    let mut counted = deployment.clone();
    counted.status = Some(plan.status.clone());
    let Some(Action::CreateSet(same)) = plan_at(&counted, &[], &seen, start()).actions.pop() else {
        panic!("creates a set")
    };
    assert_eq!(same.name_any(), other.name_any());
}

#[test]
fn sets_are_adopted_and_released_before_anything_else() {
    let deployment = deployment(1);
    let mut orphan = given(&deployment, "v1.34.0", 1, 1, 1, 1);
    orphan.set.metadata.owner_references = None;
    let mut stray = given(&deployment, "v1.33.0", 1, 1, 1, 1);
    stray.set.metadata.labels = None;
    let plan = plan_of(&deployment, &[orphan, stray]);
    assert_eq!(plan.actions.len(), 2);
    assert!(
        plan.actions
            .iter()
            .all(|action| matches!(action, Action::OwnSet { .. })),
        "{:?}",
        plan.actions
    );
}

#[test]
fn a_merge_patch_says_only_what_changes() {
    let patch = SetPatch {
        replicas: Some((1, 2)),
        ..SetPatch::default()
    };
    assert_eq!(
        patch.to_merge_patch(Some("7")),
        json!({"metadata": {"resourceVersion": "7", "annotations": {}}, "spec": {"replicas": 2}})
    );
}

#[test]
fn a_finished_roll_out_writes_nothing_more() {
    let mut deployment = deployment(2);
    for annotation in [ANNOTATION_REVISION, ANNOTATION_REVISION_UPSTREAM] {
        deployment.annotations_mut().insert(annotation.into(), "1".into());
    }
    let given = [given(&deployment, "v1.34.0", 1, 2, 2, 2)];
    let plan = plan_of(&deployment, &given);
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert_eq!(plan.look_again, None);
    deployment.status = Some(plan.status.clone());
    assert_eq!(
        plan_at(&deployment, &given, &Observation::default(), later(9999)).status,
        plan.status
    );
}

#[test]
fn machines_that_may_be_there_take_room_until_they_are_known_not_to_be() {
    let deployment = deployment(2);
    let given = [
        given(&deployment, "v1.33.0", 1, 1, 1, 1),
        given(&deployment, "v1.34.0", 2, 1, 1, 1),
    ];
    let mut seen = Observation::default();
    seen.note_possible(&given[0].set.name_any(), vec![later(90)]);
    let grown = |plan: &Plan| {
        plan.actions
            .iter()
            .any(|action| matches!(action, Action::PatchSet { patch, .. } if patch.replicas == Some((1, 2))))
    };
    let full = plan_at(&deployment, &given, &seen, later(60));
    assert!(!grown(&full), "{:?}", full.actions);
    assert_eq!(full.look_again, Some(Duration::from_secs(30)), "nothing else tells");
    let free = plan_at(&deployment, &given, &seen, later(90));
    assert!(grown(&free), "{:?}", free.actions);
}
