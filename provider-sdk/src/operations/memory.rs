//! A map of bounded size that forgets what was not used for longest, roughly: entries
//! live in two halves, and when the younger one is full the older one is dropped.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Holds at least the `capacity` entries that were used last, and at most twice as many.
#[derive(Debug)]
pub(crate) struct BoundedMap<K, V> {
    younger: HashMap<K, V>,
    older: HashMap<K, V>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone, V: Default> BoundedMap<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            younger: HashMap::new(),
            older: HashMap::new(),
            capacity: capacity.max(1),
        }
    }

    /// The value of this key as it is remembered, without using it.
    pub(crate) fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.younger.get(key).or_else(|| self.older.get(key))
    }

    /// The value of this key, made new if it is not remembered; it counts as used.
    pub(crate) fn entry<Q>(&mut self, key: &Q) -> &mut V
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if !self.younger.contains_key(key) {
            let value = self.older.remove(key).unwrap_or_default();
            if self.younger.len() >= self.capacity {
                self.older = std::mem::take(&mut self.younger);
            }
            self.younger.insert(key.to_owned(), value);
        }
        self.younger.entry(key.to_owned()).or_default()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.younger.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_bounded_and_keeps_what_was_used_last(
            keys in prop::collection::vec(0u16..64, 1..300),
            capacity in 1usize..20,
        ) {
            let mut map: BoundedMap<u16, u64> = BoundedMap::new(capacity);
            for (time, key) in keys.iter().enumerate() {
                *map.entry(key) = time as u64 + 1;
                prop_assert!(map.len() <= 2 * capacity);
            }
            let mut recent: Vec<u16> = Vec::new();
            for key in keys.iter().rev() {
                if !recent.contains(key) {
                    recent.push(*key);
                }
                if recent.len() == capacity {
                    break;
                }
            }
            for key in recent {
                let last = keys.iter().rposition(|other| *other == key).map(|time| time as u64 + 1);
                prop_assert_eq!(map.peek(&key).copied(), last);
            }
        }
    }
}
