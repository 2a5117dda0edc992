//! What the process knows of the API server: one [`Table`] per kind.
//!
//! Not for: reading from the API server (`observe`), or deciding (`outrigger-planner`).

mod kinds;
mod table;

pub use kinds::{Index, Reconciled};
pub use table::{Change, IndexKey, StaleList, Stored, Table, trim_metadata, version_of};
