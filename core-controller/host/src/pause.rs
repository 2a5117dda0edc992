//! Pauses that a provider asks for: of one credential when its cloud throttles, of the
//! whole provider when its cloud is down. Pure: times are handed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::backoff;
use crate::handle::CredentialId;

/// The most credentials that are remembered as paused.
const MAX_CREDENTIALS: usize = 4096;

/// One pause that grows while what caused it goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pause {
    until: Option<Instant>,
    in_a_row: u32,
}

impl Pause {
    /// How long it still lasts.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.until
            .map(|until| until.saturating_duration_since(now))
            .filter(|remaining| !remaining.is_zero())
    }

    /// The cause was met by a call that started at `started`. Calls that were under way
    /// when the pause began say nothing new, unless they ask for a longer one.
    pub fn met(
        &mut self,
        started: Instant,
        now: Instant,
        asked: Option<Duration>,
        longest: Duration,
        random: f64,
    ) -> Duration {
        let known = self.until.is_some_and(|until| started < until);
        if !known {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let length = match asked {
            Some(asked) => backoff::wait(Some(asked), backoff::MIN_WAIT, backoff::MAX_WAIT, 1, random),
            None => backoff::backoff(self.in_a_row, random),
        };
        let until = now + length.min(longest);
        if !known || (asked.is_some() && self.until.is_some_and(|old| old < until)) {
            self.until = Some(until);
        }
        self.remaining(now).unwrap_or_default()
    }

    /// A call that started at `started` did not meet the cause.
    pub fn passed(&mut self, started: Instant) {
        if self.until.is_none_or(|until| started >= until) {
            *self = Self::default();
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        // Kept for a while after its end, so that it grows when the cause is met again.
        self.until.is_none_or(|until| now > until + backoff::MAX_BACKOFF)
    }
}

/// The pauses of a provider.
#[derive(Debug)]
pub struct Pauses {
    whole: Pause,
    credentials: HashMap<CredentialId, Pause>,
    longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self::at_most(backoff::MAX_WAIT)
    }
}

impl Pauses {
    /// Nothing is paused, and nothing ever for longer than this.
    pub fn at_most(longest: Duration) -> Self {
        Self {
            whole: Pause::default(),
            credentials: HashMap::new(),
            longest,
        }
    }

    /// How long calls with `credential` are still paused.
    pub fn remaining(&self, credential: &CredentialId, now: Instant) -> Option<Duration> {
        let own = self.credentials.get(credential).and_then(|pause| pause.remaining(now));
        own.max(self.whole.remaining(now))
    }

    /// The cloud throttles `credential`. Returns how long it is paused.
    pub fn throttled(
        &mut self,
        credential: &CredentialId,
        started: Instant,
        now: Instant,
        asked: Option<Duration>,
        random: f64,
    ) -> Duration {
        if self.credentials.len() >= MAX_CREDENTIALS && !self.credentials.contains_key(credential) {
            self.credentials.retain(|_, pause| !pause.is_over(now));
            if self.credentials.len() >= MAX_CREDENTIALS {
                // So many throttled credentials at once: pause them all.
                return self.whole.met(started, now, asked, self.longest, random);
            }
        }
        self.credentials
            .entry(credential.clone())
            .or_default()
            .met(started, now, asked, self.longest, random)
    }

    /// The provider's cloud is down. Returns how long the provider is paused.
    pub fn cloud_down(&mut self, started: Instant, now: Instant, asked: Option<Duration>, random: f64) -> Duration {
        self.whole.met(started, now, asked, self.longest, random)
    }

    /// A call with `credential` that started at `started` reached the cloud.
    pub fn passed(&mut self, credential: &CredentialId, started: Instant) {
        self.whole.passed(started);
        if let Some(pause) = self.credentials.get_mut(credential) {
            pause.passed(started);
            if pause.until.is_none() {
                self.credentials.remove(credential);
            }
        }
    }

    /// Forgets everything: another process of the provider.
    pub fn clear(&mut self) {
        *self = Self::at_most(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pause_holds_for_one_credential_and_a_dead_cloud_for_all() {
        let now = Instant::now();
        let (a, b) = (CredentialId::new("a"), CredentialId::new("b"));
        let mut pauses = Pauses::default();
        pauses.throttled(&a, now, now, Some(7 * SECOND), 0.0);
        assert_eq!(pauses.remaining(&a, now), Some(7 * SECOND));
        assert_eq!(pauses.remaining(&b, now), None);
        assert_eq!(pauses.remaining(&a, now + 7 * SECOND), None);
        pauses.cloud_down(now, now, Some(20 * SECOND), 0.0);
        assert_eq!(pauses.remaining(&b, now), Some(20 * SECOND));
        assert_eq!(pauses.remaining(&a, now), Some(20 * SECOND));
    }

    #[test]
    fn it_grows_only_when_met_again_after_its_end() {
        let start = Instant::now();
        let mut pause = Pause::default();
        assert_eq!(pause.met(start, start, None, backoff::MAX_WAIT, 1.0), SECOND);
        for _ in 0..100 {
            pause.met(start, start, None, backoff::MAX_WAIT, 1.0);
        }
        assert_eq!(
            pause.remaining(start),
            Some(SECOND),
            "a hundred calls under way are one cause"
        );
        let later = start + 2 * SECOND;
        assert_eq!(pause.met(later, later, None, backoff::MAX_WAIT, 1.0), 2 * SECOND);
        let good = later + 3 * SECOND;
        pause.passed(good);
        assert_eq!(
            pause.met(good, good, None, backoff::MAX_WAIT, 1.0),
            SECOND,
            "a good call begins anew"
        );
    }

    #[test]
    fn a_good_answer_from_before_the_pause_does_not_end_it() {
        let start = Instant::now();
        let mut pause = Pause::default();
        pause.met(start, start, Some(9 * SECOND), backoff::MAX_WAIT, 0.0);
        pause.passed(start);
        assert_eq!(pause.remaining(start), Some(9 * SECOND));
    }

    proptest! {
        #[test]
        fn a_pause_is_bounded_and_not_shorter_than_asked(
            asked in prop::option::of(0u64..100_000), times in 1u32..50, random in 0.0f64..1.0,
        ) {
            let mut now = Instant::now();
            let mut pause = Pause::default();
            for _ in 0..times {
                let length = pause.met(now, now, asked.map(Duration::from_secs), backoff::MAX_WAIT, random);
                prop_assert!(length >= backoff::MIN_WAIT.mul_f64(0.99) && length <= backoff::MAX_WAIT);
                if let Some(asked) = asked {
                    prop_assert!(length >= Duration::from_secs(asked).min(backoff::MAX_WAIT));
                }
                now += length;
                prop_assert_eq!(pause.remaining(now), None);
            }
        }
    }
}
