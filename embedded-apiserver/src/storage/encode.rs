//! Objects as bytes: serialized once, with the place of the revision known, and the metadata that the store works with.
//!
//! The revision is only known when the write happens, so the bytes are made with a gap that it is put into.

use crate::deep;
use crate::schema::DecodeError;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// Why an object cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It is not a JSON object with metadata.
    #[error("the object has no metadata")]
    NoMetadata,
    /// It cannot be serialized, or bytes cannot be read back.
    #[error("the object cannot be serialized: {0}")]
    Json(#[from] serde_json::Error),
}

/// An object as stored; its bytes carry its revision.
#[derive(Debug)]
pub struct Stored {
    /// The revision of its last write.
    pub revision: u64,
    /// The object as JSON.
    pub bytes: Bytes,
    meta: Meta,
}

#[derive(Debug, Default)]
struct Meta {
    uid: u128,
    labels: Box<[(Box<str>, Box<str>)]>,
    owners: Box<[u128]>,
    deleting: bool,
}

impl Stored {
    /// Reads stored bytes back.
    pub fn from_bytes(revision: u64, bytes: Bytes) -> Result<Self, EncodeError> {
        deep::look(&bytes);
        let partial: Partial = serde_json::from_slice(&bytes)?;
        Ok(Self {
            revision,
            meta: partial.metadata.into(),
            bytes,
        })
    }

    /// The object.
    pub fn value(&self) -> Result<Value, DecodeError> {
        deep::parse(&self.bytes)
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.meta.labels;
        labels
            .binary_search_by(|(name, _)| name.as_ref().cmp(key))
            .ok()
            .and_then(|at| labels.get(at))
            .map(|(_, value)| value.as_ref())
    }

    /// Whether it has a deletion timestamp.
    pub fn deleting(&self) -> bool {
        self.meta.deleting
    }

    /// Whether it names owners.
    pub fn owned(&self) -> bool {
        !self.meta.owners.is_empty()
    }

    /// Whether both name the same owners.
    pub fn has_owners_of(&self, other: &Self) -> bool {
        self.meta.owners == other.meta.owners
    }

    /// The UID as a number, as [`super::Store::key_of_number`] takes it.
    pub fn uid(&self) -> u128 {
        self.meta.uid
    }

    /// The UIDs of the owners as numbers.
    pub fn owners(&self) -> &[u128] {
        &self.meta.owners
    }

    /// What it costs to keep, in bytes, about.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + 160
    }
}

/// An object ready to be stored but for its revision.
#[derive(Debug)]
pub struct Encoded {
    bytes: Vec<u8>,
    gap: usize,
    meta: Meta,
}

impl Encoded {
    /// Serializes an object; its present `metadata.resourceVersion` is ignored.
    pub fn new(object: &Value) -> Result<Self, EncodeError> {
        let fields = object.as_object().ok_or(EncodeError::NoMetadata)?;
        let metadata = fields
            .get("metadata")
            .and_then(Value::as_object)
            .ok_or(EncodeError::NoMetadata)?;
        let mut bytes = Vec::with_capacity(512);
        let mut gap = 0;
        let mut separator = b'{';
        // What tells the kind comes first, so that lists of built-in kinds can leave it out without reading on.
        let heads = ["kind", "apiVersion"].into_iter();
        let heads = heads.filter_map(|name| fields.get_key_value(name));
        let others = fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion"));
        for (name, value) in heads.chain(others) {
            bytes.push(separator);
            separator = b',';
            serde_json::to_writer(&mut bytes, name)?;
            bytes.push(b':');
            if name != "metadata" {
                serde_json::to_writer(&mut bytes, value)?;
                continue;
            }
            let mut separator = b'{';
            let mut revision_written = false;
            for (name, value) in metadata {
                if name == "resourceVersion" {
                    continue;
                }
                if !revision_written && name.as_str() > "resourceVersion" {
                    gap = push_gap(&mut bytes, separator);
                    separator = b',';
                    revision_written = true;
                }
                bytes.push(separator);
                separator = b',';
                serde_json::to_writer(&mut bytes, name)?;
                bytes.push(b':');
                serde_json::to_writer(&mut bytes, value)?;
            }
            if !revision_written {
                gap = push_gap(&mut bytes, separator);
            }
            bytes.push(b'}');
        }
        bytes.push(b'}');
        deep::look(&bytes);
        let meta = PartialMeta::deserialize(Value::Object(without_heavy_fields(metadata)))?.into();
        Ok(Self { bytes, gap, meta })
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Puts the revision in.
    pub(super) fn finish(self, revision: u64) -> Stored {
        let digits = revision.to_string();
        let mut bytes = Vec::with_capacity(self.bytes.len() + digits.len());
        let (before, after) = self.bytes.split_at(self.gap);
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(digits.as_bytes());
        bytes.extend_from_slice(after);
        Stored {
            revision,
            bytes: bytes.into(),
            meta: self.meta,
        }
    }
}

fn push_gap(bytes: &mut Vec<u8>, separator: u8) -> usize {
    bytes.push(separator);
    bytes.extend_from_slice(b"\"resourceVersion\":\"");
    let gap = bytes.len();
    bytes.push(b'"');
    gap
}

fn without_heavy_fields(metadata: &serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    ["uid", "labels", "ownerReferences", "deletionTimestamp"]
        .into_iter()
        .filter_map(|name| metadata.get(name).map(|value| (name.to_owned(), value.clone())))
        .collect()
}

#[derive(Deserialize)]
struct Partial {
    metadata: PartialMeta,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PartialMeta {
    uid: Option<String>,
    labels: Option<std::collections::BTreeMap<String, Option<String>>>,
    owner_references: Option<Vec<PartialOwner>>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct PartialOwner {
    #[serde(default)]
    uid: Option<String>,
}

impl From<PartialMeta> for Meta {
    fn from(partial: PartialMeta) -> Self {
        Self {
            uid: partial.uid.as_deref().map_or(0, uid_number),
            labels: partial
                .labels
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.into_boxed_str(), value.unwrap_or_default().into_boxed_str()))
                .collect(),
            owners: partial
                .owner_references
                .unwrap_or_default()
                .into_iter()
                .filter_map(|owner| owner.uid)
                .map(|uid| uid_number(&uid))
                .collect(),
            deleting: partial.deletion_timestamp.is_some(),
        }
    }
}

/// UIDs as numbers; texts that are no UUIDs (owner references may hold any) are hashed into one.
pub(super) fn uid_number(uid: &str) -> u128 {
    uuid::Uuid::try_parse(uid)
        .unwrap_or_else(|_| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, uid.as_bytes()))
        .as_u128()
}
