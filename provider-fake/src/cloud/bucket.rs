//! The rate limit of the cloud's API: a token bucket over given times, without a
//! clock of its own.

use std::time::Duration;

use jiff::Timestamp;

use super::settings::RateLimit;

/// A token bucket. It starts full.
#[derive(Debug, Default)]
pub struct TokenBucket {
    filled: Option<(f64, Timestamp)>,
}

impl TokenBucket {
    /// Takes one token, or tells how long until there is one.
    pub fn take(&mut self, limit: &RateLimit, now: Timestamp) -> Result<(), Duration> {
        let burst = f64::from(limit.burst.max(1));
        let (tokens, since) = self.filled.unwrap_or((burst, now));
        let elapsed = now.duration_since(since).as_secs_f64().max(0.0);
        let tokens = (tokens + elapsed * limit.per_second).min(burst);
        if tokens >= 1.0 {
            self.filled = Some((tokens - 1.0, now));
            return Ok(());
        }
        self.filled = Some((tokens, now));
        let wait = ((1.0 - tokens) / limit.per_second).clamp(0.001, 3600.0);
        Err(Duration::from_secs_f64(wait))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).expect("in range")
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limit = RateLimit {
            per_second: 10.0,
            burst: 5,
        };
        let mut bucket = TokenBucket::default();
        for _ in 0..5 {
            assert_eq!(bucket.take(&limit, at(0)), Ok(()));
        }
        let wait = bucket.take(&limit, at(0)).expect_err("the bucket is empty");
        assert_eq!(wait.as_millis(), 100);
        assert!(bucket.take(&limit, at(99)).is_err());
        assert_eq!(bucket.take(&limit, at(101)), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 1u32..200,
            burst in 1u32..50,
            steps in prop::collection::vec(0i64..50, 1..400),
        ) {
            let limit = RateLimit { per_second: f64::from(rate), burst };
            let mut bucket = TokenBucket::default();
            let (mut now, mut passed) = (0, 0u32);
            for step in steps {
                now += step;
                passed += u32::from(bucket.take(&limit, at(now)).is_ok());
            }
            let allowed = f64::from(burst) + f64::from(rate) * now as f64 / 1000.0;
            prop_assert!(f64::from(passed) <= allowed + 1e-6);
        }
    }
}
