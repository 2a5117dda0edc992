//! Which addresses of a range are free. Not for: who has them (see the resources).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The addresses of one range, without the first and the last.
#[derive(Debug, Clone)]
pub struct AddressPool {
    first: u32,
    last: u32,
    used: BTreeSet<u32>,
    cursor: u32,
}

impl AddressPool {
    /// All addresses of `range` free.
    pub fn new(range: Ipv4Net) -> Self {
        let first = u32::from(range.network()).saturating_add(1);
        let last = u32::from(range.broadcast()).saturating_sub(1);
        Self {
            first,
            last,
            used: BTreeSet::new(),
            cursor: first,
        }
    }

    /// The next free address, in turn, so that one just given back rests a while;
    /// `None` when all are taken.
    pub fn next_free(&self) -> Option<Ipv4Addr> {
        self.free_in(self.cursor, self.last)
            .or_else(|| self.free_in(self.first, self.cursor.saturating_sub(1)))
            .map(Ipv4Addr::from)
    }

    fn free_in(&self, from: u32, to: u32) -> Option<u32> {
        if from > to {
            return None;
        }
        let mut wanted = from;
        for used in self.used.range(from..=to) {
            if *used != wanted {
                break;
            }
            wanted = used.checked_add(1)?;
        }
        (wanted <= to).then_some(wanted)
    }

    /// Marks an address as taken.
    pub fn take(&mut self, address: Ipv4Addr) {
        let address = u32::from(address);
        self.used.insert(address);
        self.cursor = if address >= self.last { self.first } else { address + 1 };
    }

    /// Gives an address back.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_range_runs_out_and_recovers() {
        let mut pool = AddressPool::new("10.0.0.0/29".parse().expect("a range"));
        let mut given = Vec::new();
        while let Some(address) = pool.next_free() {
            pool.take(address);
            given.push(address);
        }
        assert_eq!(given.len(), 6);
        pool.give_back(given[2]);
        assert_eq!(pool.next_free(), Some(given[2]));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec(any::<(bool, u8)>(), 1..200)) {
            let mut pool = AddressPool::new("192.168.0.0/28".parse().expect("a range"));
            let mut model: BTreeSet<Ipv4Addr> = BTreeSet::new();
            for (give_back, which) in steps {
                if give_back {
                    if let Some(address) = model.iter().nth(which as usize % model.len().max(1)).copied() {
                        pool.give_back(address);
                        model.remove(&address);
                    }
                } else if let Some(address) = pool.next_free() {
                    pool.take(address);
                    prop_assert!(model.insert(address), "{} was given twice", address);
                } else {
                    prop_assert_eq!(model.len(), 14);
                }
            }
        }
    }
}
