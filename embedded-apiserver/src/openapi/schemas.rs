//! The schemas of the documents, under the names that the real server gives them.
//!
//! For: `components.schemas` (v3) and `definitions` (v2). Not for: operations.

use super::ResourceInfo;
use super::builtin::{DEFINITIONS, KINDS, LIST_META, OBJECT_META, REFERENCE, collect};
use serde_json::{Map, Value, json};

/// Which OpenAPI version is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// A reference to a schema by its name.
    pub(super) fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A reference with words beside it, which v3 allows only around it.
    fn described(self, name: &str, description: &str) -> Value {
        match self {
            Self::V2 => {
                let mut schema = self.reference(name);
                schema["description"] = json!(description);
                schema
            }
            Self::V3 => json!({"allOf": [self.reference(name)], "default": {}, "description": description}),
        }
    }
}

/// The name of a resource's schema: the API's own, or the reversed group, the version and the kind.
pub(super) fn name_of(resource: &ResourceInfo) -> String {
    name_of_kind(resource, &resource.kind)
}

/// The name of the schema of a resource's list.
pub(super) fn list_name_of(resource: &ResourceInfo) -> String {
    match KINDS
        .iter()
        .find(|kind| resource.schema.is_none() && kind.api_version == resource.api_version())
    {
        Some(known) => {
            let package = known
                .definition
                .rsplit_once('.')
                .map_or(known.definition, |(package, _)| package);
            format!("{package}.{}", resource.list_kind)
        }
        None => name_of_kind(resource, &resource.list_kind),
    }
}

fn name_of_kind(resource: &ResourceInfo, kind: &str) -> String {
    let api_version = resource.api_version();
    if resource.schema.is_none()
        && let Some(known) = KINDS
            .iter()
            .find(|known| known.api_version == api_version && known.name == kind)
    {
        return known.definition.to_owned();
    }
    let mut labels: Vec<&str> = resource.group.split('.').collect();
    labels.reverse();
    format!("{}.{}.{kind}", labels.join("."), resource.version)
}

pub(super) struct Schemas {
    dialect: Dialect,
    written: Map<String, Value>,
    needed: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new(dialect: Dialect) -> Self {
        let mut schemas = Self {
            dialect,
            written: Map::new(),
            needed: Map::new(),
        };
        // What the operations of every resource refer to.
        for name in ["Status", "DeleteOptions", "Patch", "WatchEvent"] {
            schemas.need(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
        }
        schemas
    }

    fn need(&mut self, name: &str) {
        collect(&json!({"$ref": format!("{REFERENCE}{name}")}), &mut self.needed);
    }

    /// Adds what a resource needs.
    pub(super) fn add(&mut self, resource: &ResourceInfo) {
        let name = name_of(resource);
        match &resource.schema {
            Some(schema) => {
                let schema = self.custom(resource, schema);
                self.written.insert(name.clone(), schema);
            }
            None => self.need(&name),
        }
        if resource.verbs.iter().any(|verb| verb == "list") {
            let list = self.list(resource, &name);
            self.written.insert(list_name_of(resource), list);
        }
        if resource.scale {
            self.need("io.k8s.api.autoscaling.v1.Scale");
        }
        if resource.eviction {
            self.need("io.k8s.api.policy.v1.Eviction");
        }
    }

    fn list(&mut self, resource: &ResourceInfo, name: &str) -> Value {
        self.need(LIST_META);
        let kind = json!([{"group": resource.group, "kind": resource.list_kind, "version": resource.version}]);
        json!({
            "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": Self::meta_property("apiVersion"),
                "items": {
                    "description": format!(
                        "List of {}. More info: \
                         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
                        resource.plural
                    ),
                    "type": "array",
                    "items": self.dialect.reference(name),
                },
                "kind": Self::meta_property("kind"),
                "metadata": self.dialect.described(
                    LIST_META,
                    "Standard list metadata. More info: \
                     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                ),
            },
            "x-kubernetes-group-version-kind": kind,
        })
    }

    /// `apiVersion` and `kind` as every object documents them.
    fn meta_property(name: &str) -> Value {
        DEFINITIONS
            .get("io.k8s.api.core.v1.Secret")
            .and_then(|secret| secret["properties"].get(name))
            .cloned()
            .unwrap_or_else(|| json!({"type": "string"}))
    }

    fn custom(&mut self, resource: &ResourceInfo, schema: &Value) -> Value {
        self.need(OBJECT_META);
        let mut schema = schema.clone();
        if self.dialect == Dialect::V2 {
            downgrade(&mut schema);
        }
        let metadata = self.dialect.described(
            OBJECT_META,
            "Standard object's metadata. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        );
        let properties = [
            ("apiVersion", Self::meta_property("apiVersion")),
            ("kind", Self::meta_property("kind")),
            ("metadata", metadata),
        ];
        if let Some(map) = schema.as_object_mut() {
            map.entry("type").or_insert_with(|| json!("object"));
            if let Some(known) = map.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
                for (name, property) in properties {
                    known.insert(name.to_owned(), property);
                }
            }
            let kind = json!([{"group": resource.group, "kind": resource.kind, "version": resource.version}]);
            map.insert("x-kubernetes-group-version-kind".to_owned(), kind);
            if !resource.selectable_fields.is_empty() {
                let fields: Vec<Value> = resource
                    .selectable_fields
                    .iter()
                    .map(|path| json!({"fieldPath": path.trim_start_matches('.')}))
                    .collect();
                map.insert("x-kubernetes-selectable-fields".to_owned(), Value::Array(fields));
            }
        }
        schema
    }

    pub(super) fn finish(mut self) -> Map<String, Value> {
        for (name, mut definition) in self.needed {
            rewrite(&mut definition, self.dialect);
            self.written.entry(name).or_insert(definition);
        }
        self.written
    }
}

/// References and int-or-string in the words of the dialect.
fn rewrite(schema: &mut Value, dialect: Dialect) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|text| text.strip_prefix(REFERENCE))
            {
                let name = name.to_owned();
                let description = map
                    .get("description")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                let replaced = if description.is_empty() {
                    dialect.reference(&name)
                } else {
                    dialect.described(&name, &description)
                };
                // An `allOf` with only a reference becomes the described reference itself.
                if let Value::Object(replaced) = replaced {
                    map.remove("$ref");
                    map.extend(replaced);
                }
                return;
            }
            // The value counts, not the name alone: schemas of schemas have a property of this name.
            if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                map.remove("x-kubernetes-int-or-string");
                match dialect {
                    Dialect::V2 => {
                        map.insert("type".to_owned(), json!("string"));
                        map.insert("format".to_owned(), json!("int-or-string"));
                    }
                    Dialect::V3 => {
                        map.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
                        map.insert("format".to_owned(), json!("int-or-string"));
                    }
                }
            }
            map.values_mut().for_each(|value| rewrite(value, dialect));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rewrite(value, dialect)),
        _ => {}
    }
}

/// v2 knows no junctors and no null; where they matter it says less.
fn downgrade(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for key in ["oneOf", "anyOf", "allOf", "not", "default"] {
        map.remove(key);
    }
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    let preserving = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if nullable || map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        map.remove("type");
    }
    if nullable || preserving {
        for key in ["items", "properties", "additionalProperties", "required"] {
            map.remove(key);
        }
        if preserving {
            map.remove("type");
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(downgrade);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            downgrade(below);
        }
    }
}
