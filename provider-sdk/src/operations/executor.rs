//! Runs mutations in tasks of their own, in the order that `order` decides. A task
//! outlives the call that started it; whoever joined gets its result.
//!
//! No lock is held while anything waits, and none is shared by all keys.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actuator_proto::errors::ActuatorError;
use actuator_proto::limits::MAX_DEADLINE;
use actuator_proto::v1::{Effect, ErrorReason};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::memory::BoundedMap;
use super::order::{Intent, KeyMemory, KeyOrder, OperationId, Refusal, Room, Verdict};

/// Locks are for one of so many groups of keys each.
const SHARDS: usize = 64;
/// Keys at rest that are remembered in each group, at least.
const REMEMBERED_KEYS: usize = 1024;
/// Management clusters whose fencing epoch is remembered, at least.
const REMEMBERED_EPOCHS: usize = 1024;
/// How long a mutation waits for another one of its key.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is left of a deadline when waiting ends, so that the answer still arrives.
const MARGIN: Duration = Duration::from_millis(200);

/// Clusters and machines have keys of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Cluster,
    Machine,
}

/// A key within its scope.
pub(crate) type ScopedKey = (Scope, String);

type Work<T> = BoxFuture<'static, Result<T, ActuatorError>>;
type Answer<T> = Option<Result<T, ActuatorError>>;

/// Runs mutations whose result is a `T`.
pub(crate) struct Executor<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    shards: Vec<Mutex<Shard<T>>>,
    hasher: RandomState,
    slots: Arc<Semaphore>,
    epochs: Mutex<BoundedMap<String, i64>>,
    next_id: AtomicU64,
    closed: AtomicBool,
    tracker: TaskTracker,
    running: AtomicUsize,
    queued: AtomicUsize,
    joined: Counter,
}

struct Shard<T> {
    active: HashMap<ScopedKey, Active<T>>,
    memory: BoundedMap<ScopedKey, KeyMemory>,
}

struct Active<T> {
    order: KeyOrder,
    answers: Vec<(OperationId, watch::Receiver<Answer<T>>)>,
    queued: Option<Run<T>>,
    gate: Arc<Gate>,
}

/// Where requests wait for a key.
struct Gate {
    ended: watch::Sender<u64>,
    waiting: AtomicUsize,
}

impl<T> Default for Active<T> {
    fn default() -> Self {
        Self {
            order: KeyOrder::default(),
            answers: Vec::new(),
            queued: None,
            gate: Arc::new(Gate {
                ended: watch::channel(0).0,
                waiting: AtomicUsize::new(0),
            }),
        }
    }
}

/// A mutation that is accepted.
struct Run<T> {
    id: OperationId,
    work: Work<T>,
    answer: watch::Sender<Answer<T>>,
    slot: OwnedSemaphorePermit,
}

enum Step<T> {
    Done(watch::Receiver<Answer<T>>),
    Wait(Arc<Gate>, watch::Receiver<u64>),
    Refuse(Refusal),
}

