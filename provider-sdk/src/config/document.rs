//! JSON as a user wrote it, read strictly: duplicate keys are found, no number loses a
//! digit, and what does not fit the type is named by a JSON pointer.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::Diagnostic;

/// Turns a document into its type.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Diagnostic> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| Diagnostic::error(pointer_of(error.path()), error.inner().to_string()))
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            // The name of a variant stands in the document as a key or not at all.
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

/// A key as a token of a JSON pointer (RFC 6901).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
