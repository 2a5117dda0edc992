//! A simulated AWS with faults, for the tests beside it.
#![allow(dead_code, missing_docs)] // each test crate uses its part
#![allow(clippy::expect_used, clippy::panic)] // a test may panic

pub mod moto;
pub mod proxy;

/// The region of all tests.
pub const REGION: &str = "eu-central-1";
