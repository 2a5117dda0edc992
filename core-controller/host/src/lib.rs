//! The provider host: the only part of the core that talks to providers and that
//! interprets their errors. It dials endpoints, discovers what serves there, keeps a
//! session with each provider, bounds and times every call, and says what to do after
//! a call that failed ([`Disposition`]).
//!
//! Not for: deciding about objects (the planner), and nothing of Kubernetes.

pub mod backoff;
pub mod breaker;
pub mod pause;
pub mod rate;
pub mod versions;

mod call_error;
mod config;
mod connection;
mod console;
mod dial;
mod discover;
mod disposition;
mod endpoint;
mod folder;
mod handle;
mod host;
mod identities;
mod lanes;
mod layers;
mod metrics;
mod pages;
mod rpc;
mod schema;
mod shared;
mod snapshot;
mod supervise;
mod tls;
mod tls_trouble;
mod trace;
mod trouble;
mod unary;
mod untrusted;
mod watch;

pub use breaker::CircuitState;
pub use call_error::CallError;
pub use config::{CallBounds, EndpointConfig, EndpointSource, HostConfig, HostTimes, Pem, Rate, TlsFiles};
pub use disposition::{AfterResolve, Disposition, Facts, Refusal, resolve};
pub use endpoint::{Endpoint, EndpointError, is_provider_name};
pub use handle::{ConfigSchema, CredentialId, ProviderHandle};
pub use host::{Change, Changes, Host};
pub use metrics::HostMetrics;
pub use rpc::{Lane, Rpc};
pub use snapshot::{
    Check, ProviderCapabilities, ProviderConfigKind, ProviderCredentialKey, ProviderInfo, ProviderLimits,
    ProviderSnapshot, ProviderState, ProviderTimings, ServedProtocol,
};
pub use watch::{MachineHint, MachineWatch};
