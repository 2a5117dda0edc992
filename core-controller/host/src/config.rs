//! What the host is told: endpoints with their limits, and its own times.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::metrics::HostMetrics;

/// Who named an endpoint. What was named in one way is not overruled by the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointSource {
    /// A flag.
    Flag,
    /// A socket in the socket folder.
    SocketFolder,
    /// A Provider object.
    Object,
}

/// Where a PEM comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The bytes themselves, and where they are from, in words: `tls.crt of the Secret a/b`.
    Bytes {
        /// The PEM.
        bytes: Arc<[u8]>,
        /// Where it is from.
        from: Arc<str>,
    },
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes { from, .. } => f.write_str(from),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes { from, .. } => write!(f, "Bytes([redacted], from {from:?})"),
        }
    }
}

/// Mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may have signed the provider's certificate; no others are
    /// trusted, those of the system neither.
    pub ca: Pem,
    /// The core's certificate chain.
    pub certificate: Pem,
    /// The core's private key.
    pub key: Pem,
    /// The name that the provider's certificate must be valid for; `None`: the host of
    /// the endpoint.
    pub server_name: Option<String>,
}

/// At most so many calls a second that may reach the cloud.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Calls a second.
    pub per_second: f64,
    /// Calls at once after a quiet time.
    pub burst: u32,
}

/// An endpoint and how to use it.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// For `https`.
    pub tls: Option<TlsFiles>,
    /// The most mutations at a time; the provider's own limit holds as well.
    pub max_in_flight: Option<u32>,
    /// The most calls a second.
    pub rate: Option<Rate>,
    /// Whether `http` to a loopback address is allowed.
    pub allow_plain_http: bool,
    /// The user whose process may serve the socket, besides the core's own and root.
    pub peer_uid: Option<u32>,
    /// Who named it.
    pub source: EndpointSource,
}

impl EndpointConfig {
    /// Whether this leads to the same provider, so that a connection made with `other` may
    /// go on: at most the certificates differ, not what they are checked against.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        let pinned = |config: &Self| config.tls.as_ref().map(|files| files.server_name.clone());
        self.endpoint == other.endpoint
            && pinned(self) == pinned(other)
            && self.peer_uid == other.peer_uid
            && self.allow_plain_http == other.allow_plain_http
    }

    /// An endpoint with the defaults.
    #[must_use]
    pub fn new(endpoint: Endpoint, source: EndpointSource) -> Self {
        Self {
            endpoint,
            tls: None,
            max_in_flight: None,
            rate: None,
            allow_plain_http: false,
            peer_uid: None,
            source,
        }
    }
}

/// Bounds on calls, for each provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallBounds {
    /// The most mutations at a time where neither provider nor endpoint say.
    pub mutations: u32,
    /// The most reads at a time.
    pub reads: u32,
    /// The most lists at a time.
    pub lists: u32,
    /// The most calls at a time in each lane with one credential.
    pub per_credential: u32,
    /// The most calls that wait in each lane.
    pub queued: u32,
    /// The longest that a call waits.
    pub queue_wait: Duration,
}

impl Default for CallBounds {
    fn default() -> Self {
        Self {
            mutations: 32,
            reads: 64,
            lists: 4,
            per_credential: 32,
            queued: 1024,
            queue_wait: Duration::from_mins(1),
        }
    }
}

/// The host's own times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTimes {
    /// How often a provider is probed.
    pub probe_interval: Duration,
    /// After so many probes without an answer the connection is given up.
    pub probe_failures: u32,
    /// How long a connection may take, TLS included.
    pub connect: Duration,
    /// The shortest wait between two connections.
    pub reconnect_min: Duration,
    /// The longest wait between two connections.
    pub reconnect_max: Duration,
    /// How often a socket that is not there is looked for.
    pub socket_poll: Duration,
    /// How often the certificates of a provider that cannot be reached are looked at.
    pub certificate_poll: Duration,
    /// How often the socket folder is read.
    pub folder_poll: Duration,
    /// An endpoint from the folder is forgotten after its socket was gone this long.
    pub folder_forget: Duration,
    /// How much later than the deadline in the call the host's own timer ends it.
    pub deadline_grace: Duration,
    /// Caps every deadline; [`actuator_proto::limits::MAX_DEADLINE`] but in tests.
    pub max_deadline: Duration,
    /// A watch that sends nothing, not even a bookmark, for this long is opened anew.
    pub watch_silence: Duration,
    /// Caps every wait after a failure, back-offs and what providers ask for alike;
    /// [`crate::backoff::MAX_WAIT`] but in tests.
    pub max_wait: Duration,
}

impl Default for HostTimes {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(10),
            probe_failures: 2,
            connect: Duration::from_secs(5),
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(30),
            socket_poll: Duration::from_millis(250),
            certificate_poll: Duration::from_secs(1),
            folder_poll: Duration::from_secs(1),
            folder_forget: Duration::from_mins(5),
            deadline_grace: Duration::from_millis(500),
            max_deadline: actuator_proto::limits::MAX_DEADLINE,
            watch_silence: Duration::from_secs(90),
            max_wait: crate::backoff::MAX_WAIT,
        }
    }
}

/// What the host is made with.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Bounds on calls.
    pub bounds: CallBounds,
    /// Times.
    pub times: HostTimes,
    /// Users whose processes may serve any socket, besides the core's own and root: those
    /// of the sidecars whose sockets are found in the folder.
    pub peer_uids: Vec<u32>,
    /// Where to count; the default counts without being read.
    pub metrics: HostMetrics,
}
