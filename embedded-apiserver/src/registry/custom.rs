//! Custom resource definitions: their defaults and rules, the names they get, and the resources made from them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::definition::{Behaviour, CustomOrigin, Resource, ScalePaths, Version};
use super::{Snapshot, text};
use crate::rest::cause;
use crate::schema::{Cause, Schema};
use crate::table;

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Fills in what a definition may leave out.
pub fn default(definition: &mut Value) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    if kind.is_empty() {
        return;
    }
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({ "strategy": "None" }));
    }
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let empty = |value: Option<&Value>| value.and_then(Value::as_str).is_none_or(str::is_empty);
        if empty(names.get("singular")) {
            names.insert("singular".to_owned(), kind.to_lowercase().into());
        }
        if empty(names.get("listKind")) {
            names.insert("listKind".to_owned(), format!("{kind}List").into());
        }
    }
}

/// What a definition must be; `old` makes some of it immutable.
pub fn validate(definition: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let group = text(definition, "/spec/group");
    let plural = text(definition, "/spec/names/plural");
    let name = text(definition, "/metadata/name");
    if name != format!("{plural}.{group}") {
        causes.push(cause(
            "FieldValueInvalid",
            "metadata.name",
            format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group"),
        ));
    }
    if group.is_empty() {
        causes.push(cause("FieldValueRequired", "spec.group", "Required value"));
    } else if !group.contains('.') {
        causes.push(cause(
            "FieldValueInvalid",
            "spec.group",
            format!("Invalid value: {group:?}: should be a domain with at least one dot"),
        ));
    }
    let scope = text(definition, "/spec/scope");
    if !matches!(scope, "Cluster" | "Namespaced") {
        let problem = if scope.is_empty() {
            cause("FieldValueRequired", "spec.scope", "Required value")
        } else {
            let message = format!("Unsupported value: {scope:?}: supported values: \"Cluster\", \"Namespaced\"");
            cause("FieldValueNotSupported", "spec.scope", message)
        };
        causes.push(problem);
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(definition, &format!("/spec/names/{field}")).is_empty() {
            causes.push(cause(
                "FieldValueRequired",
                &format!("spec.names.{field}"),
                "Required value",
            ));
        }
    }
    let strategy = text(definition, "/spec/conversion/strategy");
    if strategy != "None" {
        let message = format!("Unsupported value: {strategy:?}: supported values: \"None\"");
        causes.push(cause("FieldValueNotSupported", "spec.conversion.strategy", message));
    }
    validate_versions(definition, &mut causes);
    if let Some(old) = old.filter(|old| is_established(old)) {
        for path in ["group", "scope", "names/kind", "names/plural"] {
            let pointer = format!("/spec/{path}");
            if old.pointer(&pointer) != definition.pointer(&pointer) {
                let value = text(definition, &pointer);
                let field = format!("spec.{}", path.replace('/', "."));
                causes.push(cause(
                    "FieldValueInvalid",
                    &field,
                    format!("Invalid value: {value:?}: field is immutable"),
                ));
            }
        }
    }
    if let Some(old) = old {
        let stored: Vec<&str> = strings(old.pointer("/status/storedVersions"));
        let names: Vec<&str> = versions(definition).map(|version| text(version, "/name")).collect();
        for (at, version) in stored
            .iter()
            .enumerate()
            .filter(|(_, version)| !names.contains(version))
        {
            causes.push(cause(
                "FieldValueInvalid",
                &format!("status.storedVersions[{at}]"),
                format!("Invalid value: {version:?}: missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"),
            ));
        }
    }
    causes
}

