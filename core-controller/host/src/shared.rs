//! What the supervisor of a provider and its calls share: the session of now, the
//! circuit, pauses, lanes, and the snapshot that others see.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actuator_proto::v1::Readiness;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, broadcast};

use crate::breaker::{Breaker, CircuitState};
use crate::call_error::CallError;
use crate::config::{EndpointConfig, HostConfig};
use crate::connection::Connection;
use crate::disposition::Refusal;
use crate::handle::{ConfigSchema, CredentialId};
use crate::identities::Identities;
use crate::lanes::Lanes;
use crate::pause::Pauses;
use crate::rate::Bucket;
use crate::rpc::Rpc;
use crate::snapshot::{ProviderCapabilities, ProviderInfo, ProviderLimits, ProviderSnapshot, ProviderState};

/// The most watches on one provider.
const MAX_WATCHES: usize = 16;

/// Schemas by kind and version, of one process of the provider.
pub(crate) type Schemas = Arc<Mutex<HashMap<(String, String), Arc<ConfigSchema>>>>;

/// One connection to a provider that was discovered.
pub(crate) struct Session {
    /// Counts connections.
    pub(crate) connection: u64,
    pub(crate) info: Arc<ProviderInfo>,
    pub(crate) channel: Connection,
    pub(crate) schemas: Schemas,
    /// Optional calls that turned out not to be there.
    missing: Mutex<BTreeSet<Rpc>>,
}

impl Session {
    pub(crate) fn new(connection: u64, info: Arc<ProviderInfo>, channel: Connection, schemas: Schemas) -> Self {
        Self {
            connection,
            info,
            channel,
            schemas,
            missing: Mutex::default(),
        }
    }

    /// Whether the provider has this call.
    pub(crate) fn offers(&self, rpc: Rpc) -> bool {
        advertised(&self.info.capabilities, rpc) && !self.missing.lock().contains(&rpc)
    }

    /// The provider advertises an optional call and does not have it.
    pub(crate) fn lacks(&self, rpc: Rpc) {
        self.missing.lock().insert(rpc);
    }
}

