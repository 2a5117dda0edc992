//! The three kinds of patch that are not server-side apply: JSON patch, JSON merge patch, strategic merge patch.
//!
//! For: pure functions from an object and a patch to the patched object. Not for: defaulting, validation or conflicts
//! of resource versions, which the caller does on the result.

mod json;
mod strategic;
#[cfg(test)]
mod tests;

pub use json::json_patch;
pub use strategic::{shown, strategic_merge_patch};

use crate::schema::{DecodeError, decode_exact, go_kind};
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
    /// The patch contradicts itself or the object's lists: 500 without a reason, as the real server answers.
    #[error("{0}")]
    Unclassified(String),
}

impl PatchError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Invalid { .. } => 422,
            Self::TooLarge(_) => 413,
            Self::Unclassified(_) => 500,
        }
    }

    /// The machine-readable reason of the `Status`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Invalid { .. } => "Invalid",
            Self::TooLarge(_) => "RequestEntityTooLarge",
            Self::Unclassified(_) => "",
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

/// Applies an RFC 7386 merge patch.
pub fn merge_patch(live: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let (patch, strict_findings) = match decode_exact(patch).map_err(decoding)? {
        (Value::Object(map), findings) => (map, findings),
        (Value::Null, _) => return Err(PatchError::BadRequest("Invalid JSON Patch".to_owned())),
        (other, _) => {
            return Err(PatchError::BadRequest(format!(
                "error decoding patch: {}",
                no_map(&other)
            )));
        }
    };
    let mut object = live.as_object().cloned().unwrap_or_default();
    merge(&mut object, patch);
    Ok(Patched {
        object: Value::Object(object),
        strict_findings,
    })
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
            continue;
        }
        match (target.get_mut(&key), value) {
            (Some(Value::Object(before)), Value::Object(value)) => merge(before, value),
            // As the real server's library has it: nulls in lists stay only where a map was before.
            (Some(Value::Object(_)), value @ Value::Array(_)) => {
                target.insert(key, value);
            }
            (_, mut value) => {
                prune(&mut value);
                target.insert(key, value);
            }
        }
    }
}

/// Takes out members that are null; elements of lists stay.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn no_map(value: &Value) -> String {
    let found = go_kind(value);
    format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
}

fn decoding(error: DecodeError) -> PatchError {
    PatchError::BadRequest(format!("error decoding patch: {error}"))
}
