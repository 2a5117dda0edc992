//! Eventual consistency: for a while after a write, reads show what was before. Kept in
//! memory, over given times. Not for: what writes see, which is always the truth.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::instances::later;

/// The old states of resources, by key.
#[derive(Debug)]
pub struct Visibility<T> {
    old: BTreeMap<String, VecDeque<(Timestamp, Option<T>)>>,
    expiries: VecDeque<(Timestamp, String)>,
}

impl<T> Default for Visibility<T> {
    fn default() -> Self {
        Self {
            old: BTreeMap::new(),
            expiries: VecDeque::new(),
        }
    }
}

impl<T: Clone> Visibility<T> {
    /// Something was written at `now`; until `window` later reads show `before`.
    pub fn wrote(&mut self, key: &str, before: Option<T>, now: Timestamp, window: Duration) {
        if window.is_zero() {
            return;
        }
        let until = later(now, window);
        self.old.entry(key.to_owned()).or_default().push_back((until, before));
        self.expiries.push_back((until, key.to_owned()));
    }

    /// Forgets what reads no longer show.
    pub fn prune(&mut self, now: Timestamp) {
        while let Some((_, key)) = self.expiries.pop_front_if(|(until, _)| *until <= now) {
            if let Some(versions) = self.old.get_mut(&key) {
                versions.retain(|(until, _)| *until > now);
                if versions.is_empty() {
                    self.old.remove(&key);
                }
            }
        }
    }

    /// What a read at `now` shows, where `current` is the truth.
    pub fn seen<'a>(&'a self, key: &str, current: Option<&'a T>, now: Timestamp) -> Option<&'a T> {
        let old = self
            .old
            .get(key)
            .and_then(|versions| versions.iter().find(|(until, _)| *until > now));
        match old {
            Some((_, before)) => before.as_ref(),
            None => current,
        }
    }

    /// Every old state that reads at `now` still show.
    pub fn old_states(&self, now: Timestamp) -> impl Iterator<Item = &T> {
        self.old.values().filter_map(move |versions| {
            let (_, before) = versions.iter().find(|(until, _)| *until > now)?;
            before.as_ref()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    #[test]
    fn reads_lag_behind_each_write_by_the_window() {
        let window = Duration::from_secs(10);
        let mut visibility = Visibility::default();
        visibility.wrote("k", None, at(0), window);
        visibility.wrote("k", Some("first"), at(5), window);
        assert_eq!(visibility.seen("k", Some(&"second"), at(9)), None);
        assert_eq!(visibility.seen("k", Some(&"second"), at(10)), Some(&"first"));
        assert_eq!(visibility.seen("k", Some(&"second"), at(15)), Some(&"second"));
        assert_eq!(visibility.seen("other", Some(&"x"), at(0)), Some(&"x"));
        // Deleted: reads go on to show it.
        visibility.wrote("gone", Some("last"), at(0), window);
        assert_eq!(visibility.seen("gone", None, at(1)), Some(&"last"));
        assert_eq!(visibility.old_states(at(1)).collect::<Vec<_>>(), [&"last"]);
        visibility.prune(at(15));
        assert!(visibility.old.is_empty() && visibility.expiries.is_empty());
    }
}
