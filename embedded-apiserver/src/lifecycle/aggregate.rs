//! Cluster roles that take their rules from others, as the real server's controller of that name does.

use std::sync::Arc;

use serde_json::json;

use crate::access::{CLUSTER_ROLES, ClusterRole, Rule, User};
use crate::rest::{BodyFormat, Core, Options, Request, Verb, carry_out};
use crate::selector::LabelSelector;
use crate::storage::WriteError;

/// The manager of the gathered rules.
const MANAGER: &str = "clusterrole-aggregation-controller";

/// The rules of all roles that a role selects, each once; none if it takes its rules from no others.
fn gathered(role: &ClusterRole, all: &[ClusterRole]) -> Option<Vec<Rule>> {
    let mut rules: Vec<Rule> = Vec::new();
    for selector in &role.aggregation_rule.as_ref()?.cluster_role_selectors {
        let Ok(selector) = LabelSelector::from_object(selector) else {
            // It was refused when it was written; an older one selects nothing.
            continue;
        };
        for other in all {
            let labels = &other.metadata.labels;
            let selected = selector.matches(|key| labels.get(key).map(String::as_str));
            if !selected || other.metadata.name == role.metadata.name {
                continue;
            }
            for rule in &other.rules {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

/// Brings the rules of all aggregating roles up to date. A role that feeds another one brings the next look when it
/// is written.
pub(super) async fn cluster_roles(core: &Arc<Core>) -> Result<(), WriteError> {
    let all: Vec<ClusterRole> = core
        .store
        .list_all(CLUSTER_ROLES, None)
        .iter()
        .filter_map(|(_, stored)| serde_json::from_slice(&stored.bytes).ok())
        .collect();
    for role in &all {
        let Some(rules) = gathered(role, &all).filter(|rules| *rules != role.rules) else {
            continue;
        };
        apply(core, &role.metadata.name, &rules).await?;
    }
    Ok(())
}

async fn apply(core: &Arc<Core>, name: &str, rules: &[Rule]) -> Result<(), WriteError> {
    let registry = core.registry.snapshot();
    let Some(resource) = registry.by_storage(CLUSTER_ROLES) else {
        return Ok(());
    };
    let applied = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules,
    });
    let request = Request {
        user: User::admin(),
        resource: Arc::clone(resource),
        version: "v1".to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
        subresource: String::new(),
        options: Options {
            field_manager: Some(MANAGER.to_owned()),
            force: Some(true),
            ..Options::default()
        },
        body: applied.to_string().into(),
        format: BodyFormat::Apply,
        user_agent: String::new(),
        now: jiff::Timestamp::now(),
    };
    match carry_out(core, Verb::Patch, request).await {
        Ok(_) => Ok(()),
        // Removed in between: an apply would make it anew, which its own rules then refuse.
        Err(error) if error.code < 500 => {
            tracing::debug!(%error, role = name, "a cluster role was not aggregated");
            Ok(())
        }
        Err(error) => Err(WriteError::Unavailable(error.to_string().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(value: serde_json::Value) -> ClusterRole {
        serde_json::from_value(value).unwrap()
    }

    fn rule(resource: &str) -> serde_json::Value {
        json!({ "apiGroups": [""], "resources": [resource], "verbs": ["get"] })
    }

    #[test]
    fn rules_are_gathered_by_label_each_once() {
        let all = [
            role(
                json!({ "metadata": { "name": "a", "labels": { "x": "y" } }, "rules": [rule("pods"), rule("nodes")] }),
            ),
            role(
                json!({ "metadata": { "name": "b", "labels": { "x": "y" } }, "rules": [rule("nodes"), rule("secrets")] }),
            ),
            role(json!({ "metadata": { "name": "c", "labels": { "x": "z" } }, "rules": [rule("events")] })),
            role(json!({
                "metadata": { "name": "sum", "labels": { "x": "y" } }, "rules": [rule("leases")],
                "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { "x": "y" } }] },
            })),
        ];
        let resources = |rules: Vec<Rule>| rules.into_iter().flat_map(|rule| rule.resources).collect::<Vec<_>>();
        assert_eq!(
            gathered(&all[3], &all).map(resources),
            Some(vec!["pods".to_owned(), "nodes".to_owned(), "secrets".to_owned()])
        );
        assert_eq!(gathered(&all[0], &all).map(resources), None);
    }
}
