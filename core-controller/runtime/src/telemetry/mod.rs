//! What the process tells of itself: metrics, health, logs and traces.
//!
//! Not for: Kubernetes events (`events`) and conditions (the planner).

pub mod logs;
mod metrics;
mod server;

pub use metrics::{Metrics, Verb};
pub use server::{Readiness, bind, serve};
