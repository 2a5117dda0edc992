//! What is known of a provider at a moment: all that a Provider object's status and
//! the planners need.

use std::sync::Arc;
use std::time::Duration;

use actuator_proto::discovery::v1::Stability;
use actuator_proto::limits;
use actuator_proto::v1::{BootstrapFormat, ConfigTarget, Readiness};
use jiff::Timestamp;

use crate::breaker::CircuitState;
use crate::config::EndpointSource;

/// How things stand with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderState {
    /// Not connected yet.
    Connecting,
    /// Connected, and it can work.
    Ready,
    /// Connected, and still starting.
    Initializing,
    /// Connected, and working badly.
    Degraded,
    /// Not connected, or connected and not answering; tried again and again.
    Unreachable,
    /// Connected once, and it cannot be used: no common version, another name.
    Incompatible,
    /// The endpoint cannot be used as it is: not a socket, a certificate that is no
    /// certificate; looked at again and again.
    Misconfigured,
}

impl ProviderState {
    /// The name in CamelCase, as a reason of a condition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::Ready => "Ready",
            Self::Initializing => "Initializing",
            Self::Degraded => "Degraded",
            Self::Unreachable => "Unreachable",
            Self::Incompatible => "Incompatible",
            Self::Misconfigured => "Misconfigured",
        }
    }

    /// Whether calls can be made.
    pub fn is_reachable(self) -> bool {
        matches!(self, Self::Ready | Self::Initializing | Self::Degraded)
    }
}

/// A provider at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Its endpoint, as a URL.
    pub endpoint: String,
    /// Who named the endpoint.
    pub source: EndpointSource,
    /// How things stand.
    pub state: ProviderState,
    /// The reason of a condition: the state's name, or a more exact one where there is one,
    /// such as `ProviderCertificateExpired`.
    pub reason: &'static str,
    /// The same in a sentence: what is wrong and what to do; empty when all is well.
    pub message: String,
    /// What does no harm yet and has to be mended: a new socket or new certificates that do
    /// not work, while the former ones do. Empty when there is nothing.
    pub warning: String,
    /// What it said of itself when it was last connected; `None` before the first time.
    pub info: Option<Arc<ProviderInfo>>,
    /// What its last probe said, checks in its order.
    pub checks: Vec<Check>,
    /// What its last probe said.
    pub readiness: Readiness,
    /// Whether calls are let through.
    pub circuit: CircuitState,
    /// Grows by one with each new process of the provider (another `instance_id`);
    /// what is held until the provider changes is looked at again when it grows.
    pub sessions: u64,
    /// Grows by one with each connection.
    pub connections: u64,
    /// When the connection of now was made; `None` when there is none.
    pub connected_at: Option<Timestamp>,
}

/// What a provider said of itself; bounded and clean.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderInfo {
    /// The version of its build.
    pub version: String,
    /// Random for each of its processes.
    pub instance_id: String,
    /// The protocol that is spoken with it, for example `actuator.v1`.
    pub protocol: String,
    /// The protocols that it serves.
    pub protocols: Vec<ServedProtocol>,
    /// The optional parts that it has.
    pub capabilities: ProviderCapabilities,
    /// What it can bear.
    pub limits: ProviderLimits,
    /// How long things take with it.
    pub timings: ProviderTimings,
    /// The kinds of config that it understands.
    pub config_kinds: Vec<ProviderConfigKind>,
    /// The entries of the credentials Secret that it reads.
    pub credential_keys: Vec<ProviderCredentialKey>,
    /// What each provider id of a machine begins with.
    pub provider_id_prefix: String,
    /// The formats of bootstrap data that it passes on; unknown ones left out.
    pub bootstrap_formats: Vec<BootstrapFormat>,
}

/// A protocol that a provider serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedProtocol {
    /// The package, for example `actuator.v1`.
    pub package: String,
    /// How far it may still change.
    pub stability: Stability,
}

/// The optional parts that a provider has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProviderCapabilities {
    /// `ListMachines`.
    pub list_machines: bool,
    /// `ListClusters`.
    pub list_clusters: bool,
    /// `WatchMachines`.
    pub watch_machines: bool,
    /// How long a resume token of a watch stays valid; `None`: not across connections.
    pub watch_resume_window: Option<Duration>,
    /// `SetEndpointMembers`.
    pub endpoint_members: bool,
    /// The most members of an endpoint; `None`: no bound known.
    pub max_endpoint_members: Option<u32>,
    /// `GetConsoleOutput`.
    pub console_output: bool,
    /// `ListMachineTypes`.
    pub machine_types: bool,
    /// Whether machine types have prices.
    pub machine_type_prices: bool,
}

impl ProviderCapabilities {
    /// The names of those that are there, for a Provider object.
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.list_machines, "list_machines"),
            (self.list_clusters, "list_clusters"),
            (self.watch_machines, "watch_machines"),
            (self.endpoint_members, "endpoint_members"),
            (self.console_output, "console_output"),
            (self.machine_types, "machine_types"),
        ]
        .into_iter()
        .filter_map(|(there, name)| there.then_some(name))
        .collect()
    }
}

/// What a provider can bear, within the contract's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderLimits {
    /// The most mutations at a time; `None`: no bound of its own.
    pub max_concurrent_mutations: Option<u32>,
    /// The largest bootstrap data, in bytes.
    pub max_bootstrap_bytes: usize,
    /// The largest page of a list.
    pub max_page_size: u32,
    /// The longest machine name; `None`: no bound known.
    pub max_name_length: Option<u32>,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self {
            max_concurrent_mutations: None,
            max_bootstrap_bytes: limits::MAX_BOOTSTRAP_BYTES,
            max_page_size: limits::MAX_PAGE_ITEMS as u32,
            max_name_length: None,
        }
    }
}

/// How long things take with a provider, with the contract's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderTimings {
    /// How long a mutation is given.
    pub mutation_deadline: Duration,
    /// How long Exists is given.
    pub exists_deadline: Duration,
    /// How long after a change reads may show the old state.
    pub read_after_write: Duration,
    /// How often to ask for a resource that is changing.
    pub poll_interval: Duration,
}

impl Default for ProviderTimings {
    fn default() -> Self {
        Self {
            mutation_deadline: limits::MUTATION_DEADLINE,
            exists_deadline: limits::EXISTS_DEADLINE,
            read_after_write: Duration::ZERO,
            poll_interval: limits::POLL_INTERVAL,
        }
    }
}

/// A kind of config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfigKind {
    /// Its name.
    pub kind: String,
    /// What it configures.
    pub target: ConfigTarget,
    /// The versions of its schema, best first.
    pub schema_versions: Vec<String>,
}

/// An entry of the credentials Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderCredentialKey {
    /// Its name.
    pub name: String,
    /// Whether the provider can do without it.
    pub optional: bool,
    /// For people.
    pub description: String,
}

/// One thing that a probe looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is well.
    pub healthy: bool,
    /// For people.
    pub message: String,
}
