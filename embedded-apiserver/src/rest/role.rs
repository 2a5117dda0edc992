//! Roles and bindings: their rules, and that nobody gives away rights that they do not have.
//!
//! Rules and words are those of `pkg/apis/rbac/validation` and `pkg/registry/rbac` of the real server.

use serde_json::{Value, json};

use super::error::cause;
use super::metadata::path_segment;
use super::object::{metadata_text, set_metadata};
use super::{ApiError, Core, Request};
use crate::access::{Attributes, MissingRole, Rule, Rules, confirm_no_escalation};
use crate::registry::Behaviour;
use crate::schema::{Cause, Schema};
use crate::selector::{LabelSelector, dns_subdomain_errors, label_value_errors, qualified_name_errors};

const GROUP: &str = "rbac.authorization.k8s.io";

fn required(field: &str, detail: &str) -> Cause {
    let message = if detail.is_empty() {
        "Required value".to_owned()
    } else {
        format!("Required value: {detail}")
    };
    cause("FieldValueRequired", field, message)
}

fn invalid(field: &str, value: impl std::fmt::Display, detail: &str) -> Cause {
    cause("FieldValueInvalid", field, format!("Invalid value: {value}: {detail}"))
}

fn unsupported(field: &str, value: &str, known: &[&str]) -> Cause {
    let known: Vec<String> = known.iter().map(|value| format!("{value:?}")).collect();
    let message = format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
    cause("FieldValueNotSupported", field, message)
}

fn text<'value>(value: &'value Value, field: &str) -> &'value str {
    value[field].as_str().unwrap_or_default()
}

fn list<'value>(value: &'value Value, field: &str) -> &'value [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Fills in the API groups of bindings, and drops the empty lists of rules.
pub fn default(kind: &str, object: &mut Value) {
    if is_role(kind) {
        for rule in object
            .get_mut("rules")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(rule) = rule.as_object_mut() {
                rule.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
            }
        }
        return;
    }
    let fill = |value: &mut Value| {
        if let Some(fields) = value.as_object_mut()
            && fields
                .get("apiGroup")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
        {
            fields.insert("apiGroup".to_owned(), GROUP.into());
        }
    };
    if let Some(fields) = object.as_object_mut() {
        fill(
            fields
                .entry("roleRef")
                .or_insert_with(|| json!({ "kind": "", "name": "" })),
        );
    }
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill(subject);
        }
    }
}

fn is_role(kind: &str) -> bool {
    matches!(kind, "Role" | "ClusterRole")
}

/// Writes what Go writes of lists that are missing or empty: null.
pub fn complete(kind: &str, object: &mut Value) {
    if !is_role(kind) {
        return;
    }
    let null_if_empty = |value: &mut Value, field: &str| {
        let Some(fields) = value.as_object_mut() else { return };
        let list = fields.entry(field).or_insert(Value::Null);
        if list.as_array().is_some_and(Vec::is_empty) {
            *list = Value::Null;
        }
    };
    null_if_empty(object, "rules");
    for rule in object
        .get_mut("rules")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        null_if_empty(rule, "verbs");
    }
}

/// What the schema says of a role or binding. It knows nothing of the nulls that [`complete`] wrote; and what is
/// required is told in other words by [`validate`].
pub fn validate_schema(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = schema.validate(&without_nulls(object), old.map(without_nulls).as_ref());
    causes.retain(|cause| cause.reason != "FieldValueRequired");
    causes
}

fn without_nulls(object: &Value) -> Value {
    let mut object = object.clone();
    let drop = |value: &mut Value, field: &str| {
        if let Some(fields) = value.as_object_mut()
            && fields.get(field).is_some_and(Value::is_null)
        {
            fields.remove(field);
        }
    };
    for rule in object
        .get_mut("rules")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        drop(rule, "verbs");
    }
    drop(&mut object, "rules");
    object
}

