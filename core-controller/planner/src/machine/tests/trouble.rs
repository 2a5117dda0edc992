//! What is said of calls that fail, and what ends a hold.

use super::*;

fn events(plan: &Plan) -> Vec<&str> {
    plan.events.iter().map(|event| &*event.reason).collect()
}

#[test]
fn no_room_anywhere_is_one_event() {
    let mut fixture = fixture();
    let no_room = Outcome::TryElsewhere {
        after: Duration::from_mins(2),
    };
    fixture.fails(create(), "INSUFFICIENT_CAPACITY", no_room);
    assert_eq!(events(&fixture.plan()), ["FailedCreate"]);
    let status = fixture.plan().status;
    assert_eq!(condition(&status, CONDITION_READY).1, "InsufficientCapacity");
    assert_eq!(
        status.last_operation.and_then(|last| last.reason).as_deref(),
        Some("InsufficientCapacity")
    );
    fixture.write();
    assert!(fixture.plan().events.is_empty());
}

#[test]
fn an_update_that_was_looked_into_is_one_event() {
    let mut fixture = edited();
    let hold = Outcome::Hold { look_again: None };
    let before = fixture.seen.status().cloned().unwrap();
    fixture.fails_with(Call::Update, failure("MISSING_PERMISSION", hold, Effect::Unknown));
    assert_eq!(fixture.call(), Some(Call::Exists));
    assert!(fixture.plan().events.is_empty(), "it may have been done");
    fixture.told(before);
    assert_eq!(events(&fixture.plan()), ["FailedUpdate"]);
    fixture.write();
    assert!(fixture.plan().events.is_empty());
}

#[test]
fn what_was_escalated_may_be_looked_at_once_the_provider_is_another_process() {
    let mut fixture = fixture();
    fixture.fails_with(
        create(),
        failure("MULTIPLE_INSTANCES", Outcome::Escalate, Effect::Unknown),
    );
    assert_eq!(fixture.call(), None);
    fixture.provider.as_mut().unwrap().instance_id = "process-2".into();
    assert_eq!(fixture.call(), Some(Call::Exists));
}
