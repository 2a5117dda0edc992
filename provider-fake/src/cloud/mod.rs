//! The simulated cloud: an API with client tokens over a durable ledger, with delays,
//! limits and faults. It knows nothing of gRPC nor of the actuator protocol but its
//! words for errors. Not for: provider code (see [`crate::provider`]).

pub mod addresses;
mod api;
pub mod bucket;
pub mod catalogue;
pub mod chance;
pub mod clock;
pub mod error;
pub mod history;
pub mod instances;
pub mod journal;
mod ledger;
pub mod model;
pub mod networks;
pub mod settings;
pub mod snapshot;
pub mod state;
mod visibility;
mod watcher;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::v1::{Effect, ErrorReason};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

pub use api::{KillMode, Page};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::CloudError;
pub use journal::LedgerError;
pub use settings::{Secret, SettingError, Settings};
pub use watcher::{WatchItem, Watcher};

use bucket::TokenBucket;
use chance::Chance;
use instances::{Circumstances, Decision};
use ledger::Ledger;

/// The methods of the cloud's API, as they stand in the journal.
pub const METHODS: [&str; 15] = [
    "CreateLoadBalancer",
    "CreateNetwork",
    "DeleteNetwork",
    "DescribeInstance",
    "DescribeMachineTypes",
    "DescribeNetwork",
    "GetConsoleOutput",
    "ListInstances",
    "ListNetworks",
    "ModifyInstance",
    "ModifyNetwork",
    "RunInstance",
    "SetLoadBalancerTargets",
    "TerminateInstance",
    "WatchInstances",
];

/// How to open a cloud.
#[derive(Debug, Clone)]
pub struct CloudOptions {
    /// Where the ledger is; made when it is not there.
    pub folder: PathBuf,
    /// How it behaves at first.
    pub settings: Settings,
    /// The seed of chance.
    pub seed: u64,
    /// Whether each change is flushed to the disk before its call is answered. Without
    /// it the ledger survives the end of the process and not that of the machine.
    pub flush: bool,
}

/// Who calls.
#[derive(Clone, Default)]
pub struct Caller {
    /// The token that came with the call.
    pub token: Option<Vec<u8>>,
}

/// How often each method was answered with what.
pub type Counters = BTreeMap<&'static str, BTreeMap<&'static str, u64>>;

/// The simulated cloud. Clones share everything.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    ledger: Mutex<Ledger>,
    gate: Mutex<Gate>,
    settings: RwLock<Arc<Settings>>,
    chance: Chance,
    clock: Arc<dyn Clock>,
    id: String,
    durability: journal::Durability,
    /// The last line; wakes those who watch.
    news: watch::Sender<u64>,
    /// Something is due earlier than before.
    due: Notify,
}

#[derive(Default)]
struct Gate {
    bucket: TokenBucket,
    counters: Counters,
}

/// What faults a call meets.
#[derive(Default)]
struct Fate {
    /// After acting, it answers with this.
    late_error: Option<CloudError>,
    /// After acting, it never answers.
    lost: bool,
}

impl Cloud {
    /// Opens the ledger, or makes an empty one.
    pub fn open(options: CloudOptions) -> Result<Self, LedgerError> {
        Self::open_at(options, Arc::new(SystemClock))
    }

    /// The same with a clock of one's own.
    pub fn open_at(options: CloudOptions, clock: Arc<dyn Clock>) -> Result<Self, LedgerError> {
        let (ledger, opened) = Ledger::open(&options.folder, options.seed, options.flush, clock.now())?;
        Ok(Self(Arc::new(Inner {
            durability: ledger.durability(),
            news: watch::Sender::new(ledger.seq()),
            ledger: Mutex::new(ledger),
            gate: Mutex::default(),
            settings: RwLock::new(Arc::new(options.settings)),
            chance: Chance::new(options.seed, opened.start),
            clock,
            id: opened.cloud,
            due: Notify::new(),
        })))
    }

