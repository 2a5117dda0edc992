//! Remembers which provider id belongs to which key, to notice a provider that answers
//! with another one. Bounded; what is forgotten is merely not noticed.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use parking_lot::Mutex;

/// The most keys that are remembered, 16 bytes each.
const MAX_KEYS: usize = 1 << 18;

/// Hashes of provider ids by hashes of keys.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    hasher: RandomState,
    ids: Mutex<HashMap<u64, u64>>,
}

impl Identities {
    /// Whether `provider_id` is the one that `key` has had, or the first.
    pub(crate) fn is_same(&self, key: &str, provider_id: &str) -> bool {
        let (key, id) = (self.hasher.hash_one(key), self.hasher.hash_one(provider_id));
        let mut ids = self.ids.lock();
        if ids.len() >= MAX_KEYS && !ids.contains_key(&key) {
            let mut keep = false;
            ids.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        *ids.entry(key).or_insert(id) == id
    }

    /// The resource is gone for good.
    pub(crate) fn forget(&self, key: &str) {
        let key = self.hasher.hash_one(key);
        self.ids.lock().remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_is_noticed_until_the_key_is_forgotten() {
        let identities = Identities::default();
        assert!(identities.is_same("a", "i-1"));
        assert!(identities.is_same("a", "i-1"));
        assert!(!identities.is_same("a", "i-2"));
        assert!(identities.is_same("b", "i-2"));
        identities.forget("a");
        assert!(identities.is_same("a", "i-2"));
    }

    #[test]
    fn it_is_bounded() {
        let identities = Identities::default();
        for key in 0..MAX_KEYS + 10 {
            identities.is_same(&key.to_string(), "i");
        }
        assert!(identities.ids.lock().len() <= MAX_KEYS);
    }
}
