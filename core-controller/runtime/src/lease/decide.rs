//! Whether to take, keep or wait for the lease: a pure function of what was read and
//! for how long it has not changed. Clocks of other machines are never trusted; only
//! the time for which we ourselves saw no change counts.
//!
//! Not for: reading or writing the lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::LeaseSettings;

/// What to do about a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write this spec: we lead once the write is accepted.
    Take(LeaseSpec),
    /// Write this spec: we go on leading once the write is accepted.
    Renew(LeaseSpec),
    /// Somebody else leads; look again after this long.
    Wait {
        /// Who leads.
        holder: String,
        /// Look again after this long.
        after: Duration,
    },
    /// We led, and somebody else does now: this process must end.
    Lost {
        /// Who leads.
        holder: String,
    },
}

/// Decides. `held` is the epoch at which this process leads, if it does; `unchanged`
/// is for how long this process has seen the lease as it is.
pub fn decide(
    lease: Option<&Lease>,
    held: Option<i64>,
    unchanged: Duration,
    settings: &LeaseSettings,
    now: jiff::Timestamp,
) -> Decision {
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let transitions = i64::from(spec.and_then(|spec| spec.lease_transitions).unwrap_or_default());

    if let Some(epoch) = held {
        // The same identity at another epoch is another process: our successor.
        if holder == settings.identity && transitions == epoch {
            let acquired = spec.and_then(|spec| spec.acquire_time.clone());
            return Decision::Renew(claim(settings, transitions, acquired, now));
        }
        return Decision::Lost {
            holder: holder.to_owned(),
        };
    }

    let duration = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(settings.duration, Duration::from_secs);
    if holder.is_empty() || holder == settings.identity || unchanged >= duration {
        return Decision::Take(claim(settings, transitions + 1, None, now));
    }
    Decision::Wait {
        holder: holder.to_owned(),
        after: settings.retry_period.min(duration.saturating_sub(unchanged)),
    }
}

/// The spec of a lease that nobody holds; the number of transitions stays.
pub fn released(transitions: i64, now: jiff::Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        lease_transitions: i32::try_from(transitions).ok(),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

fn claim(settings: &LeaseSettings, transitions: i64, acquired: Option<MicroTime>, now: jiff::Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(settings.identity.clone()),
        lease_duration_seconds: i32::try_from(settings.duration.as_secs()).ok(),
        // After two thousand million transitions the count begins again.
        lease_transitions: Some(i32::try_from(transitions).unwrap_or_default()),
        acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(identity: &str) -> LeaseSettings {
        LeaseSettings {
            identity: identity.to_owned(),
            ..LeaseSettings::default()
        }
    }

    fn held_by(holder: &str, transitions: i32) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    fn ask(lease: Option<&Lease>, held: Option<i64>, unchanged: u64) -> Decision {
        decide(
            lease,
            held,
            Duration::from_secs(unchanged),
            &settings("me"),
            jiff::Timestamp::UNIX_EPOCH,
        )
    }

    fn epoch(decision: &Decision) -> Option<i32> {
        match decision {
            Decision::Take(spec) | Decision::Renew(spec) => spec.lease_transitions,
            _ => None,
        }
    }

    #[test]
    fn a_free_lease_is_taken_and_counted() {
        assert_eq!(epoch(&ask(None, None, 0)), Some(1));
        assert_eq!(epoch(&ask(Some(&held_by("", 4)), None, 0)), Some(5));
    }

    #[test]
    fn the_same_identity_takes_over_at_once_under_a_new_epoch() {
        assert!(matches!(ask(Some(&held_by("me", 4)), None, 0), Decision::Take(_)));
        assert_eq!(epoch(&ask(Some(&held_by("me", 4)), None, 0)), Some(5));
    }

    #[test]
    fn another_holder_is_waited_for_until_it_was_silent_for_its_duration() {
        assert!(matches!(ask(Some(&held_by("you", 4)), None, 14), Decision::Wait { .. }));
        assert_eq!(epoch(&ask(Some(&held_by("you", 4)), None, 15)), Some(5));
    }

    #[test]
    fn a_renewal_keeps_the_epoch() {
        assert_eq!(epoch(&ask(Some(&held_by("me", 4)), Some(4), 0)), Some(4));
        assert!(matches!(ask(Some(&held_by("me", 4)), Some(4), 0), Decision::Renew(_)));
    }

    #[test]
    fn who_led_and_finds_another_holder_or_epoch_has_lost() {
        assert!(matches!(
            ask(Some(&held_by("you", 5)), Some(4), 0),
            Decision::Lost { .. }
        ));
        assert!(matches!(
            ask(Some(&held_by("me", 5)), Some(4), 0),
            Decision::Lost { .. }
        ));
        assert!(matches!(ask(None, Some(4), 0), Decision::Lost { .. }));
    }
}