    /// Random for each ledger.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What its clock says.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// How it behaves now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.read())
    }

    /// Changes how it behaves from now on. What has been drawn already (the end of a
    /// boot, a death) stays.
    pub fn set_settings(&self, settings: Settings) {
        *self.0.settings.write() = Arc::new(settings);
        self.0.news.send_modify(|_| {});
    }

    /// The same for some of them: all of the changes or, after an error, none.
    pub fn change_settings<E>(&self, change: impl FnOnce(&mut Settings) -> Result<(), E>) -> Result<(), E> {
        let mut current = self.0.settings.write();
        let mut settings = (**current).clone();
        change(&mut settings)?;
        *current = Arc::new(settings);
        drop(current);
        self.0.news.send_modify(|_| {});
        Ok(())
    }

    /// How often each method was answered with what, since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.0.gate.lock().counters.clone()
    }

    /// Counts from nothing. The journal keeps everything.
    pub fn reset_counters(&self) {
        self.0.gate.lock().counters.clear();
    }

    /// What makes the ledger unusable, if something does.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.durability.failure()
    }

    /// Lets things happen in time for those who watch, and writes snapshots. Without it
    /// everything happens at the next call. Never returns.
    pub async fn drive(&self) {
        loop {
            let (next, snapshot) = {
                let mut ledger = self.0.ledger.lock();
                let seq = ledger.seq();
                ledger.advance(self.0.clock.now(), &self.settings());
                if ledger.seq() != seq {
                    self.0.news.send_replace(ledger.seq());
                }
                (ledger.state.next_due(), ledger.wants_snapshot())
            };
            if snapshot && let Err(error) = self.write_snapshot().await {
                tracing::warn!(%error, "unable to write a snapshot: the next start takes longer");
            }
            let wait = next.map(|at| Duration::try_from(at.duration_since(self.0.clock.now())).unwrap_or_default());
            tokio::select! {
                () = self.0.due.notified() => {}
                () = async { tokio::time::sleep(wait.unwrap_or_default() + Duration::from_millis(1)).await }, if wait.is_some() => {}
            }
        }
    }

    /// Writes everything out, and a snapshot for a quick start. Calls fail from then on.
    pub async fn close(&self) -> Result<(), LedgerError> {
        let outcome = self.write_snapshot().await;
        self.0.ledger.lock().close();
        outcome
    }

    async fn write_snapshot(&self) -> Result<(), LedgerError> {
        let (folder, snapshot) = self.0.ledger.lock().snapshot();
        if self.0.durability.clone().synced(snapshot.seq).await.is_err() {
            return Ok(());
        }
        let write = tokio::task::spawn_blocking(move || snapshot::write(&folder, &snapshot));
        write.await.unwrap_or(Ok(()))
    }

    /// One call that changes something: waits, passes the gate, decides, makes the
    /// changes, and answers once they are on disk. When the returned future is dropped
    /// before it acts, nothing happens; after that, everything does.
    async fn mutate<T>(
        &self,
        method: &'static str,
        key: &str,
        caller: &Caller,
        decide: impl FnOnce(&Circumstances<'_>) -> Decision<T>,
    ) -> Result<T, CloudError> {
        let settings = self.arrive(method, key).await;
        let (answer, lost, seq) = {
            let mut ledger = self.0.ledger.lock();
            let now = ledger.advance(self.0.clock.now(), &settings);
            let (answer, changes, lost) = match self.pass(method, key, caller, &settings, now, true) {
                Err(error) => (Err(error), Vec::new(), false),
                Ok(fate) => {
                    let on = self.circumstances(&ledger, &settings, now);
                    match (decide(&on), fate.late_error) {
                        (Err(error), _) => (Err(error), Vec::new(), false),
                        (Ok((_, changes)), Some(error)) => (Err(error), changes, false),
                        (Ok((answer, changes)), None) => (Ok(answer), changes, fate.lost),
                    }
                }
            };
            let result = answer.as_ref().err().map_or("OK", CloudError::code);
            let changed = !changes.is_empty();
            let seq = ledger.record_call(method, key, result, lost, changes, now, &settings);
            if changed {
                self.0.news.send_replace(ledger.seq());
                self.0.due.notify_one();
            }
            (answer, lost, seq)
        };
        self.count(method, answer.as_ref().err());
        self.0
            .durability
            .clone()
            .synced(seq)
            .await
            .map_err(|problem| broken(&problem))?;
        if lost {
            tokio::time::sleep(settings.lost_response_timeout).await;
            let message = format!("{method} was not answered within {:?}", settings.lost_response_timeout);
            return Err(CloudError::new(ErrorReason::CloudUnavailable, message).with_effect(Effect::Unknown));
        }
        answer
    }

    /// One call that reads. It never waits behind a change that is being written,
    /// except one that it shows.
    async fn read<T>(
        &self,
        method: &'static str,
        key: &str,
        caller: &Caller,
        look: impl FnOnce(&Ledger, &Circumstances<'_>) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let settings = self.arrive(method, key).await;
        let (answer, seq) = {
            let mut ledger = self.0.ledger.lock();
            let now = ledger.advance(self.0.clock.now(), &settings);
            let passed = self.pass(method, key, caller, &settings, now, false);
            let answer = passed.and_then(|_| look(&ledger, &self.circumstances(&ledger, &settings, now)));
            let result = answer.as_ref().err().map_or("OK", CloudError::code);
            let seq = ledger.record_call(method, key, result, false, Vec::new(), now, &settings);
            (answer, seq)
        };
        self.count(method, answer.as_ref().err());
        self.0
            .durability
            .clone()
            .written(seq)
            .await
            .map_err(|problem| broken(&problem))?;
        answer
    }

    /// The way to the cloud.
    async fn arrive(&self, method: &str, key: &str) -> Arc<Settings> {
        let settings = self.settings();
        let mut latency = settings.api_latency;
        if !settings.api_jitter.is_zero() {
            latency += settings.api_jitter.mul_f64(self.0.chance.draw(method, key));
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // What was set meanwhile counts: an outage stops calls that are on their way.
        self.settings()
    }

    fn pass(
        &self,
        method: &'static str,
        key: &str,
        caller: &Caller,
        settings: &Settings,
        now: Timestamp,
        mutates: bool,
    ) -> Result<Fate, CloudError> {
        if let Some(problem) = self.failure() {
            return Err(broken(&problem).with_effect(Effect::None));
        }
        if settings.outage {
            return Err(CloudError::new(ErrorReason::CloudUnavailable, "the cloud is down"));
        }
        authenticate(settings, caller)?;
        if let Some(limit) = &settings.rate_limit
            && let Err(wait) = self.0.gate.lock().bucket.take(limit, now)
        {
            let message = format!("more than {} calls per second came", limit.per_second);
            return Err(CloudError::new(ErrorReason::RateLimited, message).with_retry_after(wait));
        }
        let draw =
            |probability: f64, purpose: &str| self.0.chance.happens(probability, &format!("{purpose} {method}"), key);
        let mut fate = Fate::default();
        for rate in &settings.error_rates {
            let applies = rate.method.as_deref().is_none_or(|only| only == method);
            if !applies || !draw(rate.probability, rate.reason.wire_name()) {
                continue;
            }
            let error = CloudError::new(rate.reason, "the settings of the cloud asked for this failure");
            match rate.effect_after_acting() {
                // Half of those that may come late do.
                Some(effect) if mutates && draw(0.5, "late") => fate.late_error = Some(error.with_effect(effect)),
                _ => return Err(error),
            }
        }
        fate.lost = mutates && draw(settings.lose_responses, "lost");
        Ok(fate)
    }

    fn circumstances<'a>(&'a self, ledger: &'a Ledger, settings: &'a Settings, now: Timestamp) -> Circumstances<'a> {
        Circumstances {
            state: &ledger.state,
            settings,
            chance: &self.0.chance,
            now,
        }
    }

    fn count(&self, method: &'static str, error: Option<&CloudError>) {
        let result = error.map_or("OK", CloudError::code);
        *self
            .0
            .gate
            .lock()
            .counters
            .entry(method)
            .or_default()
            .entry(result)
            .or_default() += 1;
    }
}

fn broken(problem: &str) -> CloudError {
    let message = format!("the ledger cannot be written ({problem}); make room on the disk and start again");
    CloudError::new(ErrorReason::CloudUnavailable, message).with_effect(Effect::Unknown)
}

fn authenticate(settings: &Settings, caller: &Caller) -> Result<(), CloudError> {
    let token = caller.token.as_deref();
    if settings
        .expired_tokens
        .iter()
        .any(|expired| token.is_some_and(|token| expired.matches(token)))
    {
        let message = "the token has expired; put a new one into the credentials Secret";
        return Err(CloudError::new(ErrorReason::CredentialsExpired, message));
    }
    match (settings.required_tokens.as_slice(), token) {
        ([], _) => Ok(()),
        (required, Some(token)) if required.iter().any(|required| required.matches(token)) => Ok(()),
        (_, Some(_)) => {
            let message = "the token is not the right one; correct the entry \"token\" of the credentials Secret";
            Err(CloudError::new(ErrorReason::CredentialsInvalid, message))
        }
        (_, None) => {
            let message = "a token is needed; add the entry \"token\" to the credentials Secret";
            Err(CloudError::new(ErrorReason::CredentialsInvalid, message))
        }
    }
}
