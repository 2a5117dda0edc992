//! What the server knows of a resource: names, versions, schemas, subresources, verbs.

use std::sync::Arc;

use serde_json::Value;

use crate::schema::Schema;
use crate::table::Column;

/// A served resource; immutable, replaced as a whole when its definition changes.
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural name, as in URLs.
    pub plural: String,
    /// The singular name.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// The kind of lists.
    pub list_kind: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories for kubectl, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Versions in the order of preference.
    pub versions: Vec<Version>,
    /// The name of the version that objects are stored in.
    pub storage_version: String,
    /// Under which name objects are stored: `PLURAL` or `PLURAL.GROUP`.
    pub storage: Arc<str>,
    /// What is particular to the kind.
    pub behaviour: Behaviour,
    /// For custom resources, where it comes from.
    pub custom: Option<CustomOrigin>,
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Resource")
            .field("group", &self.group)
            .field("plural", &self.plural)
            .finish_non_exhaustive()
    }
}

/// Where a custom resource comes from.
#[derive(Clone, Debug)]
pub struct CustomOrigin {
    /// The UID of its definition.
    pub uid: String,
    /// The generation of its definition.
    pub generation: i64,
    /// Objects written at or before this revision were written under an older definition, and get its defaults on read.
    pub changed_at: u64,
    /// Whether the definition is being deleted: no new objects.
    pub terminating: bool,
    /// Whether objects of another version than the stored one are made by a webhook, which this server does not call.
    pub webhook: bool,
}

/// One version of a resource.
pub struct Version {
    /// The version's name.
    pub name: String,
    /// Whether requests may use it.
    pub served: bool,
    /// The schema; none accepts everything.
    pub schema: Option<Arc<Schema>>,
    /// The schema as it was given, for OpenAPI; none for built-in kinds.
    pub raw_schema: Option<Arc<Value>>,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// The `scale` subresource.
    pub scale: Option<ScalePaths>,
    /// The columns of tables.
    pub columns: Arc<Vec<Column>>,
    /// JSON paths (`.spec.color`) that field selectors may use besides name and namespace.
    pub selectable_fields: Vec<String>,
    /// A warning that every request with this version gets.
    pub deprecation: Option<String>,
}

/// Where a custom resource keeps its replicas.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// The wished number, such as `.spec.replicas`.
    pub spec_replicas: String,
    /// The present number, such as `.status.replicas`.
    pub status_replicas: String,
    /// The selector in text form, such as `.status.selector`.
    pub label_selector: Option<String>,
}

/// The same verbs, in the order in which custom resources list them.
const CUSTOM_VERBS: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// What is particular to a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing.
    Plain,
    /// A custom resource.
    Custom,
    /// Finalization by the server, a phase.
    Namespace,
    /// `stringData`, types, immutability.
    Secret,
    /// Immutability.
    ConfigMap,
    /// A core event.
    Event,
    /// A core event seen as `events.k8s.io/v1`.
    EventView,
    /// Tokens.
    ServiceAccount,
    /// Rights; nobody gives away more than they have.
    Policy,
    /// A phase, evictions.
    Pod,
    /// Generation.
    DaemonSet,
    /// Generation, guards evictions.
    PodDisruptionBudget,
    /// Defines resources.
    CustomResourceDefinition,
    /// Answers a question instead of being stored.
    Review,
}

/// All verbs of stored resources, as discovery lists them.
pub const STORED_VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

impl Resource {
    /// The version of this name, if served.
    pub fn served(&self, version: &str) -> Option<&Version> {
        self.versions.iter().find(|known| known.name == version && known.served)
    }

    /// The `apiVersion` of objects in this version.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// The verbs that it has.
    pub fn verbs(&self) -> &'static [&'static str] {
        match self.behaviour {
            Behaviour::Review => &["create"],
            // Namespaces go one at a time.
            Behaviour::Namespace => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Behaviour::Custom => &CUSTOM_VERBS,
            _ => &STORED_VERBS,
        }
    }

    /// Whether updates of anything but metadata and status count up `metadata.generation`.
    pub fn has_generation(&self) -> bool {
        matches!(
            self.behaviour,
            Behaviour::Custom
                | Behaviour::CustomResourceDefinition
                | Behaviour::DaemonSet
                | Behaviour::PodDisruptionBudget
                | Behaviour::Pod
        )
    }

    /// Whether an update without a resource version replaces whatever is there.
    pub fn allows_unconditional_update(&self) -> bool {
        !matches!(
            self.behaviour,
            Behaviour::Custom | Behaviour::CustomResourceDefinition | Behaviour::PodDisruptionBudget
        ) && self.group != "coordination.k8s.io"
    }

    /// Whether an update of a missing object creates it.
    pub fn allows_create_on_update(&self) -> bool {
        matches!(self.behaviour, Behaviour::Event | Behaviour::EventView)
            || matches!(self.group.as_str(), "coordination.k8s.io" | "rbac.authorization.k8s.io")
    }

    /// Whether a deletion answers the object instead of a success `Status`.
    pub fn returns_deleted_object(&self) -> bool {
        self.behaviour == Behaviour::Pod || (self.group.is_empty() && self.plural == "serviceaccounts")
    }

    /// The name that a field has today, in field selectors of old clients.
    pub fn field_alias(&self, field: &str) -> Option<&'static str> {
        match (self.behaviour, field) {
            (Behaviour::Pod, "spec.host") => Some("spec.nodeName"),
            _ => None,
        }
    }

    /// What a field that an object does not have counts as, in field selectors.
    pub fn absent_field(&self, field: &str) -> &'static str {
        match field {
            "spec.unschedulable" | "spec.hostNetwork" if self.custom.is_none() => "false",
            _ => "",
        }
    }

    /// Whether field selectors know no fields but name and namespace, by the rule for kinds without one of their own.
    fn has_general_fields(&self) -> bool {
        self.custom.is_none() && self.versions.iter().all(|version| version.selectable_fields.is_empty())
    }

    /// What the real server says of a field that field selectors may not use.
    pub fn unsupported_field(&self, field: &str) -> String {
        if self.has_general_fields() {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        } else {
            format!("field label not supported: {field}")
        }
    }

    /// Field paths that field selectors may use.
    pub fn supports_field(&self, version: &Version, field: &str) -> bool {
        field == "metadata.name"
            || (field == "metadata.namespace" && (self.namespaced || self.has_general_fields()))
            || version
                .selectable_fields
                .iter()
                .any(|path| path.trim_start_matches('.') == field)
    }
}
