//! What the mirror suite is made of: a provider that answers by script and keeps its own
//! true ledger ([`provider`]), a real core with an embedded API server ([`world`]), and a
//! place of its own for each row of a table ([`scene`]).
//!
//! The provider speaks the protocol from the `.proto` files with nothing between, not the
//! SDK's server: it can send what no SDK would.
//!
//! Not for: judging providers, which the conformance suite does.

pub mod ledger;
pub mod provider;
pub mod scene;
pub mod statuses;
pub mod wire;
pub mod world;