fn validate_versions(definition: &Value, causes: &mut Vec<Cause>) {
    let mut storage = 0;
    let mut served = 0;
    let mut names: Vec<&str> = Vec::new();
    for (at, version) in versions(definition).enumerate() {
        let field = format!("spec.versions[{at}]");
        let name = text(version, "/name");
        if name.is_empty() {
            causes.push(cause("FieldValueRequired", &format!("{field}.name"), "Required value"));
        } else if names.contains(&name) {
            causes.push(cause(
                "FieldValueInvalid",
                "spec.versions",
                format!("Invalid value: {name:?}: must contain unique version names"),
            ));
        }
        names.push(name);
        storage += usize::from(version["storage"] == json!(true));
        served += usize::from(version["served"] == json!(true));
        match version.pointer("/schema/openAPIV3Schema") {
            None | Some(Value::Null) => causes.push(cause(
                "FieldValueRequired",
                &format!("{field}.schema.openAPIV3Schema"),
                "Required value: schemas are required",
            )),
            Some(schema) => {
                if let Err(found) = Schema::compile(schema) {
                    causes.extend(
                        found
                            .into_iter()
                            .map(|cause| cause.under(&format!("{field}.schema.openAPIV3Schema."))),
                    );
                }
            }
        }
        if let Some(scale) = version.pointer("/subresources/scale") {
            for (path, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
                let value = text(scale, &format!("/{path}"));
                let field = format!("{field}.subresources.scale.{path}");
                if value.is_empty() {
                    causes.push(cause("FieldValueRequired", &field, "Required value"));
                } else if !value.starts_with(prefix) {
                    let message = format!(
                        "Invalid value: {value:?}: should be a json path under {}",
                        prefix.trim_end_matches('.')
                    );
                    causes.push(cause("FieldValueInvalid", &field, message));
                }
            }
        }
    }
    if names.is_empty() {
        causes.push(cause("FieldValueRequired", "spec.versions", "Required value"));
    } else if storage != 1 {
        causes.push(cause(
            "FieldValueInvalid",
            "spec.versions",
            "Invalid value: must have exactly one version marked as storage version",
        ));
    } else if served == 0 {
        tracing::debug!("a definition without a served version was accepted");
    }
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The name of the version that objects are stored in.
pub fn storage_version(definition: &Value) -> &str {
    versions(definition)
        .find(|version| version["storage"] == json!(true))
        .map_or("", |version| text(version, "/name"))
}

/// Whether the definition has a condition of this type that is true.
fn has_condition(definition: &Value, kind: &str) -> bool {
    definition
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Whether its objects are served.
pub fn is_established(definition: &Value) -> bool {
    has_condition(definition, "Established")
}

/// Whether a resource was made from this definition as it is now.
pub fn is_origin(definition: &Value, origin: &CustomOrigin) -> bool {
    text(definition, "/metadata/uid") == origin.uid
        && definition.pointer("/metadata/generation").and_then(Value::as_i64) == Some(origin.generation)
        && definition.pointer("/metadata/deletionTimestamp").is_some() == origin.terminating
        && has_condition(definition, "NamesAccepted")
}

/// The status that the definition should have: names accepted or not, established, stored versions.
pub fn settled_status(definition: &Value, served: &Snapshot, now: &str) -> Value {
    let names = &definition["spec"]["names"];
    let conflict = name_conflict(definition, served);
    let mut status = definition
        .get("status")
        .filter(|status| status.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
    let established = is_established(definition);
    let (accepted, accepted_reason, accepted_message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", *reason, message.clone()),
    };
    set_condition(
        &mut status,
        "NamesAccepted",
        accepted,
        accepted_reason,
        &accepted_message,
        now,
    );
    if conflict.is_none() {
        status["acceptedNames"] = names.clone();
    } else if status.get("acceptedNames").is_none_or(Value::is_null) {
        status["acceptedNames"] = json!({ "plural": "", "kind": "" });
    }
    if established || conflict.is_none() {
        let message = "the initial names have been accepted";
        set_condition(&mut status, "Established", "True", "InitialNamesAccepted", message, now);
    } else {
        set_condition(
            &mut status,
            "Established",
            "False",
            "NotAccepted",
            "not all names are accepted",
            now,
        );
    }
    let storage = storage_version(definition);
    let mut stored: Vec<Value> = status
        .get("storedVersions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if !storage.is_empty() && !stored.iter().any(|version| version == storage) {
        stored.push(storage.into());
    }
    status["storedVersions"] = stored.into();
    status
}

fn name_conflict(definition: &Value, served: &Snapshot) -> Option<(&'static str, String)> {
    let (uid, group) = (text(definition, "/metadata/uid"), text(definition, "/spec/group"));
    let names = &definition["spec"]["names"];
    let others = || {
        served.resources.iter().filter(move |resource| {
            resource.group == group && resource.custom.as_ref().is_none_or(|origin| origin.uid != uid)
        })
    };
    let taken = |name: &str| {
        others().any(|other| {
            other.plural == name || other.singular == name || other.short_names.iter().any(|short| short == name)
        })
    };
    let in_use = |name: &str| format!("{name:?} is already in use");
    for (field, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        let name = names[field].as_str().unwrap_or_default();
        if taken(name) {
            return Some((reason, in_use(name)));
        }
    }
    if let Some(name) = strings(names.get("shortNames")).into_iter().find(|name| taken(name)) {
        return Some(("ShortNamesConflict", in_use(name)));
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = names[field].as_str().unwrap_or_default();
        if others().any(|other| other.kind == name || other.list_kind == name) {
            return Some((reason, in_use(name)));
        }
    }
    None
}

/// Sets a condition, keeping its transition time when its status stays.
pub fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str, now: &str) {
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let condition = json!({
        "type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => {
            let since = if old["status"] == value {
                old["lastTransitionTime"].clone()
            } else {
                now.into()
            };
            *old = condition;
            old["lastTransitionTime"] = since;
        }
        None => conditions.push(condition),
    }
}

/// How a version ranks: stable before beta before alpha, then by number; larger is better.
pub fn version_priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let name = std::cmp::Reverse(version.to_owned());
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0, name);
    };
    let digits = rest.len() - rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
    let (major, rest) = rest.split_at(digits);
    let Ok(major) = major.parse() else {
        return (0, 0, 0, name);
    };
    let (rank, minor) = match (rest, rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        ("", ..) => (3, "0"),
        (_, Some(minor), _) => (2, minor),
        (.., Some(minor)) => (1, minor),
        _ => return (0, 0, 0, name),
    };
    match minor.parse() {
        Ok(minor) => (rank, major, minor, name),
        Err(_) => (0, 0, 0, name),
    }
}

