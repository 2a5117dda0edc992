//! Keeps one provider connected: dials, discovers and probes it, sees it die at once,
//! and notices when another process or other certificates have taken its place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actuator_proto::v1::Readiness;
use jiff::Timestamp;

use crate::backoff;
use crate::breaker::CircuitState;
use crate::config::EndpointConfig;
use crate::dial::{self, Fingerprint};
use crate::discover::{self, Probed};
use crate::endpoint::Endpoint;
use crate::shared::{Schemas, Session, Shared};
use crate::snapshot::{ProviderSnapshot, ProviderState};
use crate::tls::Certificates;
use crate::trouble::Trouble;

/// Jitter before the first try after a connection that has lasted.
const FIRST_TRY_WITHIN: Duration = Duration::from_millis(100);

/// A session with what its connection was made with.
struct Live {
    session: Arc<Session>,
    made_with: Fingerprint,
}

/// Why a connection is no longer served.
enum Ended {
    /// Dial again, as after a failure.
    Lost,
    /// Dial again at once: the endpoint is another one.
    Reconfigured,
}

struct Supervisor {
    shared: Arc<Shared>,
    /// Failures in a row.
    failures: u32,
    connections: u64,
    sessions: u64,
    instance_id: String,
    schemas: Schemas,
    /// Of the endpoint that is or was dialled last.
    certificates: Certificates,
    dialled: Option<Endpoint>,
}

/// Runs until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut supervisor = Supervisor {
        shared,
        failures: 0,
        connections: 0,
        sessions: 0,
        instance_id: String::new(),
        schemas: Schemas::default(),
        certificates: Certificates::default(),
        dialled: None,
    };
    loop {
        supervisor.once().await;
    }
}

impl Supervisor {
    /// One connection from its beginning to its end, and the rest before the next.
    async fn once(&mut self) {
        let mut config = self.shared.config();
        if self.dialled.as_ref() != Some(&config.endpoint) {
            // Certificates for one provider are none for another.
            self.certificates = Certificates::default();
            self.dialled = Some(config.endpoint.clone());
        }
        let tried_with = dial::fingerprint(&config).await;
        match self.connect(&config).await {
            Ok(live) => {
                let since = Instant::now();
                let ended = self.serve(live, &mut config).await;
                // What was short-lived counts as a failure: a provider that dies over
                // and over is not dialled without end.
                let lasted = since.elapsed() >= self.shared.host.times.reconnect_min;
                self.failures = if lasted { 0 } else { self.failures.saturating_add(1) };
                self.shared.set_session(None);
                if matches!(ended, Ended::Reconfigured) {
                    self.failures = 0;
                    return;
                }
            }
            Err(trouble) => {
                self.failures = self.failures.saturating_add(1);
                self.fail(&trouble);
            }
        }
        self.rest(&config, tried_with).await;
    }

    /// Dials, discovers and probes; then calls may go.
    async fn connect(&mut self, config: &EndpointConfig) -> Result<Live, Trouble> {
        let shared = self.shared.clone();
        let (channel, made_with) = dial::dial(config, &shared.host, &mut self.certificates).await?;
        let info = match discover::discover(&channel, &shared.name).await {
            Ok(info) => info,
            Err(trouble) => return Err(dial::explain(config, &channel, trouble).await),
        };
        self.connections += 1;
        let connection = self.connections;
        if shared.breaker.lock().state() != CircuitState::Closed {
            shared.breaker.lock().connected(connection);
            shared.update(|_| {});
        }
        let probed = match discover::probe(&channel).await {
            Ok(probed) => probed,
            Err(trouble) => {
                if shared.breaker.lock().state() == CircuitState::HalfOpen {
                    shared.breaker.lock().broken(connection, Instant::now(), rand::random());
                    shared.redial.notify_one();
                }
                return Err(trouble);
            }
        };

        let new_session = info.instance_id != self.instance_id;
        if new_session {
            self.sessions += 1;
            self.instance_id.clone_from(&info.instance_id);
            self.schemas = Schemas::default();
            shared.pauses.lock().clear();
            tracing::info!(
                provider = %shared.name, version = %info.version, instance = %info.instance_id, protocol = %info.protocol,
                "a session with the provider begins"
            );
        }
        let info = Arc::new(info);
        let session = Arc::new(Session::new(connection, info.clone(), channel, self.schemas.clone()));
        shared.set_session(Some(session.clone()));
        {
            let mut breaker = shared.breaker.lock();
            breaker.connected(connection);
            breaker.probed(connection);
        }
        shared.host.metrics.connected(&shared.name, new_session);
        let sessions = self.sessions;
        shared.update(|snapshot| {
            snapshot.info = Some(info);
            snapshot.sessions = sessions;
            snapshot.connections = connection;
            snapshot.connected_at = Some(Timestamp::now());
            snapshot.warning.clear();
            show_probe(snapshot, probed);
        });
        Ok(Live { session, made_with })
    }

