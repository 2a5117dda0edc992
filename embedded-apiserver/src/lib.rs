//! A Kubernetes API server as a library: in process, over a socket, on one file.
//!
//! `storage` keeps objects with revisions and a watch history, `registry` knows the resources, `rest` the verbs,
//! `http` speaks to clients; `lifecycle` does what the server does by itself. It is not a Kubernetes distribution:
//! nothing is scheduled and nothing runs.
//!
//! ```no_run
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let server = embedded_apiserver::ApiServer::builder().in_memory().build().await?;
//! // In process, without a socket: kube::Client::new(server.service(), "default").
//! let service = server.service();
//! # drop(service);
//! # Ok(())
//! # }
//! ```

pub mod access;
mod builtin;
mod deep;
mod go;
mod http;
mod lifecycle;
mod registry;
mod rest;
mod serve;
mod server;
mod storage;

pub mod managed_fields;
pub mod openapi;
pub mod patch;
pub mod schema;
pub mod selector;
pub mod table;

pub use crate::http::Body;
pub use crate::serve::{Running, ServeError};
pub use crate::server::{ApiServer, Builder, Service, StartError};
pub use crate::storage::{HistoryLimits, OpenError};
