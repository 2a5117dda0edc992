//! Providers: their endpoints from flags, folder and objects; what the host knows of
//! them for the planners; and the hints that they send.
//!
//! Not for: the status of Provider objects (the planner) or calls (`operations`).

pub mod endpoints;
pub mod hints;
pub mod snapshots;
