//! One reason why an object is invalid, as `Status.details.causes` carries it.
//!
//! For: the wording of field errors. Not for: deciding when they occur.

use std::fmt;

/// A field error, ready to be put in `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The machine-readable reason: `FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`, …
    pub reason: String,
    /// The error without the field, such as `Invalid value: -1: spec.replicas in body should be …`.
    pub message: String,
    /// The path of the field, such as `spec.replicas` or `spec.list[0].name`; may be `<nil>` for the object itself.
    pub field: String,
}

impl Cause {
    /// The same cause with `prefix` before its field.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.field = if self.field.is_empty() || self.field == "<nil>" {
            prefix.to_owned()
        } else if self.field.starts_with('[') {
            format!("{prefix}{}", self.field)
        } else {
            format!("{prefix}.{}", self.field)
        };
        self
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// The causes as one text, as the real server puts them after `is invalid: `: one as it is, several in brackets and
/// without repetitions.
pub fn aggregate(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(causes.len());
    for cause in causes {
        let text = cause.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [only] => only.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}
