//! The policy for operators allows exactly what can be called.

use std::collections::BTreeSet;

use provider_aws::client::action::Action;

#[test]
fn the_policy_is_what_can_be_called_and_nothing_more() {
    let policy: serde_json::Value =
        serde_json::from_str(include_str!("../../deploy/aws/iam-policy.json")).expect("JSON");
    let statements = policy["Statement"].as_array().expect("statements").iter();
    let allowed: BTreeSet<String> = statements
        .flat_map(|statement| statement["Action"].as_array().expect("actions"))
        .map(|action| action.as_str().expect("a name").to_owned())
        .collect();
    // Asked for by RunInstances with an instance profile; it is no call of its own.
    let called = Action::ALL.iter().map(|action| action.permission());
    let called: BTreeSet<String> = called.chain(["iam:PassRole".to_owned()]).collect();
    assert_eq!(allowed, called);
}
