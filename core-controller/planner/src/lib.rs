//! Pure decisions: what was observed goes in, what to do comes out.
//!
//! One module per kind, each with a `View`, a `Plan` and `fn plan(&View, now) -> Plan`. No async, no clock, no randomness,
//! no I/O: the runtime observes and executes. Nothing decides twice.

pub mod cluster;
pub mod conditions;
pub mod event;
#[cfg(test)]
mod invariants;
mod line;
pub mod machine;
pub mod machine_deployment;
pub mod machine_set;
pub mod observation;
pub mod operation;
pub mod provider;
mod removal;
pub mod request;
pub mod validation;
