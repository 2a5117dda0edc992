//! A token bucket as arithmetic over time (GCRA). Pure: times are handed in.

use std::time::{Duration, Instant};

use crate::config::Rate;

/// So many calls a second, with a burst.
#[derive(Debug)]
pub struct Bucket {
    interval: Duration,
    tolerance: Duration,
    /// When the next call would be due if calls came evenly.
    due: Option<Instant>,
}

impl Bucket {
    /// A full bucket. A rate that is not above zero is read as one call a second.
    pub fn new(rate: Rate) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / rate.per_second)
            .ok()
            .filter(|_| rate.per_second > 0.0)
            .unwrap_or(Duration::from_secs(1));
        Self {
            interval,
            tolerance: interval.saturating_mul(rate.burst.max(1) - 1),
            due: None,
        }
    }

    /// Takes a token: how long to wait until the call may go; `Err` with that wait, and
    /// nothing taken, when it would be longer than `most`.
    pub fn take(&mut self, now: Instant, most: Duration) -> Result<Duration, Duration> {
        let due = self.due.map_or(now, |due| due.max(now));
        let wait = due.saturating_duration_since(now).saturating_sub(self.tolerance);
        if wait > most {
            return Err(wait);
        }
        self.due = Some(due + self.interval);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            per_second in 1u32..1000, burst in 1u32..50, gaps in prop::collection::vec(0u64..2000, 1..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(Rate { per_second: f64::from(per_second), burst });
            let mut went = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Ok(wait) = bucket.take(now, Duration::from_secs(1)) {
                    prop_assert!(wait <= Duration::from_secs(1));
                    went.push((now + wait - start).as_secs_f64());
                }
            }
            for (index, from) in went.iter().enumerate() {
                for (count, to) in went[index..].iter().enumerate() {
                    let allowed = f64::from(burst) + (to - from) * f64::from(per_second) + 1e-3;
                    prop_assert!((count + 1) as f64 <= allowed, "{} calls within {} s", count + 1, to - from);
                }
            }
        }
    }

    #[test]
    fn a_wait_that_is_too_long_takes_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate {
            per_second: 1.0,
            burst: 1,
        });
        assert_eq!(bucket.take(now, Duration::ZERO), Ok(Duration::ZERO));
        assert!(bucket.take(now, Duration::ZERO).is_err());
        assert_eq!(
            bucket.take(now + Duration::from_secs(1), Duration::ZERO),
            Ok(Duration::ZERO)
        );
    }

    #[test]
    fn a_rate_that_is_none_is_slow_not_a_panic() {
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
            let mut bucket = Bucket::new(Rate { per_second, burst: 0 });
            assert!(bucket.take(Instant::now(), Duration::ZERO).is_ok());
        }
    }
}
