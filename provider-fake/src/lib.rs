//! A simulated cloud behind the actuator protocol: instances, networks and load
//! balancers in a durable ledger, with delays, limits and faults to judge a core by.
//!
//! [`cloud`] is the cloud, [`provider`] the protocol on top of it, [`audit`] the judge of
//! a run, [`control`] what steers the cloud from outside.
//!
//! Not for: running anything real.

pub mod audit;
pub mod cloud;
pub mod config;
pub mod control;
pub mod flags;
pub mod provider;
