//! The only code that writes to the API server.
//!
//! Not for: deciding what to write.

mod diff;
mod writer;

pub use diff::merge_diff;
pub use writer::{Tie, WriteError, Writer};
