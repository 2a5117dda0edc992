//! OpenAPI v3 (per group-version) and v2 documents, and the schemas of the built-in kinds.
//!
//! For: what kubectl's validation, `kubectl explain` and openapi-driven tools read. Not for: serving or caching them.

mod builtin;
mod merge_keys;
mod operations;
mod protobuf;
mod schemas;
#[cfg(test)]
mod tests;

pub use builtin::builtin_schema;
pub(crate) use builtin::object_meta_schema;
pub use protobuf::v2_protobuf;

use schemas::{Dialect, Schemas};
use serde_json::{Map, Value, json};

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

impl ResourceInfo {
    /// `group/version`, or only the version for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the group-version: `/api/v1` or `/apis/GROUP/VERSION`.
    fn base_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }
}

/// The OpenAPI v3 document of one group-version (`/openapi/v3/apis/GROUP/VERSION`, `/openapi/v3/api/v1`).
///
/// Resources of other group-versions in the list are left out.
pub fn v3_document(group: &str, version: &str, resources: &[ResourceInfo]) -> Value {
    let served: Vec<&ResourceInfo> = resources
        .iter()
        .filter(|resource| resource.group == group && resource.version == version)
        .collect();
    let custom = served.iter().any(|resource| resource.schema.is_some());
    let (paths, schemas) = build(&served, Dialect::V3);
    let mut components = json!({ "schemas": schemas });
    if !custom {
        components["securitySchemes"] = json!({"BearerToken": bearer_token()});
    }
    json!({
        "openapi": "3.0.0",
        "info": information(custom),
        "paths": paths,
        "components": components,
    })
}

/// The OpenAPI v2 document of everything (`/openapi/v2`).
pub fn v2_document(resources: &[ResourceInfo]) -> Value {
    let served: Vec<&ResourceInfo> = resources.iter().collect();
    let (paths, definitions) = build(&served, Dialect::V2);
    json!({
        "swagger": "2.0",
        "info": information(false),
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

fn build(resources: &[&ResourceInfo], dialect: Dialect) -> (Map<String, Value>, Map<String, Value>) {
    let custom = !resources.is_empty() && resources.iter().all(|resource| resource.schema.is_some());
    let mut schemas = Schemas::new(dialect, custom);
    let mut paths = Map::new();
    for resource in resources {
        schemas.add(resource);
        operations::add_paths(resource, dialect, &mut paths);
    }
    (paths, schemas.finish())
}

fn information(custom: bool) -> Value {
    if custom {
        json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"})
    } else {
        json!({"title": "Kubernetes", "version": "1.34"})
    }
}

fn bearer_token() -> Value {
    json!({
        "type": "apiKey",
        "description": "Bearer Token authentication",
        "name": "authorization",
        "in": "header",
    })
}