/// Makes the resource of an established definition.
pub fn resource(definition: &Value, revision: u64) -> Result<Resource, Vec<Cause>> {
    let names = &definition["status"]["acceptedNames"];
    let names = if text(names, "/kind").is_empty() {
        &definition["spec"]["names"]
    } else {
        names
    };
    let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let group = text(definition, "/spec/group").to_owned();
    let plural = text(names, "/plural").to_owned();
    let storage_version = storage_version(definition).to_owned();
    let api_group = group.clone();
    let kind = text(names, "/kind").to_owned();
    let mut made = Vec::new();
    for version in versions(definition) {
        made.push(make_version(version, &api_group, &kind)?);
    }
    made.sort_by_key(|version| std::cmp::Reverse(version_priority(&version.name)));
    Ok(Resource {
        singular: text(names, "/singular").to_owned(),
        list_kind: text(names, "/listKind").to_owned(),
        short_names: owned(strings(names.get("shortNames"))),
        categories: owned(strings(names.get("categories"))),
        namespaced: text(definition, "/spec/scope") == "Namespaced",
        versions: made,
        storage_version,
        storage: super::storage_name(&group, &plural).into(),
        behaviour: Behaviour::Custom,
        custom: Some(CustomOrigin {
            uid: text(definition, "/metadata/uid").to_owned(),
            generation: definition
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
            changed_at: revision,
            terminating: definition.pointer("/metadata/deletionTimestamp").is_some(),
        }),
        kind,
        group,
        plural,
    })
}

fn make_version(version: &Value, group: &str, kind: &str) -> Result<Version, Vec<Cause>> {
    let name = text(version, "/name").to_owned();
    let raw_schema = version
        .pointer("/schema/openAPIV3Schema")
        .filter(|schema| schema.is_object());
    let schema = raw_schema.map(Schema::compile).transpose()?.map(Arc::new);
    let scale = version
        .pointer("/subresources/scale")
        .filter(|scale| scale.is_object())
        .map(|scale| ScalePaths {
            spec_replicas: text(scale, "/specReplicasPath").to_owned(),
            status_replicas: text(scale, "/statusReplicasPath").to_owned(),
            label_selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
        });
    let deprecation = (version["deprecated"] == json!(true)).then(|| {
        version["deprecationWarning"]
            .as_str()
            .map_or_else(|| format!("{group}/{name} {kind} is deprecated"), str::to_owned)
    });
    Ok(Version {
        served: version["served"] == json!(true),
        schema,
        raw_schema: raw_schema.map(|schema| Arc::new(schema.clone())),
        status: version.pointer("/subresources/status").is_some_and(Value::is_object),
        scale,
        columns: Arc::new(table::columns_for_crd(&version["additionalPrinterColumns"])),
        selectable_fields: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|field| field["jsonPath"].as_str())
            .map(str::to_owned)
            .collect(),
        deprecation,
        name,
    })
}
