//! Label and field selectors.
//!
//! For: parsing and matching, in the words of the real server. Not for: knowing which fields a resource lets select on.

mod field;
mod label;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelRequirement, LabelSelector, Operator};

/// Why a selector was refused; the text is the real server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
