//! The stored roles and bindings, read: kept until one of them changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::storage::{Key, ObjectName, Store};

/// Under which name cluster roles are stored.
pub const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const ROLES: &str = "roles.rbac.authorization.k8s.io";
const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";

/// Whether objects that are stored under this name say who may do what.
fn is_policy(resource: &str) -> bool {
    resource.ends_with(".rbac.authorization.k8s.io")
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// What may be done.
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
    /// In which API groups.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// To which resources.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// To which objects; none are all.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// To which paths.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    #[serde(deserialize_with = "nullable")]
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subject {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RoleReference {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Binding {
    pub(super) role_ref: RoleReference,
    #[serde(deserialize_with = "nullable")]
    pub(super) subjects: Vec<Subject>,
}

/// What aggregation needs to know of a cluster role.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterRole {
    /// Its metadata.
    #[serde(deserialize_with = "nullable")]
    pub metadata: Labelled,
    /// Its rules.
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<Rule>,
    /// Which other roles it takes its rules from.
    #[serde(deserialize_with = "nullable")]
    pub aggregation_rule: Option<Aggregation>,
}

/// Name and labels.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Labelled {
    /// The name.
    pub name: String,
    /// The labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

/// Which roles a cluster role takes its rules from.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Aggregation {
    /// The label selectors.
    #[serde(deserialize_with = "nullable")]
    pub cluster_role_selectors: Vec<serde_json::Value>,
}

#[derive(Debug)]
struct Read<T> {
    revision: u64,
    value: Arc<T>,
}

/// A binding with its name.
type NamedBinding = (Arc<str>, Arc<Binding>);

type Kind<T> = BTreeMap<ObjectName, Read<T>>;

/// All roles and bindings at one moment.
#[derive(Debug, Default)]
pub(super) struct Policy {
    cluster_roles: Kind<Role>,
    roles: Kind<Role>,
    cluster_bindings: Kind<Binding>,
    /// By namespace.
    bindings: HashMap<Arc<str>, Vec<NamedBinding>>,
    read_bindings: Kind<Binding>,
}

impl Policy {
    /// Reads what is stored; what `old` has read of it is taken from there.
    fn read(store: &Store, old: &Self) -> Self {
        let read_bindings = read_kind(store, ROLE_BINDINGS, &old.read_bindings);
        let mut bindings: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for (name, binding) in &read_bindings {
            let list = bindings.entry(Arc::clone(&name.namespace)).or_default();
            list.push((Arc::clone(&name.name), Arc::clone(&binding.value)));
        }
        Self {
            cluster_roles: read_kind(store, CLUSTER_ROLES, &old.cluster_roles),
            roles: read_kind(store, ROLES, &old.roles),
            cluster_bindings: read_kind(store, CLUSTER_ROLE_BINDINGS, &old.cluster_bindings),
            bindings,
            read_bindings,
        }
    }

    pub(super) fn cluster_bindings(&self) -> impl Iterator<Item = (&str, &Binding)> {
        self.cluster_bindings
            .iter()
            .map(|(name, binding)| (name.name.as_ref(), binding.value.as_ref()))
    }

    pub(super) fn bindings(&self, namespace: &str) -> impl Iterator<Item = (&str, &Binding)> {
        self.bindings
            .get(namespace)
            .into_iter()
            .flatten()
            .map(|(name, binding)| (name.as_ref(), binding.as_ref()))
    }

    /// The rules of the role that a binding in this namespace names.
    pub(super) fn rules(&self, reference: &RoleReference, namespace: &str) -> Result<&[Rule], MissingRole> {
        let found = match reference.kind.as_str() {
            "Role" => self.roles.get(&ObjectName::new(namespace, &reference.name)),
            "ClusterRole" => self.cluster_roles.get(&ObjectName::new("", &reference.name)),
            kind => return Err(MissingRole::Unsupported(kind.to_owned())),
        };
        match found {
            Some(role) => Ok(&role.value.rules),
            None => Err(MissingRole::NotFound {
                resource: reference.kind.to_lowercase(),
                name: reference.name.clone(),
            }),
        }
    }
}

/// Why the role that a binding names gives no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingRole {
    /// There is none of that name.
    #[error("{resource}.rbac.authorization.k8s.io {name:?} not found")]
    NotFound {
        /// `role` or `clusterrole`.
        resource: String,
        /// The name.
        name: String,
    },
    /// The kind is no role.
    #[error("unsupported role reference kind: {0:?}")]
    Unsupported(String),
}

fn read_kind<T: DeserializeOwned>(store: &Store, resource: &str, old: &Kind<T>) -> Kind<T> {
    let mut kind = Kind::new();
    for (name, stored) in store.list_all(resource, None) {
        let value = match old.get(&name).filter(|read| read.revision == stored.revision) {
            Some(read) => Arc::clone(&read.value),
            None => match serde_json::from_slice(&stored.bytes) {
                Ok(value) => Arc::new(value),
                Err(error) => {
                    // Grants nothing.
                    tracing::error!(resource, name = %name.name, %error, "unable to read a stored role or binding");
                    continue;
                }
            },
        };
        let revision = stored.revision;
        kind.insert(name, Read { revision, value });
    }
    kind
}

/// The present policy, read again after roles or bindings have changed.
#[derive(Debug, Default)]
pub(super) struct Policies {
    stale: AtomicBool,
    current: Mutex<Option<Arc<Policy>>>,
}

impl Policies {
    /// Takes in a write, in the same instant as it becomes visible.
    pub(super) fn observe(&self, key: &Key) {
        if is_policy(&key.resource) {
            self.stale.store(true, Ordering::Release);
        }
    }

    /// What is stored now.
    pub(super) fn current(&self, store: &Store) -> Arc<Policy> {
        // Whoever comes while it is read again waits for that: their own write may be why.
        let mut current = self.current.lock();
        let stale = self.stale.swap(false, Ordering::AcqRel);
        match &*current {
            Some(policy) if !stale => Arc::clone(policy),
            old => {
                let empty = Policy::default();
                let policy = Arc::new(Policy::read(store, old.as_deref().unwrap_or(&empty)));
                *current = Some(Arc::clone(&policy));
                policy
            }
        }
    }
}