    /// Watches over a connection until it has to be made anew.
    async fn serve(&mut self, mut live: Live, config: &mut Arc<EndpointConfig>) -> Ended {
        let shared = self.shared.clone();
        let every = shared.host.times.probe_interval;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut missed = 0;
        loop {
            tokio::select! {
                () = live.session.channel.closed() => {
                    let why = live.session.channel.why_closed();
                    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                    self.fail(&Trouble::Unreachable(format!("the provider closed the connection{why}; it is dialled again")));
                    return Ended::Lost;
                }
                () = shared.redial.notified() => {
                    if shared.breaker.lock().state() == CircuitState::Open {
                        let message = shared.snapshot().message;
                        self.fail(&Trouble::Unreachable(message));
                        return Ended::Lost;
                    }
                }
                () = shared.reconfigured.notified() => {
                    let new = shared.config();
                    if !new.is_same_place(config) {
                        return Ended::Reconfigured;
                    }
                    // Other certificates for the same provider: nothing is given up for them.
                    *config = new;
                    if let Some(replaced) = self.replaced(&live, config).await {
                        live = replaced;
                        missed = 0;
                    }
                }
                _ = ticks.tick() => {
                    match discover::probe(&live.session.channel).await {
                        Ok(probed) => {
                            missed = 0;
                            shared.update(|snapshot| show_probe(snapshot, probed));
                        }
                        Err(trouble) => {
                            missed += 1;
                            if missed >= shared.host.times.probe_failures.max(1) {
                                self.fail(&trouble);
                                return Ended::Lost;
                            }
                        }
                    }
                    if let Some(replaced) = self.replaced(&live, config).await {
                        live = replaced;
                        missed = 0;
                    }
                }
            }
        }
    }

    /// Another connection, when the socket was made anew or certificates have changed.
    /// As long as the new ones do not work, the old connection goes on.
    async fn replaced(&mut self, live: &Live, config: &EndpointConfig) -> Option<Live> {
        let (now, left_alone) = dial::newest(config, &mut self.certificates).await;
        if let Some(why) = left_alone {
            self.warn(format!(
                "the certificates were changed and cannot be used, the former ones stay in use: {why}"
            ));
            return None;
        }
        match now {
            // The socket is gone for now: who still serves the connection may go on.
            None => return None,
            Some(now) if now == live.made_with => {
                self.warn(String::new());
                return None;
            }
            Some(_) => {}
        }
        match self.connect(config).await {
            Ok(live) => {
                tracing::info!(
                    provider = %self.shared.name,
                    "socket or certificates were changed; a new connection has taken the place of the old one"
                );
                Some(live)
            }
            Err(trouble) => {
                self.warn(format!(
                    "socket or certificates were changed and do not work, the old connection goes on: {}",
                    trouble.message()
                ));
                None
            }
        }
    }

    /// Shows what has to be mended while all goes on; nothing when it is empty.
    fn warn(&self, warning: String) {
        self.shared.update(|snapshot| {
            if snapshot.warning != warning {
                if !warning.is_empty() {
                    tracing::warn!(provider = %snapshot.name, "{warning}");
                }
                snapshot.warning = warning;
            }
        });
    }

    fn fail(&self, trouble: &Trouble) {
        let state = trouble.state();
        self.shared.update(|snapshot| {
            if (snapshot.state, snapshot.message.as_str()) != (state, trouble.message()) {
                tracing::warn!(
                    provider = %snapshot.name, state = state.name(), reason = trouble.reason(), "{}", trouble.message()
                );
            }
            snapshot.state = state;
            snapshot.reason = trouble.reason();
            snapshot.warning.clear();
            trouble.message().clone_into(&mut snapshot.message);
            snapshot.readiness = Readiness::Unspecified;
            snapshot.checks.clear();
            snapshot.connected_at = None;
        });
    }

    /// Waits before the next try: the back-off or what the circuit wants; a socket that
    /// appears, certificates that change or another endpoint end the wait.
    async fn rest(&mut self, config: &EndpointConfig, tried_with: Option<Fingerprint>) {
        let times = self.shared.host.times;
        let delay = match self.failures {
            0 => FIRST_TRY_WITHIN.mul_f64(rand::random()),
            failures => backoff::bounded(failures, times.reconnect_min, times.reconnect_max, rand::random()),
        };
        let cool_down = self.shared.breaker.lock().remaining(Instant::now());
        let changed = async {
            let poll = match (&config.endpoint, &config.tls) {
                (Endpoint::Unix(_), _) => times.socket_poll,
                (_, Some(_)) => times.certificate_poll,
                _ => return std::future::pending().await,
            };
            loop {
                tokio::time::sleep(poll).await;
                let now = dial::fingerprint(config).await;
                if now.is_some() && now != tried_with {
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(delay.max(cool_down)) => {}
            () = changed => self.failures = 0,
            () = self.shared.reconfigured.notified() => self.failures = 0,
        }
    }
}

/// What a probe says, shown.
fn show_probe(snapshot: &mut ProviderSnapshot, probed: Probed) {
    snapshot.state = match probed.readiness {
        Readiness::Initializing => ProviderState::Initializing,
        Readiness::Degraded => ProviderState::Degraded,
        Readiness::Ready | Readiness::Unspecified => ProviderState::Ready,
    };
    snapshot.reason = snapshot.state.name();
    let ailing: Vec<String> = probed
        .checks
        .iter()
        .filter(|check| !check.healthy)
        .take(5)
        .map(|check| format!("{}: {}", check.name, check.message))
        .collect();
    snapshot.message = match (snapshot.state, ailing.is_empty()) {
        (ProviderState::Ready, _) => String::new(),
        (ProviderState::Initializing, true) => "the provider is still starting".to_owned(),
        (_, true) => "the provider says that it works badly, and not why".to_owned(),
        (_, false) => ailing.join("; "),
    };
    snapshot.readiness = probed.readiness;
    snapshot.checks = probed.checks;
}
