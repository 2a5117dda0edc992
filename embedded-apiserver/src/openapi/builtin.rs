//! The schemas of the built-in kinds, from the Kubernetes API types, completed by what those leave out.
//!
//! For: one set of definitions that validation, field ownership, patches and the OpenAPI documents share. Not for:
//! which kinds are served.

use super::merge_keys::{ATOMIC_FIELDS, ATOMIC_MAPS, LISTS};
use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// A built-in kind that objects can have.
pub(super) struct Kind {
    pub(super) api_version: &'static str,
    pub(super) name: &'static str,
    /// The name of its definition, such as `io.k8s.api.core.v1.Secret`.
    pub(super) definition: &'static str,
}

macro_rules! kinds {
    ($generator:ident; $($api_version:literal $kind:literal $definition:literal: $type:ty;)*) => {
        /// All built-in kinds.
        pub(super) const KINDS: &[Kind] =
            &[$(Kind { api_version: $api_version, name: $kind, definition: $definition }),*];

        fn generate($generator: &mut SchemaGenerator) {
            $($generator.subschema_for::<$type>();)*
        }
    };
}

kinds! { generator;
    "v1" "Namespace" "io.k8s.api.core.v1.Namespace": api::core::v1::Namespace;
    "v1" "Secret" "io.k8s.api.core.v1.Secret": api::core::v1::Secret;
    "v1" "ConfigMap" "io.k8s.api.core.v1.ConfigMap": api::core::v1::ConfigMap;
    "v1" "ServiceAccount" "io.k8s.api.core.v1.ServiceAccount": api::core::v1::ServiceAccount;
    "v1" "Event" "io.k8s.api.core.v1.Event": api::core::v1::Event;
    "v1" "Node" "io.k8s.api.core.v1.Node": api::core::v1::Node;
    "v1" "Pod" "io.k8s.api.core.v1.Pod": api::core::v1::Pod;
    "v1" "Service" "io.k8s.api.core.v1.Service": api::core::v1::Service;
    "events.k8s.io/v1" "Event" "io.k8s.api.events.v1.Event": api::events::v1::Event;
    "coordination.k8s.io/v1" "Lease" "io.k8s.api.coordination.v1.Lease": api::coordination::v1::Lease;
    "policy/v1" "PodDisruptionBudget" "io.k8s.api.policy.v1.PodDisruptionBudget": api::policy::v1::PodDisruptionBudget;
    "policy/v1" "Eviction" "io.k8s.api.policy.v1.Eviction": api::policy::v1::Eviction;
    "apps/v1" "DaemonSet" "io.k8s.api.apps.v1.DaemonSet": api::apps::v1::DaemonSet;
    "apps/v1" "Deployment" "io.k8s.api.apps.v1.Deployment": api::apps::v1::Deployment;
    "autoscaling/v1" "Scale" "io.k8s.api.autoscaling.v1.Scale": api::autoscaling::v1::Scale;
    "rbac.authorization.k8s.io/v1" "Role" "io.k8s.api.rbac.v1.Role": api::rbac::v1::Role;
    "rbac.authorization.k8s.io/v1" "RoleBinding" "io.k8s.api.rbac.v1.RoleBinding": api::rbac::v1::RoleBinding;
    "rbac.authorization.k8s.io/v1" "ClusterRole" "io.k8s.api.rbac.v1.ClusterRole": api::rbac::v1::ClusterRole;
    "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "io.k8s.api.rbac.v1.ClusterRoleBinding":
        api::rbac::v1::ClusterRoleBinding;
    "apiextensions.k8s.io/v1" "CustomResourceDefinition"
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition": CustomResourceDefinition;
    "authorization.k8s.io/v1" "SelfSubjectAccessReview" "io.k8s.api.authorization.v1.SelfSubjectAccessReview":
        api::authorization::v1::SelfSubjectAccessReview;
    "authorization.k8s.io/v1" "SubjectAccessReview" "io.k8s.api.authorization.v1.SubjectAccessReview":
        api::authorization::v1::SubjectAccessReview;
    "authorization.k8s.io/v1" "LocalSubjectAccessReview" "io.k8s.api.authorization.v1.LocalSubjectAccessReview":
        api::authorization::v1::LocalSubjectAccessReview;
    "authorization.k8s.io/v1" "SelfSubjectRulesReview" "io.k8s.api.authorization.v1.SelfSubjectRulesReview":
        api::authorization::v1::SelfSubjectRulesReview;
    "authentication.k8s.io/v1" "SelfSubjectReview" "io.k8s.api.authentication.v1.SelfSubjectReview":
        api::authentication::v1::SelfSubjectReview;
    "authentication.k8s.io/v1" "TokenReview" "io.k8s.api.authentication.v1.TokenReview":
        api::authentication::v1::TokenReview;
    "authentication.k8s.io/v1" "TokenRequest" "io.k8s.api.authentication.v1.TokenRequest":
        api::authentication::v1::TokenRequest;
}

/// The prefix of references between definitions here.
pub(super) const REFERENCE: &str = "#/definitions/";

