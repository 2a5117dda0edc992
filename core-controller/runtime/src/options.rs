//! How a core is set up: what the command line, or `clusterctl`, says.
//!
//! Not for: parsing flags (`cli`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use provider_host::HostTimes;

use crate::lease::LeaseSettings;

/// A provider endpoint that was given at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderEndpoint {
    /// `unix:///path`, `https://host:port`, or `http://` to a loopback address.
    pub endpoint: String,
    /// For `https`: a folder with `ca.crt`, `tls.crt` and `tls.key`.
    pub tls_folder: Option<PathBuf>,
    /// For `https`: the name that the provider's certificate must have; the endpoint's host
    /// when there is none.
    pub server_name: Option<String>,
    /// Whether `http://` to a loopback address is allowed.
    pub allow_plain_http: bool,
}

impl ProviderEndpoint {
    /// An endpoint with nothing special about it.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            tls_folder: None,
            server_name: None,
            allow_plain_http: false,
        }
    }
}

/// How a core is set up. The default has no providers and no election.
#[derive(Debug, Clone)]
pub struct Options {
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderEndpoint>,
    /// Users whose processes may serve any socket, beside the core's own and root.
    pub peer_uids: Vec<u32>,
    /// A folder in which each provider has a folder with its socket: `NAME/actuator.sock`.
    pub socket_dir: Option<PathBuf>,
    /// Who this process is, in events and in the Lease.
    pub identity: String,
    /// Leader election; without it, somebody else sees to it that only one core runs.
    pub lease: Option<LeaseSettings>,
    /// How many objects are planned and written at a time.
    pub workers: usize,
    /// How many writes to the API server are under way at a time.
    pub api_concurrency: usize,
    /// How often everything is planned again, though nothing has happened.
    pub resync: Duration,
    /// How often at most the status of a set or deployment is written while only its
    /// counts move.
    pub status_interval: Duration,
    /// How long the credentials of a Secret are used before it is read again.
    pub credentials_lifetime: Duration,
    /// How many events of each severity are written a second in the long run; the rest of
    /// a flood is counted and dropped.
    pub events_per_second: u32,
    /// The times of the provider host: how often providers are probed, how long they may
    /// be silent, how long is waited after failures.
    pub host_times: HostTimes,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether to apply the CustomResourceDefinitions first.
    pub install_crds: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            providers: BTreeMap::new(),
            peer_uids: Vec::new(),
            socket_dir: None,
            identity: "core-controller".to_owned(),
            lease: None,
            workers: 32,
            api_concurrency: 32,
            resync: Duration::from_mins(10),
            status_interval: Duration::from_secs(1),
            credentials_lifetime: Duration::from_secs(30),
            events_per_second: 2,
            host_times: HostTimes::default(),
            metrics_listen: None,
            install_crds: false,
        }
    }
}
