//! Role-based access control: which rules apply to a user, and what they allow. Pure.
//!
//! The rules are those of the real server's `plugin/pkg/auth/authorizer/rbac`; so are the reasons that reviews give.

use super::policy::{Binding, MissingRole, Policy, Rule, Subject};
use super::{Attributes, User, together};

/// Whether a request is allowed, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is.
    pub allowed: bool,
    /// Why it is, or what stood in the way of a better answer; often empty.
    pub reason: String,
}

/// The rules that apply to a user.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Which bindings could not be followed.
    pub errors: Vec<String>,
}

pub(super) fn authorize(policy: &Policy, user: &User, attributes: &Attributes) -> Decision {
    let mut errors = Vec::new();
    let mut reason = None;
    visit(policy, user, &attributes.namespace, |found| {
        match found {
            Ok((source, rules)) => {
                if rules.iter().any(|rule| allows(rule, attributes)) {
                    reason = Some(format!("RBAC: allowed by {source}"));
                }
            }
            Err(error) => errors.push(error.to_string()),
        }
        reason.is_none()
    });
    match reason {
        Some(reason) => Decision { allowed: true, reason },
        None if errors.is_empty() => Decision::default(),
        None => Decision {
            allowed: false,
            reason: format!("RBAC: {}", together(&errors)),
        },
    }
}

pub(super) fn rules_for(policy: &Policy, user: &User, namespace: &str) -> Rules {
    let mut all = Rules::default();
    visit(policy, user, namespace, |found| {
        match found {
            Ok((_, rules)) => all.rules.extend_from_slice(rules),
            Err(error) => all.errors.push(error.to_string()),
        }
        true
    });
    all
}

/// Where rules come from, for the reason.
struct Source<'a> {
    binding: &'a Binding,
    subject: &'a Subject,
    name: &'a str,
    /// Empty for a cluster role binding.
    namespace: &'a str,
}

impl std::fmt::Display for Source<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = &self.binding.role_ref;
        if self.namespace.is_empty() {
            write!(formatter, "ClusterRoleBinding {:?}", self.name)?;
        } else {
            write!(
                formatter,
                "RoleBinding {:?}",
                format!("{}/{}", self.name, self.namespace)
            )?;
        }
        write!(formatter, " of {} {:?} to {} ", role.kind, role.name, self.subject.kind)?;
        if self.subject.kind == "ServiceAccount" {
            let namespace = if self.subject.namespace.is_empty() {
                self.namespace
            } else {
                &self.subject.namespace
            };
            write!(formatter, "{:?}", format!("{}/{namespace}", self.subject.name))
        } else {
            write!(formatter, "{:?}", self.subject.name)
        }
    }
}

/// Shows the rules that apply in a namespace (or, with none, in the whole cluster), binding by binding, until told to
/// stop.
fn visit<'a>(
    policy: &'a Policy,
    user: &User,
    namespace: &'a str,
    mut show: impl FnMut(Result<(Source<'a>, &'a [Rule]), MissingRole>) -> bool,
) {
    let mut bindings = |bindings: &mut dyn Iterator<Item = (&'a str, &'a Binding)>, namespace: &'a str| {
        for (name, binding) in bindings {
            let subject = binding
                .subjects
                .iter()
                .find(|subject| applies(subject, user, namespace));
            let Some(subject) = subject else { continue };
            let source = Source {
                binding,
                subject,
                name,
                namespace,
            };
            let found = policy.rules(&binding.role_ref, namespace).map(|rules| (source, rules));
            if !show(found) {
                return false;
            }
        }
        true
    };
    if bindings(&mut policy.cluster_bindings(), "") && !namespace.is_empty() {
        bindings(&mut policy.bindings(namespace), namespace);
    }
}

fn applies(subject: &Subject, user: &User, namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() {
                namespace
            } else {
                &subject.namespace
            };
            let account = user.name.strip_prefix(super::account_token::USER_PREFIX);
            let account = account.and_then(|rest| rest.strip_prefix(namespace)?.strip_prefix(':'));
            !namespace.is_empty() && account == Some(subject.name.as_str())
        }
        _ => false,
    }
}

