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
    fn beside(self, name: &str, description: &str) -> Value {
        match self {
            Self::V2 => {
                let mut schema = self.reference(name);
                schema["description"] = json!(description);
                schema
            }
            Self::V3 => json!({"allOf": [self.reference(name)], "description": description}),
        }
    }

    /// The same, of a Go structure that is always there: v3 says that it is empty by default.
    fn described(self, name: &str, description: &str) -> Value {
        let mut schema = self.beside(name, description);
        if self == Self::V3 {
            schema["default"] = json!({});
        }
        schema
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
    /// `custom` is for documents of custom resources alone, which leave out what only watches need.
    pub(super) fn new(dialect: Dialect, custom: bool) -> Self {
        let mut schemas = Self {
            dialect,
            written: Map::new(),
            needed: Map::new(),
        };
        // What the operations of every resource refer to.
        let common = ["Status", "DeleteOptions", "Patch"].into_iter();
        let built_in = ["WatchEvent", "APIResourceList"].into_iter().filter(|_| !custom);
        for name in common.chain(built_in) {
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
        let metadata = "Standard list metadata. More info: \
             https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
        let metadata = match resource.schema {
            Some(_) => self.dialect.beside(LIST_META, metadata),
            None => self.dialect.described(LIST_META, metadata),
        };
        let mut items = self.dialect.reference(name);
        if resource.schema.is_none() && self.dialect == Dialect::V3 {
            items = json!({ "allOf": [items], "default": {} });
        }
        let mut list = json!({
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
                    "items": items,
                },
                "kind": Self::meta_property("kind"),
                "metadata": metadata,
            },
            "x-kubernetes-group-version-kind": kind,
        });
        add_selectable_fields(&mut list, resource);
        list
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
        let kind = json!([{"group": resource.group, "kind": resource.kind, "version": resource.version}]);
        complete_custom(&mut schema, self.dialect);
        if self.dialect == Dialect::V2 {
            if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
                // What may hold anything is not described at all in v2.
                return json!({"type": "object", "x-kubernetes-group-version-kind": kind});
            }
            downgrade(&mut schema);
        }
        let metadata = self.dialect.beside(OBJECT_META, METADATA);
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
            map.insert("x-kubernetes-group-version-kind".to_owned(), kind);
        }
        add_selectable_fields(&mut schema, resource);
        schema
    }

    pub(super) fn finish(mut self) -> Map<String, Value> {
        for (name, mut definition) in self.needed {
            rewrite(&mut definition, self.dialect);
            if self.dialect == Dialect::V3 {
                go_defaults(&name, &mut definition);
            }
            self.written.entry(name).or_insert(definition);
        }
        self.written
    }
}

const METADATA: &str = "Standard object's metadata. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

fn add_selectable_fields(schema: &mut Value, resource: &ResourceInfo) {
    if resource.selectable_fields.is_empty() {
        return;
    }
    let fields: Vec<Value> = resource
        .selectable_fields
        .iter()
        .map(|path| json!({"fieldPath": path.trim_start_matches('.')}))
        .collect();
    schema["x-kubernetes-selectable-fields"] = Value::Array(fields);
}

/// What the real server adds to the schema of a custom resource, at all depths.
fn complete_custom(schema: &mut Value, dialect: Dialect) {
    let Value::Object(map) = schema else { return };
    map.remove("example");
    if dialect == Dialect::V3
        && map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
        && !map.contains_key("anyOf")
        && !map.contains_key("allOf")
    {
        map.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties
            .values_mut()
            .for_each(|below| complete_custom(below, dialect));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            complete_custom(below, dialect);
        }
    }
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        const API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More \
            info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
        const KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: \
            https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
        let added = [
            ("apiVersion", json!({"type": "string", "description": API_VERSION})),
            ("kind", json!({"type": "string", "description": KIND})),
            ("metadata", dialect.beside(OBJECT_META, METADATA)),
        ];
        if let Some(properties) = map.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
            properties.extend(added.map(|(name, property)| (name.to_owned(), property)));
        }
        if let Some(required) = map.entry("required").or_insert_with(|| json!([])).as_array_mut() {
            for name in ["kind", "apiVersion"] {
                if !required.iter().any(|known| known == name) {
                    required.push(name.into());
                }
            }
        }
    }
}

