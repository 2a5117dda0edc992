//! A simulated cloud behind the actuator protocol: instances, networks and load
//! balancers in a durable ledger, with delays, limits and faults to judge a core by.
//!
//! Not for: running anything real.

pub mod cloud;
