//! Label and field selectors.
//!
//! For: parsing and matching, in the words of the real server. Not for: knowing which fields a resource lets select on.

mod field;
mod label;
mod lexer;
#[cfg(test)]
mod tests;
mod validation;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelRequirement, LabelSelector, Operator};
pub use validation::{dns_subdomain_errors, label_value_errors, qualified_name_errors};

/// Why a selector was refused; the text is the real server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
