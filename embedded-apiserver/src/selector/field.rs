//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! For: parse, print, match, and telling which fields are used. Not for: deciding which are supported.

use super::SelectorError;
use serde_json::Value;

/// One requirement of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field, such as `metadata.name`.
    pub field: String,
    /// Whether the value must differ (`!=`) instead of being equal.
    pub negated: bool,
    /// The value.
    pub value: String,
}

/// All requirements must hold; none matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses the text of a `fieldSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        Ok(Self::default())
    }

    /// The requirements; the caller refuses fields it does not support ([`FieldSelector::unsupported`] words it).
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The fields it uses, without repetitions.
    pub fn fields(&self) -> Vec<&str> {
        self.requirements.iter().map(|requirement| requirement.field.as_str()).collect()
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object matches; a missing field counts as the empty text.
    pub fn matches(&self, object: &Value) -> bool {
        let _ = object;
        true
    }

    /// The error for a field that the resource does not let select on.
    pub fn unsupported(field: &str) -> SelectorError {
        SelectorError(format!("field label not supported: {field}"))
    }
}
