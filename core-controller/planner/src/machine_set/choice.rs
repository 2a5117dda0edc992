//! Which machines go first, and what new ones are called.
//!
//! Not for how many: that is the plan's.

use std::collections::BTreeSet;

use jiff::Timestamp;
use outrigger_api::names::ANNOTATION_DELETE_MACHINE;
use outrigger_api::{DeletePolicy, Machine, ResourceExt};
use sha2::{Digest, Sha256};

use super::count::{self, Readiness};

/// Letters and digits that make no words and are not taken for each other.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters at the end of a Machine's name.
const SUFFIX_LENGTH: usize = 5;

/// How readily a machine is given up; the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Somebody, the autoscaler for one, has marked it.
    Annotated,
    /// It is lost or cannot be made.
    Failed,
    /// It has no providerID yet: giving it up costs least.
    NotCreated,
    /// It is there, and not ready.
    NotReady,
    /// It is ready, and not for long enough to count.
    NotAvailable,
    /// It does what it is for.
    Available,
}

fn rank(machine: &Machine, min_ready_seconds: i32, now: Timestamp) -> Rank {
    if machine.annotations().contains_key(ANNOTATION_DELETE_MACHINE) {
        Rank::Annotated
    } else if count::has_failed(machine) {
        Rank::Failed
    } else {
        match count::readiness(machine, min_ready_seconds, now) {
            Readiness::NotReady if machine.spec.provider_id.is_none() => Rank::NotCreated,
            Readiness::NotReady => Rank::NotReady,
            Readiness::Ready(_) => Rank::NotAvailable,
            Readiness::Available => Rank::Available,
        }
    }
}

/// Orders machines so that those to delete first come first: annotated, failed, not ready, then as the policy says. The
/// order depends on nothing but the machines, so that the same question has the same answer.
pub fn order_for_deletion(machines: &mut [&Machine], policy: DeletePolicy, min_ready_seconds: i32, now: Timestamp) {
    machines.sort_by_cached_key(|machine| {
        let age = machine
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second());
        let by_policy = match policy {
            DeletePolicy::Random => 0,
            DeletePolicy::Newest => -age,
            DeletePolicy::Oldest => age,
        };
        let tie = Sha256::digest(machine.metadata.uid.as_deref().unwrap_or_default());
        (
            rank(machine, min_ready_seconds, now),
            by_policy,
            tie.to_vec(),
            machine.name_any(),
        )
    });
}

/// Names for new machines: `<set>-<5 random>`, none of them taken.
#[derive(Clone, Debug)]
pub struct Names<'a> {
    prefix: &'a str,
    state: u64,
    taken: BTreeSet<String>,
}

impl<'a> Names<'a> {
    /// Names that begin with `prefix`, drawn from `seed`, none of them among `taken`.
    pub fn new(prefix: &'a str, seed: u64, taken: BTreeSet<String>) -> Self {
        Self {
            prefix,
            state: seed,
            taken,
        }
    }

    /// Another name.
    pub fn draw(&mut self) -> String {
        loop {
            let suffix: String = (0..SUFFIX_LENGTH).map(|_| self.letter()).collect();
            let name = format!("{}-{suffix}", self.prefix);
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// One character, by the splitmix64 generator: names need to differ, not to be secret.
    fn letter(&mut self) -> char {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        char::from(ALPHABET[(mixed % ALPHABET.len() as u64) as usize])
    }
}

/// Text of `length` characters of the same alphabet that stands for these bytes; for names that must not change.
pub fn encode(bytes: &[u8], length: usize) -> String {
    bytes
        .iter()
        .cycle()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}