fn advertised(capabilities: &ProviderCapabilities, rpc: Rpc) -> bool {
    match rpc {
        Rpc::ListMachines => capabilities.list_machines,
        Rpc::ListClusters => capabilities.list_clusters,
        Rpc::WatchMachines => capabilities.watch_machines,
        Rpc::SetEndpointMembers => capabilities.endpoint_members,
        Rpc::GetConsoleOutput => capabilities.console_output,
        Rpc::ListMachineTypes => capabilities.machine_types,
        _ => true,
    }
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) host: HostConfig,
    config: RwLock<Arc<EndpointConfig>>,
    snapshot: Mutex<ProviderSnapshot>,
    session: RwLock<Option<Arc<Session>>>,
    pub(crate) breaker: Mutex<Breaker>,
    pub(crate) pauses: Mutex<Pauses>,
    bucket: Mutex<Option<Bucket>>,
    lanes: RwLock<Arc<Lanes>>,
    pub(crate) identities: Identities,
    /// Wakes the supervisor: the circuit has opened.
    pub(crate) redial: Notify,
    /// Wakes the supervisor: the endpoint was changed.
    pub(crate) reconfigured: Notify,
    /// Wakes those who wait for a session.
    pub(crate) session_changed: Notify,
    /// How many watches may be open.
    pub(crate) watches: Arc<Semaphore>,
    gone: AtomicBool,
    changes: broadcast::Sender<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(
        name: Arc<str>,
        config: EndpointConfig,
        host: HostConfig,
        changes: broadcast::Sender<Arc<str>>,
    ) -> Self {
        let snapshot = ProviderSnapshot {
            name: name.clone(),
            endpoint: config.endpoint.to_string(),
            source: config.source,
            state: ProviderState::Connecting,
            reason: ProviderState::Connecting.name(),
            message: "not connected yet".to_owned(),
            warning: String::new(),
            info: None,
            checks: Vec::new(),
            readiness: Readiness::Unspecified,
            circuit: CircuitState::Closed,
            sessions: 0,
            connections: 0,
            connected_at: None,
        };
        let lanes = Lanes::new(&name, &host, config.max_in_flight, &ProviderLimits::default());
        Self {
            name,
            snapshot: Mutex::new(snapshot),
            session: RwLock::default(),
            breaker: Mutex::new(Breaker::at_most(host.times.max_wait)),
            pauses: Mutex::new(Pauses::at_most(host.times.max_wait)),
            bucket: Mutex::new(config.rate.map(Bucket::new)),
            lanes: RwLock::new(Arc::new(lanes)),
            identities: Identities::default(),
            redial: Notify::new(),
            reconfigured: Notify::new(),
            session_changed: Notify::new(),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            gone: AtomicBool::new(false),
            changes,
            host,
            config: RwLock::new(Arc::new(config)),
        }
    }

    pub(crate) fn config(&self) -> Arc<EndpointConfig> {
        self.config.read().clone()
    }

    /// Another endpoint, or other limits; what is the same already changes nothing.
    pub(crate) fn reconfigure(&self, config: EndpointConfig) {
        let before = std::mem::replace(&mut *self.config.write(), Arc::new(config.clone()));
        if *before == config {
            return;
        }
        if before.rate != config.rate {
            *self.bucket.lock() = config.rate.map(Bucket::new);
        }
        self.limit();
        self.update(|snapshot| {
            snapshot.endpoint = config.endpoint.to_string();
            snapshot.source = config.source;
        });
        if !before.is_same_place(&config) || before.tls != config.tls {
            self.reconfigured.notify_one();
        }
    }

    /// The endpoint was removed.
    pub(crate) fn removed(&self) {
        self.gone.store(true, Ordering::Release);
        *self.session.write() = None;
        self.session_changed.notify_waiters();
        self.host.metrics.forget(&self.name);
        self.tell();
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> ProviderSnapshot {
        self.snapshot.lock().clone()
    }

    /// Changes the snapshot, and tells when it is another one now.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProviderSnapshot)) {
        let changed = {
            let mut snapshot = self.snapshot.lock();
            let before = snapshot.clone();
            change(&mut snapshot);
            snapshot.circuit = self.breaker.lock().state();
            if !self.is_removed() {
                self.host.metrics.state(&self.name, snapshot.state, snapshot.circuit);
            }
            *snapshot != before
        };
        if changed {
            self.tell();
        }
    }

    /// Tells subscribers to look at the snapshot.
    pub(crate) fn tell(&self) {
        // Nobody listening is fine.
        let _ = self.changes.send(self.name.clone());
    }

    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.session.read().clone()
    }

    /// A session begins, or there is none any more.
    pub(crate) fn set_session(&self, session: Option<Arc<Session>>) {
        let begins = session.is_some();
        if !self.is_removed() {
            *self.session.write() = session;
        }
        if begins {
            self.limit();
        }
        self.session_changed.notify_waiters();
    }

    /// Makes the lanes anew when the limits are others now. Calls under way keep their
    /// old places.
    fn limit(&self) {
        let limits = self.session().map(|session| session.info.limits).unwrap_or_default();
        let max_in_flight = self.config().max_in_flight;
        let mut lanes = self.lanes.write();
        if !lanes.has_limits(&self.host, max_in_flight, &limits) {
            *lanes = Arc::new(Lanes::new(&self.name, &self.host, max_in_flight, &limits));
        }
    }

    pub(crate) fn lanes(&self) -> Arc<Lanes> {
        self.lanes.read().clone()
    }

    /// Takes a token of the rate limit; how long to wait, or `Err` when that is too long.
    pub(crate) fn take_token(&self, now: Instant) -> Result<Duration, Duration> {
        match &mut *self.bucket.lock() {
            Some(bucket) => bucket.take(now, self.host.bounds.queue_wait),
            None => Ok(Duration::ZERO),
        }
    }

    /// The session that a call may use now, or the error of a call that may not be sent.
    pub(crate) fn admit(&self, rpc: Rpc, credential: &CredentialId) -> Result<Arc<Session>, CallError> {
        let refuse =
            |refusal, closed_for, message: &str| Err(CallError::refused(&self.name, rpc, refusal, closed_for, message));
        if self.is_removed() {
            return refuse(
                Refusal::Unavailable,
                Some(crate::backoff::MAX_BACKOFF),
                "no endpoint of that name is set any more; nothing was sent",
            );
        }
        let now = Instant::now();
        if let Err(remaining) = self.breaker.lock().admit(now) {
            let message = "the circuit is open because the provider failed; nothing was sent";
            return refuse(Refusal::Unavailable, Some(remaining), message);
        }
        let Some(session) = self.session() else {
            let snapshot = self.snapshot.lock();
            let message = format!(
                "the provider at {} is not connected ({}); nothing was sent",
                snapshot.endpoint, snapshot.message
            );
            drop(snapshot);
            return refuse(Refusal::Unavailable, None, &message);
        };
        if !session.offers(rpc) {
            let message = format!("the provider does not offer {}; nothing was sent", rpc.name());
            return refuse(Refusal::CapabilityMissing, None, &message);
        }
        if rpc.reaches_cloud()
            && let Some(remaining) = self.pauses.lock().remaining(credential, now)
        {
            let message = "the provider asked for a pause that is not over; nothing was sent";
            return refuse(Refusal::Paused, Some(remaining), message);
        }
        Ok(session)
    }
}
