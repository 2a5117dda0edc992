//! The last changes of instances, for those who watch: a ring of bounded length, read
//! from any place in it. Not for: the truth (see `state`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::model::{Action, Change, Instance, Kind, Resource};

/// How many changes are kept.
pub const CAPACITY: usize = 32_768;

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// It is there; what it is now stands in the state.
    Present(String),
    /// It is gone; this is what it was.
    Gone(Arc<Instance>),
}

/// The ring.
#[derive(Debug)]
pub struct History {
    ring: VecDeque<(u64, Happening)>,
    /// Everything after this line is in the ring.
    complete_after: u64,
}

impl History {
    /// Empty; complete from the line behind `seq` on.
    pub fn new(seq: u64) -> Self {
        Self {
            ring: VecDeque::new(),
            complete_after: seq,
        }
    }

    /// Takes in a change of line `seq`. `before` is the instance as it was.
    pub fn record(&mut self, seq: u64, change: &Change, before: Option<Arc<Instance>>) {
        if change.kind != Kind::Instance {
            return;
        }
        let happening = match (&change.resource, change.action) {
            (Some(Resource::Instance(lost)), Action::Lost) => Happening::Gone(Arc::clone(lost)),
            (Some(_), _) => Happening::Present(change.id.clone()),
            (None, _) => match before {
                Some(instance) => Happening::Gone(instance),
                None => return,
            },
        };
        self.ring.push_back((seq, happening));
        while self.ring.len() > CAPACITY {
            if let Some((seq, _)) = self.ring.pop_front() {
                self.complete_after = self.complete_after.max(seq);
            }
        }
    }

    /// What happened after line `seq`, at most `limit` of it, whole lines where
    /// possible; `None` when that is no longer known.
    pub fn after(&self, seq: u64, limit: usize) -> Option<Vec<(u64, Happening)>> {
        if seq < self.complete_after {
            return None;
        }
        let start = self.ring.partition_point(|(at, _)| *at <= seq);
        Some(self.ring.iter().skip(start).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(n: u64) -> Change {
        Change {
            id: format!("i-{n}"),
            ..Change::retired(Kind::Instance, "k", "c")
        }
    }

    #[test]
    fn what_fell_out_of_the_ring_is_not_claimed() {
        let mut history = History::new(10);
        assert_eq!(history.after(9, 5), None);
        assert_eq!(history.after(10, 5), Some(vec![]));
        let instance = instance();
        for seq in 11..11 + CAPACITY as u64 {
            history.record(seq, &present(seq), Some(Arc::clone(&instance)));
        }
        assert_eq!(history.after(10, 1).map(|found| found[0].0), Some(11));
        history.record(1_000_000, &present(0), Some(instance));
        assert_eq!(history.after(10, 1), None);
        assert_eq!(history.after(11, 1).map(|found| found[0].0), Some(12));
    }

    fn instance() -> Arc<Instance> {
        let text = r#"{"id":"i","key":"k","owner":{"management_cluster":"m","cluster":"c","object":"o"},
            "state":"running","name":"n","zone":"z","machine_type":"t","image":"i","network":"n","disk":"d",
            "network_interface":"ni","internal_ip":"10.0.0.1","created_at":"2026-01-01T00:00:00Z",
            "ready_at":"2026-01-01T00:00:00Z","created_digest":"","digest":"","generation":1}"#;
        Arc::new(serde_json::from_str(text).expect("an instance"))
    }
}
