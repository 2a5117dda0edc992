//! A Kubernetes API server as a library: in process, over a socket, on one file.

pub mod managed_fields;
pub mod openapi;
pub mod patch;
pub mod schema;
pub mod selector;
pub mod table;
