//! How long to wait before the next try. Pure: the count of failures and a random
//! number in, a duration out.

use std::time::Duration;

/// The shortest back-off.
pub const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// The longest back-off.
pub const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// The shortest wait that a provider can ask for.
pub const MIN_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that a provider can ask for.
pub const MAX_WAIT: Duration = Duration::from_mins(30);

/// The share of a wait that jitter may add: "not before" must hold, so it only adds.
const WAIT_JITTER: f64 = 0.1;

fn doubled(min: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    min.saturating_mul(factor).min(max)
}

fn unit(random: f64) -> f64 {
    if random.is_finite() {
        random.clamp(0.0, 1.0)
    } else {
        0.5
    }
}

/// The back-off after `failures` failures in a row: it doubles from 1 s to 5 min and
/// lies between half and the whole of that, by `random` in 0..1.
pub fn backoff(failures: u32, random: f64) -> Duration {
    bounded(failures, MIN_BACKOFF, MAX_BACKOFF, random)
}

/// The same, at the slowest pace once more than `slow_after` failed in a row.
pub fn backoff_slowing(failures: u32, slow_after: Option<u32>, random: f64) -> Duration {
    match slow_after {
        Some(after) if failures > after => MAX_BACKOFF.mul_f64(0.5 + 0.5 * unit(random)),
        _ => backoff(failures, random),
    }
}

/// A back-off between bounds of its own.
pub fn bounded(failures: u32, min: Duration, max: Duration, random: f64) -> Duration {
    doubled(min, max, failures)
        .mul_f64(0.5 + 0.5 * unit(random))
        .clamp(min.min(max), max)
}

/// A wait between `min` and `max`: what the provider asked for and up to a tenth
/// more, else doubling from `min` with the count of failures.
pub fn wait(asked: Option<Duration>, min: Duration, max: Duration, failures: u32, random: f64) -> Duration {
    let base = asked
        .unwrap_or_else(|| doubled(min, max, failures))
        .clamp(min.min(max), max);
    base.mul_f64(1.0 + WAIT_JITTER * unit(random)).clamp(min.min(max), max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_backoff_is_within_its_bounds(failures in any::<u32>(), random in any::<f64>()) {
            let delay = backoff(failures, random);
            prop_assert!((MIN_BACKOFF..=MAX_BACKOFF).contains(&delay));
        }

        #[test]
        fn more_failures_never_wait_less(failures in 0u32..100, random in 0.0f64..1.0) {
            prop_assert!(backoff(failures, random) <= backoff(failures + 1, random));
        }

        #[test]
        fn jitter_spreads_by_half(failures in 2u32..100) {
            let (low, high) = (backoff(failures, 0.0), backoff(failures, 1.0));
            prop_assert_eq!(low * 2, high);
        }

        #[test]
        fn slow_is_slow(failures in 6u32..1000, random in 0.0f64..1.0) {
            prop_assert!(backoff_slowing(failures, Some(5), random) >= MAX_BACKOFF / 2);
            prop_assert!(backoff_slowing(5, Some(5), random) <= Duration::from_secs(16));
        }

        #[test]
        fn a_wait_is_never_shorter_than_asked_within_the_bounds(
            asked in 0u64..4000, min in 1u64..600, span in 0u64..1200, failures in any::<u32>(), random in any::<f64>(),
        ) {
            let (min, max) = (Duration::from_secs(min), Duration::from_secs(min + span));
            let asked = Duration::from_secs(asked);
            let delay = wait(Some(asked), min, max, failures, random);
            prop_assert!(delay >= min && delay <= max);
            prop_assert!(delay >= asked.min(max));
            let unasked = wait(None, min, max, failures, random);
            prop_assert!(unasked >= min && unasked <= max);
        }
    }
}
