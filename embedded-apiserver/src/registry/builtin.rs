//! The built-in kinds, as a table.

use std::sync::Arc;

use super::definition::{Behaviour, Resource, Version};
use crate::schema::Schema;
use crate::table;

struct Row {
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    behaviour: Behaviour,
    selectable_fields: &'static [&'static str],
}

const fn row(
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
    behaviour: Behaviour,
) -> Row {
    Row {
        group,
        plural,
        singular,
        kind,
        short_names: &[],
        categories: &[],
        namespaced,
        status: false,
        behaviour,
        selectable_fields: &[],
    }
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const EVENT_VIEW_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];
const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

const RBAC: &str = "rbac.authorization.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

const ROWS: &[Row] = &[
    row("", "configmaps", "configmap", "ConfigMap", true, Behaviour::ConfigMap).short(&["cm"]),
    row("", "events", "event", "Event", true, Behaviour::Event)
        .short(&["ev"])
        .select(EVENT_FIELDS),
    row("", "namespaces", "namespace", "Namespace", false, Behaviour::Namespace)
        .short(&["ns"])
        .status()
        .select(&["status.phase"]),
    row("", "nodes", "node", "Node", false, Behaviour::Plain)
        .short(&["no"])
        .status()
        .select(&["spec.unschedulable"]),
    row("", "pods", "pod", "Pod", true, Behaviour::Pod)
        .short(&["po"])
        .categories(&["all"])
        .status()
        .select(POD_FIELDS),
    row("", "secrets", "secret", "Secret", true, Behaviour::Secret).select(&["type"]),
    row(
        "",
        "serviceaccounts",
        "serviceaccount",
        "ServiceAccount",
        true,
        Behaviour::ServiceAccount,
    )
    .short(&["sa"]),
    row("events.k8s.io", "events", "event", "Event", true, Behaviour::EventView)
        .short(&["ev"])
        .select(EVENT_VIEW_FIELDS),
    row(
        AUTHENTICATION,
        "selfsubjectreviews",
        "selfsubjectreview",
        "SelfSubjectReview",
        false,
        Behaviour::Review,
    ),
    row(
        AUTHENTICATION,
        "tokenreviews",
        "tokenreview",
        "TokenReview",
        false,
        Behaviour::Review,
    ),
    row(
        AUTHORIZATION,
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        "LocalSubjectAccessReview",
        true,
        Behaviour::Review,
    ),
    row(
        AUTHORIZATION,
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
        false,
        Behaviour::Review,
    ),
    row(
        AUTHORIZATION,
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        "SelfSubjectRulesReview",
        false,
        Behaviour::Review,
    ),
    row(
        AUTHORIZATION,
        "subjectaccessreviews",
        "subjectaccessreview",
        "SubjectAccessReview",
        false,
        Behaviour::Review,
    ),
    row(
        "policy",
        "poddisruptionbudgets",
        "poddisruptionbudget",
        "PodDisruptionBudget",
        true,
        Behaviour::PodDisruptionBudget,
    )
    .short(&["pdb"])
    .status(),
    row(
        RBAC,
        "clusterrolebindings",
        "clusterrolebinding",
        "ClusterRoleBinding",
        false,
        Behaviour::Policy,
    ),
    row(
        RBAC,
        "clusterroles",
        "clusterrole",
        "ClusterRole",
        false,
        Behaviour::Policy,
    ),
    row(
        RBAC,
        "rolebindings",
        "rolebinding",
        "RoleBinding",
        true,
        Behaviour::Policy,
    ),
    row(RBAC, "roles", "role", "Role", true, Behaviour::Policy),
    row(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "customresourcedefinition",
        "CustomResourceDefinition",
        false,
        Behaviour::CustomResourceDefinition,
    )
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .status(),
    row(
        "coordination.k8s.io",
        "leases",
        "lease",
        "Lease",
        true,
        Behaviour::Plain,
    ),
    row(
        "apps",
        "daemonsets",
        "daemonset",
        "DaemonSet",
        true,
        Behaviour::DaemonSet,
    )
    .short(&["ds"])
    .categories(&["all"])
    .status(),
];

impl Row {
    const fn short(mut self, short_names: &'static [&'static str]) -> Self {
        self.short_names = short_names;
        self
    }

    const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    const fn status(mut self) -> Self {
        self.status = true;
        self
    }

    const fn select(mut self, fields: &'static [&'static str]) -> Self {
        self.selectable_fields = fields;
        self
    }

    fn resource(&self) -> Resource {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let api_version = if self.group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{}/v1", self.group)
        };
        // Both kinds of event are the same objects.
        let storage = match self.behaviour {
            Behaviour::EventView => "events".to_owned(),
            _ => super::storage_name(self.group, self.plural),
        };
        Resource {
            group: self.group.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.singular.to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            short_names: texts(self.short_names),
            categories: texts(self.categories),
            namespaced: self.namespaced,
            versions: vec![Version {
                name: "v1".to_owned(),
                served: true,
                schema: Schema::builtin(&api_version, self.kind),
                raw_schema: None,
                status: self.status,
                scale: None,
                columns: Arc::new(table::default_columns(self.kind)),
                selectable_fields: texts(self.selectable_fields),
                deprecation: None,
            }],
            storage_version: "v1".to_owned(),
            storage: storage.into(),
            behaviour: self.behaviour,
            custom: None,
        }
    }
}

/// Whether a built-in group has a kind.
pub fn is_built_in_kind(group: &str, kind: &str) -> bool {
    ROWS.iter().any(|row| row.group == group && row.kind == kind)
}

/// All built-in resources, in the order of discovery.
pub(super) fn resources() -> Vec<Resource> {
    ROWS.iter().map(Row::resource).collect()
}
