//! What the process has learned and would learn again after a restart: observations
//! from providers, verdicts on configs, places without capacity. Bounded by the number
//! of objects.
//!
//! Not for: anything whose loss would matter.

use std::time::Duration;

use fnv::FnvHashMap;
use jiff::Timestamp;
use outrigger_planner::validation::{self, Verdict, Verdicts};
use outrigger_planner::{cluster, machine, machine_deployment, machine_set};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::names::Key;

/// The most places without capacity that are remembered.
const MAX_EXHAUSTED: usize = 4096;
/// The bounds of the back-off after writes that fail.
const WRITE_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    machines: Mutex<FnvHashMap<String, machine::Observation>>,
    clusters: Mutex<FnvHashMap<String, cluster::Observation>>,
    sets: Mutex<FnvHashMap<String, machine_set::Observation>>,
    deployments: Mutex<FnvHashMap<String, machine_deployment::Observation>>,
    verdicts: Mutex<Verdicts>,
    exhausted: Mutex<FnvHashMap<Place, Timestamp>>,
    written: Mutex<FnvHashMap<Key, Instant>>,
    failures: Mutex<FnvHashMap<Key, u32>>,
}

/// A place that may be out of capacity: the failure domain of a cluster, "" for the
/// provider's own choice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The provider.
    pub provider: String,
    /// The UID of the cluster.
    pub cluster: String,
    /// The failure domain.
    pub domain: String,
}

impl Memory {
    /// Looks at, or changes, what is known of a machine.
    pub fn machine<T>(&self, uid: &str, look: impl FnOnce(&mut machine::Observation) -> T) -> T {
        let mut machines = self.machines.lock();
        if let Some(known) = machines.get_mut(uid) {
            return look(known);
        }
        look(machines.entry(uid.to_owned()).or_default())
    }

    /// Looks at, or changes, what is known of a machine, if anything is.
    pub fn known_machine<T>(&self, uid: &str, look: impl FnOnce(&mut machine::Observation) -> T) -> Option<T> {
        self.machines.lock().get_mut(uid).map(look)
    }

    /// Looks at, or changes, what is known of a cluster.
    pub fn cluster<T>(&self, uid: &str, look: impl FnOnce(&mut cluster::Observation) -> T) -> T {
        let mut clusters = self.clusters.lock();
        if let Some(known) = clusters.get_mut(uid) {
            return look(known);
        }
        look(clusters.entry(uid.to_owned()).or_default())
    }

    /// Looks at, or changes, what is known of a cluster, if anything is.
    pub fn known_cluster<T>(&self, uid: &str, look: impl FnOnce(&mut cluster::Observation) -> T) -> Option<T> {
        self.clusters.lock().get_mut(uid).map(look)
    }

    /// Looks at, or changes, what is remembered of a set.
    pub fn set<T>(&self, uid: &str, look: impl FnOnce(&mut machine_set::Observation) -> T) -> T {
        look(self.sets.lock().entry(uid.to_owned()).or_default())
    }

    /// Looks at, or changes, what is remembered of a deployment.
    pub fn deployment<T>(&self, uid: &str, look: impl FnOnce(&mut machine_deployment::Observation) -> T) -> T {
        look(self.deployments.lock().entry(uid.to_owned()).or_default())
    }

    /// The object with this UID is gone.
    pub fn forget(&self, key: &Key, uid: &str) {
        self.machines.lock().remove(uid);
        self.clusters.lock().remove(uid);
        self.sets.lock().remove(uid);
        self.deployments.lock().remove(uid);
        self.written.lock().remove(key);
        self.failures.lock().remove(key);
    }

    /// Forgets machines and clusters that are gone.
    pub fn keep_only(&self, is_there: impl Fn(&str) -> bool) {
        self.machines.lock().retain(|uid, _| is_there(uid));
        self.clusters.lock().retain(|uid, _| is_there(uid));
    }

    /// What is known of a config.
    pub fn verdict(&self, key: &validation::Key) -> Option<Verdict> {
        self.verdicts.lock().get(key).cloned()
    }

    /// The verdicts, to begin, answer or give up a question.
    pub fn verdicts<T>(&self, look: impl FnOnce(&mut Verdicts) -> T) -> T {
        look(&mut self.verdicts.lock())
    }

    /// A place had no capacity; until then, siblings look elsewhere first.
    pub fn exhausted(&self, place: Place, now: Timestamp, after: Duration) {
        let mut exhausted = self.exhausted.lock();
        if exhausted.len() >= MAX_EXHAUSTED {
            exhausted.retain(|_, until| *until > now);
        }
        if exhausted.len() < MAX_EXHAUSTED
            && let Ok(after) = jiff::SignedDuration::try_from(after)
            && let Ok(until) = now.checked_add(after)
        {
            exhausted.insert(place, until);
        }
    }

    /// The failure domains of a cluster that have no capacity now, in order.
    pub fn exhausted_domains(&self, provider: &str, cluster: &str, now: Timestamp) -> Vec<String> {
        let exhausted = self.exhausted.lock();
        let mut domains: Vec<String> = exhausted
            .iter()
            .filter(|(place, until)| **until > now && place.provider == provider && place.cluster == cluster)
            .map(|(place, _)| place.domain.clone())
            .collect();
        domains.sort();
        domains
    }

    /// How long the status of this object is not to be written, while only counts move.
    pub fn status_pause(&self, key: &Key, interval: Duration) -> Duration {
        self.written
            .lock()
            .get(key)
            .map_or(Duration::ZERO, |written| interval.saturating_sub(written.elapsed()))
    }

    /// The status of this object was written.
    pub fn status_written(&self, key: &Key) {
        self.written.lock().insert(key.clone(), Instant::now());
    }

    /// A write for this object failed; try again after the time returned.
    pub fn write_failed(&self, key: &Key) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let grown = WRITE_BACKOFF.0.saturating_mul(1 << (*count - 1).min(16));
        grown.min(WRITE_BACKOFF.1)
    }

    /// Everything for this object was written.
    pub fn write_succeeded(&self, key: &Key) {
        self.failures.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Kind, Name};

    #[test]
    fn exhausted_places_are_known_to_siblings_for_a_while() {
        let memory = Memory::default();
        let now = Timestamp::UNIX_EPOCH;
        let place = Place {
            provider: "fake".to_owned(),
            cluster: "1".to_owned(),
            domain: "a".to_owned(),
        };
        memory.exhausted(place, now, Duration::from_mins(1));
        assert_eq!(memory.exhausted_domains("fake", "1", now), ["a"]);
        assert!(memory.exhausted_domains("fake", "2", now).is_empty());
        let later = now + jiff::SignedDuration::from_secs(61);
        assert!(memory.exhausted_domains("fake", "1", later).is_empty());
    }

    #[test]
    fn the_back_off_of_writes_grows_and_ends_with_success() {
        let memory = Memory::default();
        let key = Key::new(Kind::Machine, Name::new("default", "a"));
        let first = memory.write_failed(&key);
        assert!(memory.write_failed(&key) > first);
        for _ in 0..100 {
            assert!(memory.write_failed(&key) <= WRITE_BACKOFF.1);
        }
        memory.write_succeeded(&key);
        assert_eq!(memory.write_failed(&key), first);
    }
}
