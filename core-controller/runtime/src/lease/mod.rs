//! Leader election by a Lease: one process acts, others stand by, warm.
//!
//! The claim is checked before each write: it holds until the lease's duration after
//! the moment that the last accepted renewal was *sent*. The number of transitions is
//! the fencing epoch that providers get. The same identity takes over at once, under a
//! new epoch, so that a restarted process does not wait for its own old lease.
//!
//! Not for: sharing work between replicas.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use rand::Rng as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use decide::{Decision, decide};

use crate::index::version_of;
use crate::telemetry::{Metrics, Verb};

/// Which lease, and how long things take.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who we are; the same after a restart, if that can be had.
    pub identity: String,
    /// How long a claim holds without renewal.
    pub duration: Duration,
    /// How often it is renewed, or asked for.
    pub retry_period: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            name: "core-controller".to_owned(),
            identity: format!("core-controller-{}", uuid::Uuid::new_v4()),
            duration: Duration::from_secs(15),
            retry_period: Duration::from_secs(3),
        }
    }
}

/// A claim to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// How often the lease has changed hands: the fencing epoch; 0 without election.
    pub epoch: i64,
    /// The revision of the API server at which we took the lease.
    pub version: u64,
    /// Until when it holds; `None` for ever.
    until: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Standby,
    Leading(Claim),
    Lost(Arc<str>),
}

/// We do not lead, or not any more: nothing may be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("this process does not lead: {0}")]
pub struct NotLeading(Arc<str>);

/// Tells whether we lead. Clones share it.
#[derive(Debug, Clone)]
pub struct Leadership {
    state: watch::Sender<State>,
}

impl Leadership {
    /// Leads without election: somebody else sees to it that only one process runs.
    pub fn without_election() -> Self {
        let claim = Claim {
            epoch: 0,
            version: 0,
            until: None,
        };
        Self {
            state: watch::Sender::new(State::Leading(claim)),
        }
    }

    /// The claim, if it holds right now. To be asked before each write.
    pub fn check(&self) -> Result<Claim, NotLeading> {
        match &*self.state.borrow() {
            State::Leading(claim) if claim.until.is_none_or(|until| Instant::now() < until) => Ok(*claim),
            State::Leading(_) => Err(NotLeading("the lease has run out and was not renewed".into())),
            State::Standby => Err(NotLeading("another process holds the lease".into())),
            State::Lost(reason) => Err(NotLeading(Arc::clone(reason))),
        }
    }

    /// Waits until we lead.
    pub async fn acquired(&self) -> Result<Claim, NotLeading> {
        let mut receiver = self.state.subscribe();
        let state = receiver
            .wait_for(|state| !matches!(state, State::Standby))
            .await
            .map(|state| state.clone());
        match state {
            Ok(State::Leading(claim)) => Ok(claim),
            Ok(State::Lost(reason)) => Err(NotLeading(reason)),
            Ok(State::Standby) | Err(_) => Err(NotLeading("the election has ended".into())),
        }
    }

    /// Waits until leadership is lost, and says why.
    pub async fn lost(&self) -> NotLeading {
        let mut receiver = self.state.subscribe();
        let state = receiver
            .wait_for(|state| matches!(state, State::Lost(_)))
            .await
            .map(|state| state.clone());
        match state {
            Ok(State::Lost(reason)) => NotLeading(reason),
            _ => NotLeading("the election has ended".into()),
        }
    }

    /// Gives up the lead for good: a provider has seen a newer leader, or the lease
    /// could not be renewed.
    pub fn step_down(&self, reason: &str) {
        self.state.send_if_modified(|state| {
            if matches!(state, State::Lost(_)) {
                return false;
            }
            *state = State::Lost(reason.into());
            true
        });
    }
}

/// Stands for election until `shutdown` or until leadership is lost. On `shutdown` a
/// held lease is released, so that a standby takes over at once.
pub async fn run(
    client: kube::Client,
    settings: LeaseSettings,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let mut election = Election {
        api: Api::namespaced(client, &settings.namespace),
        settings,
        leadership,
        metrics,
        held: None,
        observed: None,
        renewed: Instant::now(),
    };
    loop {
        let pause = election.step().await;
        if matches!(*election.leadership.state.borrow(), State::Lost(_)) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => break,
        }
    }
    election.release().await;
}