/// The name of the metadata definition.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The name of the list metadata definition.
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// All definitions by name.
pub(super) static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut settings = schemars::generate::SchemaSettings::draft07();
    settings.definitions_path = "/definitions".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    generate(&mut generator);
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::APIResourceList>();
    generator.subschema_for::<meta::APIGroup>();
    generator.subschema_for::<meta::WatchEvent<Value>>();
    generator.subschema_for::<meta::Patch>();
    let mut definitions = generator.take_definitions(true);
    complete(&mut definitions);
    definitions
});

static OBJECT_META_SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = DEFINITIONS.get(OBJECT_META).cloned().unwrap_or_default();
    inline(&mut schema, 0);
    schema
});

/// The schema of `metadata`, without references.
pub(crate) fn object_meta_schema() -> &'static Value {
    &OBJECT_META_SCHEMA
}

/// The schema of a built-in kind, in the form of a CRD's `openAPIV3Schema` with list-map keys and merge keys filled in;
/// references point to its `definitions`.
pub fn builtin_schema(api_version: &str, kind: &str) -> Option<Value> {
    let kind = KINDS
        .iter()
        .find(|known| known.api_version == api_version && known.name == kind)?;
    let mut schema = DEFINITIONS.get(kind.definition)?.clone();
    let mut needed = Map::new();
    collect(&schema, &mut needed);
    if let Value::Object(schema) = &mut schema {
        schema.insert("definitions".to_owned(), Value::Object(needed));
    }
    Some(schema)
}

/// Adds the definitions that a schema refers to, and those that these refer to.
pub(super) fn collect(schema: &Value, needed: &mut Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix(REFERENCE))
                && !needed.contains_key(name)
                && let Some(definition) = DEFINITIONS.get(name)
            {
                needed.insert(name.to_owned(), definition.clone());
                collect(definition, needed);
            }
            map.values().for_each(|value| collect(value, needed));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, needed)),
        _ => {}
    }
}

/// Replaces references by what they refer to; for definitions that are not recursive.
fn inline(schema: &mut Value, depth: usize) {
    if depth > 16 {
        return;
    }
    match schema {
        Value::Object(map) => {
            let target = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix(REFERENCE))
                .and_then(|name| DEFINITIONS.get(name));
            if let Some(Value::Object(target)) = target {
                let mut target = target.clone();
                if let Some(description) = map.get("description") {
                    target.insert("description".to_owned(), description.clone());
                }
                *map = target;
            }
            map.values_mut().for_each(|value| inline(value, depth + 1));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| inline(value, depth + 1)),
        _ => {}
    }
}

/// Adds what the API types do not carry: how lists merge, which structures are atomic, what may hold anything.
fn complete(definitions: &mut Map<String, Value>) {
    for list in LISTS {
        let Some(property) = definitions
            .get_mut(list.definition)
            .and_then(|definition| definition.get_mut("properties"))
            .and_then(|properties| properties.get_mut(list.property))
            .and_then(Value::as_object_mut)
        else {
            continue;
        };
        property.insert("x-kubernetes-list-type".to_owned(), json!(list.kind));
        if !list.keys.is_empty() {
            property.insert("x-kubernetes-list-map-keys".to_owned(), json!(list.keys));
        }
        if !list.strategy.is_empty() {
            property.insert("x-kubernetes-patch-strategy".to_owned(), json!(list.strategy));
        }
        if !list.merge_key.is_empty() {
            property.insert("x-kubernetes-patch-merge-key".to_owned(), json!(list.merge_key));
        }
    }
    for (name, field) in ATOMIC_FIELDS {
        if let Some(property) = definitions
            .get_mut(*name)
            .and_then(|definition| definition.get_mut("properties"))
            .and_then(|properties| properties.get_mut(*field))
            .and_then(Value::as_object_mut)
        {
            property.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
    }
    for name in ATOMIC_MAPS {
        if let Some(definition) = definitions.get_mut(*name).and_then(Value::as_object_mut) {
            definition.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
    }
    const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
    for name in [
        "JSON",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrStringArray",
    ] {
        if let Some(definition) = definitions
            .get_mut(&format!("{EXTENSIONS}{name}"))
            .and_then(Value::as_object_mut)
        {
            // The API types call it an object, but it holds any JSON.
            definition.remove("type");
            // The real server names no alternatives here, and version 2 knows none.
            definition.remove("oneOf");
        }
    }
    // Without this default, ports that do not name a protocol could not be told apart.
    for name in ["io.k8s.api.core.v1.ContainerPort", "io.k8s.api.core.v1.ServicePort"] {
        if let Some(protocol) = definitions
            .get_mut(name)
            .and_then(|definition| definition.get_mut("properties"))
            .and_then(|properties| properties.get_mut("protocol"))
            .and_then(Value::as_object_mut)
        {
            protocol.insert("default".to_owned(), json!("TCP"));
        }
    }
    for kind in KINDS {
        if let Some(definition) = definitions.get_mut(kind.definition).and_then(Value::as_object_mut) {
            let (group, version) = kind.api_version.split_once('/').unwrap_or(("", kind.api_version));
            definition.insert(
                "x-kubernetes-group-version-kind".to_owned(),
                json!([{"group": group, "kind": kind.name, "version": version}]),
            );
            // The types require metadata, the API does not.
            if let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name != "metadata");
                if required.is_empty() {
                    definition.remove("required");
                }
            }
        }
    }
}
