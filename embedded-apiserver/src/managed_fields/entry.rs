//! The entries of `metadata.managedFields`.
//!
//! For: reading, writing, sorting and bounding them. Not for: what they own.

use super::set::FieldSet;
use crate::schema::go_quote;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// How an owner came by its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One owner and its fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: Option<String>,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// Whether both are the same owner. An applier is the same in every version.
    pub(super) fn is_same_owner(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The owner as conflicts name it.
    pub(super) fn printed(&self) -> String {
        let mut text = go_quote(&self.manager);
        if !self.subresource.is_empty() {
            let _ = write!(text, " with subresource {}", go_quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            let _ = write!(text, " using {}", self.api_version);
        }
        text
    }

    fn decode(entry: &Value) -> Option<Self> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let fields = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::decode(fields)?,
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: entry.get("time").and_then(Value::as_str).map(str::to_owned),
            fields,
        })
    }

    fn encode(&self) -> Value {
        let operation = match self.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encode(),
            "operation": operation,
        });
        if let Value::Object(map) = &mut entry {
            for (key, text) in [("manager", &self.manager), ("subresource", &self.subresource)] {
                if !text.is_empty() {
                    map.insert(key.to_owned(), json!(text));
                }
            }
            if let Some(time) = &self.time {
                map.insert("time".to_owned(), json!(time));
            }
        }
        entry
    }
}

/// The entries of an object, or `None` if one cannot be understood.
pub(super) fn decode(managed_fields: Option<&Value>) -> Option<Vec<Entry>> {
    let Some(list) = managed_fields.and_then(Value::as_array) else {
        return Some(Vec::new());
    };
    let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
    for entry in list {
        let entry = Entry::decode(entry)?;
        // Of two entries of one owner the later counts, as in the real server's map.
        match entries.iter_mut().find(|known| known.is_same_owner(&entry)) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
    }
    Some(entries)
}

/// Puts the entries into an object, in their order; none leaves no `managedFields`.
pub(super) fn encode(object: &mut Value, mut entries: Vec<Entry>) {
    entries.sort_by(|one, other| {
        (
            one.operation,
            &one.time,
            &one.manager,
            &one.api_version,
            &one.subresource,
        )
            .cmp(&(
                other.operation,
                &other.time,
                &other.manager,
                &other.api_version,
                &other.subresource,
            ))
    });
    let encoded: Vec<Value> = entries.iter().map(Entry::encode).collect();
    let Some(object) = object.as_object_mut() else { return };
    if encoded.is_empty() {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    } else if let Some(metadata) = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut() {
        metadata.insert("managedFields".to_owned(), Value::Array(encoded));
    }
}

/// How many updaters an object keeps apart.
const MAX_UPDATERS: usize = 10;

/// Merges the oldest updaters, so that clients with ever new names do not make objects grow without bound.
pub(super) fn cap_updaters(entries: &mut Vec<Entry>) {
    let mut updaters = entries
        .iter()
        .filter(|entry| entry.operation == Operation::Update)
        .count();
    if updaters <= MAX_UPDATERS {
        return;
    }
    entries.sort_by(|one, other| (&one.time, &one.manager).cmp(&(&other.time, &other.manager)));
    let is_bucket = |entry: &Entry| {
        entry.manager == "ancient-changes" && entry.operation == Operation::Update && entry.subresource.is_empty()
    };
    while updaters > MAX_UPDATERS {
        let Some(first) = entries.iter().position(|entry| entry.operation == Operation::Update) else {
            return;
        };
        let version = entries[first].api_version.clone();
        let Some(second) = entries
            .iter()
            .skip(first + 1)
            .position(|entry| entry.operation == Operation::Update && entry.api_version == version)
        else {
            return;
        };
        let merged = entries.remove(first + 1 + second);
        let bucket = &mut entries[first];
        bucket.fields = std::mem::take(&mut bucket.fields).union(&merged.fields);
        bucket.time = merged.time.max(bucket.time.take());
        if !is_bucket(bucket) {
            "ancient-changes".clone_into(&mut bucket.manager);
            bucket.subresource.clear();
        }
        updaters -= 1;
    }
}
