//! The three kinds of patch that are not server-side apply: JSON patch, JSON merge patch, strategic merge patch.
//!
//! For: pure functions from an object and a patch to the patched object. Not for: defaulting, validation or conflicts
//! of resource versions, which the caller does on the result.

use crate::schema::Schema;
use serde_json::Value;

/// Why a patch was not applied, with the reason and code that the real server answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch itself is malformed: 400, reason `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is well-formed but does not fit the object (a JSON patch's `test` failed, a path is missing):
    /// 422, reason `Invalid`, with no details beyond the message.
    #[error("{0}")]
    Invalid(String),
    /// The patch is larger than is allowed: 413, reason `RequestEntityTooLarge`.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Invalid(_) => 422,
            Self::TooLarge(_) => 413,
        }
    }

    /// The machine-readable reason of the `Status`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Invalid(_) => "Invalid",
            Self::TooLarge(_) => "RequestEntityTooLarge",
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

/// Applies an RFC 6902 patch.
pub fn json_patch(live: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let _ = patch;
    Ok(Patched { object: live.clone(), strict_findings: Vec::new() })
}

/// Applies an RFC 7386 merge patch.
pub fn merge_patch(live: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let _ = patch;
    Ok(Patched { object: live.clone(), strict_findings: Vec::new() })
}

/// Applies a strategic merge patch with the merge keys and strategies of a built-in kind's schema.
pub fn strategic_merge_patch(live: &Value, patch: &[u8], schema: &Schema) -> Result<Patched, PatchError> {
    let _ = (patch, schema);
    Ok(Patched { object: live.clone(), strict_findings: Vec::new() })
}
