//! OpenAPI v3 (per group-version) and v2 documents, and the schemas of the built-in kinds.
//!
//! For: what kubectl's validation, `kubectl explain` and openapi-driven tools read. Not for: serving or caching them.

mod builtin;
mod merge_keys;

pub use builtin::builtin_schema;
pub(crate) use builtin::object_meta_schema;

use serde_json::{Value, json};

/// A served resource of one group-version, as the documents need it.
#[derive(Debug, Clone, Default)]
pub struct ResourceInfo {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version, such as `v1alpha1`.
    pub version: String,
    /// The kind, such as `Machine`.
    pub kind: String,
    /// The kind of its list, such as `MachineList`.
    pub list_kind: String,
    /// The plural resource name, such as `machines`.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The verbs as in discovery: `create`, `get`, `list`, `watch`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// Whether there is a `scale` subresource.
    pub scale: bool,
    /// Whether there is an `eviction` subresource.
    pub eviction: bool,
    /// The schema: a CRD's `openAPIV3Schema`; `None` for built-in kinds, which know theirs.
    pub schema: Option<Value>,
    /// A CRD's `selectableFields` JSON paths (`.spec.color`).
    pub selectable_fields: Vec<String>,
}

/// The OpenAPI v3 document of one group-version (`/openapi/v3/apis/GROUP/VERSION`, `/openapi/v3/api/v1`).
pub fn v3_document(group: &str, version: &str, resources: &[ResourceInfo]) -> Value {
    let _ = (group, version, resources);
    json!({"openapi": "3.0.0"})
}

/// The OpenAPI v2 document of everything (`/openapi/v2`).
pub fn v2_document(resources: &[ResourceInfo]) -> Value {
    let _ = resources;
    json!({"swagger": "2.0"})
}

