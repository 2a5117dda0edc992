//! The work queue: which objects are to be planned, each at most once, each worked on
//! by one worker at a time, some only after a delay.
//!
//! It holds at most one item per key, so it is bounded by the number of objects. Keys
//! of objects that own others go in an urgent lane, so that ten thousand machines do
//! not hold up the deletion of their set.
//!
//! Not for: retries and back-off (plans say when to look again), or provider calls
//! (`operations` has queues of its own).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use fnv::{FnvHashMap, FnvHashSet};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A queue of keys. Clones share it.
#[derive(Debug)]
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    urgent: VecDeque<K>,
    normal: VecDeque<K>,
    queued: FnvHashSet<K>,
    /// Keys that are being worked on; true when they were added again meanwhile.
    working: FnvHashMap<K, bool>,
    /// The earliest time at which each waiting key becomes ready. The heap may hold
    /// older entries for a key; only the one that equals the map's counts.
    due: FnvHashMap<K, Instant>,
    delays: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: FnvHashMap<u64, K>,
    sequence: u64,
    closed: bool,
}

/// A key that is being worked on. Until it is dropped, nobody else gets the key.
#[derive(Debug)]
pub struct Work<K: Queued> {
    key: K,
    queue: WorkQueue<K>,
}

/// What can be queued.
pub trait Queued: Clone + Eq + Hash + Send + 'static {
    /// Whether the key goes before those that are not urgent.
    fn is_urgent(&self) -> bool;
}

impl<K: Queued> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Queued> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    urgent: VecDeque::new(),
                    normal: VecDeque::new(),
                    queued: FnvHashSet::default(),
                    working: FnvHashMap::default(),
                    due: FnvHashMap::default(),
                    delays: BinaryHeap::new(),
                    delayed_keys: FnvHashMap::default(),
                    sequence: 0,
                    closed: false,
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Queues the key now. A key that waits for later is ready now; one that is being
    /// worked on is handed out again once that work is done.
    pub fn add(&self, key: K) {
        let mut state = self.shared.state.lock();
        if state.closed {
            return;
        }
        state.due.remove(&key);
        if state.make_ready(key) {
            self.shared.changed.notify_one();
        }
    }

    /// Queues the key after a delay. Of several delays the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            self.add(key);
            return;
        }
        // A delay of centuries is for ever; the clock cannot add it.
        let at = Instant::now() + delay.min(Duration::from_hours(24));
        let mut state = self.shared.state.lock();
        if state.closed || state.queued.contains(&key) || state.due.get(&key).is_some_and(|known| *known <= at) {
            return;
        }
        let sequence = state.sequence;
        state.sequence += 1;
        state.due.insert(key.clone(), at);
        state.delayed_keys.insert(sequence, key);
        state.delays.push(Reverse((at, sequence)));
        state.compact();
        self.shared.changed.notify_one();
    }

    /// Forgets the key's delay, if it has one.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().due.remove(key);
    }

    /// The next key, once there is one. `None` when the queue was closed.
    pub async fn next(&self) -> Option<Work<K>> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that nothing is missed in between.
            changed.as_mut().enable();
            let wake = {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return None;
                }
                state.release_due(Instant::now());
                let key = state.urgent.pop_front().or_else(|| state.normal.pop_front());
                if let Some(key) = key {
                    state.queued.remove(&key);
                    state.working.insert(key.clone(), false);
                    if !state.urgent.is_empty() || !state.normal.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return Some(Work {
                        key,
                        queue: self.clone(),
                    });
                }
                state.delays.peek().map(|Reverse((at, _))| *at)
            };
            match wake {
                Some(at) => {
                    tokio::select! {
                        () = &mut changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Ends the queue: everybody who waits for a key gets none.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_waiters();
    }

    /// How many keys are ready.
    pub fn ready(&self) -> usize {
        self.shared.state.lock().queued.len()
    }

    /// How many keys are being worked on.
    pub fn working(&self) -> usize {
        self.shared.state.lock().working.len()
    }

    /// How many keys wait for their time.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().due.len()
    }
}

impl<K: Queued> State<K> {
    /// Puts the key in its lane, unless it is there or is being worked on.
    fn make_ready(&mut self, key: K) -> bool {
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
            return false;
        }
        if !self.queued.insert(key.clone()) {
            return false;
        }
        if key.is_urgent() {
            self.urgent.push_back(key);
        } else {
            self.normal.push_back(key);
        }
        true
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(Reverse((at, sequence))) = self.delays.peek().copied() {
            if at > now {
                break;
            }
            self.delays.pop();
            if let Some(key) = self.delayed_keys.remove(&sequence)
                && self.due.get(&key) == Some(&at)
            {
                self.due.remove(&key);
                self.make_ready(key);
            }
        }
    }

    /// Outdated entries of the heap stay at most as many as the waiting keys.
    fn compact(&mut self) {
        if self.delays.len() <= 64 + 2 * self.due.len() {
            return;
        }
        let (due, delayed_keys) = (&self.due, &mut self.delayed_keys);
        let mut kept = BinaryHeap::with_capacity(due.len());
        for Reverse((at, sequence)) in self.delays.drain() {
            if delayed_keys.get(&sequence).is_some_and(|key| due.get(key) == Some(&at)) {
                kept.push(Reverse((at, sequence)));
            } else {
                delayed_keys.remove(&sequence);
            }
        }
        self.delays = kept;
    }
}

impl<K: Queued> Work<K> {
    /// The key to work on.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Queued> Drop for Work<K> {
    fn drop(&mut self) {
        let mut state = self.queue.shared.state.lock();
        if state.working.remove(&self.key) == Some(true) && state.make_ready(self.key.clone()) {
            self.queue.shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
