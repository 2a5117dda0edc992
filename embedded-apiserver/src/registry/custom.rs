//! Custom resource definitions: their defaults and rules, the names they get, and the resources made from them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::definition::{Behaviour, CustomOrigin, Resource, ScalePaths, Version};
use super::text;
use crate::schema::Schema;
use crate::table;

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Fills in what a definition may leave out.
pub fn default(definition: &mut Value) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({ "strategy": "None" }));
    }
    // As good as absent.
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    if let Some(service) = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.pointer_mut("/webhook/clientConfig/service"))
        .and_then(Value::as_object_mut)
        && service.get("port").is_none_or(Value::is_null)
    {
        service.insert("port".to_owned(), 443.into());
    }
    if kind.is_empty() {
        return;
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

/// The versions of a definition.
pub(super) fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The texts of a list.
pub(super) fn strings(value: Option<&Value>) -> Vec<&str> {
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

/// The stored versions of a new definition: its storage version, if it has one.
pub fn first_stored(definition: &Value) -> Value {
    let storage = versions(definition).find(|version| version["storage"] == json!(true));
    storage.map_or(Value::Null, |version| json!([text(version, "/name")]))
}

/// Remembers that objects may be stored in the storage version from now on.
pub fn keep_storage_version(definition: &mut Value) {
    let storage = storage_version(definition).to_owned();
    if storage.is_empty() || strings(definition.pointer("/status/storedVersions")).contains(&storage.as_str()) {
        return;
    }
    if let Some(stored) = definition
        .pointer_mut("/status/storedVersions")
        .and_then(Value::as_array_mut)
    {
        stored.push(storage.into());
    }
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

/// The names of a group that definitions have been given.
#[derive(Debug, Default)]
pub struct TakenNames {
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl TakenNames {
    /// Adds the names that a definition has.
    pub fn add(&mut self, definition: &Value) {
        let names = &definition["status"]["acceptedNames"];
        let texts = |keys: [&str; 2]| keys.map(|key| names[key].as_str().unwrap_or_default().to_owned());
        self.resources.extend(texts(["plural", "singular"]));
        let short = strings(names.get("shortNames"));
        self.resources.extend(short.into_iter().map(str::to_owned));
        self.kinds.extend(texts(["kind", "listKind"]));
    }
}

/// The status that the definition should have: names accepted or not, established, stored versions.
///
/// As the real one's controllers decide: what no other definition of the group has is accepted, name by name.
pub fn settled_status(definition: &Value, taken: &TakenNames, now: &str) -> Value {
    let names = &definition["spec"]["names"];
    let mut status = definition
        .get("status")
        .filter(|status| status.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
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
    if status["acceptedNames"] == *names && has_condition(definition, "NamesAccepted") && is_established(definition) {
        return status;
    }
    let mut accepted = status["acceptedNames"].as_object().cloned().unwrap_or_default();
    let mut conflict: Option<(&str, String)> = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    for (key, reason, used) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let wanted = names.get(key).filter(|name| !name.is_null());
        let before = accepted.get(key);
        let each = |value: Option<&Value>| match value {
            Some(Value::String(name)) => vec![name.clone()],
            other => strings(other).into_iter().map(str::to_owned).collect(),
        };
        let had = each(before);
        let problems: Vec<String> = each(wanted)
            .iter()
            .filter(|name| !had.contains(name) && used.contains(name))
            .map(|name| in_use(name))
            .collect();
        match problems.as_slice() {
            [] => {
                match wanted {
                    Some(wanted) => accepted.insert(key.to_owned(), wanted.clone()),
                    None => accepted.remove(key),
                };
            }
            [only] => conflict = Some((reason, only.clone())),
            several => conflict = Some((reason, format!("[{}]", several.join(", ")))),
        }
    }
    match names.get("categories").filter(|categories| !categories.is_null()) {
        Some(categories) => accepted.insert("categories".to_owned(), categories.clone()),
        None => accepted.remove("categories"),
    };
    for key in ["plural", "kind"] {
        accepted.entry(key).or_insert_with(|| "".into());
    }
    status["acceptedNames"] = accepted.into();
    let established = is_established(definition);
    match &conflict {
        None => set_condition(
            &mut status,
            "NamesAccepted",
            "True",
            "NoConflicts",
            "no conflicts found",
            now,
        ),
        Some((reason, message)) => set_condition(&mut status, "NamesAccepted", "False", reason, message, now),
    }
    if conflict.is_none() && !established {
        let message = "the initial names have been accepted";
        set_condition(&mut status, "Established", "True", "InitialNamesAccepted", message, now);
    } else if !established {
        let message = "not all names are accepted";
        set_condition(&mut status, "Established", "False", "NotAccepted", message, now);
    }
    status
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
pub fn resource(definition: &Value, revision: u64) -> Resource {
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
    let mut made: Vec<Version> = versions(definition)
        .map(|version| make_version(version, &api_group, &kind))
        .collect();
    made.sort_by_key(|version| std::cmp::Reverse(version_priority(&version.name)));
    Resource {
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
            webhook: text(definition, "/spec/conversion/strategy") == "Webhook",
            terminating: definition.pointer("/metadata/deletionTimestamp").is_some(),
        }),
        kind,
        group,
        plural,
    }
}

fn make_version(version: &Value, group: &str, kind: &str) -> Version {
    let name = text(version, "/name").to_owned();
    let raw_schema = version
        .pointer("/schema/openAPIV3Schema")
        .filter(|schema| schema.is_object());
    let schema = raw_schema.map(Schema::accepted).map(Arc::new);
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
    Version {
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
    }
}
