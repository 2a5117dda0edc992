//! Role-based access control, judged over the stored roles and bindings at each request.

use serde_json::Value;

use super::User;
use crate::storage::{Key, Store};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// The verb: `get`, `list`, `create`, …
    pub verb: String,
    /// The API group.
    pub group: String,
    /// The resource; with its subresource as `pods/status`. Empty for a path.
    pub resource: String,
    /// The namespace; empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// The object's name, if one is named.
    pub name: String,
    /// The path, when no resource is asked for.
    pub path: String,
}

const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const ROLES: &str = "roles.rbac.authorization.k8s.io";
const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";

/// Whether the user may do it.
pub fn authorize(store: &Store, user: &User, attributes: &Attributes) -> bool {
    if user.is_master() {
        return true;
    }
    // Everyone may ask about themselves, as the default roles of the real server have it.
    let about_oneself = attributes.verb == "create"
        && matches!(
            attributes.resource.as_str(),
            "selfsubjectaccessreviews" | "selfsubjectrulesreviews" | "selfsubjectreviews"
        );
    if about_oneself && !user.is_anonymous() {
        return true;
    }
    if granted(store, user, attributes, CLUSTER_ROLE_BINDINGS, None) {
        return true;
    }
    // Role bindings grant nothing in other namespaces and no paths.
    !attributes.namespace.is_empty()
        && !attributes.resource.is_empty()
        && granted(store, user, attributes, ROLE_BINDINGS, Some(&attributes.namespace))
}

fn granted(store: &Store, user: &User, attributes: &Attributes, bindings: &str, namespace: Option<&str>) -> bool {
    store
        .list_all(bindings, namespace)
        .iter()
        .filter_map(|(_, stored)| stored.value().ok())
        .any(|binding| {
            array(&binding["subjects"]).any(|subject| subject_is(subject, user, namespace.unwrap_or_default()))
                && role_of(store, &binding, namespace)
                    .is_some_and(|role| array(&role["rules"]).any(|rule| rule_allows(rule, attributes)))
        })
}

fn role_of(store: &Store, binding: &Value, namespace: Option<&str>) -> Option<Value> {
    let name = binding["roleRef"]["name"].as_str()?;
    let key = match binding["roleRef"]["kind"].as_str()? {
        "ClusterRole" => Key::new(&CLUSTER_ROLES.into(), "", name),
        "Role" => Key::new(&ROLES.into(), namespace?, name),
        _ => return None,
    };
    store.get(&key)?.value().ok()
}

fn subject_is(subject: &Value, user: &User, binding_namespace: &str) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(binding_namespace);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn rule_allows(rule: &Value, attributes: &Attributes) -> bool {
    let has = |field: &str, wanted: &str| array(&rule[field]).any(|value| value == "*" || value == wanted);
    if !has("verbs", &attributes.verb) {
        return false;
    }
    if attributes.resource.is_empty() {
        return array(&rule["nonResourceURLs"])
            .filter_map(Value::as_str)
            .any(|pattern| {
                pattern == attributes.path
                    || pattern
                        .strip_suffix('*')
                        .is_some_and(|prefix| attributes.path.starts_with(prefix))
            });
    }
    let subresource = attributes
        .resource
        .split_once('/')
        .map(|(_, subresource)| format!("*/{subresource}"));
    let resource = has("resources", &attributes.resource)
        || subresource.is_some_and(|any| array(&rule["resources"]).any(|value| value == any.as_str()));
    let names = array(&rule["resourceNames"]).count();
    has("apiGroups", &attributes.group)
        && resource
        && (names == 0 || array(&rule["resourceNames"]).any(|name| name == attributes.name.as_str()))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
