//! Label selectors: `a=b,c in (d,e),!f`, and the `LabelSelector` object.
//!
//! For: parse, print, match. Not for: field selectors.

use super::SelectorError;
use serde_json::Value;

/// What a requirement asks of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `key in (…)`
    In,
    /// `key notin (…)`
    NotIn,
    /// `key=value`
    Equals,
    /// `key==value`
    DoubleEquals,
    /// `key!=value`
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>value`
    GreaterThan,
    /// `key<value`
    LessThan,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
    /// The values, sorted and without repetitions.
    pub values: Vec<String>,
}

/// All requirements must hold; none matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Parses the text of a `labelSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        Ok(Self::default())
    }

    /// Reads a `LabelSelector` object; absent (`Null`) selects nothing, empty everything.
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        let _ = object;
        Ok(Self::default())
    }

    /// Whether the labels match; `label` looks a label up.
    pub fn matches<'label>(&self, label: impl Fn(&str) -> Option<&'label str>) -> bool {
        let _ = label;
        !self.nothing
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The requirements.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }
}
