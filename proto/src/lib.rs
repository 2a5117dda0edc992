//! The actuator protocol in Rust: the generated messages and services, and the
//! parts of the contract that both sides must read the same way: the error table,
//! the limits, idempotency keys and spec digests.
//!
//! Not for: serving (see `provider-sdk`) or calling (see `provider-host`).

use std::fmt;

pub mod bytes_codec;
pub mod digest;
pub mod errors;
pub mod key;
pub mod limits;
pub mod secrets;

/// `actuator.v1`, the stable protocol.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("actuator.v1");
}

/// Version discovery, frozen for ever.
pub mod discovery {
    /// `actuator.discovery.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
    pub mod v1 {
        tonic::include_proto!("actuator.discovery.v1");
    }
}

mod redacted_debug {
    //! `Debug` of the messages that have a sensitive field, written by `build.rs`.
    include!(concat!(env!("OUT_DIR"), "/redacted_debug.rs"));
}

/// The encoded `FileDescriptorSet` of the protocol with its imports, for gRPC
/// reflection and for tools that walk the messages.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/actuator_descriptors.bin"));

/// The protobuf package of the stable protocol.
pub const PACKAGE_V1: &str = "actuator.v1";

/// What stands in the place of a secret wherever it would be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Redacted;

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod sensitive_tests;