/// What is wrong with a role or binding.
pub fn validate(kind: &str, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match kind {
        kind if is_role(kind) => {
            for (at, rule) in list(object, "rules").iter().enumerate() {
                rule_problems(rule, kind == "Role", &format!("rules[{at}]"), &mut causes);
            }
            let aggregation = &object["aggregationRule"];
            if kind == "ClusterRole" && aggregation.is_object() {
                aggregation_problems(aggregation, &mut causes);
            }
        }
        _ => {
            binding_problems(kind, object, &mut causes);
            if old.is_some_and(|old| old.get("roleRef") != object.get("roleRef")) {
                let reference = &object["roleRef"];
                let shown = |field| Value::from(text(reference, field));
                let shown = format!(
                    r#"{{"APIGroup":{},"Kind":{},"Name":{}}}"#,
                    shown("apiGroup"),
                    shown("kind"),
                    shown("name")
                );
                causes.push(invalid("roleRef", shown, "cannot change roleRef"));
            }
        }
    }
    causes
}

fn rule_problems(rule: &Value, namespaced: bool, field: &str, causes: &mut Vec<Cause>) {
    if list(rule, "verbs").is_empty() {
        causes.push(required(
            &format!("{field}.verbs"),
            "verbs must contain at least one value",
        ));
    }
    if !list(rule, "nonResourceURLs").is_empty() {
        let (field, shown) = (format!("{field}.nonResourceURLs"), &rule["nonResourceURLs"]);
        if namespaced {
            causes.push(invalid(
                &field,
                shown,
                "namespaced rules cannot apply to non-resource URLs",
            ));
        }
        if ["apiGroups", "resources", "resourceNames"]
            .iter()
            .any(|part| !list(rule, part).is_empty())
        {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            causes.push(invalid(&field, shown, detail));
        }
        return;
    }
    for (part, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if list(rule, part).is_empty() {
            let detail = format!("resource rules must supply at least one {what}");
            causes.push(required(&format!("{field}.{part}"), &detail));
        }
    }
}

