//! What this process has asked EC2 to make a moment ago. EC2 shows new resources late, so
//! that "not found" within this window says nothing. Never the source of truth: the tags
//! are, and all of this may be lost. Pure but for its lock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::tags::Kind;

/// So many entries are kept at most; the oldest go first.
const MAX_ENTRIES: usize = 100_000;

/// What is known of a key besides what EC2 shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trace<T> {
    /// Whatever was made can be seen by now.
    Settled,
    /// Something may have been made that cannot be seen yet, for so long.
    Unsettled(Duration),
    /// This was made, and may not be seen yet.
    Made(T),
}

#[derive(Debug, Clone)]
struct Entry<T> {
    at: Instant,
    region: String,
    made: Option<T>,
}

/// Which resource: its kind, the management cluster, and its key.
type Name = (&'static str, String, String);

/// The memory of a process.
#[derive(Debug)]
pub struct Recent<T> {
    window: Duration,
    started: Instant,
    entries: Mutex<HashMap<Name, Entry<T>>>,
}

impl<T: Clone> Recent<T> {
    /// Nothing was made yet by this process; what another one made just before it may not
    /// be seen yet either.
    pub fn new(window: Duration, now: Instant) -> Self {
        Self {
            window,
            started: now,
            entries: Mutex::default(),
        }
    }

    /// Something is about to be made here, or was made.
    pub fn note(&self, kind: Kind, management_cluster: &str, key: &str, region: &str, made: Option<T>, now: Instant) {
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, entry| now.saturating_duration_since(entry.at) < self.window);
        }
        if entries.len() < MAX_ENTRIES {
            let region = region.to_owned();
            entries.insert(name(kind, management_cluster, key), Entry { at: now, region, made });
        }
    }

    /// It was refused for sure: nothing is on its way.
    pub fn forget(&self, kind: Kind, management_cluster: &str, key: &str) {
        self.entries.lock().remove(&name(kind, management_cluster, key));
    }

    /// What is known of this key.
    pub fn look(&self, kind: Kind, management_cluster: &str, key: &str, now: Instant) -> Trace<T> {
        let name = name(kind, management_cluster, key);
        let mut entries = self.entries.lock();
        let left = |since: Instant| {
            let left = self.window.saturating_sub(now.saturating_duration_since(since));
            Some(left).filter(|left| !left.is_zero())
        };
        if let Some(entry) = entries.get(&name) {
            match left(entry.at) {
                Some(left) => return entry.made.clone().map_or(Trace::Unsettled(left), Trace::Made),
                None => entries.remove(&name),
            };
        }
        left(self.started).map_or(Trace::Settled, Trace::Unsettled)
    }

    /// Where this key was last made.
    pub fn region(&self, kind: Kind, management_cluster: &str, key: &str) -> Option<String> {
        let entries = self.entries.lock();
        entries
            .get(&name(kind, management_cluster, key))
            .map(|entry| entry.region.clone())
    }
}

fn name(kind: Kind, management_cluster: &str, key: &str) -> Name {
    (kind.key_tag(), management_cluster.to_owned(), key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn what_was_made_is_remembered_for_the_window_and_no_longer() {
        let start = Instant::now();
        let recent = Recent::new(WINDOW, start);
        let later = start + WINDOW;
        recent.note(Kind::Machine, "m", "tried", "r", None, later);
        recent.note(Kind::Machine, "m", "made", "r", Some(1), later);
        let soon = later + WINDOW / 2;
        assert_eq!(
            recent.look(Kind::Machine, "m", "tried", soon),
            Trace::Unsettled(WINDOW / 2)
        );
        assert_eq!(recent.look(Kind::Machine, "m", "made", soon), Trace::Made(1));
        assert_eq!(recent.region(Kind::Machine, "m", "made").as_deref(), Some("r"));
        for (kind, management, key) in [
            (Kind::Cluster, "m", "made"),
            (Kind::Machine, "n", "made"),
            (Kind::Machine, "m", "x"),
        ] {
            assert_eq!(recent.look(kind, management, key, soon), Trace::Settled);
        }
        assert_eq!(recent.look(Kind::Machine, "m", "made", later + WINDOW), Trace::Settled);
        recent.forget(Kind::Machine, "m", "tried");
        assert_eq!(recent.look(Kind::Machine, "m", "tried", soon), Trace::Settled);
    }

    #[test]
    fn a_process_that_just_started_cannot_be_sure() {
        let start = Instant::now();
        let recent: Recent<()> = Recent::new(WINDOW, start);
        assert_eq!(
            recent.look(Kind::Machine, "m", "k", start + WINDOW / 2),
            Trace::Unsettled(WINDOW / 2)
        );
        assert_eq!(recent.look(Kind::Machine, "m", "k", start + WINDOW), Trace::Settled);
    }
}
