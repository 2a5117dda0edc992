//! The conformance suite of the actuator protocol: one test for each rule, run against a
//! provider's endpoint. It knows the protocol (`actuator-proto`) and nothing of our own
//! host, SDK or providers, so that it judges a provider in any language by what is on the
//! wire alone.
//!
//! The binary `actuator-conformance` runs it for people; as a library it runs from a
//! provider's own tests:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use actuator_conformance::{Config, Options, run};
//!
//! let config = Config::read("conformance.yaml".as_ref())?;
//! let report = run(Options::new("unix:///tmp/actuator.sock".parse()?, config)).await?;
//! assert!(report.conforms(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! Where things are: [`rule`] says what a test is, [`rules`] holds them, a file for each
//! part of the protocol; [`context`] is what a test works with; [`calls`] makes the calls
//! and remembers them; [`ledger`] and [`budget`] keep a real account from harm; [`runner`]
//! decides what runs when; [`report`] tells the outcome.

pub mod budget;
pub mod calls;
pub mod config;
pub mod context;
pub mod dial;
pub mod ledger;
pub mod mask;
pub mod report;
pub mod requests;
pub mod restart;
pub mod rule;
pub mod rules;
pub mod runner;

pub use config::Config;
pub use dial::Endpoint;
pub use report::Report;
pub use runner::{Options, run};