fn aggregation_problems(aggregation: &Value, causes: &mut Vec<Cause>) {
    const FIELD: &str = "aggregationRule.clusterRoleSelectors";
    let selectors = list(aggregation, "clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.push(required(FIELD, detail));
    }
    let quoted = |text: &str| format!("{text:?}");
    for (at, selector) in selectors.iter().enumerate() {
        let field = format!("{FIELD}[{at}]");
        let labels = format!("{field}.matchLabels");
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let keys = qualified_name_errors(key)
                .into_iter()
                .map(|problem| (key.as_str(), problem));
            let values = label_value_errors(value).into_iter().map(|problem| (value, problem));
            causes.extend(
                keys.chain(values)
                    .map(|(shown, problem)| invalid(&labels, quoted(shown), &problem)),
            );
        }
        for (at, requirement) in list(selector, "matchExpressions").iter().enumerate() {
            let field = format!("{field}.matchExpressions[{at}]");
            let values = list(requirement, "values");
            match text(requirement, "operator") {
                "In" | "NotIn" if values.is_empty() => causes.push(required(
                    &format!("{field}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                )),
                "Exists" | "DoesNotExist" if !values.is_empty() => causes.push(cause(
                    "FieldValueForbidden",
                    &format!("{field}.values"),
                    "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                )),
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => causes.push(invalid(
                    &format!("{field}.operator"),
                    quoted(other),
                    "not a valid selector operator",
                )),
            }
            let key = text(requirement, "key");
            for problem in qualified_name_errors(key) {
                causes.push(invalid(&format!("{field}.key"), quoted(key), &problem));
            }
            for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
                for problem in label_value_errors(value) {
                    causes.push(invalid(&format!("{field}.values[{at}]"), quoted(value), &problem));
                }
            }
        }
        if LabelSelector::from_object(selector).is_err() {
            causes.push(invalid(&field, "null", "invalid label selector."));
        }
    }
}

fn binding_problems(kind: &str, binding: &Value, causes: &mut Vec<Cause>) {
    let namespaced = kind == "RoleBinding";
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let reference = &binding["roleRef"];
    if text(reference, "apiGroup") != GROUP {
        causes.push(unsupported("roleRef.apiGroup", text(reference, "apiGroup"), &[GROUP]));
    }
    if !kinds.contains(&text(reference, "kind")) {
        causes.push(unsupported("roleRef.kind", text(reference, "kind"), kinds));
    }
    let name = text(reference, "name");
    if name.is_empty() {
        causes.push(required("roleRef.name", ""));
    } else {
        let problems = path_segment(name).into_iter();
        causes.extend(problems.map(|problem| invalid("roleRef.name", format!("{name:?}"), &problem)));
    }
    for (at, subject) in list(binding, "subjects").iter().enumerate() {
        subject_problems(subject, namespaced, &format!("subjects[{at}]"), causes);
    }
}

fn subject_problems(subject: &Value, namespaced: bool, field: &str, causes: &mut Vec<Cause>) {
    let name = text(subject, "name");
    let group = text(subject, "apiGroup");
    let group_field = format!("{field}.apiGroup");
    if name.is_empty() {
        causes.push(required(&format!("{field}.name"), ""));
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            let problems = dns_subdomain_errors(name).into_iter().filter(|_| !name.is_empty());
            causes.extend(problems.map(|problem| invalid(&format!("{field}.name"), format!("{name:?}"), &problem)));
            if !group.is_empty() {
                causes.push(unsupported(&group_field, group, &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                causes.push(required(&format!("{field}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                causes.push(unsupported(&group_field, group, &[GROUP]));
            }
        }
        other => causes.push(unsupported(
            &format!("{field}.kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
}

/// Refuses to write rights that go beyond the user's own.
pub fn confirm(core: &Core, request: &Request, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let user = &request.user;
    if request.resource.behaviour != Behaviour::Policy || user.is_master() {
        return Ok(());
    }
    if old.is_some_and(|old| is_garbage_collection(object, old)) {
        return Ok(());
    }
    let may = |verb: &str, resource: &str, name: &str| {
        let attributes = Attributes::resource(verb, GROUP, resource, &request.namespace, name);
        core.access.authorize(&core.store, user, &attributes).allowed
    };
    let held = || core.access.rules_for(&core.store, user, &request.namespace);
    let name = metadata_text(object, "name");
    let refuse = |why: String| ApiError::forbidden(request.subject(name), &why);
    match request.resource.kind.as_str() {
        "Role" | "ClusterRole" => {
            if may("escalate", &request.resource.plural, &request.name) {
                return Ok(());
            }
            let held = held();
            confirm_no_escalation(user, &held, &rules(object)).map_err(refuse)?;
            // An aggregating role may gather anything.
            if aggregates(object) || old.is_some_and(aggregates) {
                everything(user, &held)
                    .map_err(|_| refuse("must have cluster-admin privileges to use the aggregationRule".to_owned()))?;
            }
            Ok(())
        }
        _ => {
            let reference = &object["roleRef"];
            let (kind, role) = (text(reference, "kind"), text(reference, "name"));
            let resource = match kind {
                "ClusterRole" => "clusterroles",
                "Role" => "roles",
                _ => "",
            };
            if !resource.is_empty() && may("bind", resource, role) {
                return Ok(());
            }
            let granted = core
                .access
                .rules_of(&core.store, kind, role, &request.namespace)
                .map_err(|missing| match missing {
                    // The real server speaks of the role as if it were the binding.
                    MissingRole::NotFound { name, .. } => ApiError::not_found(request.subject(&name)),
                    MissingRole::Unsupported(_) => ApiError::unclassified(missing.to_string()),
                })?;
            confirm_no_escalation(user, &held(), &granted).map_err(refuse)
        }
    }
}

fn rules(object: &Value) -> Vec<Rule> {
    serde_json::from_value(object["rules"].clone()).unwrap_or_default()
}

fn aggregates(role: &Value) -> bool {
    !list(&role["aggregationRule"], "clusterRoleSelectors").is_empty()
}

fn everything(user: &crate::access::User, held: &Rules) -> Result<(), String> {
    let all = || vec!["*".to_owned()];
    let rules = [
        Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        },
    ];
    confirm_no_escalation(user, held, &rules)
}

/// Whether a write changes only what the garbage collector must be able to change.
fn is_garbage_collection(object: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in [
            "ownerReferences",
            "finalizers",
            "selfLink",
            "managedFields",
            "resourceVersion",
        ] {
            set_metadata(&mut object, field, None);
        }
        object
    };
    rest(object) == rest(old)
}
