//! The core controller: it watches the objects of `cluster.outrigger.dev`, has them
//! planned by `outrigger-planner`, and carries the plans out.
//!
//! Not for: deciding (the planner does) or interpreting provider errors (the host does).

pub mod index;
pub mod names;
pub mod queue;
