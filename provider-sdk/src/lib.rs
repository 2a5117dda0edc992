//! What a Rust provider needs besides its cloud calls. An author implements
//! [`Provider`] in terms of his cloud and hands it to [`run`] (a whole `main`) or to
//! [`Server`]; he gets serving over a Unix socket or TCP, discovery, identity, health,
//! checked requests and answers, typed configs with JSON pointers in every
//! diagnostic, one task per mutation that outlives its call, the order of mutations
//! per key, graceful shutdown, traces, metrics and logs without secrets.
//!
//! Not for: calling a provider (see `provider-host`), nor for anything of Kubernetes.

mod answer;
mod bootstrap;
mod checks;
pub mod config;
mod context;
mod credentials;
mod decode;
mod info;
mod operations;
mod outgoing;
mod program;
mod provider;
mod request;
mod serve;
mod service;
mod telemetry;

pub use actuator_proto as proto;
pub use actuator_proto::errors::ActuatorError;
pub use actuator_proto::v1;
pub use async_trait::async_trait;

pub use answer::{Deletion, Diagnostic, Existence, Page, PageBuilder, Probe};
pub use bootstrap::Bootstrap;
pub use config::{Config, ConfigHint, OlderVersion};
pub use context::{CallContext, OperationContext};
pub use credentials::Credentials;
pub use info::{CredentialKey, Limits, ProviderInfo, Timings};
pub use program::{Program, Setup, run};
pub use provider::{ByteStream, Provider, WatchEvent, WatchStream};
pub use request::{
    AnyConfig, ClusterExists, ClusterSpec, ConsoleOutput, CreateCluster, CreateMachine, DeleteCluster, DeleteMachine,
    ListClusters, ListMachineTypes, ListMachines, MachineExists, MachineSpec, PageRequest, Resource,
    SetEndpointMembers, UpdateCluster, UpdateMachine, Validation, WatchMachines,
};
pub use serve::listen::{InvalidListen, Listen};
pub use serve::server::{BoundServer, BuildError, ServeError, Server, ServerBuilder, TcpSecurity};
pub use serve::tls::{TlsError, TlsFiles};
pub use serve::unix_socket::SocketError;
pub use telemetry::metrics::Metrics;
pub use telemetry::setup::LogFormat;
