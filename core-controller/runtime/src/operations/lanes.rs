//! The queues of provider calls: one per provider and kind of call, each with a bound on
//! how many run, so that a hundred slow deletions never starve creations. An object has
//! at most one operation, so the queues are bounded by the number of objects.
//!
//! Not for: running the calls.

use std::collections::VecDeque;
use std::sync::Arc;

use fnv::FnvHashMap;
use parking_lot::Mutex;
use provider_host::Lane;

/// Which queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The provider.
    pub provider: Arc<str>,
    /// The kind of call.
    pub lane: Lane,
}

#[derive(Debug)]
struct LaneState<J> {
    waiting: VecDeque<J>,
    running: usize,
}

/// The queues, over jobs.
#[derive(Debug)]
pub struct Lanes<J> {
    lanes: Mutex<FnvHashMap<LaneKey, LaneState<J>>>,
}

impl<J> Default for Lanes<J> {
    fn default() -> Self {
        Self {
            lanes: Mutex::default(),
        }
    }
}

impl<J> Lanes<J> {
    /// A job came: it is handed back when it may run now, else it waits.
    pub fn enter(&self, key: &LaneKey, job: J, places: usize) -> Option<J> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(key.clone()).or_insert_with(|| LaneState {
            waiting: VecDeque::new(),
            running: 0,
        });
        if lane.running < places.max(1) && lane.waiting.is_empty() {
            lane.running += 1;
            Some(job)
        } else {
            lane.waiting.push_back(job);
            None
        }
    }

    /// A job has ended. The jobs that may run now, in the order in which they came.
    pub fn leave(&self, key: &LaneKey, places: usize) -> Vec<J> {
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(key) else {
            return Vec::new();
        };
        lane.running = lane.running.saturating_sub(1);
        let mut next = Vec::new();
        while lane.running < places.max(1)
            && let Some(job) = lane.waiting.pop_front()
        {
            lane.running += 1;
            next.push(job);
        }
        if lane.running == 0 && lane.waiting.is_empty() {
            lanes.remove(key);
        }
        next
    }

    /// How many jobs wait and how many run.
    pub fn count(&self) -> (usize, usize) {
        let lanes = self.lanes.lock();
        lanes.values().fold((0, 0), |(waiting, running), lane| {
            (waiting + lane.waiting.len(), running + lane.running)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lane: Lane) -> LaneKey {
        LaneKey {
            provider: "fake".into(),
            lane,
        }
    }

    #[test]
    fn jobs_beyond_the_bound_wait_in_order_and_other_lanes_do_not_care() {
        let lanes = Lanes::default();
        let deletions = key(Lane::Delete);
        assert_eq!(lanes.enter(&deletions, 1, 2), Some(1));
        assert_eq!(lanes.enter(&deletions, 2, 2), Some(2));
        assert_eq!(lanes.enter(&deletions, 3, 2), None);
        assert_eq!(lanes.enter(&deletions, 4, 2), None);
        assert_eq!(lanes.enter(&key(Lane::Create), 5, 2), Some(5));
        assert_eq!(lanes.count(), (2, 3));
        assert_eq!(lanes.leave(&deletions, 2), [3]);
        // The bound was raised meanwhile.
        assert_eq!(lanes.leave(&deletions, 3), [4]);
        assert!(lanes.leave(&deletions, 3).is_empty());
        assert!(lanes.leave(&deletions, 3).is_empty());
        assert!(lanes.leave(&key(Lane::Create), 2).is_empty());
        assert_eq!(lanes.count(), (0, 0));
        assert!(lanes.lanes.lock().is_empty());
    }
}
