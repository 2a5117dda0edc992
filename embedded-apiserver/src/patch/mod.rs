//! The three kinds of patch that are not server-side apply: JSON patch, JSON merge patch, strategic merge patch.
//!
//! For: pure functions from an object and a patch to the patched object. Not for: defaulting, validation or conflicts
//! of resource versions, which the caller does on the result.

mod strategic;
#[cfg(test)]
mod tests;

pub use strategic::strategic_merge_patch;

use crate::schema::{DecodeError, MAX_DEPTH, decode_strict};
use json_patch::PatchOperation;
use serde_json::{Map, Value};

/// Why a patch was not applied, with the reason and code that the real server answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch itself is malformed: 400, reason `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is well-formed but does not fit the object: 422, reason `Invalid`. The real server hides why; so
    /// does the text, and `detail` is for logs.
    #[error("the server rejected our request due to an error in our request")]
    Invalid {
        /// What did not fit.
        detail: String,
    },
    /// The patch has too many operations: 413, reason `RequestEntityTooLarge`.
    #[error("Request entity too large: {0}")]
    TooLarge(String),
    /// The patch does not say which list element it means: 500, reason `InternalError`, as the real server answers.
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

impl PatchError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Invalid { .. } => 422,
            Self::TooLarge(_) => 413,
            Self::Internal(_) => 500,
        }
    }

    /// The machine-readable reason of the `Status`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Invalid { .. } => "Invalid",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::Internal(_) => "InternalError",
        }
    }

    fn invalid(detail: impl ToString) -> Self {
        Self::Invalid {
            detail: detail.to_string(),
        }
    }
}

/// The patched object, and what strict field validation has to say of the patch (`duplicate field "spec.a"`).
#[derive(Debug, Clone, PartialEq)]
pub struct Patched {
    /// The object after the patch.
    pub object: Value,
    /// Findings for `fieldValidation=Strict` (refuse) or `Warn` (warnings).
    pub strict_findings: Vec<String>,
}

/// The most operations of a JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// How many bytes `copy` operations may add together: as much as a request may have.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies an RFC 6902 patch.
pub fn json_patch(live: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let (decoded, findings) = decode_strict(patch).map_err(decoding)?;
    let Value::Array(entries) = &decoded else {
        let found = go_kind(&decoded);
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if entries.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            entries.len()
        )));
    }
    let mut object = live.clone();
    let mut copied = 0;
    for entry in entries {
        if !entry.is_object() {
            let found = go_kind(entry);
            return Err(PatchError::BadRequest(format!(
                "error decoding patch: json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp"
            )));
        }
        // An operation that is none (unknown `op`, no path) fails like one that does not fit.
        let operation: PatchOperation = serde_json::from_value(entry.clone()).map_err(PatchError::invalid)?;
        bound(&object, &operation, &mut copied)?;
        json_patch::patch(&mut object, std::slice::from_ref(&operation)).map_err(PatchError::invalid)?;
    }
    let strict_findings = findings
        .into_iter()
        .map(|finding| format!("json patch {finding}"))
        .collect();
    Ok(Patched {
        object,
        strict_findings,
    })
}

/// Refuses operations that would make the object too deep or, by copying, too large.
fn bound(object: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), PatchError> {
    let inserted = match operation {
        PatchOperation::Add(add) => Some(&add.value),
        PatchOperation::Replace(replace) => Some(&replace.value),
        PatchOperation::Copy(copy) => {
            let value = copy.from.resolve(object).ok();
            *copied += value.map_or(0, size);
            if *copied > MAX_COPIED_BYTES {
                return Err(PatchError::invalid(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                     limit {MAX_COPIED_BYTES}"
                )));
            }
            value
        }
        PatchOperation::Move(mv) => mv.from.resolve(object).ok(),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    if inserted.is_some_and(|value| operation.path().count() + depth(value) > MAX_DEPTH) {
        return Err(PatchError::invalid("exceeded max depth"));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(key, value)| key.len() + 4 + size(value))
                .sum::<usize>()
        }
        Value::Array(items) => 2 + items.iter().map(|value| 1 + size(value)).sum::<usize>(),
        Value::String(text) => text.len() + 2,
        _ => 5,
    }
}

/// Applies an RFC 7386 merge patch.
pub fn merge_patch(live: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let (patch, strict_findings) = decode_map(patch)?;
    let mut object = live.clone();
    merge(&mut object, Value::Object(patch));
    Ok(Patched {
        object,
        strict_findings,
    })
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(&key);
            } else {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

/// Decodes a patch that must be an object.
fn decode_map(patch: &[u8]) -> Result<(Map<String, Value>, Vec<String>), PatchError> {
    match decode_strict(patch).map_err(decoding)? {
        (Value::Object(map), findings) => Ok((map, findings)),
        // As encoding/json: null leaves the map empty.
        (Value::Null, findings) => Ok((Map::new(), findings)),
        (other, _) => Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_kind(&other)
        ))),
    }
}

fn decoding(error: DecodeError) -> PatchError {
    PatchError::BadRequest(format!("error decoding patch: {error}"))
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
