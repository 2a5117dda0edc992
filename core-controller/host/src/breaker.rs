//! The circuit of a provider as a pure state machine: open after an answer that only
//! a broken provider or transport gives, half-open once the provider was dialled and
//! discovered again, closed once it was probed.
//!
//! Not for: throttling, which is the provider's own wish (see `pause`).

use std::time::{Duration, Instant};

use crate::backoff;

/// The longest that the circuit stays open before the provider is dialled again.
pub const MAX_OPEN: Duration = Duration::from_secs(30);

/// Whether calls are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// They are.
    Closed,
    /// They are not; the provider is dialled and discovered again.
    Open,
    /// They are not yet: the provider is connected again and is being probed.
    HalfOpen,
}

/// The circuit. Times are handed in.
#[derive(Debug)]
pub struct Breaker {
    state: CircuitState,
    /// When an open circuit may be dialled again.
    until: Option<Instant>,
    /// How often it opened since the last call that went well.
    opened: u32,
    /// Answers on connections before this one count no more.
    connection: u64,
    /// The longest that it stays open.
    max_open: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: CircuitState::Closed,
            until: None,
            opened: 0,
            connection: 0,
            max_open: MAX_OPEN,
        }
    }
}

impl Breaker {
    /// One that stays open no longer than this.
    #[must_use]
    pub fn at_most(longest: Duration) -> Self {
        Self {
            max_open: MAX_OPEN.min(longest),
            ..Self::default()
        }
    }

    /// How things stand.
    pub fn state(&self) -> CircuitState {
        self.state
    }

    /// `Ok` when a call may go, else how long it may last until one may.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        match self.state {
            CircuitState::Closed => Ok(()),
            CircuitState::HalfOpen => Err(Duration::ZERO),
            CircuitState::Open => Err(self.remaining(now)),
        }
    }

    /// How long until the provider may be dialled again.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.until
            .map(|until| until.saturating_duration_since(now))
            .unwrap_or_default()
    }

    /// A call on `connection` had an answer that breaks the circuit. Returns whether
    /// the circuit has opened just now. The first time it may be dialled again at once:
    /// mostly the provider was restarted; then later and later.
    pub fn broken(&mut self, connection: u64, now: Instant, random: f64) -> bool {
        if connection < self.connection || self.state == CircuitState::Open {
            return false;
        }
        let cool_down = match self.opened {
            0 => Duration::ZERO,
            before => backoff::bounded(before, Duration::from_secs(1).min(self.max_open), self.max_open, random),
        };
        self.opened = self.opened.saturating_add(1);
        self.state = CircuitState::Open;
        self.until = Some(now + cool_down);
        true
    }

    /// The provider was dialled and discovered: a new connection. An open circuit is
    /// now half-open.
    pub fn connected(&mut self, connection: u64) {
        self.connection = connection;
        if self.state == CircuitState::Open {
            self.state = CircuitState::HalfOpen;
            self.until = None;
        }
    }

    /// The probe on `connection` was answered. Returns whether this closed the circuit.
    pub fn probed(&mut self, connection: u64) -> bool {
        let closes = self.state == CircuitState::HalfOpen && connection == self.connection;
        if closes {
            self.state = CircuitState::Closed;
        }
        closes
    }

    /// A call on `connection` was answered by the provider itself.
    pub fn answered(&mut self, connection: u64) {
        if self.state == CircuitState::Closed && connection == self.connection {
            self.opened = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_opens_is_dialled_is_probed_and_closes() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.connected(1);
        assert_eq!(breaker.admit(now), Ok(()));
        assert!(breaker.broken(1, now, 0.5));
        assert!(breaker.admit(now).is_err());
        assert_eq!(
            breaker.remaining(now),
            Duration::ZERO,
            "the first time it is dialled at once"
        );
        breaker.connected(2);
        assert_eq!(breaker.state(), CircuitState::HalfOpen);
        assert!(breaker.admit(now).is_err());
        assert!(breaker.probed(2));
        assert_eq!(breaker.admit(now), Ok(()));
    }

    #[test]
    fn answers_of_an_old_connection_do_not_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.connected(2);
        assert!(!breaker.broken(1, now, 0.5));
        assert_eq!(breaker.state(), CircuitState::Closed);
    }

    #[test]
    fn without_a_good_call_in_between_it_stays_open_longer_each_time() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let mut last = Duration::ZERO;
        for connection in 1..12 {
            breaker.connected(connection);
            breaker.probed(connection);
            assert!(breaker.broken(connection, now, 1.0));
            let open = breaker.remaining(now);
            assert!(open >= last && open <= MAX_OPEN);
            last = open;
        }
        assert_eq!(last, MAX_OPEN);
        breaker.connected(20);
        breaker.probed(20);
        breaker.answered(20);
        breaker.broken(20, now, 1.0);
        assert_eq!(breaker.remaining(now), Duration::ZERO);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Broken(u64),
        Connect,
        Probed(u64),
        Answered(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..4).prop_map(Step::Broken),
            Just(Step::Connect),
            (0u64..4).prop_map(Step::Probed),
            (0u64..4).prop_map(Step::Answered),
        ]
    }

    proptest! {
        #[test]
        fn it_only_closes_by_a_probe_of_the_newest_connection(steps in prop::collection::vec(step(), 0..60)) {
            let now = Instant::now();
            let mut breaker = Breaker::default();
            let mut newest = 0;
            for step in steps {
                let before = breaker.state();
                match step {
                    Step::Broken(back) => {
                        let connection = newest.max(back) - back;
                        breaker.broken(connection, now, 0.5);
                        if connection == newest { prop_assert_eq!(breaker.state(), CircuitState::Open); }
                        else { prop_assert_eq!(breaker.state(), before); }
                    }
                    Step::Connect => {
                        newest += 1;
                        breaker.connected(newest);
                        prop_assert_ne!(breaker.state(), CircuitState::Open);
                    }
                    Step::Probed(back) => {
                        let connection = newest.max(back) - back;
                        breaker.probed(connection);
                        if before == CircuitState::Open || connection != newest {
                            prop_assert_eq!(breaker.state(), before);
                        } else {
                            prop_assert_eq!(breaker.state(), CircuitState::Closed);
                        }
                    }
                    Step::Answered(back) => {
                        breaker.answered(newest.max(back) - back);
                        prop_assert_eq!(breaker.state(), before);
                    }
                }
                prop_assert_eq!(breaker.admit(now).is_ok(), breaker.state() == CircuitState::Closed);
                prop_assert!(breaker.remaining(now) <= MAX_OPEN);
            }
        }
    }
}