fn allows(rule: &Rule, attributes: &Attributes) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|value| value == "*" || value == wanted);
    if !has(&rule.verbs, &attributes.verb) {
        return false;
    }
    if !attributes.is_resource {
        return rule
            .non_resource_urls
            .iter()
            .any(|pattern| covers_path(pattern, &attributes.path));
    }
    let any = |resource: &String| {
        !attributes.subresource.is_empty() && resource.strip_prefix("*/") == Some(attributes.subresource.as_str())
    };
    has(&rule.api_groups, &attributes.group)
        && (has(&rule.resources, &attributes.combined()) || rule.resources.iter().any(any))
        && (rule.resource_names.is_empty() || rule.resource_names.contains(&attributes.name))
}

/// Whether a path, which may end in `*`, covers another.
pub(super) fn covers_path(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn rule(value: serde_json::Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[rstest]
    #[case(json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }), "pods", "", "a", true)]
    #[case(json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }), "pods", "", "a", false)]
    #[case(json!({ "apiGroups": ["apps"], "resources": ["pods"], "verbs": ["get"] }), "pods", "", "a", false)]
    #[case(json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }), "pods", "log", "a", true)]
    #[case(json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }), "pods", "log", "a", false)]
    #[case(json!({ "apiGroups": [""], "resources": ["*/log"], "verbs": ["get"] }), "pods", "log", "a", true)]
    #[case(json!({ "apiGroups": [""], "resources": ["*/log"], "verbs": ["get"] }), "pods", "", "a", false)]
    #[case(json!({ "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"] }), "pods", "", "a", true)]
    #[case(json!({ "apiGroups": [""], "resources": ["pods"], "resourceNames": ["b"], "verbs": ["get"] }), "pods", "", "a", false)]
    #[case(json!({ "nonResourceURLs": ["*"], "verbs": ["*"] }), "pods", "", "a", false)]
    fn resources(
        #[case] value: serde_json::Value,
        #[case] resource: &str,
        #[case] subresource: &str,
        #[case] name: &str,
        #[case] allowed: bool,
    ) {
        let mut attributes = Attributes::resource("get", "", resource, "n", name);
        subresource.clone_into(&mut attributes.subresource);
        assert_eq!(allows(&rule(value), &attributes), allowed);
    }

    #[rstest]
    #[case("/healthz", "/healthz", true)]
    #[case("/healthz", "/healthz/ping", false)]
    #[case("/healthz/*", "/healthz/ping", true)]
    #[case("/healthz/*", "/healthz", false)]
    #[case("*", "/anything", true)]
    fn paths(#[case] pattern: &str, #[case] path: &str, #[case] allowed: bool) {
        let rule = rule(json!({ "nonResourceURLs": [pattern], "verbs": ["get"] }));
        assert_eq!(allows(&rule, &Attributes::path("get", path)), allowed);
        assert!(!allows(&rule, &Attributes::path("post", path)));
    }

    #[rstest]
    #[case(json!({ "kind": "User", "name": "u" }), true)]
    #[case(json!({ "kind": "User", "name": "g" }), false)]
    #[case(json!({ "kind": "Group", "name": "g" }), true)]
    #[case(json!({ "kind": "ServiceAccount", "name": "u", "namespace": "n" }), false)]
    fn subjects(#[case] subject: serde_json::Value, #[case] expected: bool) {
        let subject: Subject = serde_json::from_value(subject).unwrap();
        let user = User::authenticated("u", vec!["g".to_owned()]);
        assert_eq!(applies(&subject, &user, "n"), expected);
    }

    #[test]
    fn a_service_account_is_of_its_own_namespace_or_of_the_bindings() {
        let user = User::authenticated("system:serviceaccount:n:a", Vec::new());
        let subject = |namespace: &str| Subject {
            kind: "ServiceAccount".to_owned(),
            name: "a".to_owned(),
            namespace: namespace.to_owned(),
        };
        assert!(applies(&subject("n"), &user, ""));
        assert!(applies(&subject(""), &user, "n"));
        assert!(!applies(&subject(""), &user, ""));
        assert!(!applies(&subject("m"), &user, "n"));
    }
}
