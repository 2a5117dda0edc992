//! What is said of calls that fail, and when they are made again.

use super::*;

#[test]
fn a_cluster_without_room_is_not_created_without_end() {
    let mut fixture = fixture();
    let no_room = Outcome::TryElsewhere {
        after: Duration::from_mins(2),
    };
    fixture.fails(create(), "INSUFFICIENT_CAPACITY", no_room, Effect::None);
    let plan = fixture.plan();
    assert_eq!(fixture.call(), None);
    assert_eq!(plan.look_again, Some(Duration::from_mins(2)));
    assert_eq!(condition(&plan.status, CONDITION_READY).1, "InsufficientCapacity");
    fixture.now += 120;
    assert_eq!(fixture.call(), Some(create()));
}

#[test]
fn an_update_that_contradicts_itself_is_said_though_nothing_may_be_looked_at() {
    let mut fixture = ready();
    fixture.cluster.metadata.generation = Some(2);
    fixture
        .cluster
        .spec
        .provider_spec
        .config
        .insert("size".into(), "large".into());
    assert_eq!(fixture.call(), Some(Call::Update));
    fixture.fails(Call::Update, "MULTIPLE_INSTANCES", Outcome::Escalate, Effect::Unknown);
    let plan = fixture.plan();
    assert_eq!(fixture.call(), None);
    let (status, reason, _) = condition(&plan.status, CONDITION_PROVIDER_CONFIG_VALID);
    assert_eq!((&*status, &*reason), ("False", "MultipleInstances"));
    assert_eq!(plan.events.len(), 1);
    fixture.write();
    assert!(fixture.plan().events.is_empty());
}
