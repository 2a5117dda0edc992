//! Chance from a seed. Each draw depends on the seed, the start of the process, what
//! it is for, the key and how often that was drawn: never on how calls interleave, so
//! that a run with the same seed meets the same faults.

use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest as _, Sha256};

const COUNTERS: usize = 1 << 14;

/// Draws numbers.
pub struct Chance {
    seed: u64,
    start: u64,
    /// How often each purpose and key was drawn, by hash: bounded, and where two
    /// share a counter, the draws are still random.
    counters: Vec<AtomicU32>,
}

impl Chance {
    /// `start` counts the starts on one ledger, so that a restart draws anew.
    pub fn new(seed: u64, start: u64) -> Self {
        Self {
            seed,
            start,
            counters: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// A number in `[0, 1)`, another at each call.
    pub fn draw(&self, purpose: &str, key: &str) -> f64 {
        let slot = fraction_bits(&[b"slot", purpose.as_bytes(), key.as_bytes()]) as usize % COUNTERS;
        let count = self.counters[slot].fetch_add(1, Ordering::Relaxed);
        let bits = fraction_bits(&[
            &self.seed.to_le_bytes(),
            &self.start.to_le_bytes(),
            purpose.as_bytes(),
            key.as_bytes(),
            &count.to_le_bytes(),
        ]);
        bits as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub fn happens(&self, probability: f64, purpose: &str, key: &str) -> bool {
        probability > 0.0 && self.draw(purpose, key) < probability
    }

    /// 17 hexadecimal digits that depend on the seed and `parts` alone.
    pub fn id(&self, parts: &[&str]) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut id = hex::encode(hasher.finalize());
        id.truncate(17);
        id
    }
}

fn fraction_bits(parts: &[&[u8]]) -> u64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(chance: &Chance, key: &str) -> Vec<f64> {
        (0..20).map(|_| chance.draw("fault", key)).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_whatever_else_is_drawn() {
        let quiet = Chance::new(7, 1);
        let busy = Chance::new(7, 1);
        let mut interleaved = Vec::new();
        for _ in 0..20 {
            interleaved.push(busy.draw("fault", "a"));
            busy.draw("fault", "b");
        }
        assert_eq!(draws(&quiet, "a"), interleaved);
        assert_ne!(draws(&Chance::new(8, 1), "a"), draws(&Chance::new(7, 1), "a"));
        assert_ne!(draws(&Chance::new(7, 2), "a"), draws(&Chance::new(7, 1), "a"));
    }

    #[test]
    fn probabilities_hold_roughly_and_the_ends_exactly() {
        let chance = Chance::new(1, 1);
        let hits = (0..10_000).filter(|n| chance.happens(0.2, "p", &n.to_string())).count();
        assert!((1_800..2_200).contains(&hits), "{hits} of 10,000 at 0.2");
        assert!((0..1_000).all(|_| !chance.happens(0.0, "p", "k")));
        assert!((0..1_000).all(|_| chance.happens(1.0, "p", "k")));
    }

    #[test]
    fn ids_are_stable_and_apart() {
        let chance = Chance::new(1, 1);
        assert_eq!(chance.id(&["i", "a"]), Chance::new(1, 9).id(&["i", "a"]));
        assert_ne!(chance.id(&["i", "a"]), chance.id(&["i", "b"]));
        assert_ne!(chance.id(&["ia", ""]), chance.id(&["i", "a"]));
        assert_eq!(chance.id(&["x"]).len(), 17);
    }
}
