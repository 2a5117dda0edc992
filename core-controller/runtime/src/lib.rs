//! The core controller: it watches the objects of `cluster.outrigger.dev`, has them
//! planned by `outrigger-planner`, and carries the plans out.
//!
//! Not for: deciding (the planner does) or interpreting provider errors (the host does).

pub mod cli;
mod core;
pub mod crds;
pub mod events;
pub mod execute;
pub mod index;
pub mod lease;
mod memory;
pub mod names;
pub mod observe;
pub mod operations;
mod options;
pub mod providers;
pub mod queue;
pub mod reconcile;
pub mod telemetry;

pub use core::Core;
pub use options::{Options, ProviderEndpoint};