impl<T: Clone + Send + Sync + 'static> Executor<T> {
    /// At most `max_running` mutations run or are queued at a time; `joined` counts the
    /// requests that joined one of them.
    pub(crate) fn new(max_running: usize, joined: Counter) -> Self {
        let shard = || {
            Mutex::new(Shard {
                active: HashMap::new(),
                memory: BoundedMap::new(REMEMBERED_KEYS),
            })
        };
        Self {
            inner: Arc::new(Inner {
                shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
                hasher: RandomState::new(),
                slots: Arc::new(Semaphore::new(max_running)),
                epochs: Mutex::new(BoundedMap::new(REMEMBERED_EPOCHS)),
                next_id: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                tracker: TaskTracker::new(),
                running: AtomicUsize::new(0),
                queued: AtomicUsize::new(0),
                joined,
            }),
        }
    }

    /// How many mutations run now.
    pub(crate) fn running(&self) -> usize {
        self.inner.running.load(Ordering::Relaxed)
    }

    /// How many Deletes are queued behind another mutation of their key now.
    pub(crate) fn queued(&self) -> usize {
        self.inner.queued.load(Ordering::Relaxed)
    }

    /// Refuses a fencing epoch below the highest seen of this management cluster; 0
    /// does not fence.
    pub(crate) fn check_epoch(&self, management_cluster_id: &str, epoch: i64) -> Result<(), ActuatorError> {
        if epoch == 0 {
            return Ok(());
        }
        let mut epochs = self.inner.epochs.lock();
        let seen = epochs.entry(management_cluster_id);
        if epoch < *seen {
            return Err(ActuatorError::new(
                ErrorReason::StaleFencingEpoch,
                format!("the fencing epoch {epoch} is behind {seen}, which another core has used; give up the lead"),
            ));
        }
        *seen = epoch;
        Ok(())
    }

    /// Runs `work`, or joins, waits for or refuses it. The future may be dropped at any
    /// time: what was accepted goes on.
    pub(crate) async fn run(
        &self,
        key: ScopedKey,
        intent: Intent,
        deadline: Option<Instant>,
        work: Work<T>,
    ) -> Result<T, ActuatorError> {
        let patience_ends = Instant::now() + PATIENCE;
        let until = deadline.map_or(patience_ends, |deadline| {
            patience_ends.min(deadline.checked_sub(MARGIN).unwrap_or(deadline))
        });
        let mut work = Some(work);
        loop {
            let may_wait = Instant::now() < until;
            match self.step(&key, &intent, may_wait, &mut work) {
                Step::Done(answer) => return result_of(answer).await,
                Step::Refuse(Refusal::TooMany) if self.is_closed() => return Err(shutting_down()),
                Step::Refuse(refusal) => return Err(refused(refusal)),
                Step::Wait(gate, mut ended) => {
                    let _place = Place(&gate);
                    // Either way it asks again; past `until` it is for the last time.
                    let _ = tokio::time::timeout_at(until, ended.changed()).await;
                }
            }
        }
    }

    fn step(&self, key: &ScopedKey, intent: &Intent, may_wait: bool, work: &mut Option<Work<T>>) -> Step<T> {
        let inner = &self.inner;
        let id = OperationId(inner.next_id.fetch_add(1, Ordering::Relaxed));
        let mut guard = inner.shard(key).lock();
        let shard = &mut *guard;
        let mut active = shard.active.remove(key).unwrap_or_default();
        let slot = Some(&inner.slots)
            .filter(|_| active.order.may_accept(intent) && !self.is_closed())
            .and_then(|slots| Arc::clone(slots).try_acquire_owned().ok());
        let room = Room {
            to_run: slot.is_some(),
            to_wait: may_wait,
            waiting: active.gate.waiting.load(Ordering::Relaxed),
        };
        let before = shard.memory.peek(key).copied().unwrap_or_default();
        let mut memory = before;
        let verdict = active.order.admit(&mut memory, id, intent, room);
        if memory != before {
            *shard.memory.entry(key) = memory;
        }
        let step = match verdict {
            Verdict::Start | Verdict::Queue => {
                let (answer, receiver) = watch::channel(None);
                active.answers.push((id, receiver.clone()));
                if let (Some(work), Some(slot)) = (work.take(), slot) {
                    let run = Run { id, work, answer, slot };
                    if verdict == Verdict::Start {
                        // Under the lock: whoever comes next finds it running.
                        self.spawn(key.clone(), run);
                    } else {
                        active.queued = Some(run);
                        inner.queued.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Step::Done(receiver)
            }
            Verdict::Join(joined) => {
                inner.joined.inc();
                active
                    .answers
                    .iter()
                    .find(|(id, _)| *id == joined)
                    .map_or(Step::Refuse(Refusal::Pending), |(_, answer)| Step::Done(answer.clone()))
            }
            Verdict::Wait => {
                active.gate.waiting.fetch_add(1, Ordering::Relaxed);
                Step::Wait(Arc::clone(&active.gate), active.gate.ended.subscribe())
            }
            Verdict::Refuse(refusal) => Step::Refuse(refusal),
        };
        if !active.order.is_idle() {
            shard.active.insert(key.clone(), active);
        }
        step
    }

    fn spawn(&self, key: ScopedKey, run: Run<T>) {
        let executor = Self {
            inner: Arc::clone(&self.inner),
        };
        let span = tracing::Span::current();
        self.inner.running.fetch_add(1, Ordering::Relaxed);
        let _task = self.inner.tracker.spawn(
            async move {
                let Run { id, work, answer, slot } = run;
                let result = patiently(work, &key).await;
                // The key is free before the answer goes out: who got it may go on.
                executor.finish(&key, id);
                executor.inner.running.fetch_sub(1, Ordering::Relaxed);
                drop(slot);
                answer.send_replace(Some(result));
            }
            .instrument(span),
        );
    }

    fn finish(&self, key: &ScopedKey, id: OperationId) {
        let mut guard = self.inner.shard(key).lock();
        let shard = &mut *guard;
        let Some(active) = shard.active.get_mut(key) else {
            return;
        };
        active.answers.retain(|(answered, _)| *answered != id);
        let next = active.order.finish(id).and_then(|_| active.queued.take());
        active.gate.ended.send_modify(|ended| *ended += 1);
        if active.order.is_idle() {
            shard.active.remove(key);
        }
        if let Some(next) = next {
            self.inner.queued.fetch_sub(1, Ordering::Relaxed);
            self.spawn(key.clone(), next);
        }
    }

    /// Starts nothing any more, and waits until what was accepted has ended; `false`:
    /// not all has within this time.
    pub(crate) async fn drain(&self, within: Duration) -> bool {
        self.close();
        tokio::time::timeout(within, self.inner.tracker.wait()).await.is_ok()
    }

    /// Starts nothing any more.
    pub(crate) fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        // Who decided before this is through with it once each lock was free.
        for shard in &self.inner.shards {
            drop(shard.lock());
        }
        self.inner.tracker.close();
    }

    /// Whether nothing is started any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::SeqCst)
    }
}