/// Makes the pair of a leadership that stands by and the future that is to be run.
pub fn elect(
    client: kube::Client,
    settings: LeaseSettings,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> (Leadership, impl Future<Output = ()> + Send + 'static) {
    let leadership = Leadership {
        state: watch::Sender::new(State::Standby),
    };
    let election = run(client, settings, leadership.clone(), metrics, shutdown);
    (leadership, election)
}

struct Election {
    api: Api<Lease>,
    settings: LeaseSettings,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    /// The epoch at which we lead.
    held: Option<i64>,
    /// The lease as last seen, and since when.
    observed: Option<(Option<Lease>, Instant)>,
    /// When the last accepted claim was sent.
    renewed: Instant,
}

impl Election {
    /// One look at the lease, and what follows from it. Returns how long to wait.
    async fn step(&mut self) -> Duration {
        let jitter = rand::rng().random_range(0.9..1.1);
        let pause = self.settings.retry_period.mul_f64(jitter);
        let deadline = self.settings.retry_period.max(Duration::from_secs(1));
        let read = tokio::time::timeout(deadline, self.api.get_opt(&self.settings.name)).await;
        let lease = match read {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => {
                self.failed(&format!("unable to read the lease: {error}"));
                return pause;
            }
            Err(_) => {
                self.failed("unable to read the lease: no answer in time");
                return pause;
            }
        };
        self.observe(lease);
        let Some((lease, since)) = &self.observed else {
            return pause;
        };
        let decision = decide(
            lease.as_ref(),
            self.held,
            since.elapsed(),
            &self.settings,
            jiff::Timestamp::now(),
        );
        match decision {
            Decision::Wait { holder, after } => {
                tracing::debug!(holder, "another process leads");
                after.min(pause)
            }
            Decision::Lost { holder } => {
                self.leadership
                    .step_down(&format!("the lease is held by {holder:?} now"));
                pause
            }
            Decision::Take(spec) | Decision::Renew(spec) => {
                let epoch = i64::from(spec.lease_transitions.unwrap_or_default());
                let sent = Instant::now();
                let written = tokio::time::timeout(deadline, self.write(lease.clone(), spec)).await;
                match written {
                    Ok(Ok(lease)) => self.claimed(lease, epoch, sent),
                    Ok(Err(error)) => self.failed(&format!("unable to write the lease: {error}")),
                    Err(_) => self.failed("unable to write the lease: no answer in time"),
                }
                pause
            }
        }
    }

    fn observe(&mut self, lease: Option<Lease>) {
        let same = self.observed.as_ref().is_some_and(|(known, _)| {
            known.as_ref().map(|lease| &lease.metadata.resource_version)
                == lease.as_ref().map(|lease| &lease.metadata.resource_version)
        });
        if !same {
            self.observed = Some((lease, Instant::now()));
        }
    }

    async fn write(
        &self,
        lease: Option<Lease>,
        spec: k8s_openapi::api::coordination::v1::LeaseSpec,
    ) -> kube::Result<Lease> {
        let params = PostParams::default();
        // Replace carries the resourceVersion that was read: only one of two wins.
        let (verb, written) = match lease {
            Some(mut lease) => {
                lease.spec = Some(spec);
                (
                    Verb::Update,
                    self.api.replace(&self.settings.name, &params, &lease).await,
                )
            }
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.settings.name.clone()),
                        namespace: Some(self.settings.namespace.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                (Verb::Create, self.api.create(&params, &lease).await)
            }
        };
        self.metrics.count_write(verb, "leases", written.is_ok());
        written
    }

    fn claimed(&mut self, lease: Lease, epoch: i64, sent: Instant) {
        self.renewed = sent;
        let version = match &*self.leadership.state.borrow() {
            State::Leading(claim) => claim.version,
            _ => version_of(&lease),
        };
        self.observed = Some((Some(lease), Instant::now()));
        if self.held.is_none() {
            tracing::info!(identity = self.settings.identity, epoch, "this process leads");
        }
        self.held = Some(epoch);
        let claim = Claim {
            epoch,
            version,
            until: Some(sent + self.settings.duration),
        };
        self.leadership.state.send_if_modified(|state| {
            if matches!(state, State::Lost(_)) {
                return false;
            }
            *state = State::Leading(claim);
            true
        });
    }

    fn failed(&self, reason: &str) {
        // A claim that nears its end is given up before another process may take it.
        let left = self.settings.duration.saturating_sub(self.renewed.elapsed());
        if self.held.is_some() && left <= self.settings.retry_period {
            self.leadership.step_down(reason);
        } else {
            tracing::warn!(reason, "the lease is asked for again");
        }
    }

    async fn release(&self) {
        let (Some(epoch), Some((Some(lease), _))) = (self.held, &self.observed) else {
            return;
        };
        self.leadership.step_down("the process is ending");
        let spec = decide::released(epoch, jiff::Timestamp::now());
        let written = tokio::time::timeout(Duration::from_secs(2), self.write(Some(lease.clone()), spec)).await;
        if !matches!(written, Ok(Ok(_))) {
            tracing::debug!("the lease was not released; it runs out by itself");
        }
    }
}
