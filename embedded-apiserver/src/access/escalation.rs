//! Nobody gives away rights that they do not have. Pure.
//!
//! The rules and words are those of `pkg/registry/rbac/validation` and of `component-helpers/auth/rbac/validation`.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::Rule;
use super::rbac::{Rules, covers_path};
use super::{User, quoted};

/// Refuses rules that go beyond the rules that the user has.
pub fn confirm_no_escalation(user: &User, held: &Rules, granted: &[Rule]) -> Result<(), String> {
    let missing = uncovered(&held.rules, granted);
    if missing.is_empty() {
        return Ok(());
    }
    let described: BTreeSet<String> = compact(missing).iter().map(describe).collect();
    let described: Vec<String> = described.into_iter().collect();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        described.join("\n")
    );
    if !held.errors.is_empty() {
        let errors = super::together(&held.errors);
        message = format!("{message}; resolution errors: [{errors}]");
    }
    Err(message)
}

/// The smallest rules of `servant` that no rule of `owner` covers.
pub(super) fn uncovered(owner: &[Rule], servant: &[Rule]) -> Vec<Rule> {
    servant
        .iter()
        .flat_map(broken_down)
        .filter(|small| !owner.iter().any(|rule| covers(rule, small)))
        .collect()
}

/// Rules of one verb, one resource and one name each, or of one verb and one path.
fn broken_down(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut small = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let base = Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    small.push(base);
                    continue;
                }
                small.extend(rule.resource_names.iter().map(|name| Rule {
                    resource_names: one(name),
                    ..base.clone()
                }));
            }
        }
    }
    for path in &rule.non_resource_urls {
        small.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: one(verb),
            non_resource_urls: one(path),
            ..Rule::default()
        }));
    }
    small
}

fn covers(owner: &Rule, small: &Rule) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|value| value == wanted);
    let all = |list: &[String], wanted: &[String]| has(list, "*") || wanted.iter().all(|value| has(list, value));
    let resource = |wanted: &String| {
        has(&owner.resources, "*")
            || has(&owner.resources, wanted)
            || wanted
                .split_once('/')
                .is_some_and(|(_, subresource)| has(&owner.resources, &format!("*/{subresource}")))
    };
    let named = owner.resource_names.is_empty()
        || (!small.resource_names.is_empty()
            && small.resource_names.iter().all(|name| has(&owner.resource_names, name)));
    let path = |wanted: &String| {
        owner
            .non_resource_urls
            .iter()
            .any(|pattern| covers_path(pattern, wanted))
    };
    all(&owner.verbs, &small.verbs)
        && all(&owner.api_groups, &small.api_groups)
        && small.resources.iter().all(resource)
        && named
        && small.non_resource_urls.iter().all(path)
}

/// Puts the verbs for the same resource together.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut compacted = Vec::new();
    let mut simple: BTreeMap<(String, String, Option<String>), Rule> = BTreeMap::new();
    for rule in rules {
        match (rule.api_groups.as_slice(), rule.resources.as_slice()) {
            ([group], [resource]) if rule.resource_names.len() < 2 && rule.non_resource_urls.is_empty() => {
                let key = (group.clone(), resource.clone(), rule.resource_names.first().cloned());
                match simple.get_mut(&key) {
                    Some(known) => known.verbs.extend(rule.verbs),
                    None => {
                        simple.insert(key, rule);
                    }
                }
            }
            _ => compacted.push(rule),
        }
    }
    compacted.extend(simple.into_values());
    compacted
}

fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: serde_json::Value) -> Vec<Rule> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_held_may_be_given() {
        let held = rules(json!([
            { "apiGroups": ["*"], "resources": ["pods", "*/status"], "verbs": ["get", "list"] },
            { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["*"] },
            { "nonResourceURLs": ["/logs/*"], "verbs": ["get"] },
        ]));
        let covered = rules(json!([
            { "apiGroups": ["", "apps"], "resources": ["pods", "nodes/status"], "verbs": ["list"] },
            { "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["b"], "verbs": ["delete"] },
            { "nonResourceURLs": ["/logs/a"], "verbs": ["get"] },
        ]));
        assert_eq!(uncovered(&held, &covered), []);
        for beyond in [
            json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["*"] }),
            json!({ "apiGroups": [""], "resources": ["*"], "verbs": ["get"] }),
            json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }),
            json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["c"], "verbs": ["get"] }),
            json!({ "nonResourceURLs": ["*"], "verbs": ["get"] }),
        ] {
            assert_eq!(uncovered(&held, &rules(json!([beyond]))).len(), 1, "{beyond}");
        }
    }

    #[test]
    fn what_is_missing_is_told_in_short() {
        let user = User::authenticated("u", vec!["g".to_owned()]);
        let granted = rules(json!([
            { "nonResourceURLs": ["/b"], "verbs": ["get"] },
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] },
            { "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"], "verbs": ["delete"] },
        ]));
        let message = confirm_no_escalation(&user, &Rules::default(), &granted).unwrap_err();
        assert_eq!(
            message,
            "user \"u\" (groups=[\"g\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], ResourceNames:[\"p\"], Verbs:[\"delete\"]}\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}\n\
             {NonResourceURLs:[\"/b\"], Verbs:[\"get\"]}"
        );
        assert_eq!(
            confirm_no_escalation(
                &user,
                &Rules {
                    rules: granted.clone(),
                    errors: Vec::new()
                },
                &granted
            ),
            Ok(())
        );
    }
}
