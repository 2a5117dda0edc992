//! A provider that answers by script and keeps its own true ledger. It speaks the
//! protocol from the `.proto` files with nothing between, not the SDK's server: it can
//! send what no SDK would. The suite that puts our core before it is in `tests/mirror`.
//!
//! Not for: judging providers, which the conformance suite does, nor for anything of our
//! core.

pub mod identity;
pub mod ledger;
pub mod provider;
pub mod statuses;
mod wire;
