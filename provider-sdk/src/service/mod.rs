//! The gRPC services over a provider: each call is decoded, checked, ordered, run and
//! its answer checked. One file for each service.

mod cluster;
mod core;
mod endpoint;
mod identity;
mod machine;
mod streams;

pub(crate) use self::core::{Core, Service};