impl<T> Inner<T> {
    fn shard(&self, key: &ScopedKey) -> &Mutex<Shard<T>> {
        let index = (self.hasher.hash_one(key) as usize) % SHARDS;
        // There are exactly SHARDS of them.
        &self.shards[index]
    }
}

/// A place in the queue before a gate, given back when the wait ends or is dropped.
struct Place<'a>(&'a Gate);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs the work to its end, says so when it takes longer than anyone waits, and turns a
/// panic into an error.
async fn patiently<T>(work: Work<T>, key: &ScopedKey) -> Result<T, ActuatorError> {
    let mut work = AssertUnwindSafe(work).catch_unwind();
    let started = Instant::now();
    let ended = loop {
        match tokio::time::timeout(MAX_DEADLINE, &mut work).await {
            Ok(ended) => break ended,
            Err(_) => tracing::warn!(
                key = key.1,
                seconds = started.elapsed().as_secs(),
                "a mutation is still running, longer than any caller waits"
            ),
        }
    };
    ended.unwrap_or_else(|_| Err(panicked().with_effect(Effect::Unknown)))
}

/// What a mutation gets that comes when the server stops.
pub(crate) fn shutting_down() -> ActuatorError {
    ActuatorError::new(
        ErrorReason::CloudUnavailable,
        "the provider is shutting down and starts nothing any more; connect again",
    )
    .with_retry_after(Duration::from_secs(1))
}

/// What a panic of provider code becomes. Its words stay out: they may hold anything.
pub(crate) fn panicked() -> ActuatorError {
    ActuatorError::new(
        ErrorReason::ProviderBug,
        "the provider's code panicked; its log says where, report it to the provider's authors",
    )
}

async fn result_of<T: Clone>(mut answer: watch::Receiver<Answer<T>>) -> Result<T, ActuatorError> {
    match answer
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|answer| answer.clone())
    {
        Some(result) => result,
        // The runtime is shutting down and has dropped the task.
        None => Err(ActuatorError::new(
            ErrorReason::ProviderBug,
            "the provider stopped before the operation ended; ask whether the resource exists",
        )
        .with_effect(Effect::Unknown)),
    }
}

fn refused(refusal: Refusal) -> ActuatorError {
    match refusal {
        Refusal::StaleGeneration { seen } => ActuatorError::new(
            ErrorReason::StaleGeneration,
            format!("generation {seen} of this object has been seen already; read the object again"),
        ),
        Refusal::Deleted => ActuatorError::new(
            ErrorReason::StaleGeneration,
            "the deletion of this key was accepted before, so nothing is created; read the object again",
        ),
        Refusal::Pending => ActuatorError::new(
            ErrorReason::OperationPending,
            "another operation on this key is running; try again",
        )
        .with_retry_after(PATIENCE),
        Refusal::TooMany => ActuatorError::new(
            ErrorReason::TooManyInFlight,
            "as many operations are running as the provider can bear; try again later",
        )
        .with_retry_after(Duration::from_secs(1)),
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
