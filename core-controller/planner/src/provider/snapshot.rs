//! What the core knows of one provider at one moment, as plain data: the runtime
//! copies it from the host's session. Machine and cluster planners read timings and
//! reachability from it, the provider planner makes the Provider's status of it.
//! Not for: deciding anything.

use std::time::Duration;

/// How the connection to a provider stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Not tried to the end yet since this process began.
    Connecting,
    /// It answers and can work.
    Ready,
    /// It answers and is still starting: it would refuse mutations.
    Initializing,
    /// It works, badly.
    Degraded,
    /// It does not answer.
    Unreachable,
    /// It serves no version of the protocol that the core speaks.
    Incompatible,
    /// The endpoint or its TLS settings are wrong, nothing can be tried.
    Misconfigured,
}

impl Link {
    /// Whether calls can be sent now.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }

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
}

/// One check of a provider's probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it is well.
    pub healthy: bool,
    /// For people.
    pub message: String,
}

/// How long things take with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// For this long after a change, reads may show the old state.
    pub read_after_write: Duration,
    /// How often to ask for what is changing.
    pub poll_interval: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            read_after_write: Duration::ZERO,
            poll_interval: actuator_proto::limits::POLL_INTERVAL,
        }
    }
}

/// What the core knows of one provider. The words come from the provider and are
/// bounded by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The name under which Clusters ask for it.
    pub name: String,
    /// Where it is: `unix://…` or `https://…`.
    pub endpoint: String,
    /// How the connection stands.
    pub link: Link,
    /// The reason of a condition where it is more exact than the link's name, as in
    /// `ProviderCertificateExpired`; else empty.
    pub reason: String,
    /// What is wrong and what to do; empty when all is well. No times, no counts.
    pub message: String,
    /// What does no harm yet and has to be mended; empty when there is nothing.
    pub warning: String,
    /// What its last probe said.
    pub checks: Vec<Check>,
    /// Grows with each connection.
    pub connections: u64,
    /// Its own version; empty while unknown.
    pub version: String,
    /// Its process: another value means that it was started anew. Empty while unknown.
    pub instance_id: String,
    /// The package that is spoken with it; empty while unknown.
    pub protocol: String,
    /// The packages that it serves.
    pub protocols: Vec<String>,
    /// The optional parts that it has, by field name of `Capabilities`: `watch_machines`.
    pub capabilities: Vec<String>,
    /// The kinds of config that it understands, with the versions of their schemas.
    pub config_kinds: Vec<ConfigKind>,
    /// The entries of the credentials Secret that it reads.
    pub credential_keys: Vec<String>,
    /// How long things take with it.
    pub timings: Timings,
    /// Whether a watch of its machines is in sync: then polling may be slow.
    pub watching: bool,
}

/// A kind of config and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigKind {
    /// The kind.
    pub kind: String,
    /// What it configures: `Cluster` or `Machine`; empty where it is not told.
    pub target: String,
    /// The versions of its schema, best first.
    pub schema_versions: Vec<String>,
}

impl Snapshot {
    /// A provider of which nothing but its place is known.
    pub fn connecting(name: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            endpoint: endpoint.into(),
            link: Link::Connecting,
            reason: String::new(),
            message: String::new(),
            warning: String::new(),
            checks: Vec::new(),
            connections: 0,
            version: String::new(),
            instance_id: String::new(),
            protocol: String::new(),
            protocols: Vec::new(),
            capabilities: Vec::new(),
            config_kinds: Vec::new(),
            credential_keys: Vec::new(),
            timings: Timings::default(),
            watching: false,
        }
    }

    /// Whether it has this optional part of the protocol.
    pub fn has_capability(&self, name: &str) -> bool {
        self.capabilities.iter().any(|capability| capability == name)
    }
}