/// The groups and versions that register the options of a deletion (client-go's scheme).
const DELETE_OPTIONS_VERSIONS: &str = "v1 admissionregistration.k8s.io/v1,v1alpha1,v1beta1 apps/v1,v1beta1,v1beta2 \
     authentication.k8s.io/v1,v1alpha1,v1beta1 authorization.k8s.io/v1,v1beta1 \
     autoscaling/v1,v2,v2beta1,v2beta2 batch/v1,v1beta1 certificates.k8s.io/v1,v1alpha1,v1beta1 \
     coordination.k8s.io/v1,v1alpha2,v1beta1 discovery.k8s.io/v1,v1beta1 events.k8s.io/v1,v1beta1 \
     extensions/v1beta1 flowcontrol.apiserver.k8s.io/v1,v1beta1,v1beta2,v1beta3 \
     internal.apiserver.k8s.io/v1alpha1 networking.k8s.io/v1,v1beta1 node.k8s.io/v1,v1alpha1,v1beta1 \
     policy/v1,v1beta1 rbac.authorization.k8s.io/v1,v1alpha1,v1beta1 \
     resource.k8s.io/v1,v1alpha3,v1beta1,v1beta2 scheduling.k8s.io/v1,v1alpha1,v1beta1 \
     storage.k8s.io/v1,v1alpha1,v1beta1 storagemigration.k8s.io/v1alpha1";

/// What Go types say of themselves in v3: the values that fields have when they are not set, lists that are replaced
/// as a whole, the kinds of what is in every group.
fn go_defaults(name: &str, definition: &mut Value) {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
    let required: Vec<String> = definition["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    for (field, property) in definition
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        // The number of replicas may be left out, but is never nothing.
        let always = required.contains(field) || (field == "replicas" && name.ends_with(".ScaleSpec"));
        if always && let Some(zero) = zero_of(property) {
            property["default"] = zero;
        }
        // Lists of a type of their own, as the verbs of a resource are, do not say how they are merged.
        let named = name == format!("{META}APIResource") && field == "verbs";
        if property["type"] == "array" && property.get("x-kubernetes-list-type").is_none() && !named {
            property["x-kubernetes-list-type"] = "atomic".into();
        }
        for key in ["items", "additionalProperties"] {
            let Some(below) = property.get_mut(key) else { continue };
            if below["$ref"].as_str().is_some_and(|name| !is_plain_type(name)) {
                *below = json!({ "allOf": [below.take()], "default": {} });
            } else if let Some(zero) = zero_of(below) {
                below["default"] = zero;
            }
        }
        let structure = match name.rsplit('.').next() {
            Some("Scale") => matches!(field.as_str(), "metadata" | "spec" | "status"),
            Some("Status") => name.starts_with(META) && field == "metadata",
            _ => {
                matches!(field.as_str(), "metadata" | "spec" | "status")
                    && KINDS.iter().any(|kind| kind.definition == name)
            }
        };
        let inside = property.pointer("/allOf/0/$ref").and_then(Value::as_str);
        if (structure || required.contains(field)) && inside.is_some_and(|name| !is_plain_type(name)) {
            property["default"] = json!({});
        }
    }
    if name == format!("{META}Status") {
        if let Some(definition) = definition.as_object_mut() {
            definition.remove("required");
        }
        definition["properties"]["details"]["x-kubernetes-list-type"] = "atomic".into();
        definition["x-kubernetes-group-version-kind"] = json!([{"group": "", "kind": "Status", "version": "v1"}]);
    }
    if name == format!("{META}APIResourceList") {
        let kind = json!([{"group": "", "kind": "APIResourceList", "version": "v1"}]);
        definition["x-kubernetes-group-version-kind"] = kind;
    }
    if name == format!("{META}DeleteOptions") {
        let kinds = DELETE_OPTIONS_VERSIONS.split(' ').flat_map(|entry| {
            let (group, versions) = entry.split_once('/').unwrap_or(("", entry));
            versions
                .split(',')
                .map(move |version| json!({"group": group, "kind": "DeleteOptions", "version": version}))
        });
        definition["x-kubernetes-group-version-kind"] = kinds.collect();
    }
}

/// Whether a definition is a Go structure that is written as a scalar: it has no default.
fn is_plain_type(name: &str) -> bool {
    ["Time", "Quantity", "IntOrString", "RawExtension"]
        .iter()
        .any(|known| name.ends_with(known))
}

/// The zero of a scalar.
fn zero_of(schema: &Value) -> Option<Value> {
    let format = schema["format"].as_str().unwrap_or_default();
    if schema.get("default").is_some() || matches!(format, "int-or-string" | "byte") {
        return None;
    }
    match schema["type"].as_str()? {
        "string" => Some("".into()),
        "integer" | "number" => Some(0.into()),
        "boolean" => Some(false.into()),
        _ => None,
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
